"""
Responses that stay open: their outbox, heartbeat and end, on real sockets.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from fairway import metrics
from fairway.exceptions import ClientDisconnected, LocalProtocolError
from fairway.wire.prepared import Prepared
from fairway.wire.sse import encode_event
from tests.protocol.harness import Call, Peer, Puppet, Serve, Served, request, until, warnings
from tests.unit.wire.events import Event, EventReader

HEAD = {"status": 200, "headers": [(b"content-type", b"text/event-stream")]}


class Stream:
    """
    The client's side of a stream: chunks in, events out.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.reader = EventReader()
        self.ended = False

    async def event(self) -> Event:
        """
        Read on to the next event.
        """
        known = len(self.reader.events)
        while len(self.reader.events) == known:
            assert await self.chunk()
        return self.reader.events[known]

    async def chunk(self) -> bytes:
        """
        Read one chunk; nothing at the end of the body.
        """
        size = int(await self.peer.read_until(b"\r\n"), 16)
        data = await self.peer.read(size)
        assert await self.peer.read(2) == b"\r\n"
        self.reader.feed(data)
        return data


async def begin(
    app: Puppet, served: Served, *, receive_buffer: int = 0, **settings: float | bool | str
) -> tuple[Stream, Call]:
    """
    Open a stream at both ends.
    """
    peer = await served.connect(receive_buffer=receive_buffer)
    await peer.send(request("/events"))
    call = await app.call()
    call.extension["configure"](**settings)  # type: ignore[arg-type] # those of requests
    await call.send("start", **HEAD)
    await call.send("body", body=b":\n\n", more_body=True)
    head = (await peer.read_until(b"\r\n\r\n")).decode()
    assert "transfer-encoding: chunked" in head
    stream = Stream(peer)
    assert await stream.chunk() == b":\n\n"
    return stream, call


async def test_order_of_offers_and_sends(app: Puppet, served: Served) -> None:
    """What fan-out offers and what the application sends arrive in one order."""
    stream, call = await begin(app, served)
    outbox = call.extension["outbox"]
    assert outbox.offer(Prepared(text="one"))
    await call.send("body", body=encode_event("two", id="2"), more_body=True)
    assert outbox.offer(Prepared(text="three", event="e", id="3"))
    events = [await stream.event() for _ in range(3)]
    assert events == [Event("one"), Event("two", id="2"), Event("three", "e", "3")]
    await call.send("body", body=b"")
    assert await stream.chunk() == b""
    assert not outbox.offer(Prepared(text="late"))
    assert outbox.pending_bytes == 0
    call.end()


async def test_connection_goes_on(app: Puppet, served: Served) -> None:
    """After the end of a stream the connection serves the next request."""
    stream, call = await begin(app, served)
    await call.send("body", body=b"")
    assert await stream.chunk() == b""
    call.end()
    await stream.peer.send(request("/next"))
    after = await app.call()
    await after.respond(200, b"next")
    assert (await stream.peer.response()).body == b"next"
    after.end()


async def test_early_offers_wait(app: Puppet, served: Served) -> None:
    """What is offered before the response begins leaves behind its first bytes."""
    peer = await served.connect()
    await peer.send(request())
    call = await app.call()
    assert call.extension["outbox"].offer(Prepared(text="early"))
    await call.send("start", **HEAD)
    await call.send("body", body=b":\n\n", more_body=True)
    await peer.read_until(b"\r\n\r\n")
    stream = Stream(peer)
    assert await stream.event() == Event("early")
    call.end()


async def test_early_offers_are_dropped_and_counted(app: Puppet, served: Served) -> None:
    """An answer that is no stream gets none of them."""
    before = metrics.drops.values.get("refused_handshake", 0)
    peer = await served.connect()
    await peer.send(request())
    call = await app.call()
    call.extension["inbox"]
    assert call.extension["outbox"].offer(Prepared(text="early"))
    await call.respond(204)
    assert (await peer.response()).status == 204
    assert metrics.drops.values["refused_handshake"] == before + 1
    assert not call.extension["outbox"].offer(Prepared(text="late"))
    call.end()


async def test_looking_for_an_end(app: Puppet, served: Served) -> None:
    """An application may look whether there is an end before it asks for it."""
    await (await served.connect()).send(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
    call = await app.call()
    assert "configure" in call.extension
    assert "compress" not in call.extension
    await call.send("start", **HEAD)
    await call.send("body", body=b"")


async def test_http_1_0(app: Puppet, served: Served) -> None:
    """Without chunks, events leave as they are and the connection ends the stream."""
    peer = await served.connect()
    await peer.send(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
    call = await app.call()
    call.extension["configure"]()
    await call.send("start", **HEAD)
    await call.send("body", body=b":\n\n", more_body=True)
    call.extension["outbox"].offer(Prepared(text="plain"))
    await asyncio.sleep(0)
    await call.send("body", body=b"")
    call.end()
    _, _, body = (await peer.rest()).partition(b"\r\n\r\n")
    assert body == b":\n\ndata: plain\n\n"


async def test_encoded_once(app: Puppet, served: Served) -> None:
    """However many streams a message goes to, it is encoded once, and no task is made for it."""
    streams = [await begin(app, served) for _ in range(20)]
    tasks = len(asyncio.all_tasks())
    before = metrics.prepared.value
    prepared = Prepared(text="all")
    for _, call in streams:
        assert call.extension["outbox"].offer(prepared)
    assert metrics.prepared.value == before + 1
    assert len(asyncio.all_tasks()) == tasks
    for stream, call in streams:
        assert await stream.event() == Event("all")
        call.end()


async def test_heartbeat(app: Puppet, served: Served) -> None:
    """A silent stream gets comments, by the connection's deadline."""
    stream, call = await begin(app, served, heartbeat=0.05)
    tasks = len(asyncio.all_tasks())
    for _ in range(2):
        assert await stream.chunk() == b":\n\n"
    assert len(asyncio.all_tasks()) == tasks
    assert stream.reader.events == []
    # Who vanishes without a word is found by what it does not acknowledge.
    sock = served.connection.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 100
    call.end()


async def test_restart(app: Puppet, served: Served) -> None:
    """A drain ends streams whole, with a hint to come back; the application is told."""
    stream, call = await begin(app, served)
    call.extension["outbox"].offer(Prepared(text="last"))
    draining = asyncio.create_task(served.worker.drain(5))
    assert await stream.event() == Event("last")
    assert (await stream.chunk()).startswith(b"retry: ")
    assert await stream.chunk() == b""
    assert 500 <= (stream.reader.retry or 0) <= 2000
    assert (await call.event())["type"] == "http.request"
    assert (await call.event())["type"] == "http.disconnect"
    with pytest.raises(ClientDisconnected):
        await call.send("body", body=b"x", more_body=True)
    call.end()
    assert await stream.peer.rest() == b""
    stream.peer.close()
    await draining


async def test_restart_before_the_answer(app: Puppet, served: Served) -> None:
    """Who waits for an answer at a drain, as a long poll does, is told to come back."""
    peer = await served.connect()
    await peer.send(request())
    call = await app.call()
    call.extension["configure"](gone_at_eof=True)  # type: ignore[call-arg] # of requests
    draining = asyncio.create_task(served.worker.drain(5))
    assert (await peer.response()).status == 503
    assert (await call.event())["type"] == "http.request"
    assert (await call.event())["type"] == "http.disconnect"
    call.end()
    peer.close()
    await draining


async def test_closed_by_a_group(app: Puppet, served: Served) -> None:
    """A close for good ends the stream whole, without a hint."""
    stream, call = await begin(app, served)
    call.extension["outbox"].close(4401, "logged out")
    assert await stream.chunk() == b""
    assert stream.reader.retry is None
    call.extension["outbox"].close(4401, "again")
    call.end()


async def test_refused_by_a_group(app: Puppet, served: Served) -> None:
    """Before the response begins such a close is a 403."""
    peer = await served.connect()
    await peer.send(request())
    call = await app.call()
    call.extension["outbox"].close(4401)
    assert (await peer.response()).status == 403
    call.end()


async def test_slow_reader(app: Puppet, serve: Serve) -> None:
    """A reader over the limit is cut off, counted, and the application told; nothing grows."""
    served = await serve(app, send_buffer=4096, close_timeout=0.1)
    before = metrics.drops.values.get("overflow", 0)
    stream, call = await begin(app, served, receive_buffer=4096, outbox_bytes_max=50_000)
    outbox = call.extension["outbox"]
    message = Prepared(text="x" * 10_000)
    while outbox.offer(message):
        await asyncio.sleep(0)
        assert outbox.pending_bytes < 100_000
    assert metrics.drops.values["overflow"] == before + 1
    while (await call.event())["type"] != "http.disconnect":
        pass
    assert not (await stream.peer.rest()).endswith(b"0\r\n\r\n")
    call.end()


async def test_a_sender_waits_for_its_reader(app: Puppet, serve: Serve) -> None:
    """The application waits while half of the limit is pending, and goes on when it is read."""
    served = await serve(app, send_buffer=4096)
    stream, call = await begin(app, served, receive_buffer=4096, outbox_bytes_max=20_000)
    sending = asyncio.create_task(call.send("body", body=b":" * 1_000_000, more_body=True))
    await asyncio.sleep(0.05)
    assert not sending.done()
    assert len(await stream.chunk()) == 1_000_000
    await sending
    call.end()


async def test_too_late_to_configure(app: Puppet, served: Served) -> None:
    """What a response may do is settled when it begins."""
    _, call = await begin(app, served)
    with pytest.raises(LocalProtocolError, match=r"before .* http\.response\.body"):
        call.extension["configure"](outbox_bytes_max=5)
    call.end()


async def test_configured_once_the_client_has_left(app: Puppet, served: Served) -> None:
    """To say something of a client that has just left is no mistake of the application."""
    peer = await served.connect()
    await peer.send(request())
    call = await app.call()
    peer.reset()
    await until(lambda: not served.worker.connections)
    call.extension["configure"](outbox_bytes_max=5, gone_at_eof=True)  # type: ignore[call-arg] # of requests
    assert (await call.event())["type"] == "http.request"
    assert (await call.event())["type"] == "http.disconnect"
    call.end()


class TestEndOfSending:
    """
    What a FIN of the client means.
    """

    async def test_streaming(self, app: Puppet, served: Served) -> None:
        """While an open-ended response streams, the client has gone."""
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.send("start", **HEAD)
        await call.send("body", body=b"x", more_body=True)
        assert (await call.event())["type"] == "http.request"
        peer.half_close()
        assert (await call.event())["type"] == "http.disconnect"
        with pytest.raises(ClientDisconnected):
            await call.send("body", body=b"y", more_body=True)
        call.end()

    async def test_waiting_for_news(self, app: Puppet, served: Served) -> None:
        """Where a consumer says that it waits for news, it has gone too."""
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        call.extension["configure"](gone_at_eof=True)  # type: ignore[call-arg] # of requests
        assert (await call.event())["type"] == "http.request"
        peer.half_close()
        assert (await call.event())["type"] == "http.disconnect"
        call.end()

    @pytest.mark.parametrize("length", [None, b"4"])
    async def test_short_request(
        self, app: Puppet, served: Served, length: bytes | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Else it is owed its answer: one that comes at once, or whose length it knows."""
        caplog.set_level(logging.WARNING)
        peer = await served.connect()
        await peer.send(request())
        peer.half_close()
        call = await app.call()
        await until(lambda: served.connection._half_closed)
        headers = [] if length is None else [(b"content-length", length)]
        await call.send("start", status=200, headers=headers)
        if length:
            await call.send("body", body=b"ab", more_body=True)
            await call.send("body", body=b"cd")
        else:
            await call.send("body", body=b"abcd")
        assert (await peer.response()).body == b"abcd"
        call.end()
        assert not warnings(caplog)

    async def test_download(self, app: Puppet, served: Served) -> None:
        """A download of a known length goes on after the FIN."""
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.send("start", status=200, headers=[(b"content-length", b"4")])
        await call.send("body", body=b"ab", more_body=True)
        peer.half_close()
        await until(lambda: served.connection._half_closed)
        await call.send("body", body=b"cd")
        assert (await peer.response()).body == b"abcd"
        call.end()
