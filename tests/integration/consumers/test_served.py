"""
Consumers under Fairway's own server, with a client of another implementation at the other end.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fairway import metrics
from fairway.consumers import (
    AsyncConsumer,
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    SyncConsumer,
    WebsocketConsumer,
    handlers,
)
from fairway.layers.codec import Kind
from fairway.layers.layer import InMemoryChannelLayer
from tests.integration.consumers.conftest import Open

Ends = list[int]


class AsyncEcho(AsyncWebsocketConsumer):
    """
    Sends back what it gets, from a coroutine.
    """

    groups: Sequence[str] | None = ("room",)
    ends: Ends

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send it back, or do what it says.
        """
        if text_data == "fail":
            raise LookupError
        if text_data == "close":
            await self.close(4321, "as told")
        else:
            await self.send(text_data, bytes_data)

    async def room_news(self, event: Any) -> None:
        """
        Tell the peer.
        """
        await self.send(event["text"])

    async def disconnect(self, code: int) -> None:
        """
        Keep the code.
        """
        self.ends.append(code)


class SyncEcho(WebsocketConsumer):
    """
    Sends back what it gets, from a thread.
    """

    groups: Sequence[str] | None = ("room",)
    ends: Ends

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send it back, or do what it says.
        """
        if text_data == "fail":
            raise LookupError
        if text_data == "close":
            self.close(4321, "as told")
        else:
            self.send(text_data, bytes_data)

    def room_news(self, event: Any) -> None:
        """
        Tell the peer.
        """
        self.send(event["text"])

    def disconnect(self, code: int) -> None:
        """
        Keep the code.
        """
        self.ends.append(code)


either = pytest.mark.parametrize("echo", [AsyncEcho, SyncEcho])


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """
    The codes that disconnect() is called with.
    """
    ends: Ends = []
    for echo in (AsyncEcho, SyncEcho):
        monkeypatch.setattr(echo, "ends", ends, raising=False)
    return ends


async def ended(ends: Ends) -> None:
    """
    Wait until a disconnect() has run.
    """
    async with asyncio.timeout(5):
        while not ends:  # noqa: ASYNC110 - filled by another thread
            await asyncio.sleep(0.001)


@either
@pytest.mark.parametrize(
    "message", ["a", "x" * 65_536, "y" * 1_048_576, "grüße 🐎", b"\x00", b"\xff" * 65_536]
)
async def test_echoes(echo: Any, message: str | bytes, open_socket: Open, ends: Ends) -> None:
    """
    Text and bytes of any size come back as they were.
    """
    client = await open_socket(echo)
    await client.send(message)
    assert await client.recv() == message
    await client.close(4001)
    await ended(ends)
    assert ends == [4001]


@either
async def test_keeps_the_order_of_a_burst(echo: Any, open_socket: Open, ends: Ends) -> None:
    """
    Many messages at once are handled one after the other.
    """
    client = await open_socket(echo)
    numbers = [str(number) for number in range(200)]
    for number in numbers:
        await client.send(number)
    assert [await client.recv() for _ in numbers] == numbers


@either
async def test_closes_with_code_and_reason(echo: Any, open_socket: Open, ends: Ends) -> None:
    """
    Both reach the peer, and disconnect() gets the code the consumer chose.
    """
    client = await open_socket(echo)
    await client.send("close")
    for _ in range(20):
        await client.send("too late to be answered")
    with pytest.raises(ConnectionClosed):
        await client.recv()
    assert (client.close_code, client.close_reason) == (4321, "as told")
    await ended(ends)
    assert ends == [4321]


@either
async def test_a_peer_that_vanishes(
    echo: Any, layer: InMemoryChannelLayer, open_socket: Open, ends: Ends
) -> None:
    """
    Without a close frame the code is 1006; the groups are left, nothing is logged.
    """
    client = await open_socket(echo)
    client.transport.abort()
    await ended(ends)
    assert ends == [1006]
    assert layer.groups == {}


class TestFaults:
    """
    What goes wrong is answered exactly and logged once.
    """

    @either
    async def test_an_exception_closes_with_1011(
        self, echo: Any, open_socket: Open, ends: Ends, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        One record with a traceback, and disconnect() runs.
        """
        client = await open_socket(echo)
        await client.send("fail")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1011
        assert ends == [1011]
        (record,) = caplog.records
        assert record.exc_info is not None
        assert record.exc_info[0] is LookupError

    async def test_an_exception_in_connect_answers_500(
        self, open_socket: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Before the handshake is accepted there is only HTTP.
        """

        class Broken(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                raise LookupError

        with pytest.raises(InvalidStatus) as caught:
            await open_socket(Broken)
        assert caught.value.response.status_code == 500
        assert [record.exc_info is not None for record in caplog.records] == [True]

    @pytest.mark.parametrize("base", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
    @pytest.mark.parametrize(
        ("message", "code"), [("{", 1007), ("[" * 100_000, 1007), (b"{}", 4400), ("", 4400)]
    )
    async def test_a_fault_of_the_peer_is_its_own(
        self,
        base: Any,
        message: str | bytes,
        code: int,
        open_socket: Open,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """
        The code says what was wrong, one line is logged, and no traceback.
        """
        client = await open_socket(base)
        await client.send(message)
        with caplog.at_level(logging.INFO), pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == code
        assert client.close_reason
        (record,) = caplog.records
        assert record.exc_info is None

    @pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
    async def test_a_refusal_answers_403(self, base: Any, open_socket: Open) -> None:
        """
        login_required refuses a stranger before connect() is asked.
        """
        members = type("Members", (base,), {"login_required": True, "connect": None})
        stranger = SimpleNamespace(is_authenticated=False)
        with pytest.raises(InvalidStatus) as caught:
            await open_socket(members, {"user": stranger})
        assert caught.value.response.status_code == 403

    async def test_an_unknown_type_ends_no_socket(
        self,
        layer: InMemoryChannelLayer,
        open_socket: Open,
        ends: Ends,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """
        Counted for each member, logged once for the class, and everybody lives on.
        """
        monkeypatch.setattr(handlers, "_reported", set())
        monkeypatch.setattr(metrics.drops, "values", {})
        clients = [await open_socket(AsyncEcho) for _ in range(3)]
        await layer.group_send("room", {"type": "room.nwes", "text": "mistyped"})
        await layer.group_send("room", {"type": "room.news", "text": "well typed"})
        assert [await client.recv() for client in clients] == ["well typed"] * 3
        assert metrics.drops.values == {"no_handler": 3}
        assert len(caplog.records) == 1


class TestGroups:
    """
    Messages of the channel layer, direct and by handlers.
    """

    @either
    async def test_direct_messages_keep_their_place(
        self, echo: Any, layer: InMemoryChannelLayer, open_socket: Open, ends: Ends
    ) -> None:
        """
        What one sender sends arrives in its order, whether a handler is involved or not.
        """
        client = await open_socket(echo)
        expected = []
        for number in range(50):
            await layer.group_send("room", {"type": "websocket.send", "text": f"direct {number}"})
            await layer.group_send("room", {"type": "room.news", "text": f"handled {number}"})
            expected += [f"direct {number}", f"handled {number}"]
            if not number % 10:
                await asyncio.sleep(0)
        assert [await client.recv() for _ in expected] == expected

    async def test_direct_messages_run_no_python_per_socket(
        self, layer: InMemoryChannelLayer, open_socket: Open, ends: Ends
    ) -> None:
        """
        A message for twenty sockets is encoded once and wakes no consumer.
        """
        clients = [await open_socket(AsyncEcho) for _ in range(20)]
        before, tasks = metrics.prepared.value, len(asyncio.all_tasks())
        await layer.broadcast("room", b"[1]", kind=Kind.JSON)
        assert len(asyncio.all_tasks()) == tasks
        assert {await client.recv() for client in clients} == {"[1]"}
        assert metrics.prepared.value == before + 1

    @pytest.mark.parametrize("base", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
    async def test_a_class_encodes_its_own_way(
        self, base: Any, layer: InMemoryChannelLayer, open_socket: Open
    ) -> None:
        """
        A value for all is encoded by encode_json where a class has one of its own.
        """

        def encode(cls: Any, content: Any) -> str:
            return json.dumps(content).upper()

        async def encode_async(cls: Any, content: Any) -> str:
            return encode(cls, content)

        method = encode if base._sync else encode_async
        shouting = type("Shouting", (base,), {"encode_json": classmethod(method)})
        shouting.groups = ["room"]  # type: ignore[attr-defined] # made by type()
        client = await open_socket(shouting)
        await layer.broadcast("room", b'["a"]', kind=Kind.JSON)
        assert await client.recv() == '["A"]'

    @either
    async def test_a_close_for_all(
        self, echo: Any, layer: InMemoryChannelLayer, open_socket: Open, ends: Ends
    ) -> None:
        """
        websocket.close of a group ends its sockets with that code.
        """
        clients = [await open_socket(echo) for _ in range(3)]
        await layer.group_send("room", {"type": "websocket.close", "code": 4010})
        for client in clients:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 4010
        while len(ends) < 3:  # noqa: ASYNC110 - filled by another thread
            await asyncio.sleep(0.001)
        assert ends == [4010] * 3


async def test_many_sync_consumers_at_once(open_socket: Open, ends: Ends) -> None:
    """
    Handlers in threads that send, and a group message for all of them, come to an end.
    """
    clients = [await open_socket(SyncEcho) for _ in range(20)]
    for client in clients:
        await client.send("hello")
    assert {await client.recv() for client in clients} == {"hello"}


class TestPlain:
    """
    AsyncConsumer and SyncConsumer on a WebSocket, without methods for its end.
    """

    async def test_end_quietly(
        self,
        serve: Callable[..., Awaitable[str]],
        caplog: pytest.LogCaptureFixture,
        layer: InMemoryChannelLayer,
    ) -> None:
        """
        A peer that leaves is no error, though nobody handles websocket.disconnect.
        """
        handled = asyncio.Event()

        class PlainAsync(AsyncConsumer):
            async def websocket_connect(self, event: Any) -> None:
                await self.send({"type": "websocket.accept"})
                handled.set()

        class PlainSync(SyncConsumer):
            def websocket_connect(self, event: Any) -> None:
                self.send({"type": "websocket.accept"})

        for consumer in (PlainAsync, PlainSync):
            async with connect(await serve(consumer.as_asgi()), proxy=None) as client:
                await client.close(1000)
        assert handled.is_set()
        assert caplog.records == []
