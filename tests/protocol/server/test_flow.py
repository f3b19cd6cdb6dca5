"""
Flow control both ways: slow readers, slow applications, and what is held in between.
"""

from __future__ import annotations

import asyncio

import pytest

from fairway import metrics
from fairway.exceptions import ClientDisconnected
from fairway.types import Receive, Scope, Send
from fairway.wire.prepared import Prepared
from tests.protocol.harness import (
    Call,
    Peer,
    Puppet,
    Serve,
    Served,
    WebSocket,
    request,
    until,
    warnings,
)
from tests.unit.wire.frames import BINARY, PING, PONG, TEXT, client_frame

LIMIT = 65536
PARTS_MAX = 5000
TINY = 4096  # Of a kernel buffer, so that the kernel is full soon.


class TestSend:
    """
    ``await send()`` with a peer that reads too slowly.
    """

    async def test_websocket(self, app: Puppet, serve: Serve) -> None:
        """
        It waits while more than half the limit is pending, and goes on once that is read.
        """
        served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
        peer, call, stuck_frames = await stuck(app, served)
        outbox = call.extension["outbox"]
        room = LIMIT // 2 - outbox.pending_bytes
        await call.send("send", bytes=bytes(room - 4))
        assert outbox.pending_bytes == LIMIT // 2
        sending = asyncio.create_task(call.send("send", text="x"))
        await until(lambda: outbox.pending_bytes == LIMIT // 2 + 3)
        assert not sending.done()
        frames = [await peer.frame() for _ in range(stuck_frames + 2)]
        assert frames[-1] == (TEXT, b"x")
        await sending

    async def test_large_message(self, app: Puppet, serve: Serve) -> None:
        """
        An empty outbox takes a message of any size; its sender waits for it.
        """
        served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
        peer, call = await served.open(app, receive_buffer=TINY)
        sending = asyncio.create_task(call.send("send", bytes=bytes(500_000)))
        await until(lambda: not served.connection.sink.writable)
        assert not sending.done()
        assert len((await peer.frame()).payload) == 500_000
        await sending

    async def test_order(self, app: Puppet, serve: Serve) -> None:
        """
        What others offer while a sender waits keeps its place.
        """
        served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
        peer, call = await served.open(app, receive_buffer=TINY)
        sending = asyncio.create_task(call.send("send", bytes=bytes(50_000)))
        await until(lambda: not served.connection.sink.writable)
        assert call.extension["outbox"].offer(Prepared(text="offered"))
        later = asyncio.create_task(call.send("send", text="later"))
        frames = [await peer.frame() for _ in range(3)]
        assert [frame.payload for frame in frames[1:]] == [b"offered", b"later"]
        await asyncio.gather(sending, later)

    async def test_http(self, app: Puppet, serve: Serve) -> None:
        """
        A response that is not read makes its application wait, in bounded memory.
        """
        served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
        peer = await served.connect(receive_buffer=TINY)
        await peer.send(request())
        call = await app.call()
        part = bytes(10_000)
        sent = 0

        async def respond() -> None:
            nonlocal sent
            await call.send("start", status=200, headers=[(b"content-length", b"500000")])
            for number in range(50):
                await call.send("body", body=part, more_body=number < 49)
                sent += len(part)

        responding = asyncio.create_task(respond())
        await until(lambda: served.connection._room)
        assert not responding.done()
        assert served.connection.transport.get_write_buffer_size() < LIMIT
        assert sent < LIMIT + 3 * 131072
        assert len((await peer.response()).body) == 500_000
        await responding

    @pytest.mark.parametrize("kind", ["http", "websocket"])
    async def test_stall(self, app: Puppet, serve: Serve, kind: str) -> None:
        """
        A peer that takes nothing for too long is cut off; its application is told.
        """
        served = await serve(
            app, outbox_bytes_max=LIMIT, outbox_stall_timeout=0.1, send_buffer=TINY
        )
        count = metrics.drops.values.get("stalled", 0)
        if kind == "http":
            peer = await served.connect(receive_buffer=TINY)
            await peer.send(request())
            call = await app.call()
            await call.send("start", status=200)
            await call.send("body", body=bytes(500_000), more_body=True)
            assert (await call.event())["type"] == "http.request"
            assert (await call.event())["type"] == "http.disconnect"
            with pytest.raises(ClientDisconnected):
                await call.send("body", body=b"x")
        else:
            _, call = await served.open(app, receive_buffer=TINY)
            await call.send("send", bytes=bytes(500_000))
            event = await call.event()
            assert (event["code"], event["reason"]) == (1013, "stood still")
            with pytest.raises(ClientDisconnected):
                await call.send("send", text="x")
        assert metrics.drops.values["stalled"] == count + 1

    async def test_no_stall(self, app: Puppet, serve: Serve) -> None:
        """
        A peer that reads, however slowly, is not cut off.
        """
        served = await serve(
            app, outbox_bytes_max=LIMIT, outbox_stall_timeout=0.1, send_buffer=TINY
        )
        peer, call = await served.open(app, receive_buffer=TINY)
        sending = asyncio.create_task(call.send("send", bytes=bytes(200_000)))
        await until(lambda: not served.connection.sink.writable)
        connection = served.connection
        for _ in range(3):
            stalled_at = connection._stalled_at
            await peer.read(30_000)
            await until(lambda: connection._stalled_at > stalled_at)  # noqa: B023 - awaited here
        await peer.read(200_000 + 10 - 90_000)
        await sending

    async def test_gone(self, app: Puppet, serve: Serve) -> None:
        """
        A peer that leaves lets the waiting sender go.
        """
        served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
        peer, call = await served.open(app, receive_buffer=TINY)
        sending = asyncio.create_task(call.send("send", bytes=bytes(500_000)))
        await until(lambda: not served.connection.sink.writable)
        peer.reset()
        await asyncio.wait([sending])
        with pytest.raises(ClientDisconnected):
            await call.send("send", text="x")

    async def test_dead_reader(self, app: Puppet, serve: Serve) -> None:
        """
        The kernel takes little for a reader that stands still.
        """
        served = await serve(app)
        peer, call = await served.open(app, receive_buffer=TINY)
        sent = 0
        while served.connection.sink.writable:
            await call.send("send", bytes=bytes(8192))
            await asyncio.sleep(0)
            sent += 8192
        assert sent < 524288
        await peer.frame()

    async def test_large_message_to_one_who_left(
        self, app: Puppet, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        That the peer has gone is found out by the first write, and no line is logged for others.
        """
        served = await serve(app)
        peer, call = await served.open(app)
        peer.reset()
        await call.send("send", bytes=bytes(5_000_000))
        await until(lambda: not served.worker.connections)
        assert not warnings(caplog)


class TestBodies:
    """
    Parts of an ordinary response to a peer that reads too slowly.
    """

    @pytest.mark.parametrize("headers", [[], [(b"content-length", b"400000")]])
    @pytest.mark.parametrize("first", [b"", b"first"])
    async def test_half(
        self, app: Puppet, serve: Serve, headers: list[tuple[bytes, bytes]], first: bytes
    ) -> None:
        """
        Its application goes on when half of the limit is free, not only when all is read.
        """
        served, peer, call = await slow(app, serve)
        await call.send("start", status=200, headers=headers)
        if first:
            await call.send("body", body=first, more_body=True)
        sending = asyncio.create_task(call.send("body", body=bytes(300_000), more_body=True))
        sink = served.connection.sink
        await until(lambda: sink.waiting)
        assert not sending.done()
        # It is told by eighths of the limit.
        while sink.pending_bytes > LIMIT // 2 - LIMIT // 8:
            assert not sending.done() or sink.pending_bytes <= LIMIT // 2
            await peer.recv(1024)
            await asyncio.sleep(0)
        await until(sending.done)
        assert sink.pending_bytes > 0

    async def test_many_parts(self, app: Puppet, serve: Serve) -> None:
        """
        It may send on up to half of the limit; what waits is bounded, however small the parts are.
        """
        served, peer, call = await slow(app, serve)
        await call.send("start", status=200)
        sink = served.connection.sink
        while not sink.waiting:
            await call.send("body", body=bytes(4096), more_body=True)
        sending = asyncio.create_task(send_parts(call, [b"x"] * PARTS_MAX))
        await until(lambda: served.connection._room)
        assert not sending.done()
        assert sink.waiting
        assert len(sink.waiting) <= LIMIT // 2 // 64 + 1
        assert LIMIT // 2 < sink.pending_bytes <= LIMIT // 2 + 4096 + 64
        peer.reset()
        with pytest.raises(ClientDisconnected):
            await sending

    @pytest.mark.parametrize("size", [1, 10_000, 70_000, 140_000, 300_000])
    async def test_order(self, app: Puppet, serve: Serve, size: int) -> None:
        """
        All parts arrive in order, none is torn by another sender's, and the connection goes on.
        """
        _, peer, call = await slow(app, serve)
        await call.send("start", status=200)
        parts = [bytes([number]) * (size + number) for number in range(5)]
        sending = [asyncio.create_task(send_parts(call, [part])) for part in parts]
        for part in parts:
            assert await chunk(peer, head=part is parts[0]) == part
        await asyncio.gather(*sending)
        await call.send("body")
        assert await peer.read(5) == b"0\r\n\r\n"
        call.end()
        await peer.send(request())
        await (await app.call()).respond(body=b"next")
        assert (await peer.response()).body == b"next"

    async def test_empty_parts(self, app: Puppet, serve: Serve) -> None:
        """
        A part without a byte costs nothing, though nobody reads.
        """
        served, _, call = await slow(app, serve)
        await call.send("start", status=200)
        await fill(served, call)
        waiting = list(served.connection.sink.waiting or ())
        await send_parts(call, [b""] * 1000)
        assert list(served.connection.sink.waiting or ()) == waiting

    @pytest.mark.parametrize("end", ["failure", "half close", "restart"])
    async def test_early_end(self, app: Puppet, serve: Serve, end: str) -> None:
        """
        What the application has sent still leaves, whatever ends the response then.
        """
        served, peer, call = await slow(app, serve)
        await call.send("start", status=200, headers=[(b"content-type", b"text/event-stream")])
        sent = await fill(served, call)
        if end == "failure":
            call.end(ValueError())
        elif end == "half close":
            peer.half_close()
        else:
            served.connection.exchange.end(1012)  # type: ignore[union-attr] # it has one
        await until(lambda: not served.connection.sink.waiting)
        received = b""
        for number in range(sent):
            received += await chunk(peer, head=not number)
        assert received == bytes(4096) * sent
        assert await peer.rest() == (b"0\r\n\r\n" if end == "restart" else b"")

    async def test_gone(self, app: Puppet, serve: Serve) -> None:
        """
        A peer that leaves lets the waiting sender go, and nothing is kept for it.
        """
        served, peer, call = await slow(app, serve)
        connection = served.connection
        await call.send("start", status=200)
        sending = asyncio.create_task(call.send("body", body=bytes(300_000), more_body=True))
        await until(lambda: connection.sink.waiting)
        peer.reset()
        await asyncio.wait([sending])
        assert connection.sink.waiting is None
        with pytest.raises(ClientDisconnected):
            await call.send("body", body=b"x")

    async def test_refusal(self, app: Puppet, serve: Serve) -> None:
        """
        So it is with an answer of the application's own to a handshake.
        """
        served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
        peer = await served.websocket(receive_buffer=TINY)
        call = await app.call()
        await call.event()
        await call.send("http.response.start", status=403)
        await call.send("http.response.body", body=b"first", more_body=True)
        sending = asyncio.create_task(
            call.send("http.response.body", body=bytes(300_000), more_body=True)
        )
        await until(lambda: served.connection.sink.waiting)
        assert not sending.done()
        assert await chunk(peer, head=True) == b"first"
        assert await chunk(peer) == bytes(300_000)
        await sending
        await call.send("http.response.body")
        assert await peer.rest() == b"0\r\n\r\n"


async def slow(app: Puppet, serve: Serve) -> tuple[Served, Peer, Call]:
    """
    Send a request and read nothing, with little room in between.
    """
    served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
    peer = await served.connect(receive_buffer=TINY)
    await peer.send(request())
    return served, peer, await app.call()


async def send_parts(call: Call, parts: list[bytes]) -> None:
    """
    Send parts of a body that goes on.
    """
    for part in parts:
        await call.send("body", body=part, more_body=True)


async def fill(served: Served, call: Call) -> int:
    """
    Send parts until some of them wait; gives their number.
    """
    count = 0
    while len(served.connection.sink.waiting or ()) < 3:
        await call.send("body", body=bytes(4096), more_body=True)
        count += 1
    return count


async def chunk(peer: Peer, *, head: bool = False) -> bytes:
    """
    Read one chunk, behind the head if that is still to come.
    """
    if head:
        await peer.read_until(b"\r\n\r\n")
    data = await peer.read(int(await peer.read_until(b"\r\n"), 16))
    assert await peer.read(2) == b"\r\n"
    return data


class TestOverflow:
    """
    Fan-out to a peer that reads too slowly.
    """

    async def test_close(self, app: Puppet, serve: Serve) -> None:
        """
        Beyond the limit the peer is closed with 1013, one turn later and behind what it is owed.
        """
        served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
        peer, call, offered = await stuck(app, served)
        outbox = call.extension["outbox"]
        dropped = metrics.drops.values.get("overflow", 0)
        message = Prepared(data=bytes(1000))
        while outbox.pending_bytes <= LIMIT:
            assert outbox.offer(message)
            offered += 1
        assert not outbox.offer(message)
        assert not outbox.offer(message)
        assert metrics.drops.values["overflow"] == dropped + 2
        assert outbox.state.name == "OPEN"  # type: ignore[attr-defined] # more than the Protocol
        await asyncio.sleep(0)
        assert outbox.state.name == "CLOSING"  # type: ignore[attr-defined] # as above
        event = await call.event()
        assert (event["code"], event["reason"]) == (1013, "too slow to keep up")
        for _ in range(offered):
            assert (await peer.frame()).opcode == BINARY
        assert await peer.close_code() == 1013

    async def test_dead_reader(self, app: Puppet, serve: Serve) -> None:
        """
        Where the close frame cannot leave either, the peer is cut off in time.
        """
        served = await serve(app, outbox_bytes_max=LIMIT, close_timeout=0.1, send_buffer=TINY)
        _, call, _ = await stuck(app, served)
        while call.extension["outbox"].offer(Prepared(data=bytes(1000))):
            pass
        assert (await call.event())["code"] == 1013
        await until(lambda: not served.worker.connections)

    async def test_awaited_sends(self, app: Puppet, serve: Serve) -> None:
        """
        What the application itself sends is never dropped, nor does it close anything.
        """
        served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
        peer, call = await served.open(app, receive_buffer=TINY)
        tasks = [asyncio.create_task(call.send("send", bytes=bytes(LIMIT))) for _ in range(10)]
        for _ in range(10):
            assert len((await peer.frame()).payload) == LIMIT
        await asyncio.gather(*tasks)


class TestEarlyOffers:
    """
    What is offered before the handshake is accepted.
    """

    async def test_order(self, app: Puppet, served: Served) -> None:
        """
        It leaves right behind the 101, in order, before what the application sends.
        """
        peer = await served.websocket()
        call = await app.call()
        outbox = call.extension["outbox"]
        assert outbox.offer(Prepared(text="1"))
        assert outbox.offer(Prepared(data=b"2"))
        await call.connect()
        await call.send("send", text="3")
        assert (await peer.response()).status == 101
        frames = [await peer.frame() for _ in range(3)]
        assert frames == [(TEXT, b"1"), (BINARY, b"2"), (TEXT, b"3")]

    @pytest.mark.parametrize(
        ("sizes", "over"),
        [([1] * 32, 1), ([32766, 32762], 1), ([65533], 1), ([100_000], 0)],
    )
    async def test_limits(self, app: Puppet, served: Served, sizes: list[int], over: int) -> None:
        """
        32 messages or 64 KiB are held; one more is dropped and counted.
        """
        peer = await served.websocket()
        call = await app.call()
        outbox = call.extension["outbox"]
        dropped = metrics.drops.values.get("before_accept", 0)
        # Frames of these sizes have a head of 2 or 4 bytes; together they fill 65,536 bytes.
        for size in sizes:
            assert outbox.offer(Prepared(data=bytes(size)))
        assert not outbox.offer(Prepared(data=bytes(over)))
        assert metrics.drops.values["before_accept"] == dropped + 1
        await call.connect()
        await peer.response()
        assert [len((await peer.frame()).payload) for _ in sizes] == sizes
        assert outbox.offer(Prepared(text="later"))
        assert (await peer.frame()).payload == b"later"

    async def test_refused(self, app: Puppet, served: Served) -> None:
        """
        If the handshake is refused, it is dropped and counted.
        """
        peer = await served.websocket()
        call = await app.call()
        outbox = call.extension["outbox"]
        dropped = metrics.drops.values.get("refused_handshake", 0)
        assert outbox.offer(Prepared(text="1"))
        assert outbox.offer(Prepared(text="2"))
        await call.send("close")
        assert metrics.drops.values["refused_handshake"] == dropped + 2
        assert not outbox.offer(Prepared(text="3"))
        assert (await peer.response()).status == 403
        assert await peer.rest() == b""


class TestReceive:
    """
    An application that reads too slowly.
    """

    async def test_pause(self, app: Puppet, served: Served) -> None:
        """
        Reading pauses in bounded memory, and goes on when the application does; nothing is lost.
        """
        peer, call = await served.open(app)
        connection = served.connection
        payload = bytes(4000)
        sending = asyncio.create_task(peer.send(client_frame(BINARY, payload) * 2000))
        await until(lambda: connection.reading_paused)
        inbox = connection.exchange.inbox  # type: ignore[union-attr] # a WebSocket's
        assert 65536 <= inbox.unread_bytes < 65536 + 262144 + 262144
        for _ in range(2000):
            assert (await call.event())["bytes"] == payload
        await sending
        assert not connection.reading_paused

    async def test_many_small(self, app: Puppet, serve: Serve) -> None:
        """
        The number of messages counts as well as their bytes.
        """
        served = await serve(app, receive_messages=4, receive_ahead_bytes=100)
        peer, call = await served.open(app)
        await peer.send(client_frame(TEXT, b"x") * 3 + client_frame(PING, bytes(125)))
        assert (await peer.frame()).opcode == PONG
        assert not served.connection.reading_paused
        await peer.send(client_frame(TEXT, b"x") * 40)
        await until(lambda: served.connection.reading_paused)
        for _ in range(43):
            await call.event()
        assert not served.connection.reading_paused

    async def test_control_frames(self, app: Puppet, served: Served) -> None:
        """
        Pings are answered and a close is found while the application is behind.
        """
        peer, call = await served.open(app)
        await peer.send(client_frame(BINARY, bytes(100_000)) + client_frame(PING, b"?"))
        assert await peer.frame() == (PONG, b"?")
        await peer.send_close(1001)
        assert await peer.close_code() == 1001
        assert len((await call.event())["bytes"]) == 100_000
        assert (await call.event())["code"] == 1001

    async def test_close_while_paused(self, app: Puppet, serve: Serve) -> None:
        """
        The application's own close lets reading go on, so that the peer's answer is found.
        """
        served = await serve(app, receive_bytes=1000, receive_ahead_bytes=0)
        peer, call = await served.open(app)
        await peer.send(client_frame(BINARY, bytes(2000)))
        await until(lambda: served.connection.reading_paused)
        await call.send("close")
        await peer.send(client_frame(BINARY, bytes(300_000)))
        await peer.send_close()
        assert await peer.close_code() == 1000
        assert await peer.rest() == b""
        await until(lambda: not served.worker.connections)

    async def test_pings_without_reading(self, app: Puppet, serve: Serve) -> None:
        """
        A peer that pings and does not read gets the answer to its last ping only.
        """
        served = await serve(app, send_buffer=TINY)
        peer, call, stuck_frames = await stuck(app, served)
        pending = call.extension["outbox"].pending_bytes
        pings = b"".join(client_frame(PING, b"%05d" % number) for number in range(1000))
        await peer.send(pings + client_frame(TEXT, b"done"))
        assert (await call.event())["text"] == "done"
        assert call.extension["outbox"].pending_bytes == pending
        for _ in range(stuck_frames):
            assert (await peer.frame()).opcode == BINARY
        assert await peer.frame() == (PONG, b"00999")


async def stuck(app: Puppet, served: Served) -> tuple[WebSocket, Call, int]:
    """
    Open a WebSocket and offer it as many frames as it takes until the kernel takes no more.
    """
    peer, call = await served.open(app, receive_buffer=TINY)
    frames = 0
    while served.connection.sink.writable:
        assert call.extension["outbox"].offer(Prepared(data=bytes(4096)))
        await asyncio.sleep(0)
        frames += 1
    return peer, call, frames


@pytest.mark.parametrize("configured", [True, False])
async def test_a_sender_that_never_waits(serve: Serve, configured: bool) -> None:
    """
    An application that sends without end and waits for nothing hears that its peer has gone.
    """
    go_on, sent = asyncio.Event(), []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if configured:
            scope["extensions"]["fairway"]["configure"](gone_at_eof=True)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        for number in range(PARTS_MAX):
            sent.append(number)
            await send({"type": "http.response.body", "body": bytes(LIMIT), "more_body": True})

    served = await serve(application)
    peer = await served.connect()
    await peer.send(request())
    await peer.read_until(b"first")
    # In this order and in one turn: it goes on before the loop looks at its sockets.
    go_on.set()
    peer.reset()
    await until(lambda: not served.worker.connections)
    assert len(sent) < PARTS_MAX
