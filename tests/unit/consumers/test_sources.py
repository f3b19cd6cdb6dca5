"""
Where events come from: in turn, one at a time, and none lost or taken too early.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from fairway.consumers import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from fairway.consumers.sources import (
    ServerSource,
    TaskSource,
    await_many_dispatch,
    open_source,
)
from fairway.layers.codec import JSON_MARK, Envelope, Kind
from fairway.layers.values import encode
from tests.unit.consumers.ends import FakeServer


class Layer:
    """
    A channel layer that only notes who is attached.
    """

    def __init__(self) -> None:
        self.attached: dict[str, Any] = {}

    def attach(self, channel: str, **ends: Any) -> None:
        """
        Note the ends of a channel.
        """
        self.attached[channel] = ends

    async def receive(self, channel: str) -> Any:
        """
        Have no message, ever.
        """
        await asyncio.Event().wait()


def consumer_of(cls: type[Any], server: FakeServer, layer: Any) -> Any:
    """
    Make a consumer as it is when its source is opened.
    """
    consumer = cls()
    consumer.scope, consumer.channel_layer, consumer.channel_name = server.scope, layer, "mine"
    return consumer


def envelope(kind: Kind, payload: bytes) -> Envelope:
    """
    Make an envelope that does not expire soon.
    """
    return Envelope(kind, payload, expires=monotonic() + 60)


class TestWhichSource:
    """
    The server's inbox is used only where nothing between it and the consumer would be missed.
    """

    async def test_the_inbox_under_fairways_server(self) -> None:
        """
        The channel is attached with inbox and outbox, and no task is made.
        """
        server, layer = FakeServer(), Layer()
        consumer = consumer_of(AsyncWebsocketConsumer, server, layer)
        source = open_source(consumer, server.receive, server.send)
        assert isinstance(source, ServerSource)
        assert (source.attached, source.tolerant) == (True, True)
        assert layer.attached == {"mine": {"inbox": server.inbox, "outbox": server.outbox}}
        assert len(asyncio.all_tasks()) == 1

    async def test_the_inbox_without_a_channel_layer(self) -> None:
        """
        A consumer without a channel layer needs no second wait either.
        """
        server = FakeServer()
        consumer = consumer_of(AsyncWebsocketConsumer, server, None)
        assert isinstance(open_source(consumer, server.receive, server.send), ServerSource)

    async def test_tasks_behind_middleware_that_wraps_receive(self) -> None:
        """
        A wrapper of receive sees every event, so the consumer has to call it.
        """
        server, layer = FakeServer(), Layer()

        async def receive() -> Any:
            return await server.receive()

        consumer = consumer_of(AsyncWebsocketConsumer, server, layer)
        source = open_source(consumer, receive, server.send)
        assert isinstance(source, TaskSource)
        assert (source.attached, source.tolerant) == (False, True)
        assert layer.attached == {}

    async def test_tasks_on_other_servers(self) -> None:
        """
        Without the extension there is only receive, and the channel layer beside it.
        """
        server = FakeServer(extensions={"websocket.http.response": {}})
        consumer = consumer_of(AsyncWebsocketConsumer, server, Layer())
        source = open_source(consumer, server.receive, server.send)
        assert isinstance(source, TaskSource)
        assert (source.attached, source.tolerant) == (False, False)

    async def test_tasks_for_a_channel_layer_of_others(self) -> None:
        """
        A layer that knows no inboxes has to be asked for its messages.
        """

        class Foreign:
            receive = Layer.receive

        server = FakeServer()
        consumer = consumer_of(AsyncWebsocketConsumer, server, Foreign())
        assert isinstance(open_source(consumer, server.receive, server.send), TaskSource)

    async def test_not_direct_behind_middleware_that_wraps_send(self) -> None:
        """
        A wrapper of send that does not call itself transparent sees every message.
        """
        server, layer = FakeServer(), Layer()

        async def send(message: Any) -> None:
            await server.send(message)

        open_source(consumer_of(AsyncWebsocketConsumer, server, layer), server.receive, send)
        assert layer.attached["mine"]["outbox"] is None

    @pytest.mark.parametrize(
        "name", ["send", "send_json", "encode_json", "websocket_send", "websocket_close"]
    )
    async def test_not_direct_for_a_class_that_would_miss_it(self, name: str) -> None:
        """
        A class that has its own way of sending gets every message to send.
        """
        cls = type("Consumer", (AsyncJsonWebsocketConsumer,), {name: print})
        server, layer = FakeServer(), Layer()
        open_source(consumer_of(cls, server, layer), server.receive, server.send)
        assert layer.attached["mine"]["outbox"] is None


class TestUnpacking:
    """
    What an item of the channel layer means to a consumer.
    """

    async def test_a_handlers_message_is_decoded_each_time(self) -> None:
        """
        Nobody else sees what a handler does to its message.
        """
        source = ServerSource(FakeServer().inbox.next_event, None)
        item = envelope(Kind.HANDLER, encode({"type": "chat", "list": []}))
        first, second = source.unpack(item), source.unpack(item)
        assert first == second == {"type": "chat", "list": []}
        assert first is not second

    @pytest.mark.parametrize(
        ("kind", "payload", "offered"),
        [
            (Kind.TEXT, b"hi", "hi"),
            (Kind.JSON, b"[1]", "[1]"),
            (Kind.BINARY, b"\x00", b"\x00"),
        ],
    )
    async def test_a_message_to_the_socket_goes_there(
        self, kind: Kind, payload: bytes, offered: str | bytes
    ) -> None:
        """
        What only kept its place in the queue is offered as it is.
        """
        server = FakeServer()
        source = ServerSource(server.inbox.next_event, server.outbox)
        assert source.unpack(envelope(kind, payload)) is None
        assert server.outbox.offered == [offered]

    @pytest.mark.parametrize(
        ("kind", "payload", "message"),
        [
            (Kind.TEXT, b"hi", {"type": "websocket.send", "text": "hi"}),
            (Kind.JSON, b"[1]", {"type": "websocket.send", "text": "[1]", JSON_MARK: True}),
            (Kind.BINARY, b"\x00", {"type": "websocket.send", "bytes": b"\x00"}),
        ],
    )
    @pytest.mark.parametrize("elsewhere", [False, True])
    async def test_or_to_the_consumer_that_is_not_direct(
        self, kind: Kind, payload: bytes, message: dict[str, Any], elsewhere: bool
    ) -> None:
        """
        Without an outbox it is the ASGI message that would say the same, here and elsewhere.
        """
        item: Any = envelope(kind, payload)
        if elsewhere:
            source: Any = TaskSource(_never, lambda: _at_once(item), tolerant=False)
            item = await source.next_event()
            source.stop()
        else:
            source = ServerSource(FakeServer().inbox.next_event, None)
        assert source.unpack(item) == message

    async def test_a_close_goes_through_the_consumer(self) -> None:
        """
        The exchange has to know of a close, so it never goes around it from here.
        """
        server = FakeServer()
        source = ServerSource(server.inbox.next_event, server.outbox)
        close = {"type": "websocket.close", "code": 4000}
        assert source.unpack(envelope(Kind.CLOSE, encode(close))) == close
        assert server.outbox.closed == []


async def _never() -> Any:
    """
    Wait without an end.
    """
    await asyncio.Event().wait()


async def _at_once(value: Any) -> Any:
    """
    Have something to give already.
    """
    return value


class TestAwaitManyDispatch:
    """
    The helper that subclasses of consumers call, as Channels named it.
    """

    async def test_dispatches_one_at_a_time(self) -> None:
        """
        While one result is handled no other is, and all of them are in the end.
        """
        queues: list[asyncio.Queue[int]] = [asyncio.Queue(), asyncio.Queue()]
        for number in range(4):
            queues[number % 2].put_nowait(number)
        busy, handled = 0, []

        async def dispatch(number: int) -> None:
            nonlocal busy
            busy += 1
            assert busy == 1
            await asyncio.sleep(0)
            busy -= 1
            handled.append(number)
            if len(handled) == 4:
                raise LookupError

        with pytest.raises(LookupError):
            await await_many_dispatch([queue.get for queue in queues], dispatch)
        assert sorted(handled) == [0, 1, 2, 3]

    async def test_nobody_starves(self) -> None:
        """
        A callable that always has something to give does not keep others from their turn.
        """
        handled = ""

        async def dispatch(name: str) -> None:
            nonlocal handled
            handled += name
            if len(handled) == 8:
                raise LookupError

        with pytest.raises(LookupError):
            await await_many_dispatch([lambda: _at_once("a"), lambda: _at_once("b")], dispatch)
        assert handled.count("a") == handled.count("b") == 4

    async def test_takes_nothing_too_early(self) -> None:
        """
        What is asked for again only after its last result was handled.
        """
        asked, handled = 0, 0

        async def ask() -> int:
            nonlocal asked
            asked += 1
            return asked

        async def dispatch(number: int) -> None:
            nonlocal handled
            assert asked == number
            handled = number
            await asyncio.sleep(0)
            assert asked == number
            if number == 3:
                raise LookupError

        with pytest.raises(LookupError):
            await await_many_dispatch([ask], dispatch)
        assert handled == 3

    async def test_raises_what_a_callable_raises(self) -> None:
        """
        An exception of any of them ends it, and the others are cancelled.
        """
        cancelled = asyncio.Event()

        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async def fail() -> None:
            await asyncio.sleep(0)
            raise LookupError

        with pytest.raises(LookupError):
            await await_many_dispatch([wait, fail], _at_once)
        await asyncio.wait_for(cancelled.wait(), 1)

    async def test_can_be_cancelled(self) -> None:
        """
        Cancelled from outside, it leaves no task behind, and no exception unheard.
        """

        async def stubborn() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise LookupError from None

        task = asyncio.ensure_future(await_many_dispatch([stubborn, _never], _at_once))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_events_of_other_servers_become_dicts() -> None:
    """
    A server may have mappings of its own for events.
    """

    class Event(dict[str, str]):
        pass

    given = [{"type": "plain"}, Event(type="dict"), _Mapping({"type": "mapping"})]
    source = TaskSource(lambda: _at_once(given.pop(0)), None, tolerant=False)
    assert [await source.next_event() for _ in range(3)] == [
        {"type": "plain"},
        {"type": "dict"},
        {"type": "mapping"},
    ]
    source.stop()
    source.stop()


class _Mapping:
    """
    The least that dict() takes for a mapping.
    """

    def __init__(self, content: dict[str, str]) -> None:
        self._content = content

    def keys(self) -> Any:
        """
        See dict.
        """
        return self._content.keys()

    def __getitem__(self, key: str) -> str:
        return self._content[key]
