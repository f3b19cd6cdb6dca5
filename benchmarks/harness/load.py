"""
Runs the load generator and reads its answer.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.harness.build import build
from benchmarks.harness.cores import Cores, pinned
from benchmarks.harness.subjects import Server

__all__ = ["LoadError", "LoadResult", "drive", "holding"]

# Opening the connections and the last answers, on top of warm-up and window. The load
# generator has deadlines of its own, so this only ends one that is broken.
EXTRA_SECONDS = 240.0


class LoadError(Exception):
    """
    The load generator met a wrong or late answer, so there is no measurement.
    """


@dataclass(frozen=True, slots=True)
class LoadResult:
    """
    What one measured window saw.
    """

    operations: int
    wall_seconds: float
    server_cpu_ns: int
    own_cpu_ns: int

    @property
    def microseconds(self) -> float:
        """
        Server CPU per operation.
        """
        return self.server_cpu_ns / 1000 / self.operations

    @property
    def server_busy(self) -> float:
        """
        Share of the window in which the server had the processor.
        """
        return self.server_cpu_ns / 1e9 / self.wall_seconds

    @property
    def own_busy(self) -> float:
        """
        Share of the window in which the load generator had it.
        """
        return self.own_cpu_ns / 1e9 / self.wall_seconds


def drive(
    server: Server,
    cores: Cores,
    mode: str,
    *options: str,
    warmup: float,
    seconds: float,
) -> LoadResult:
    """
    Run the load generator against a server for one measured window.

    Args:
        server: Who is measured.
        cores: Where the load generator runs.
        mode: What it does: echo, get, connect, fanout or sse.
        options: Further options of its command line.
        warmup: Seconds of the same work before the window.
        seconds: Length of the window.

    Raises:
        LoadError: An answer was wrong or late.
    """
    command = [str(build("load")), mode, "--port", str(server.port)]
    command += ["--warmup", str(warmup), "--seconds", str(seconds), *options]
    for pid in server.pids():
        command += ["--pid", str(pid)]
    with pinned(cores.load):
        try:
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=warmup + seconds + EXTRA_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise LoadError(complaint(server, mode, "did not come to an end")) from None
    if done.returncode:
        raise LoadError(complaint(server, mode, done.stdout or done.stderr))
    answer = json.loads(done.stdout)
    if not answer["operations"] or not answer["server_cpu_ns"]:
        raise LoadError(complaint(server, mode, "nothing was done in the window"))
    return LoadResult(
        operations=answer["operations"],
        wall_seconds=answer["wall_seconds"],
        server_cpu_ns=answer["server_cpu_ns"],
        own_cpu_ns=answer["own_cpu_ns"],
    )


@contextmanager
def holding(
    server: Server, cores: Cores, connections: int, path: str, *options: str
) -> Iterator[None]:
    """
    Hold that many idle WebSockets open.

    Raises:
        LoadError: They could not all be opened, or one was lost.
    """
    command = [str(build("load")), "idle", "--port", str(server.port), "--path", path]
    command += ["--connections", str(connections), *options]
    with pinned(cores.load):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            opened = process.stdout.readline()
            if process.poll() is not None or json.loads(opened)["errors"]:
                raise LoadError(complaint(server, "idle", opened))
            yield
        finally:
            process.stdin.close()
            rest = process.stdout.read()
            process.wait()
    if process.returncode:
        raise LoadError(complaint(server, "idle", rest))


def complaint(server: Server, mode: str, output: str) -> str:
    """
    Say what the load generator met, and what the server printed.
    """
    try:
        error = json.loads(output)["error"]
    except (ValueError, KeyError):
        error = output.strip() or "ended without a result"
    return f"{mode} against {server.name}: {error}; the server printed:\n{server.last_words()}"
