"""
HTTP consumers under Fairway's own server: the direct path, clients that leave, and drains.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from fairway import metrics
from fairway.broadcasting import abroadcast
from fairway.consumers import (
    AsyncHttpConsumer,
    AsyncWebsocketConsumer,
    EventStreamConsumer,
    LongPollConsumer,
)
from fairway.layers.layer import InMemoryChannelLayer
from fairway.server import connection
from fairway.types import Message
from tests.protocol import harness
from tests.protocol.harness import Peer, Served, request, until
from tests.unit.wire.events import Event, EventReader

Start = Callable[..., Awaitable[Served]]


@pytest.fixture
async def start(layer: InMemoryChannelLayer) -> Any:
    """
    Serve a consumer until the test ends.
    """
    running: list[Served] = []

    async def begin(consumer: Any, **options: Any) -> Served:
        running.append(await harness.serve(consumer.as_asgi(), **options))
        return running[-1]

    yield begin
    for served in running:
        await served.close()


class News(EventStreamConsumer):
    """
    Streams a group.
    """

    groups: Sequence[str] | None = ("news",)
    retry: float | None = None


class Noted(EventStreamConsumer):
    """
    Streams a group, with handlers of its own, and notes its end.
    """

    groups: Sequence[str] | None = ("news",)
    ends: asyncio.Queue[str]

    async def news_item(self, event: Message) -> None:
        """
        Tell the reader.
        """
        await self.send_event(event["text"], event="handled")

    async def disconnect(self) -> None:
        """
        Note it.
        """
        self.ends.put_nowait("disconnect")


class Reader:
    """
    A client of a stream.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.reader = EventReader()

    async def begin(self, *fields: str) -> Reader:
        """
        Send the request and read up to the first bytes of the body.
        """
        await self.peer.send(request("/", *fields))
        head = await self.peer.read_until(b"\r\n\r\n")
        assert b"200 OK" in head
        await self.chunk()
        return self

    async def chunk(self) -> bytes:
        """
        Read one chunk.
        """
        size = int(await self.peer.read_until(b"\r\n"), 16)
        data = await self.peer.read(size + 2)
        self.reader.feed(data[:-2])
        return data[:-2]

    async def events(self, count: int) -> list[Event]:
        """
        Read so many events.
        """
        while len(self.reader.events) < count:
            assert await self.chunk()
        return self.reader.events


async def read(served: Served) -> Reader:
    """
    Open a stream.
    """
    return await Reader(await served.connect()).begin()


async def test_broadcast_encodes_once(start: Start) -> None:
    """A message to a thousand streams is encoded once; none of them has more than its one task."""
    served = await start(News)
    tasks = len(asyncio.all_tasks())
    readers = []
    for _ in range(20):
        readers += await asyncio.gather(*(read(served) for _ in range(50)))
    # One each, the application's: reading, beating and fan-out need none.
    assert len(asyncio.all_tasks()) == tasks + 1000
    before = metrics.prepared.value
    await abroadcast("news", {"n": 1}, event="tick", id="7")
    assert metrics.prepared.value == before + 1
    assert len(asyncio.all_tasks()) == tasks + 1000
    for reader in readers:
        assert await reader.events(1) == [Event('{"n":1}', "tick", "7")]
        reader.peer.close()
    await until(lambda: not served.worker.connections)


async def test_order_with_handlers(start: Start, layer: InMemoryChannelLayer) -> None:
    """Messages that go straight and messages for a handler keep the order of their sender."""
    Noted.ends = asyncio.Queue()
    served = await start(Noted)
    reader = await read(served)
    for number in range(5):
        await layer.group_send("news", {"type": "news.item", "text": f"h{number}"})
        await abroadcast("news", f"d{number}")
    events = await reader.events(10)
    assert [event.data for event in events] == [f"{k}{n}" for n in range(5) for k in "hd"]
    assert [event.event for event in events[:2]] == ["handled", "message"]


async def test_group_takes_parts_of_a_body(start: Start, layer: InMemoryChannelLayer) -> None:
    """An ``http.response.body`` sent to a group goes to its streams as it is, encoded once."""
    served = await start(News)
    reader, other = await read(served), await read(served)
    before = metrics.prepared.value
    part = {"type": "http.response.body", "body": b"id: 5\ndata: own\n\n", "more_body": True}
    await layer.group_send("news", part)
    assert metrics.prepared.value == before + 1
    await abroadcast("news", "behind")
    expected = [Event("own", id="5"), Event("behind", id="5")]
    assert await reader.events(2) == await other.events(2) == expected


async def test_a_socket_takes_no_part_of_a_body(
    start: Start, layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    """A WebSocket in the same group gets nothing of it, which is counted, and stays."""

    class Socket(AsyncWebsocketConsumer):
        groups: Sequence[str] | None = ("news",)

    served = await start(Socket)
    peer = await served.websocket()
    assert (await peer.response()).status == 101
    before = metrics.drops.values.get("no_handler", 0)
    part = {"type": "http.response.body", "body": b"data: x\n\n", "more_body": True}
    await layer.group_send("news", part)
    await abroadcast("news", "text", event="tick")
    assert (await peer.frame()).payload == b"text"
    assert metrics.drops.values["no_handler"] == before + 1


@pytest.mark.parametrize("leave", ["half_close", "close", "reset"])
async def test_client_leaves(start: Start, layer: InMemoryChannelLayer, leave: str) -> None:
    """However a reader leaves, the consumer is told, and is in no group any more."""
    Noted.ends = asyncio.Queue()
    served = await start(Noted)
    reader = await read(served)
    getattr(reader.peer, leave)()
    async with asyncio.timeout(2):
        assert await Noted.ends.get() == "disconnect"
    await until(lambda: not layer.groups and not served.worker.late)


async def test_closed_by_a_group(start: Start, layer: InMemoryChannelLayer) -> None:
    """A group's close ends the streams, and the consumer is told once."""
    Noted.ends = asyncio.Queue()
    served = await start(Noted)
    reader = await read(served)
    await layer.group_send("news", {"type": "websocket.close", "code": 4401})
    assert await reader.chunk() == b""
    assert await Noted.ends.get() == "disconnect"
    await until(lambda: not layer.groups)
    assert Noted.ends.empty()


async def test_an_override_sees_every_message(start: Start) -> None:
    """A class that overrides what sends is served through it, and not around it."""

    class Loud(News):
        async def send_event(self, data: Any, *names: Any) -> None:
            await super().send_event(data.upper(), *names)

    served = await start(Loud)
    reader = await read(served)
    await abroadcast("news", "quiet", id="1")
    assert await reader.events(1) == [Event("QUIET", id="1")]


async def test_heartbeat(start: Start) -> None:
    """The server beats for the consumer."""

    class Lively(News):
        heartbeat = 0.05

    reader = await read(await start(Lively))
    assert [await reader.chunk() for _ in range(2)] == [b":\n\n"] * 2


async def test_restart(start: Start) -> None:
    """A drain ends streams with a hint and polls with 503, and the consumers with them."""
    Noted.ends = asyncio.Queue()
    served = await start(Noted)
    reader = await read(served)
    draining = asyncio.create_task(served.worker.drain(5))
    assert (await reader.chunk()).startswith(b"retry: ")
    assert await reader.chunk() == b""
    assert await Noted.ends.get() == "disconnect"
    reader.peer.close()
    await draining


class OwnEvents(AsyncHttpConsumer):
    """
    Streams events without the class for it, as code written for Channels does.
    """

    ends: asyncio.Queue[str]

    async def handle(self, body: bytes) -> None:
        """
        Stream.
        """
        await self.send_headers(headers=[(b"Content-Type", b"text/event-stream; charset=utf-8")])
        await self.send_body(b"data: 1\n\n", more_body=True)
        await asyncio.Event().wait()

    async def disconnect(self) -> None:
        """
        Note it.
        """
        self.ends.put_nowait("disconnect")


async def test_restart_ends_every_event_stream(start: Start) -> None:
    """A drain ends what says that it is an event stream, whichever class sends it."""
    OwnEvents.ends = asyncio.Queue()
    served = await start(OwnEvents)
    reader = await read(served)
    draining = asyncio.create_task(served.worker.drain(5))
    assert await reader.chunk() == b""
    async with asyncio.timeout(2):
        assert await OwnEvents.ends.get() == "disconnect"
        assert await reader.peer.rest() == b""
        reader.peer.close()
        await draining


class Slow(AsyncHttpConsumer):
    """
    Streams without an end, and notes how that came.
    """

    ends: asyncio.Queue[str]

    async def handle(self, body: bytes) -> None:
        """
        Stream.
        """
        await self.send_headers()
        await self.send_body(b"begun", more_body=True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ends.put_nowait("cancelled")
            raise

    async def disconnect(self) -> None:
        """
        Note it.
        """
        self.ends.put_nowait("disconnect")


@pytest.mark.parametrize("leave", ["half_close", "close", "reset"])
async def test_handle_sees_the_client_leave(start: Start, leave: str) -> None:
    """A handler that streams is cancelled when its client leaves, without having to send."""
    Slow.ends = asyncio.Queue()
    served = await start(Slow)
    peer = await served.connect()
    await peer.send(request())
    await peer.read_until(b"begun")
    getattr(peer, leave)()
    async with asyncio.timeout(2):
        assert [await Slow.ends.get() for _ in range(2)] == ["cancelled", "disconnect"]


class Thinking(Slow):
    """
    Takes its time before it answers.
    """

    async def handle(self, body: bytes) -> None:
        """
        Think.
        """
        self.ends.put_nowait("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ends.put_nowait("cancelled")
            raise


@pytest.mark.parametrize("leave", ["half_close", "close", "reset"])
async def test_handle_sees_the_client_leave_before_it_answers(
    start: Start, leave: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that has not begun to answer is cancelled too, a while after its client closed."""
    monkeypatch.setattr(connection, "HALF_CLOSED_SECONDS", 0.05)
    Slow.ends = asyncio.Queue()
    served = await start(Thinking)
    peer = await served.connect()
    await peer.send(request())
    async with asyncio.timeout(2):
        assert await Slow.ends.get() == "begun"
        getattr(peer, leave)()
        assert [await Slow.ends.get() for _ in range(2)] == ["cancelled", "disconnect"]


class Mirror(AsyncHttpConsumer):
    """
    Answers with what it was sent.
    """

    async def handle(self, body: bytes) -> None:
        """
        Answer.
        """
        await self.send_response(200, body or b"nothing")


async def test_requests_on_one_connection(start: Start) -> None:
    """Bodies of any size are read, and a connection serves one consumer after another."""
    served = await start(Mirror)
    peer = await served.connect()
    for body in (b"a", b"", b"x" * 1_000_000):
        await peer.send(request(method="POST", body=body))
        assert (await peer.response()).body == (body or b"nothing")
    await peer.send(request(method="POST") + request(method="POST"))
    assert [(await peer.response()).status for _ in range(2)] == [200, 200]


async def test_half_close_of_a_short_request(start: Start) -> None:
    """A client that ends its sending with the request gets its answer."""
    served = await start(Mirror)
    peer = await served.connect()
    await peer.send(request())
    peer.half_close()
    assert (await peer.response()).body == b"nothing"


async def test_expect_continue(start: Start) -> None:
    """A client that asks before it sends its body is invited to."""
    served = await start(Mirror)
    peer = await served.connect()
    await peer.send(
        b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    )
    assert (await peer.response()).status == 100
    await peer.send(b"ok")
    assert (await peer.response()).body == b"ok"


async def test_large_body(start: Start, settings: Any) -> None:
    """A body above the limit is refused while it comes."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    served = await start(Mirror)
    peer = await served.connect()
    await peer.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n" + bytes(5000))
    assert (await peer.response()).status == 413
    await until(lambda: not served.worker.late)


async def test_failure_before_the_answer(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that fails is a 500 and one record."""

    class Failing(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            raise LookupError

    served = await start(Failing)
    peer = await served.connect()
    assert (await peer.get()).status == 500
    assert sum(record.exc_info is not None for record in caplog.records) == 1


class Poll(LongPollConsumer):
    """
    Polls a group.
    """

    groups: Sequence[str] | None = ("news",)


async def test_long_poll(start: Start, layer: InMemoryChannelLayer) -> None:
    """A poll is answered by the group's next message, and the connection takes the next poll."""
    served = await start(Poll)
    peer = await served.connect()
    for number in range(2):
        await peer.send(request(f"/?cursor={number}"))
        await until(lambda: layer.groups)
        await abroadcast("news", "hi", id=str(number + 1))
        content = json.loads((await peer.response()).body)
        assert content == {"cursor": str(number + 1), "messages": ["hi"]}
        await until(lambda: not layer.groups)


@pytest.mark.parametrize("leave", ["half_close", "close", "reset"])
async def test_poller_leaves(start: Start, layer: InMemoryChannelLayer, leave: str) -> None:
    """Nothing waits for a client that has gone."""
    served = await start(Poll)
    peer = await served.connect()
    await peer.send(request())
    await until(lambda: layer.groups)
    await asyncio.sleep(0.01)
    getattr(peer, leave)()
    await until(lambda: not layer.groups and not served.worker.late)


async def test_poll_at_a_restart(start: Start, layer: InMemoryChannelLayer) -> None:
    """A poll is told to come back."""
    served = await start(Poll)
    peer = await served.connect()
    await peer.send(request())
    await until(lambda: layer.groups)
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(served.worker.drain(5))
    assert (await peer.response()).status == 503
    peer.close()
    await draining
