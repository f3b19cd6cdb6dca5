"""
``scripts/demo`` as it is typed, but for the installing: it finds its environment made.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.acceptance.project import Command

ROOT = Path(__file__).parents[3]

Run: TypeAlias = Callable[..., Awaitable[Command]]


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """
    Starts the script in a checkout of its own, whose environment is the one of the tests.
    """
    for folder in ("scripts", "examples/demo"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("data"))
    with (tmp_path / "scripts" / "_lib").open("a") as library:
        library.write("\nmake_environment() { :; }\n")
    python = tmp_path / ".venv-demo" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    commands = []

    async def run(*arguments: str, **environment: str) -> Command:
        process = await asyncio.create_subprocess_exec(
            tmp_path / "scripts" / "demo",
            *arguments,
            cwd="/",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        commands.append(Command(process))
        return commands[-1]

    yield run
    for command in commands:
        if command.process.returncode is None:
            await command.kill()


async def status_of(url: str) -> int:
    """
    Get a page: its status.
    """

    def fetch() -> int:
        _, _, address, path = url.split("/", 3)
        connection = HTTPConnection(address, timeout=10)
        try:
            connection.request("GET", f"/{path}")
            return connection.getresponse().status
        finally:
            connection.close()

    return await asyncio.to_thread(fetch)


async def opened(command: Command) -> str:
    """
    Wait until the script serves, and get each page that it names: its address.
    """
    await command.expect(r"ada \(password ada\), grace \(password grace\)")
    pages = (await command.expect(r"(?:  http://\S+\n){5}"))[0].split()
    address = await command.ready()
    assert all(page.startswith(f"http://{address}/") for page in pages)
    assert [await status_of(page) for page in pages] == [200, 200, 200, 200, 302]
    return address


def kept(folder: Path) -> tuple[list[tuple[int, str, str]], str]:
    """
    What outlives a run: the users with the hashes of their passwords, and the key.
    """
    data = folder / "examples" / "demo" / "data"
    with closing(sqlite3.connect(data / "demo.sqlite3")) as database:
        users = database.execute("SELECT id, username, password FROM auth_user").fetchall()
    return users, (data / "secret_key").read_text()


@pytest.mark.slow(40, reason="a database is made, and three servers start on it in turn")
async def test_twice(run: Run, tmp_path: Path) -> None:
    """
    It prints users and addresses that work, at the port asked for, whatever the environment says
    for other projects and servers; a second one beside it goes to the next port that is free, and
    serves the database of the first, with its key. So does a third, at the port of the first once
    that has stopped.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    first = await run(
        "--port",
        port,
        HOST="0.0.0.0",
        DJANGO_SETTINGS_MODULE="other.settings",
        PORT="1",
        REDIS_URL="redis://other",
    )
    assert await opened(first) == f"127.0.0.1:{port}"
    found = kept(tmp_path)
    assert [name for _, name, _ in found[0]] == ["ada", "grace"]
    with ExitStack() as held:
        # Where somebody else has it, it is in use as well.
        with suppress(OSError):
            held.enter_context(socket.create_server(("127.0.0.1", 8000)))
        second = await run()
        await second.expect("port 8000 is in use, so this is port ")
        assert await opened(second) not in {"127.0.0.1:8000", f"127.0.0.1:{port}"}
    assert (await first.stop())[0] == 0
    third = await run("--port", port)
    assert await opened(third) == f"127.0.0.1:{port}"
    for command in (second, third):
        assert (await command.stop())[0] == 0
    assert kept(tmp_path) == found


async def test_port_busy(run: Run) -> None:
    """
    A port that was asked for and is in use ends it with status 2, saying who has it.
    """
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        status, output = await (await run("--port", str(port))).ended()
    assert status == 2
    last = output.splitlines()[-1]
    assert re.search(f"port {port} on 127.0.0.1 is in use by .* choose another port", last)


async def test_wrong_arguments(run: Run) -> None:
    """
    Anything but a port is refused by name.
    """
    assert await (await run("8001")).ended() == (
        1,
        "error: expected nothing or --port N, got: 8001\n",
    )
