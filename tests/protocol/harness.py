"""
Raw clients and an application that does as it is told, for tests of the server on real sockets.

The clients are made without the code under test. They read only when a test asks for it, so a
slow reader is simply a test that does not read.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import pytest

from fairway.options import ServerOptions
from fairway.server.board import Seat
from fairway.server.connection import Connection
from fairway.server.worker import Worker
from fairway.types import ASGIApplication, Extension, Message, Receive, Scope, Send
from tests.unit.wire.frames import CLOSE, TEXT, client_frame

SECONDS_MAX = 5
"""
Time that anything awaited here may take before the test fails.
"""

KEY = base64.b64encode(b"the sample nonce").decode()


class Response(NamedTuple):
    """
    One HTTP response, its body undone of any chunks.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class Frame(NamedTuple):
    """
    One frame of the server.
    """

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """
        The code of a close frame, 1005 if it holds none.
        """
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


class Peer:
    """
    A client on a plain socket that reads only when asked.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        """
        Write bytes as they are.
        """
        async with asyncio.timeout(SECONDS_MAX):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def recv(self, size: int = 65536) -> bytes:
        """
        Read what is there, at least a byte; nothing at the end.
        """
        async with asyncio.timeout(SECONDS_MAX):
            return await asyncio.get_running_loop().sock_recv(self.sock, size)

    async def read(self, size: int) -> bytes:
        """
        Read so many bytes.
        """
        while len(self.buffer) < size:
            await self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def read_until(self, mark: bytes) -> bytes:
        """
        Read up to a mark, which is swallowed.
        """
        while mark not in self.buffer:
            await self._more()
        data, _, self.buffer = self.buffer.partition(mark)
        return data

    async def rest(self) -> bytes:
        """
        Read up to the end of the connection, regular or reset.
        """
        with suppress(ConnectionResetError):
            while data := await self.recv():
                self.buffer += data
        data, self.buffer = self.buffer, b""
        return data

    async def response(self, *, head: bool = False) -> Response:
        """
        Read one response; ``head`` says that the request was a HEAD.
        """
        line, *lines = (await self.read_until(b"\r\n\r\n")).decode("latin1").split("\r\n")
        version, status, *_ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers: dict[str, str] = {}
        for field in lines:
            name, _, value = field.partition(": ")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        body = b"" if head or status in ("100", "101", "204", "304") else await self._body(headers)
        return Response(int(status), headers, body)

    async def get(self, path: str = "/", *fields: str, method: str = "GET") -> Response:
        """
        Make a request without a body and read its response.
        """
        await self.send(request(path, *fields, method=method))
        return await self.response(head=method == "HEAD")

    def half_close(self) -> None:
        """
        Say that no more is sent.
        """
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """
        Leave without a word: the server gets a reset.
        """
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self) -> None:
        """
        Leave.
        """
        self.sock.close()

    async def _more(self) -> None:
        data = await self.recv()
        assert data, f"the server closed the connection after {self.buffer!r}"
        self.buffer += data

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            body = b""
            while size := int(await self.read_until(b"\r\n"), 16):
                body += await self.read(size)
                assert await self.read(2) == b"\r\n"
            assert await self.read(2) == b"\r\n"
            return body
        if "content-length" in headers:
            return await self.read(int(headers["content-length"]))
        return await self.rest()


class WebSocket(Peer):
    """
    A WebSocket client: a peer that also knows frames.
    """

    async def text(self, text: str) -> None:
        """
        Send a text message.
        """
        await self.send(client_frame(TEXT, text.encode()))

    async def frame(self) -> Frame:
        """
        Read one frame, which servers send whole and unmasked.
        """
        first, second = await self.read(2)
        assert first & 0x80
        assert second < 128
        size = second
        if second > 125:
            size = int.from_bytes(await self.read(2 if second == 126 else 8), "big")
        return Frame(first & 0x0F, await self.read(size))

    async def close_code(self) -> int:
        """
        Skip frames up to the server's close frame, and give its code.
        """
        while (frame := await self.frame()).opcode != CLOSE:
            pass
        return frame.code

    async def send_close(self, code: int | None = 1000) -> None:
        """
        Send a close frame, with a code unless None.
        """
        await self.send(client_frame(CLOSE, b"" if code is None else code.to_bytes(2, "big")))


AnyPeer = TypeVar("AnyPeer", bound=Peer)


class Call:
    """
    One call of the application, carried out by the test.

    Attributes:
        scope: What the application was called with.
        receive: As scope.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.cancelled = False

    @property
    def extension(self) -> Extension:
        """
        The server's own ends.
        """
        found: Extension = self.scope["extensions"]["fairway"]
        return found

    async def send(self, kind: str, **content: Any) -> None:
        """
        Send a message; its type is given without ``websocket.`` or ``http.response.``.
        """
        kind = f"{'websocket' if self.scope['type'] == 'websocket' else 'http.response'}.{kind}"
        async with asyncio.timeout(SECONDS_MAX):
            await self._send({"type": kind, **content})

    async def respond(
        self, status: int = 200, body: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """
        Send a whole HTTP response.
        """
        await self.send("start", status=status, headers=headers)
        await self.send("body", body=body)

    async def event(self) -> Message:
        """
        Receive one event.
        """
        async with asyncio.timeout(SECONDS_MAX):
            return await self.receive()

    async def connect(self) -> None:
        """
        Receive ``websocket.connect`` and accept.
        """
        assert (await self.event())["type"] == "websocket.connect"
        await self.send("accept")

    def end(self, error: BaseException | None = None) -> None:
        """
        Return from the application, or raise out of it.
        """
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)

    async def run(self) -> None:
        """
        What the application does.
        """
        try:
            await self._end
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class Puppet:
    """
    An application that leaves everything to the test.
    """

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Call] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Hand the call over to the test.
        """
        call = Call(scope, receive, send)
        self.calls.put_nowait(call)
        await call.run()

    async def call(self) -> Call:
        """
        Wait for the application's next call.
        """
        async with asyncio.timeout(SECONDS_MAX):
            return await self.calls.get()


class Served:
    """
    A worker that serves an application on the test's own loop.
    """

    def __init__(self, worker: Worker, sock: socket.socket) -> None:
        self.worker = worker
        self.sock = sock
        self.peers: list[Peer] = []

    @property
    def connection(self) -> Connection:
        """
        The one connection there is.
        """
        (connection,) = self.worker.connections
        return connection

    async def connect(
        self,
        *,
        receive_buffer: int = 0,
        family: socket.AddressFamily = socket.AF_INET,
        address: Any = None,
    ) -> Peer:
        """
        Open a connection; a receive buffer of so many bytes makes the reader slow.
        """
        return await self._connect(Peer(socket.socket(family)), receive_buffer, address)

    async def websocket(
        self,
        path: str = "/",
        *fields: str,
        receive_buffer: int = 0,
        before: bytes = b"",
        early: bytes = b"",
    ) -> WebSocket:
        """
        Open a connection and send a handshake, between ``before`` and ``early``, without waiting.
        """
        peer = await self._connect(WebSocket(socket.socket()), receive_buffer)
        await peer.send(before + handshake(path, *fields) + early)
        return peer

    async def open(
        self, app: Puppet, path: str = "/", *fields: str, receive_buffer: int = 0
    ) -> tuple[WebSocket, Call]:
        """
        Open a WebSocket that is accepted at both ends.
        """
        peer = await self.websocket(path, *fields, receive_buffer=receive_buffer)
        call = await app.call()
        await call.connect()
        assert (await peer.response()).status == 101
        return peer, call

    async def close(self) -> None:
        """
        End everything.
        """
        for peer in self.peers:
            peer.close()
        await self.worker.drain(0.0)
        self.worker.close()
        await until(lambda: not self.worker.connections)
        self.sock.close()

    async def _connect(self, peer: AnyPeer, receive_buffer: int, address: Any = None) -> AnyPeer:
        self.peers.append(peer)
        if receive_buffer:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        peer.sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer.sock, address or self.sock.getsockname())
        return peer


Serve = Callable[..., Awaitable[Served]]


async def serve(
    application: ASGIApplication,
    *,
    state: dict[str, Any] | None = None,
    send_buffer: int = 0,
    sock: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
    seat: Seat | None = None,
    **options: Any,
) -> Served:
    """
    Serve an application; a send buffer of so many bytes makes the kernel full soon.
    """
    sock = sock or socket.create_server(("127.0.0.1", 0), backlog=128)
    if send_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    sock.setblocking(False)
    worker = Worker(ServerOptions(**options), application, state, seat)
    await worker.serve(sock, tls)
    return Served(worker, sock)


async def until(condition: Callable[[], object]) -> None:
    """
    Wait for a condition.
    """
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """
    What the server had to complain about.
    """
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def request(path: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    """
    One HTTP/1.1 request.
    """
    lines = [f"{method} {path} HTTP/1.1", "host: a", *fields]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def handshake(path: str = "/", *fields: str) -> bytes:
    """
    The request that opens a WebSocket.
    """
    return request(
        path,
        "upgrade: websocket",
        "connection: Upgrade",
        f"sec-websocket-key: {KEY}",
        "sec-websocket-version: 13",
        *fields,
    )
