"""
The same over TLS and over Unix sockets.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from fairway.options import ServerOptions
from fairway.server.listen import bind
from tests.protocol.harness import (
    SECONDS_MAX,
    Peer,
    Puppet,
    Serve,
    Served,
    WebSocket,
    handshake,
    request,
    until,
)
from tests.unit.wire.frames import BINARY, PING, PONG, TEXT, client_frame


class TlsPeer(WebSocket):
    """
    A client over TLS.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(writer.get_extra_info("socket"))
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """
        Write bytes as they are.
        """
        self.writer.write(data)
        async with asyncio.timeout(SECONDS_MAX):
            await self.writer.drain()

    async def recv(self, size: int = 65536) -> bytes:
        """
        Read what is there, at least a byte; nothing at the end.
        """
        async with asyncio.timeout(SECONDS_MAX):
            return await self.reader.read(size)


@pytest.fixture
def authority() -> trustme.CA:
    """
    Who signs the server's certificate.
    """
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
async def secure(app: Puppet, serve: Serve, authority: trustme.CA) -> Served:
    """
    The puppet, served over TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    options = {"outbox_bytes_max": 65536, "head_timeout": 0.3, "close_timeout": 0.2}
    return await serve(app, tls=context, **options)


@pytest.fixture
async def connect(
    secure: Served, authority: trustme.CA
) -> AsyncIterator[Callable[[], Awaitable[TlsPeer]]]:
    """
    Opens connections to it.
    """
    peers = []
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def open_connection() -> TlsPeer:
        host, port = secure.sock.getsockname()
        peers.append(TlsPeer(*await asyncio.open_connection(host, port, ssl=context)))
        return peers[-1]

    yield open_connection
    for peer in peers:
        peer.writer.close()
        with suppress(OSError):
            await peer.writer.wait_closed()


Connect = Callable[[], Awaitable[TlsPeer]]


class TestTls:
    """
    https and wss.
    """

    async def test_https(self, app: Puppet, connect: Connect) -> None:
        """
        Pages are served, large ones too, on one connection.
        """
        peer = await connect()
        body = bytes(range(256)) * 8192
        for path in ("/1", "/2"):
            sending = asyncio.create_task(peer.send(request(path, method="PUT", body=body)))
            call = await app.call()
            assert call.scope["scheme"] == "https"
            received = b""
            while True:
                event = await call.event()
                received += event["body"]
                if not event["more_body"]:
                    break
            await sending
            assert received == body
            response, _ = await asyncio.gather(peer.response(), call.respond(200, body))
            assert response.body == body

    async def test_wss(self, app: Puppet, connect: Connect) -> None:
        """
        WebSockets are served, with messages of any size both ways, pings and a close.
        """
        peer = await connect()
        await peer.send(handshake())
        call = await app.call()
        assert call.scope["scheme"] == "wss"
        await call.connect()
        assert (await peer.response()).status == 101
        await peer.send(client_frame(PING, b"?") + client_frame(TEXT, b"x"))
        assert await peer.frame() == (PONG, b"?")
        assert (await call.event())["text"] == "x"
        data = bytes(range(256)) * 4096
        await peer.send(client_frame(BINARY, data))
        assert (await call.event())["bytes"] == data
        frame, _ = await asyncio.gather(peer.frame(), call.send("send", bytes=data))
        assert frame.payload == data
        await call.send("close", code=4000)
        assert await peer.close_code() == 4000
        await peer.send_close(4000)
        assert await peer.rest() == b""

    async def test_slow_reader(self, app: Puppet, secure: Served, connect: Connect) -> None:
        """
        A slow reader makes the application wait here as well.
        """
        peer = await connect()
        await peer.send(handshake())
        call = await app.call()
        await call.connect()
        await peer.response()
        part = bytes(50_000)

        async def send_all() -> None:
            for _ in range(200):
                await call.send("send", bytes=part)

        sending = asyncio.create_task(send_all())
        connection = secure.connection
        await until(lambda: connection._room)
        assert not sending.done()
        for _ in range(200):
            assert len((await peer.frame()).payload) == len(part)
        await sending

    async def test_close(self, app: Puppet, secure: Served, connect: Connect) -> None:
        """
        The last response of a connection arrives whole, whatever its size.
        """
        peer = await connect()
        await peer.send(request("/", "connection: close"))
        call = await app.call()
        await call.respond(200, bytes(3_000_000))
        call.end()
        assert len((await peer.response()).body) == 3_000_000
        assert await peer.rest() == b""
        await until(lambda: not secure.worker.connections)

    async def test_gone(self, app: Puppet, connect: Connect) -> None:
        """
        A peer that leaves is noticed.
        """
        peer = await connect()
        await peer.send(handshake())
        call = await app.call()
        await call.connect()
        await peer.response()
        peer.writer.close()
        assert (await call.event())["code"] == 1006

    async def test_plain_client(self, app: Puppet, secure: Served) -> None:
        """
        A client that speaks no TLS is cut off, and so is one that says nothing.
        """
        peer = await secure.connect()
        await peer.send(request())
        await peer.rest()
        silent = await secure.connect()
        assert await silent.rest() == b""
        assert app.calls.empty()

    async def test_drain(self, secure: Served, authority: trustme.CA) -> None:
        """
        A client that rests, and does not even read that the connection ends, delays no drain.
        """
        context = ssl.create_default_context()
        authority.configure_trust(context)
        began = asyncio.get_running_loop().time()
        with socket.create_connection(secure.sock.getsockname()) as sock:
            peer = await asyncio.to_thread(context.wrap_socket, sock, server_hostname="127.0.0.1")
            with peer:
                await until(lambda: secure.worker.connections)
                await secure.worker.drain(SECONDS_MAX)
        assert asyncio.get_running_loop().time() - began < SECONDS_MAX / 2


class TestUnixSocket:
    """
    A server on a Unix socket.
    """

    async def test_scope(self, app: Puppet, serve: Serve, tmp_path: Path) -> None:
        """
        The peer has no address; the server's is its path.
        """
        path = str(tmp_path / "s")
        served = await serve(app, sock=bind(ServerOptions(uds=path)))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, path)
            peer = Peer(sock)
            await peer.send(request())
            call = await app.call()
            assert call.scope["client"] is None
            assert call.scope["server"] == (path, None)
            await call.respond(200, b"x")
            assert (await peer.response()).body == b"x"
        assert served.worker.connections
