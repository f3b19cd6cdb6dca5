"""
A PostgreSQL server of a test's own, on a Unix socket in a folder, ended by its process id.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

import psycopg

SECONDS_MAX = 15
"""
Time that the server gets to answer.
"""


@contextmanager
def postgres(**parameters: str) -> Iterator[dict[str, Any]]:
    """
    Run a server with these parameters, and give what psycopg connects to it with.
    """
    run = unprivileged()
    # Short, since the path of a Unix socket must be; and one that the other user may enter.
    with TemporaryDirectory(prefix="fw-pg-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if run:
            os.chown(folder, run["user"], run["group"])
        data = folder / "data"
        run |= {"cwd": folder, "stdin": subprocess.DEVNULL}
        subprocess.run(
            [program("initdb"), "--no-sync", "--auth=trust", "--username=ada", "-D", data],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=SECONDS_MAX,
            **run,
        )
        settings = {"listen_addresses": "", "fsync": "off", **parameters}
        given = [f"--{key}={value}" for key, value in settings.items()]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [program("postgres"), "-D", data, "-k", folder, *given], stderr=log, **run
            )
        try:
            address = {"host": name, "user": "ada", "dbname": "postgres"}
            wait_for(server, address, folder / "log")
            yield address
        finally:
            server.send_signal(signal.SIGINT)  # Ends sessions without waiting for them.
            server.wait(SECONDS_MAX)


def wait_for(server: subprocess.Popen[bytes], address: dict[str, Any], log: Path) -> None:
    """
    Return once the server answers.
    """
    until = monotonic() + SECONDS_MAX
    while True:
        try:
            psycopg.connect(**address).close()
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            assert monotonic() < until, log.read_text()
            sleep(0.02)
        else:
            return


def program(name: str) -> Path:
    """
    Find one of PostgreSQL's programs, which Debian keeps out of PATH.
    """
    found = shutil.which("initdb") or max(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return Path(found).resolve().with_name(name)


def unprivileged() -> dict[str, Any]:
    """
    Say as whom to run it, which may not be root; nothing for this user.
    """
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
