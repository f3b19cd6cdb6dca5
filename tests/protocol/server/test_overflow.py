"""
Readers who stand still or read slowly, under each policy: WebSockets and event streams.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fairway import metrics
from fairway.server.overflow import NOTSENT_LOWAT
from fairway.wire.prepared import Prepared
from fairway.wire.sse import encode_event
from tests.protocol.harness import Call, Peer, Puppet, Serve, Served, WebSocket, request, until
from tests.unit.wire.events import EventReader
from tests.unit.wire.frames import CLOSE

LIMIT = 65536
TINY = 4096  # Of a kernel buffer, so that the kernel is full soon.
BODY = "x" * 4000
OFFERS = 100

both = pytest.mark.parametrize("kind", ["websocket", "stream"])


class Reader:
    """
    A connection of one kind that is open at both ends, and what its client reads.
    """

    def __init__(self, peer: Peer, call: Call) -> None:
        self.peer = peer
        self.call = call
        self.outbox: Any = call.extension["outbox"]

    @classmethod
    async def open(cls, app: Puppet, served: Served, kind: str, **settings: Any) -> Reader:
        """
        Connect with a small buffer, configure, accept.
        """
        if kind == "websocket":
            socket_peer = await served.websocket(receive_buffer=TINY)
            call = await app.call()
            call.extension["configure"](**settings)
            await call.connect()
            assert (await socket_peer.response()).status == 101
            return SocketReader(socket_peer, call)
        peer = await served.connect(receive_buffer=TINY)
        await peer.send(request())
        call = await app.call()
        call.extension["configure"](**settings)
        await call.send("start", status=200, headers=[(b"content-type", b"text/event-stream")])
        await call.send("body", body=b":\n\n", more_body=True)
        await peer.read_until(b"\r\n\r\n")
        return StreamReader(peer, call)

    async def send(self, text: str) -> None:
        """
        Have the application send, and wait as long as that takes.
        """
        raise NotImplementedError

    def messages(self) -> AsyncIterator[str]:
        """
        Read one message after the other.
        """
        raise NotImplementedError


class SocketReader(Reader):
    """
    A WebSocket.
    """

    async def send(self, text: str) -> None:
        """See ``Reader``."""
        await self.call.send("send", text=text)

    async def messages(self) -> AsyncIterator[str]:
        """See ``Reader``."""
        assert isinstance(self.peer, WebSocket)
        while (frame := await self.peer.frame()).opcode != CLOSE:
            yield frame.payload.decode()


class StreamReader(Reader):
    """
    An event stream.
    """

    async def send(self, text: str) -> None:
        """See ``Reader``."""
        await self.call.send("body", body=encode_event(text), more_body=True)

    async def messages(self) -> AsyncIterator[str]:
        """See ``Reader``."""
        reader, known = EventReader(), 0
        while size := int(await self.peer.read_until(b"\r\n"), 16):
            reader.feed(await self.peer.read(size))
            assert await self.peer.read(2) == b"\r\n"
            for event in reader.events[known:]:
                yield event.data
            known = len(reader.events)


@both
@pytest.mark.parametrize("policy", ["drop_oldest", "latest"])
async def test_dropping(app: Puppet, serve: Serve, kind: str, policy: str) -> None:
    """
    A reader who stands still loses old messages, nothing that is awaited, and no order; all
    is counted, nothing grows, and once it reads again it is as before.
    """
    served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
    reader = await Reader.open(app, served, kind, overflow=policy)
    before = metrics.drops.values.get(policy, 0)
    sends = []
    for number in range(OFFERS):
        assert reader.outbox.offer(Prepared(text=f"{number:05d}{BODY}"))
        if number % 25 == 24:
            sends.append(asyncio.create_task(reader.send(f"{number:05d} awaited")))
        await asyncio.sleep(0)
        assert reader.outbox.pending_bytes < LIMIT + 3 * len(BODY)
    dropped = metrics.drops.values[policy] - before
    assert dropped >= OFFERS // 2
    if policy == "latest":
        assert reader.outbox.pending_bytes < 4 * len(BODY) + 16384

    messages = reader.messages()
    got: list[str] = []
    while len(got) < OFFERS - dropped + len(sends):
        got.append(await anext(messages))
    await asyncio.gather(*sends)
    assert [text for text in got if "awaited" in text] == [
        f"{number:05d} awaited" for number in (24, 49, 74, 99)
    ]
    assert sorted(got, key=lambda text: (text[:5], "awaited" in text)) == got
    assert got[-2][:5] == f"{OFFERS - 1:05d}"

    for number in range(3):
        assert reader.outbox.offer(Prepared(text=f"after {number}"))
        assert await anext(messages) == f"after {number}"
    assert metrics.drops.values[policy] == before + dropped
    reader.call.end()


async def test_policies_side_by_side(app: Puppet, serve: Serve) -> None:
    """
    In one process each connection has its own policy, and the server's where it says nothing.
    """
    served = await serve(app, outbox_bytes_max=LIMIT, overflow="latest", send_buffer=TINY)
    closed = await Reader.open(app, served, "websocket", overflow="close")
    oldest = await Reader.open(app, served, "stream", overflow="drop_oldest")
    latest = await Reader.open(app, served, "websocket")
    for number in range(OFFERS):
        prepared = Prepared(text=f"{number:05d}{BODY}")
        for reader in (closed, oldest, latest):
            reader.outbox.offer(prepared)
        await asyncio.sleep(0)
    assert (await closed.call.event())["code"] == 1013
    read = {}
    for reader in (oldest, latest):
        numbers = read[reader] = [-1]
        messages = reader.messages()
        while numbers[-1] < OFFERS - 1:
            numbers.append(int((await anext(messages))[:5]))
        assert numbers == sorted(set(numbers))
    # Of what waits, one keeps as much as it may, the other one message.
    assert len(read[oldest]) > len(read[latest])
    assert read[oldest][-5:] == list(range(OFFERS - 5, OFFERS))
    oldest.call.end()


@both
@pytest.mark.parametrize(("unsent", "latest"), [(131072, 16384), (8192, 8192)])
async def test_unsent(app: Puppet, serve: Serve, kind: str, unsent: int, latest: int) -> None:
    """
    The kernel takes 128 KiB ahead, and 16 KiB where only the latest counts, if that is less.
    """
    served = await serve(app, unsent_bytes_max=unsent)
    found = {}
    for policy in ("close", "drop_oldest", "latest"):
        reader = await Reader.open(app, served, kind, overflow=policy)
        sock = served.connection.transport.get_extra_info("socket")
        assert NOTSENT_LOWAT is not None
        found[policy] = sock.getsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT)
        reader.peer.close()
        reader.call.end()
        await until(lambda: not served.worker.connections)
    assert found == {"close": unsent, "drop_oldest": unsent, "latest": latest}


@both
async def test_half_is_enough(app: Puppet, serve: Serve, kind: str) -> None:
    """
    A sender goes on when half of the limit is free, not only when all is read.
    """
    served = await serve(app, outbox_bytes_max=LIMIT, send_buffer=TINY)
    reader = await Reader.open(app, served, kind)
    sending = asyncio.create_task(reader.send("x" * 200_000))
    await until(lambda: not served.connection.sink.writable)
    assert not sending.done()
    # It is told by eighths of the limit.
    while reader.outbox.pending_bytes > LIMIT // 2 - LIMIT // 8:
        await reader.peer.recv(1024)
        await asyncio.sleep(0)
    await until(sending.done)
    assert reader.outbox.pending_bytes > 0
    reader.call.end()


async def test_reading_slowly_is_life(app: Puppet, serve: Serve) -> None:
    """
    A peer who reads, however slowly, is not taken for silent, though no ping gets through.
    """
    served = await serve(app, outbox_bytes_max=LIMIT, ping_interval=0.05, send_buffer=TINY)
    reader = await Reader.open(app, served, "websocket")
    sending = asyncio.create_task(reader.send("x" * 400_000))
    await until(lambda: not served.connection.sink.writable)
    for _ in range(12):
        await asyncio.sleep(0.025)
        for _ in range(8):
            await reader.peer.recv(1500)
    assert not sending.done()
    assert reader.outbox.state.name == "OPEN"
    reader.peer.close()
    await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("policy", ["drop_oldest", "latest"])
async def test_standing_still(app: Puppet, serve: Serve, policy: str) -> None:
    """
    One who never reads again is found by pings, and what waits for it is counted.
    """
    served = await serve(app, outbox_bytes_max=LIMIT, ping_interval=0.1, send_buffer=TINY)
    reader = await Reader.open(app, served, "websocket", overflow=policy)
    silent = metrics.closes.values.get("silent", 0)
    unread = metrics.drops.values.get("unread", 0)
    while served.connection.sink.writable:
        reader.outbox.offer(Prepared(text=BODY))
        await asyncio.sleep(0)
    assert reader.outbox.offer(Prepared(text=BODY))
    assert (await reader.call.event())["code"] == 1006
    assert metrics.closes.values["silent"] == silent + 1
    assert metrics.drops.values["unread"] > unread


@both
async def test_what_comes_too_late_is_counted(app: Puppet, serve: Serve, kind: str) -> None:
    """
    A consumer that is busy stays in its groups, though its connection has ended.
    """
    served = await serve(app)
    reader = await Reader.open(app, served, kind)
    before = metrics.drops.values.get("closing", 0)
    reader.outbox.close(4000)
    assert not reader.outbox.offer(Prepared(text="a"))
    reader.peer.close()
    await until(lambda: not served.worker.connections)
    assert not reader.outbox.offer(Prepared(text="b"))
    assert metrics.drops.values["closing"] == before + 2
    reader.call.end()


class TestSlowLinks:
    """
    Who takes a few kilobytes now and then is alive, though the kernel holds a hundred for it.

    The transport hears nothing meanwhile: it is told when half of those have left.
    """

    @both
    async def test_somebody_waits_for_it(self, app: Puppet, serve: Serve, kind: str) -> None:
        """
        It is not cut off after ``outbox_stall_timeout``, but is once it stops.
        """
        served = await serve(app, outbox_stall_timeout=0.2)
        reader = await Reader.open(app, served, kind)
        sending = asyncio.create_task(reader.send("x" * 2_000_000))
        await until(lambda: not served.connection.sink.writable)
        await self.trickle(served, reader)
        assert not sending.done()
        await until(sending.done)
        assert served.worker.connections == {}

    @pytest.mark.parametrize("size", [60_000, 2_000_000], ids=["in the kernel", "beyond it"])
    async def test_pings(self, app: Puppet, serve: Serve, size: int) -> None:
        """
        No answer comes from behind all that, yet it is not taken for silent, but is once it stops.
        """
        served = await serve(app, ping_interval=0.1)
        reader = await Reader.open(app, served, "websocket", overflow="drop_oldest")
        reader.outbox.offer(Prepared(text="x" * size))
        await self.trickle(served, reader)
        assert (await reader.call.event())["code"] == 1006

    async def test_a_close_behind_it(self, app: Puppet, serve: Serve) -> None:
        """
        It has its time for that as long as it reads.
        """
        served = await serve(app, close_timeout=0.2, outbox_bytes_max=LIMIT)
        reader = await Reader.open(app, served, "websocket")
        reader.outbox.offer(Prepared(text="x" * 300_000))
        await until(lambda: not served.connection.sink.writable)
        reader.outbox.offer(Prepared(text="one too many"))
        assert (await reader.call.event())["code"] == 1013
        await self.trickle(served, reader)
        assert isinstance(reader.peer, WebSocket)
        assert await reader.peer.close_code() == 1013

    async def trickle(self, served: Served, reader: Reader) -> None:
        """
        Read 40 KB in 0.8 seconds, which is more than any time-out here, and see that it may.
        """
        for _ in range(40):
            reader.peer.buffer += await reader.peer.recv(1000)
            await asyncio.sleep(0.02)
        assert served.connection.exchange is not None
