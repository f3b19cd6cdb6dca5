"""
A Redis of its own for a measurement: on a free port, without a disk, ended afterwards.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness.build import BuildError
from benchmarks.harness.cores import pinned
from benchmarks.harness.machine import free_port

__all__ = ["redis_version", "running_redis"]

READY_WITHIN = 10.0
ENDS_WITHIN = 5.0


def program() -> str:
    """
    Return the path of ``redis-server``.

    Raises:
        BuildError: There is none.
    """
    found = shutil.which("redis-server")
    if found is None:
        raise BuildError("redis-server was expected, to carry messages. Hint: bootstrap.")
    return found


def redis_version() -> str:
    """
    Return the version of the server, for the record.
    """
    said = subprocess.run([program(), "--version"], check=True, capture_output=True, text=True)
    return said.stdout.partition("v=")[2].partition(" ")[0]


@contextmanager
def running_redis(directory: str, core: int) -> Iterator[str]:
    """
    Start a server on a core; what is given is its URL.

    Raises:
        BuildError: There is no such program, or it did not answer in time.
    """
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": directory}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with pinned(core):
        process = subprocess.Popen(
            [program(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    try:
        wait_until_ready(process, port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        try:
            process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """
    Return once the server answers.

    Raises:
        BuildError: It ended, or did not answer in time.
    """
    deadline = time.monotonic() + READY_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            time.sleep(0.01)  # Nobody tells when it listens; the deadline is above.
    raise BuildError(f"redis-server did not answer on port {port}")
