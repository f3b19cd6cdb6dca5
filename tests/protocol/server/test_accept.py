"""
Accepting on a real loop: limits, handshakes that fail, what is counted, and a worn worker.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest
import trustme

from fairway import metrics
from fairway.options import ServerOptions
from fairway.server.board import Board, State
from fairway.server.worker import Worker
from tests.protocol.harness import Peer, Puppet, Serve, Served, request, until
from tests.unit.wire.frames import CLOSE, PING, TEXT, client_frame


@pytest.fixture
def tls() -> ssl.SSLContext:
    """
    A certificate nobody trusts.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


class TestLimit:
    """
    How many connections there may be.
    """

    async def test_who_comes_later_waits(self, serve: Serve, app: Puppet) -> None:
        """
        The third of two is answered as soon as one has gone.
        """
        served = await serve(app, connections_max=2, health_path="/")
        peers = [await served.connect() for _ in range(3)]
        for peer in peers:
            await peer.send(request())
        assert [(await peer.response()).status for peer in peers[:2]] == [200, 200]
        with pytest.raises(BlockingIOError):
            peers[2].sock.recv(1)
        peers[0].close()
        assert (await peers[2].response()).status == 200
        assert len(served.worker.connections) == 2

    async def test_a_seat_shows_what_is_open(self, serve: Serve, app: Puppet) -> None:
        """
        The other workers see each connection come and go.
        """
        seat = Board.create(4).seat(1)
        seat.state = State.READY
        served = await serve(app, seat=seat)
        peers = [await served.connect() for _ in range(5)]
        await until(lambda: seat.connections == 5)
        for peer in peers[:3]:
            peer.close()
        await until(lambda: seat.connections == 2)

    async def test_connections_leave_nothing_behind(self, served: Served) -> None:
        """
        Hundreds that come and go at once, some by a reset, are all counted out.
        """
        for _ in range(3):
            peers = [await served.connect() for _ in range(100)]
            for number, peer in enumerate(peers):
                if number % 2:
                    peer.reset()
                else:
                    peer.close()
        acceptor = served.worker._acceptor
        assert acceptor is not None
        await until(lambda: acceptor.open == 0 and not served.worker.connections)
        assert not acceptor._opening

    async def test_one_that_cannot_begin_is_closed(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Its descriptor is given back, the fault reported, and the next connection served.
        """
        reported: list[dict[str, Any]] = []
        served.worker.loop.set_exception_handler(lambda _, context: reported.append(context))
        acceptor = served.worker._acceptor
        assert acceptor is not None
        make = acceptor._make
        monkeypatch.setattr(acceptor, "_make", lambda _: 1 / 0)
        peer = await served.connect()
        assert await peer.rest() == b""
        assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]
        assert acceptor.open == 0
        monkeypatch.setattr(acceptor, "_make", make)
        peer = await served.connect()
        assert (await peer.get("/-/health")).status == 200

    async def test_a_loop_that_cannot_watch_sockets(
        self, app: Puppet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        On Windows' own the loop's server accepts, without a limit.
        """

        def refuse(*_: Any) -> None:
            raise NotImplementedError

        monkeypatch.setattr("fairway.server.accept.Acceptor.start", refuse)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            sock.setblocking(False)
            worker = Worker(ServerOptions(connections_max=1), app, None)
            await worker.serve(sock, None)
            served = Served(worker, sock)
            for _ in range(2):
                peer = await served.connect()
                assert (await peer.get("/-/health")).status == 200
            await served.close()


class TestHandshakes:
    """
    TLS handshakes that come to nothing.
    """

    async def test_garbage_is_counted(self, serve: Serve, app: Puppet, tls: ssl.SSLContext) -> None:
        """
        A client that speaks no TLS is cut off, and the next one served.
        """
        before = metrics.refusals.values.get("handshake", 0)
        served = await serve(app, tls=tls)
        peer = await served.connect()
        await peer.send(request())
        await peer.rest()
        await until(lambda: metrics.refusals.values.get("handshake", 0) == before + 1)
        peer = await served.connect()
        peer.reset()
        await until(lambda: metrics.refusals.values["handshake"] == before + 2)
        acceptor = served.worker._acceptor
        assert acceptor is not None
        assert acceptor.open == 0

    async def test_silence_has_its_time(
        self, serve: Serve, app: Puppet, tls: ssl.SSLContext
    ) -> None:
        """
        A client that says nothing holds its place for as long as a head may take, and no longer.
        """
        served = await serve(app, tls=tls, head_timeout=0.05, connections_max=1)
        first, second = await served.connect(), await served.connect()
        assert await first.rest() == b""
        assert await second.rest() == b""

    async def test_the_end_does_not_wait_for_them(
        self, serve: Serve, app: Puppet, tls: ssl.SSLContext
    ) -> None:
        """
        What is at its handshake when the worker closes is cut off.
        """
        served = await serve(app, tls=tls)
        peer = await served.connect()
        acceptor = served.worker._acceptor
        assert acceptor is not None
        await until(lambda: acceptor.open == 1)
        await asyncio.sleep(0)
        await served.worker.drain(0.0)
        served.worker.close()
        assert await peer.rest() == b""


class TestCounted:
    """
    What the figures say of a connection.
    """

    async def test_bytes_of_requests(self, served: Served, app: Puppet) -> None:
        """
        Every byte read and written, heads included.
        """
        received, sent = metrics.bytes_received.value, metrics.bytes_sent.value
        peer = await served.connect()
        await peer.send(request("/", "expect: 100-continue", method="POST", body=b""))
        await peer.send(request("/second"))
        call = await app.call()
        await call.send("start", status=200)
        await call.send("body", body=b"one", more_body=True)
        await call.send("body", body=b"two")
        await (await app.call()).respond(body=b"page")
        data = b""
        while not data.endswith(b"page"):
            data += await peer.recv()
        wanted = len(request("/", "expect: 100-continue", method="POST")) + len(request("/second"))
        assert metrics.bytes_received.value - received == wanted
        assert metrics.bytes_sent.value - sent == len(data)

    async def test_messages_without_control_frames(self, served: Served, app: Puppet) -> None:
        """
        Text and binary messages count, pongs and close frames do not; bytes are all.
        """
        peer, call = await served.open(app)
        messages, sent = metrics.messages_sent.value, metrics.bytes_sent.value
        await peer.send(client_frame(PING, b"x"))
        assert len(await peer.read(3)) == 3
        for _ in range(3):
            await call.send("send", text="ab")
        await peer.read(12)
        await call.send("send", bytes=b"c")
        await peer.read(3)
        assert metrics.messages_sent.value - messages == 4
        assert metrics.bytes_sent.value - sent == 3 + 12 + 3
        await peer.send(client_frame(TEXT, b"x"))
        await peer.send(client_frame(CLOSE, b"\x03\xe8"))
        await peer.rest()
        assert metrics.messages_sent.value - messages == 4

    async def test_gauges_go_down_again(self, served: Served, app: Puppet) -> None:
        """
        Connections and WebSockets that exist at present.
        """
        before = metrics.connections_open.read(), metrics.websockets_open.read()
        peer, _ = await served.open(app)
        now = metrics.connections_open.read(), metrics.websockets_open.read()
        assert now == (before[0] + 1, before[1] + 1)
        peer.reset()
        await until(lambda: metrics.websockets_open.read() == before[1])
        assert metrics.connections_open.read() == before[0]


class TestWorn:
    """
    A worker that is replaced after so many requests.
    """

    async def test_it_says_so_once(self, serve: Serve, app: Puppet) -> None:
        """
        At the request that is the last of the number, and it goes on serving.
        """
        served = await serve(app, health_path="/")
        worn: list[int] = []
        peer = await served.connect()
        await peer.get()
        served.worker.requests_max = 3
        served.worker.on_worn = lambda: worn.append(metrics.requests.value)
        assert served.worker.requests_max == 3
        before = metrics.requests.value
        for _ in range(6):
            assert (await peer.get()).status == 200
        assert worn == [before + 3]
        assert served.worker.requests_max == 0

    async def test_never_by_default(self, served: Served) -> None:
        """
        Without a number, or with 0, it wears not.
        """
        served.worker.requests_max = 0
        peer: Peer = await served.connect()
        for _ in range(3):
            assert (await peer.get("/-/health")).status == 200
        served.worker.wear_out()
