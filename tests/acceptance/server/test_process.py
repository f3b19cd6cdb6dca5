"""
A server process as it is started and ended in earnest: signals, exit statuses, one line on failure.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.project import SECONDS_MAX, Command, Project
from tests.protocol.harness import Peer, WebSocket, handshake, request

APPLICATION = """
import asyncio
import time


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            print("lifespan", phase)
            await send({"type": f"lifespan.{phase}.complete"})
    elif scope["type"] == "http":
        print("begun")
        await asyncio.to_thread(time.sleep, float(scope["query_string"] or 0))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"done"})
    else:
        await receive()
        await send({"type": "websocket.accept"})
        print("disconnected with", (await receive())["code"])
"""


class Server:
    """
    A running server and its clients.
    """

    def __init__(self, command: Command, address: str) -> None:
        self.command = command
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        self.peers: list[Peer] = []

    async def connect(self) -> WebSocket:
        """
        Open a connection.
        """
        sock = socket.socket()
        sock.setblocking(False)
        self.peers.append(peer := WebSocket(sock))
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        return peer

    async def open(self) -> WebSocket:
        """
        Open a WebSocket.
        """
        peer = await self.connect()
        await peer.send(handshake())
        assert (await peer.response()).status == 101
        return peer

    def close(self) -> None:
        """
        Close all connections.
        """
        for peer in self.peers:
            peer.close()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Project]:
    """
    A folder with an ASGI application and no Django project.
    """
    (tmp_path / "plain.py").write_text(APPLICATION)
    folder = Project(tmp_path, settings="")
    yield folder
    await folder.close()


async def serve(folder: Project, *flags: str) -> Server:
    """
    Start the server there.
    """
    command = await folder.run("-m", "fairway", "plain:application", "--port", "0", *flags)
    return Server(command, await command.ready())


@pytest.mark.parametrize(
    ("loop", "number"), [("asyncio", signal.SIGINT), ("uvloop", signal.SIGTERM)]
)
async def test_regular_end(folder: Project, loop: str, number: signal.Signals) -> None:
    """
    A signal closes WebSockets with 1012, lets requests finish, ends the application, and exits 0.
    """
    server = await serve(folder, "--loop", loop)
    idle, socket_, busy = await server.connect(), await server.open(), await server.connect()
    await busy.send(request("/?0.3"))
    await busy.send(request())
    await server.command.expect("begun\n")
    ending = asyncio.create_task(server.command.stop(number))
    assert await socket_.close_code() == 1012
    await socket_.send_close(1012)
    assert await idle.rest() == b""
    response = await busy.response()
    assert (response.body, response.headers["connection"]) == (b"done", "close")
    assert await busy.rest() == b""
    server.close()
    status, output = await ending
    assert status == 0
    assert output.strip().splitlines() == ["disconnected with 1012", "lifespan shutdown"]


async def test_second_signal(folder: Project) -> None:
    """
    A second signal ends it within a second, whatever its clients and threads do.
    """
    server = await serve(folder)
    peer, busy = await server.open(), await server.connect()
    await busy.send(request("/?30"))
    await server.command.expect("begun\n")
    server.command.process.send_signal(signal.SIGTERM)
    assert await peer.close_code() == 1012
    began = asyncio.get_running_loop().time()
    status, output = await server.command.stop()
    # 0.9 s, and what a busy machine takes for the rest; draining would take 25 s.
    assert asyncio.get_running_loop().time() - began < 3
    assert status in (0, 1)
    assert "cut off" in output
    assert await peer.rest() == b""
    server.close()


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
async def test_closed_streams(folder: Project, flags: tuple[str, ...]) -> None:
    """
    A server that is started with closed standard streams serves, and ends with status 0.
    """
    code = "import os, sys; os.closerange(0, 3); os.execv(sys.executable, sys.argv[1:])"
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    path = place / "s"
    arguments = ("-m", "fairway", "plain:application", "--uds", str(path), *flags)
    # Unmeasured: files of the measurement would take the numbers that are free.
    command = await folder.run(
        "-c",
        code,
        sys.executable,
        *arguments,
        COVERAGE_PROCESS_CONFIG="",
        COVERAGE_PROCESS_START="",
    )
    async with asyncio.timeout(SECONDS_MAX):
        while not path.exists():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    peer = Peer(sock)
    await asyncio.get_running_loop().sock_connect(sock, str(path))
    assert (await peer.get()).body == b"done"
    peer.close()
    assert await command.stop() == (0, "")
    shutil.rmtree(place)


@pytest.mark.parametrize("flags", [(), ("--workers", "1")])
async def test_nobody_reads(folder: Project, flags: tuple[str, ...]) -> None:
    """
    A server whose output nobody reads any more serves, and ends with status 0.
    """
    reader, writer = os.pipe()
    os.close(reader)
    code = f"import os, sys; os.dup2({writer}, 1); os.execv(sys.executable, sys.argv[1:])"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        arguments = ("-m", "fairway", "plain:application", "--fd", str(sock.fileno()), *flags)
        command = await folder.start(
            sys.executable, "-c", code, sys.executable, *arguments, fds=(writer, sock.fileno())
        )
    os.close(writer)
    server = Server(command, "{}:{}".format(*address))
    peer = await server.connect()
    assert (await peer.get("/-/ready")).body == b"ready\n"
    server.close()
    assert (await command.stop())[0] == 0


async def test_port_busy(folder: Project) -> None:
    """
    A busy port names the program that has it, in one line, and the exit status is 2.
    """
    server = await serve(folder)
    port = server.address[1]
    command = await folder.run("-m", "fairway", "plain:application", "--port", str(port))
    status, output = await command.ended()
    assert status == 2
    assert output.count("\n") == 1
    assert f"port {port} on 127.0.0.1 is in use by python" in output
    assert f"(pid {server.command.process.pid})" in output
    assert (await server.command.stop())[0] == 0


async def test_inherited_socket_missing(folder: Project) -> None:
    """
    A descriptor that supervisor did not pass is said in one line.
    """
    command = await folder.run("-m", "fairway", "plain:application", "--fd", "0")
    status, output = await command.ended()
    assert (status, output.count("\n")) == (2, 1)
    assert output.startswith("fairway: --fd 0: is a terminal or device, not a socket")
