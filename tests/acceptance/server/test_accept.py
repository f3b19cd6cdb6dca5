"""
Many connections and several processes: who gets them, and what happens when there is no room.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.project import Command, Project
from tests.protocol.harness import WebSocket, handshake, request
from tests.unit.wire.frames import TEXT, client_frame

APPLICATION = """
import os


async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
"""

SERVING = (
    r"Serving on http://(?P<host>\S+):(?P<port>\d+)/(?: with \d+ workers? \(pids (?P<pids>.*)\))?\n"
)

LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Server:
    """
    A server and its clients.

    Attributes:
        pids: The processes that serve.
    """

    def __init__(self, command: Command, found: re.Match[str]) -> None:
        self.command = command
        self.address = (found["host"], int(found["port"]))
        own = str(command.process.pid)
        self.pids = [int(pid) for pid in (found["pids"] or own).split(", ")]
        self._peers = ExitStack()

    async def connect(self, data: bytes) -> WebSocket:
        """
        Open a connection and send something.
        """
        sock = self._peers.enter_context(socket.socket())
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        peer = WebSocket(sock)
        await peer.send(data)
        return peer

    def cpu_seconds(self) -> float:
        """
        CPU time that the first process has taken.
        """
        fields = Path(f"/proc/{self.pids[0]}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """
        Close all connections.
        """
        self._peers.close()


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Start]:
    """
    Starts servers in a folder with an ASGI application.
    """
    (tmp_path / "plain.py").write_text(APPLICATION)
    folder = Project(tmp_path, settings="")
    # Short, for the sockets in it.
    runtime = tempfile.mkdtemp(prefix="fw", dir="/tmp")
    servers = []

    async def start(*flags: str, before: tuple[str, ...] = ()) -> Server:
        arguments = (*before, "-m", "fairway", "plain:application", "--port", "0", *flags)
        command = await folder.run(*arguments, FAIRWAY_RUNTIME_DIR=runtime)
        servers.append(server := Server(command, await command.expect(SERVING)))
        return server

    yield start
    for server in servers:
        server.close()
    await folder.close()
    shutil.rmtree(runtime)


class TestEven:
    """
    Which of several workers gets a connection.
    """

    @pytest.mark.parametrize("milliseconds", [2, 25])
    async def test_trickled_connects(self, serve: Start, milliseconds: int) -> None:
        """
        Of 400 connections that come one by one the busiest of 4 workers has at most 1.5 times as
        many as the idlest.
        """
        server = await serve("--workers", "4")
        peers = []
        for _ in range(400):
            peers.append(await server.connect(request()))
            await asyncio.sleep(milliseconds / 1000)
        held = Counter([int((await peer.response()).body) for peer in peers])
        assert set(held) == set(server.pids)
        assert max(held.values()) <= 1.5 * min(held.values()), held


class TestFigures:
    """
    What a monitor on this machine sees.
    """

    async def test_all_workers_from_one_connection(self, serve: Start) -> None:
        """
        Whichever worker is asked shows the others too, at most a second old.
        """
        server = await serve("--workers", "2", "--metrics-path", "/figures")
        peers = [await server.connect(request()) for _ in range(12)]
        held = Counter([int((await peer.response()).body) for peer in peers])
        shown: dict[str, int] = {}
        async with asyncio.timeout(5):
            while sorted(shown.values()) != sorted(held.values()):
                await asyncio.sleep(0.1)
                text = (await peers[0].get("/figures")).body.decode()
                found = re.findall(
                    r'^fairway_connections_open\{worker="(\d)"\} (\d+)$', text, re.MULTILINE
                )
                shown = {worker: int(count) for worker, count in found}
        assert set(shown) == {"1", "2"}
        assert "\nfairway_workers 2\n" in text
        # A proxy's client gets what the application says.
        peer = await server.connect(request("/figures", "x-forwarded-for: 192.0.2.1"))
        assert int((await peer.response()).body) in server.pids


async def echoes(peers: list[WebSocket]) -> None:
    """
    Every WebSocket gets its message back.
    """
    for number, peer in enumerate(peers):
        await peer.send(client_frame(TEXT, b"%d" % number))
    for number, peer in enumerate(peers):
        assert (await peer.frame()).payload == b"%d" % number


async def opened(peers: list[WebSocket]) -> list[WebSocket]:
    """
    Those whose handshake is answered, once no more are.
    """
    found: list[WebSocket] = []
    while True:
        waiting = [peer for peer in peers if peer not in found]
        if not waiting:
            return found
        tasks = [asyncio.create_task(_readable(peer)) for peer in waiting]
        done, pending = await asyncio.wait(tasks, timeout=0.5)
        for task in pending:
            task.cancel()
        if not done:
            return found
        for task in done:
            peer = task.result()
            assert (await peer.response()).status == 101
            found.append(peer)


async def _readable(peer: WebSocket) -> WebSocket:
    """
    Wait until a peer has something to read.
    """
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(peer.sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(peer.sock)
    return peer


@pytest.mark.fault
@pytest.mark.parametrize("lowered", ["before", "meanwhile"])
class TestDescriptors:
    """
    A process that may have 200 descriptors.
    """

    async def test_no_room(self, serve: Start, lowered: str) -> None:
        """
        What exceeds it waits at no cost of CPU, what exists goes on, and room is used at once.
        """
        if lowered == "before":
            server = await serve(before=("-c", LIMITED))
        else:
            server = await serve()
            _, hard = resource.prlimit(server.pids[0], resource.RLIMIT_NOFILE)
            resource.prlimit(server.pids[0], resource.RLIMIT_NOFILE, (200, hard))
        peers = [await server.connect(handshake()) for _ in range(300)]
        held = await opened(peers)
        assert 100 <= len(held) <= 190
        began = server.cpu_seconds()
        await asyncio.sleep(1)
        assert server.cpu_seconds() - began < 0.1
        await echoes(held)
        for peer in held[:100]:
            peer.close()
        others = await opened([peer for peer in peers if peer not in held])
        assert 80 <= len(others) <= 105
        await echoes(held[100:] + others)
        if lowered == "meanwhile":
            resource.prlimit(server.pids[0], resource.RLIMIT_NOFILE, (hard, hard))
            waiting = [peer for peer in peers if peer not in held + others]
            assert waiting
            assert set(await opened(waiting)) == set(waiting)
        server.close()
        status, output = await server.command.stop()
        assert status == 0
        assert output.count("no more are accepted for now: ") == 1
