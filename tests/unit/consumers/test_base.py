"""
The life of a consumer: its messages one by one, its groups, and its end in every case.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from asgiref.sync import async_to_sync

from fairway import db, metrics
from fairway.consumers import (
    AsyncConsumer,
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    SyncConsumer,
    WebsocketConsumer,
    handlers,
)
from fairway.exceptions import (
    ClientDisconnected,
    ClientFault,
    ConfigurationError,
    InvalidChannelLayerError,
    StopConsumer,
)
from fairway.layers.base import BaseChannelLayer
from fairway.layers.registry import channel_layers
from tests.unit.consumers.ends import FakeServer, NotingLayer


class Diary:
    """
    What a consumer went through, kept by its class.
    """

    def __init__(self) -> None:
        self.lines: list[Any] = []


class AsyncWriter(AsyncWebsocketConsumer):
    """
    Writes down what happens to it, and does what the peer says.
    """

    def __init__(self, diary: Diary) -> None:
        super().__init__()
        self.lines = diary.lines

    async def connect(self) -> None:
        """
        Accept.
        """
        self.lines.append("connect")
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Do what is asked for.
        """
        self.lines.append(text_data)
        if text_data == "fail":
            raise LookupError("as told")
        if text_data == "blame":
            raise ClientFault("your fault", code=4123)
        if text_data == "stop":
            raise StopConsumer
        if text_data == "close":
            await self.close(4000, "as told")
        elif text_data == "join":
            await self.group_add("room")
        elif text_data == "part":
            await self.group_discard("room")
        elif text_data is not None:
            await self.send(text_data)
        self.lines.append(f"{text_data} done")

    async def room_news(self, event: Any) -> None:
        """
        Tell the peer.
        """
        await self.send(event["text"])

    async def disconnect(self, code: int) -> None:
        """
        Write down how it ended.
        """
        self.lines.append(code)


class SyncWriter(WebsocketConsumer):
    """
    The same, in threads.
    """

    def __init__(self, diary: Diary) -> None:
        super().__init__()
        self.lines = diary.lines

    def connect(self) -> None:
        """
        Accept.
        """
        self.lines.append("connect")
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Do what is asked for.
        """
        self.lines.append(text_data)
        if text_data == "fail":
            raise LookupError("as told")
        if text_data == "blame":
            raise ClientFault("your fault", code=4123)
        if text_data == "stop":
            raise StopConsumer
        if text_data == "close":
            self.close(4000, "as told")
        elif text_data == "join":
            self.group_add("room")
        elif text_data == "part":
            self.group_discard("room")
        elif text_data is not None:
            self.send(text_data)
        self.lines.append(f"{text_data} done")

    def room_news(self, event: Any) -> None:
        """
        Tell the peer.
        """
        self.send(event["text"])

    def disconnect(self, code: int) -> None:
        """
        Write down how it ended.
        """
        self.lines.append(code)


either = pytest.mark.parametrize("writer", [AsyncWriter, SyncWriter])


@pytest.fixture
def diary() -> Diary:
    """
    An empty one.
    """
    return Diary()


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Forget what was counted and reported before.
    """
    monkeypatch.setattr(handlers, "_reported", set())
    monkeypatch.setattr(metrics.drops, "values", {})


@either
async def test_lives_from_handshake_to_disconnect(
    writer: Any, diary: Diary, layer: NotingLayer
) -> None:
    """
    Accepts, handles each message, and is told the code of its end.
    """
    server = FakeServer()
    await server.start(writer.as_asgi(diary=diary))
    await server.text("hello")
    await server.end(1001)
    assert diary.lines == ["connect", "hello", "hello done", 1001]
    assert server.sent == [
        {"type": "websocket.accept", "subprotocol": None},
        {"type": "websocket.send", "text": "hello"},
    ]


async def test_handlers_run_one_at_a_time(layer: NotingLayer) -> None:
    """
    A message waits until the handler of the one before it has ended.
    """
    running, order = 0, []

    class Slow(AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            nonlocal running
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            running -= 1
            order.append(text_data)

        async def room_news(self, event: Any) -> None:
            await self.receive("news")

    server = FakeServer()
    await server.start(Slow.as_asgi())
    for number in range(3):
        server.inbox.push({"type": "websocket.receive", "text": str(number)})
        await layer.send(layer.names[0], {"type": "room.news"})
    await server.rest()
    await server.end()
    assert sorted(order) == ["0", "1", "2", "news", "news", "news"]


async def test_needs_no_task_of_its_own(diary: Diary, layer: NotingLayer) -> None:
    """
    Under Fairway's server a hundred consumers at rest are a hundred tasks, those of the server.
    """
    before = asyncio.all_tasks()
    servers = [FakeServer() for _ in range(100)]
    for server in servers:
        await server.start(AsyncWriter.as_asgi(diary=diary))
    assert len(asyncio.all_tasks() - before) == 100
    for server in servers:
        await server.end()


class TestGroups:
    """
    Groups are joined for this consumer's channel and left without a word.
    """

    @either
    async def test_joined_and_left(self, writer: Any, diary: Diary, layer: NotingLayer) -> None:
        """
        A message of a group comes between group_add and group_discard.
        """
        server = FakeServer()
        await server.start(writer.as_asgi(diary=diary))
        for text in ("join", "part", "join"):
            await layer.group_send("room", {"type": "room.news", "text": f"before {text}"})
            await server.text(text)
        await layer.group_send("room", {"type": "room.news", "text": "last"})
        await server.rest()
        await server.end()
        assert server.texts == ["before part", "last"]

    @either
    @pytest.mark.parametrize("last", ["fail", "stop", "end"])
    async def test_left_at_the_end(
        self, writer: Any, diary: Diary, layer: NotingLayer, last: str
    ) -> None:
        """
        However a consumer ends, no group and no channel of it remains.
        """
        server = FakeServer()
        await server.start(writer.as_asgi(diary=diary))
        await server.text("join")
        assert list(layer.groups) == ["room"]
        if last != "end":
            await server.text(last)
        assert server.task is not None
        if server.task.done():
            assert (server.task.exception() is None) is (last == "stop")
        else:
            await server.end()
        assert layer.all_gone

    async def test_left_before_disconnect_runs(self, layer: NotingLayer) -> None:
        """
        What disconnect() sends to the group does not come back to the one that leaves.
        """
        members = []

        class Leaver(AsyncWebsocketConsumer):
            groups: Sequence[str] | None = ("room",)

            async def disconnect(self, code: int) -> None:
                members.append(dict(layer.groups))
                await self.channel_layer.group_discard("room", self.channel_name)

        server = FakeServer()
        await server.start(Leaver.as_asgi())
        assert list(layer.groups) == ["room"]
        await server.end()
        assert members == [{}]

    @either
    async def test_left_one_by_one_on_layers_of_others(self, writer: Any, diary: Diary) -> None:
        """
        On a layer that does not know who has gone, each group is discarded, even if one fails.
        """

        class Foreign(BaseChannelLayer):
            calls: ClassVar[list[tuple[str, str]]] = []

            async def new_channel(self, prefix: str = "specific") -> str:
                return "foreign!1"

            async def receive(self, channel: str) -> Any:
                await asyncio.Event().wait()

            async def group_add(self, group: str, channel: str) -> None:
                self.calls.append(("add", group))

            async def group_discard(self, group: str, channel: str) -> None:
                self.calls.append(("discard", group))
                raise ConnectionError

        previous = channel_layers.set("default", Foreign())
        try:
            server = FakeServer()
            await server.start(writer.as_asgi(diary=diary))
            await server.text("join")
            await server.end(1000)
        finally:
            channel_layers.set("default", previous)
        assert Foreign.calls == [("add", "room"), ("discard", "room")]
        assert diary.lines[-1] == 1000
        Foreign.calls.clear()

    @pytest.mark.parametrize("consumer", [AsyncWebsocketConsumer, WebsocketConsumer])
    @pytest.mark.parametrize("missing", ["layer", "methods", "support"])
    async def test_refused_without_a_layer_that_has_them(self, consumer: Any, missing: str) -> None:
        """
        Groups on no layer, or on one that lacks them, are a mistake in the settings, said so.
        """

        class NoSupport(BaseChannelLayer):
            async def new_channel(self, prefix: str = "specific") -> str:
                return "foreign!1"

            async def receive(self, channel: str) -> Any:
                await asyncio.Event().wait()

        class NoMethods:
            new_channel = NoSupport.new_channel
            receive = NoSupport.receive

        alias = "nowhere" if missing == "layer" else "default"
        names = {"groups": ["room"], "channel_layer_alias": alias}
        grouped: Any = type("Grouped", (consumer,), names)
        layer = NoSupport() if missing == "support" else NoMethods()
        previous = channel_layers.set("default", layer)
        try:
            server = FakeServer()
            await server.start(grouped.as_asgi())
            with pytest.raises(InvalidChannelLayerError, match="support groups"):
                await server.end()
        finally:
            channel_layers.set("default", previous)


class TestPeerGone:
    """
    A send to a peer that has gone ends the handler, quietly, and disconnect() comes next.
    """

    @either
    async def test_is_absorbed(self, writer: Any, diary: Diary, layer: NotingLayer) -> None:
        """
        The handler does not go on behind its send, nothing is raised, disconnect() runs.
        """
        server = FakeServer()
        await server.start(writer.as_asgi(diary=diary))
        server.gone = True
        await server.text("hello")
        await server.end(1006)
        assert diary.lines == ["connect", "hello", 1006]

    async def test_in_connect(self, diary: Diary, layer: NotingLayer) -> None:
        """
        A peer that left before it was accepted was a peer all the same.
        """
        server = FakeServer()
        server.gone = True
        await server.start(AsyncWriter.as_asgi(diary=diary))
        await server.end(1006)
        assert diary.lines == ["connect", 1006]

    async def test_in_disconnect(self, layer: NotingLayer) -> None:
        """
        Nobody gets what disconnect() sends, and nobody complains of it.
        """

        class Waver(AsyncWebsocketConsumer):
            async def disconnect(self, code: int) -> None:
                await self.send("bye")

        server = FakeServer()
        await server.start(Waver.as_asgi())
        server.gone = True
        await server.end()


class TestExceptions:
    """
    What leaves a handler leaves the consumer, after disconnect() has run.
    """

    @either
    @pytest.mark.parametrize(
        ("text", "error", "code"), [("fail", LookupError, 1011), ("blame", ClientFault, 4123)]
    )
    async def test_disconnect_runs_first(
        self,
        writer: Any,
        diary: Diary,
        layer: NotingLayer,
        text: str,
        error: type[Exception],
        code: int,
    ) -> None:
        """
        The code is the one the server closes with.
        """
        server = FakeServer()
        await server.start(writer.as_asgi(diary=diary))
        await server.text(text)
        with pytest.raises(error):
            await server.end()
        assert diary.lines == ["connect", text, code]

    async def test_one_in_disconnect_too_is_logged(
        self, layer: NotingLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        The first exception is the one that counts; the second has a record of its own.
        """

        class Unlucky(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                raise LookupError

            async def disconnect(self, code: int) -> None:
                raise ZeroDivisionError

        server = FakeServer()
        await server.start(Unlucky.as_asgi())
        with pytest.raises(LookupError):
            await server.end()
        (record,) = caplog.records
        assert record.name == "fairway.consumers"
        assert record.exc_info is not None
        assert record.exc_info[0] is ZeroDivisionError

    async def test_one_in_disconnect_alone_propagates(self, layer: NotingLayer) -> None:
        """
        It does not run a second time for that.
        """
        runs = []

        class Unlucky(AsyncWebsocketConsumer):
            async def disconnect(self, code: int) -> None:
                runs.append(code)
                raise ZeroDivisionError

        server = FakeServer()
        await server.start(Unlucky.as_asgi())
        with pytest.raises(ZeroDivisionError):
            await server.end()
        assert runs == [1000]

    async def test_stop_consumer_ends_without_disconnect(
        self, diary: Diary, layer: NotingLayer
    ) -> None:
        """
        StopConsumer is the end itself, as in Channels.
        """
        server = FakeServer()
        await server.start(AsyncWriter.as_asgi(diary=diary))
        await server.text("stop")
        assert server.task is not None
        await server.task
        assert diary.lines == ["connect", "stop"]


class TestCancellation:
    """
    A server gives up on a handler that does not end; what then runs depends on the server.
    """

    async def start(self, server: FakeServer, ends: list[int]) -> asyncio.Task[None]:
        """
        Start a consumer whose handler never ends.
        """

        class Stuck(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                await asyncio.Event().wait()

            async def disconnect(self, code: int) -> None:
                ends.append(code)

        task = asyncio.ensure_future(Stuck.as_asgi()(server.scope, server.receive, server.send))
        server.inbox.push({"type": "websocket.connect"})
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        return task

    async def test_disconnect_runs_under_fairways_server(self, layer: NotingLayer) -> None:
        """
        It cancels only after the peer has long gone, and disconnect() always runs.
        """
        ends: list[int] = []
        task = await self.start(FakeServer(), ends)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ends == [1006]
        assert layer.all_gone

    async def test_nothing_runs_elsewhere(self, layer: NotingLayer) -> None:
        """
        A test's communicator cancels to be rid of the consumer at once.
        """
        ends: list[int] = []
        task = await self.start(FakeServer(extensions={}), ends)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ends == []


class TestUnknownTypes:
    """
    A mistyped group message ends no socket under Fairway's server.
    """

    @either
    @pytest.mark.parametrize("kind", ["room.nwes", "_private", "group.add", "accept"])
    @pytest.mark.usefixtures("reports")
    async def test_is_counted_and_logged_once(
        self,
        writer: Any,
        diary: Diary,
        layer: NotingLayer,
        kind: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """
        The consumer lives on, and the log says once what was not found.
        """
        server = FakeServer()
        await server.start(writer.as_asgi(diary=diary))
        await server.text("join")
        for _ in range(2):
            await layer.group_send("room", {"type": kind})
        await server.text("hello")
        await server.end()
        assert server.texts == ["hello"]
        assert metrics.drops.values == {"no_handler": 2}
        assert len(caplog.records) == 1

    @pytest.mark.usefixtures("reports")
    async def test_behind_middleware_too(self, diary: Diary, layer: NotingLayer) -> None:
        """
        Whoever wraps receive changes nothing about that.
        """
        server = FakeServer()

        async def receive() -> Any:
            return await server.receive()

        await server.start(AsyncWriter.as_asgi(diary=diary), receive=receive)
        await server.text("join")
        await layer.send(layer.names[0], {"type": "room.nwes"})
        await layer.send(layer.names[0], {"type": "websocket.send", "text": "direct"})
        await server.has_sent("direct")
        await server.end()
        assert metrics.drops.values == {"no_handler": 1}

    async def test_an_exception_elsewhere(self, diary: Diary, layer: NotingLayer) -> None:
        """
        On other servers and under communicators it is a ValueError, as in Channels.
        """
        server = FakeServer(extensions={})
        await server.start(AsyncWriter.as_asgi(diary=diary))
        await server.text("join")
        await layer.group_send("room", {"type": "room.nwes"})
        assert server.task is not None
        with pytest.raises(ValueError, match=r"No handler for message type room\.nwes"):
            await server.task
        assert diary.lines[-1] == 1011

    async def test_an_exception_from_a_handlers_own_dispatch(self, layer: NotingLayer) -> None:
        """
        What a handler dispatches itself is its own mistake everywhere.
        """

        class Own(AsyncWebsocketConsumer):
            async def room_news(self, event: Any) -> None:
                await self.dispatch({"type": "no.such"})

        server = FakeServer()
        await server.start(Own.as_asgi())
        await layer.send(layer.names[0], {"type": "room.news"})
        await server.rest()
        with pytest.raises(ValueError, match=r"no\.such"):
            await server.end()


@either
@pytest.mark.parametrize("queued", ["message", "news"])
async def test_nothing_is_handled_after_an_own_close(
    writer: Any, diary: Diary, layer: NotingLayer, queued: str
) -> None:
    """
    What came in before the peer heard of it has no answer, and would only fail to send one.
    """
    server = FakeServer()
    await server.start(writer.as_asgi(diary=diary))
    server.inbox.push({"type": "websocket.receive", "text": "close"})
    if queued == "news":
        await layer.send(layer.names[0], {"type": "room.news", "text": "late"})
    else:
        server.inbox.push({"type": "websocket.receive", "text": "late"})
    await server.rest()
    await server.end(4000)
    assert diary.lines == ["connect", "close", "close done", 4000]
    assert server.sent[-1] == {"type": "websocket.close", "code": 4000, "reason": "as told"}


async def test_one_instance_may_serve_again(diary: Diary, layer: NotingLayer) -> None:
    """
    Some tests call an instance itself, one scope after another.
    """
    writer = AsyncWriter(diary)
    for _ in range(2):
        server = FakeServer()
        await server.start(writer)
        await server.text("close")
        await server.end()
    assert diary.lines == ["connect", "close", "close done", 1000] * 2


class TestLoginRequired:
    """
    Without a user who is logged in, connect() is never reached.
    """

    async def refuse(self, cls: Any, **scope: Any) -> tuple[list[Any], Any]:
        """
        Connect, and give what was sent and whether connect() ran.
        """
        diary = Diary()
        server = FakeServer(**scope)
        await server.start(cls.as_asgi(diary=diary))
        assert server.task is not None
        if not server.task.done():
            await server.end()
        await server.task
        return server.sent, diary.lines

    @either
    async def test_refuses_strangers(self, writer: Any, layer: NotingLayer) -> None:
        """
        The handshake is refused with code 4401, which is HTTP 403 before it is accepted.
        """
        cls = type("Members", (writer,), {"login_required": True})
        sent, lines = await self.refuse(cls, user=SimpleNamespace(is_authenticated=False))
        assert sent == [{"type": "websocket.close", "code": 4401}]
        assert lines == []
        assert layer.all_gone

    @either
    async def test_admits_members(self, writer: Any, layer: NotingLayer) -> None:
        """
        A user who is logged in gets as far as without it.
        """
        cls = type("Members", (writer,), {"login_required": True})
        sent, lines = await self.refuse(cls, user=SimpleNamespace(is_authenticated=True))
        assert [message["type"] for message in sent] == ["websocket.accept"]
        assert lines == ["connect", 1000]

    async def test_says_what_is_missing(self, layer: NotingLayer) -> None:
        """
        A scope without a user lets nobody in, and names the fix.
        """
        cls = type("Members", (AsyncWriter,), {"login_required": True})
        with pytest.raises(ConfigurationError, match="AuthMiddlewareStack"):
            await self.refuse(cls)

    async def test_concerns_websockets_only(self, layer: NotingLayer) -> None:
        """
        A worker's scope has no user.
        """

        class Worker(AsyncConsumer):
            login_required = True

            async def job_do(self, event: Any) -> None:
                raise StopConsumer

        async def receive() -> Any:
            return {"type": "job.do"}

        await Worker.as_asgi()({"type": "channel", "channel": "jobs"}, receive, None)


@pytest.mark.parametrize(
    ("scope", "kwargs"),
    [({"url_route": {"args": (), "kwargs": {"room": "x"}}}, {"room": "x"}), ({}, {})],
)
async def test_url_kwargs(
    diary: Diary, layer: NotingLayer, scope: dict[str, Any], kwargs: dict[str, str]
) -> None:
    """
    The named parts of the route, or none.
    """
    writer = AsyncWriter(diary)
    server = FakeServer(**scope)
    await server.start(writer)
    assert writer.url_kwargs == kwargs
    writer.url_kwargs = {"mine": "now"}
    assert writer.url_kwargs == {"mine": "now"}
    await server.end()


@pytest.mark.parametrize("base", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
def test_private_names_are_left_to_projects(base: type[AsyncConsumer]) -> None:
    """
    A project's subclass may call its own attributes what it likes, private ones too.
    """
    private = {name for name in dir(base) if name.startswith("_") and not name.startswith("__")}
    prefixes = ("_fairway_", "_AsyncConsumer__")
    assert {name for name in private if not name.startswith(prefixes)} == {"_sync"}


async def test_base_attributes(diary: Diary, layer: NotingLayer) -> None:
    """
    What Channels documents about a running consumer is there, under its names.
    """
    writer = AsyncWriter(diary)
    server = FakeServer()
    await server.start(writer, send=server.send)
    assert writer.scope is server.scope
    assert writer.channel_layer is layer
    assert writer.channel_name == layer.names[0]
    assert writer.channel_layer_alias == "default"
    assert callable(writer.channel_receive)
    await writer.base_send({"type": "websocket.send", "text": "base"})
    assert server.texts == ["base"]
    assert (AsyncWriter._sync, SyncWriter._sync) == (False, True)
    await server.end()


class TestPlainConsumers:
    """
    AsyncConsumer and SyncConsumer themselves: a method per message type and nothing else.
    """

    async def test_async(self, layer: NotingLayer) -> None:
        """
        Handlers are coroutines, send() takes ASGI messages.
        """

        class Plain(AsyncConsumer):
            async def websocket_connect(self, event: Any) -> None:
                await self.send({"type": "websocket.accept"})

            async def websocket_receive(self, event: Any) -> None:
                await self.send({"type": "websocket.send", "text": event["text"]})

        server = FakeServer()
        await server.start(Plain.as_asgi())
        await server.text("hello")
        await layer.send(layer.names[0], {"type": "websocket.send", "text": "direct"})
        # Whether websocket.disconnect has a handler or not: it is the end.
        await server.end()
        assert server.sent == [
            {"type": "websocket.accept"},
            {"type": "websocket.send", "text": "hello"},
        ]
        assert server.outbox.offered == ["direct"]

    async def test_sync(self, layer: NotingLayer) -> None:
        """
        Handlers are functions that run in a thread, and send() waits there.
        """
        threads = set()

        class Plain(SyncConsumer):
            def websocket_connect(self, event: Any) -> None:
                threads.add(threading.get_ident())
                self.send({"type": "websocket.accept"})

            def websocket_send(self, event: Any) -> None:
                self.send({"type": "websocket.send", "text": event["text"].upper()})

        server = FakeServer()
        await server.start(Plain.as_asgi())
        await layer.send(layer.names[0], {"type": "websocket.send", "text": "handled"})
        await server.rest()
        await server.end()
        assert server.sent == [
            {"type": "websocket.accept"},
            {"type": "websocket.send", "text": "HANDLED"},
        ]
        assert threads
        assert threading.get_ident() not in threads

    async def test_a_client_message_without_a_handler(self, layer: NotingLayer) -> None:
        """
        An event of the server that is not handled is a mistake everywhere.
        """
        server = FakeServer()
        await server.start(AsyncConsumer.as_asgi())
        with pytest.raises(ValueError, match=r"No handler for message type websocket\.connect"):
            await server.end()


async def test_sync_handlers_may_use_the_layer(layer: NotingLayer) -> None:
    """
    A handler in its thread sends to its own group and to its socket without a deadlock.
    """

    class Chat(WebsocketConsumer):
        groups: Sequence[str] | None = ("room",)

        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            async_to_sync(self.channel_layer.group_send)(
                "room", {"type": "room.news", "text": text_data}
            )
            self.send("sent")

        def room_news(self, event: Any) -> None:
            self.send(event["text"])

    server = FakeServer()
    await server.start(Chat.as_asgi())
    await server.text("hello")
    await server.rest()
    await server.end()
    assert server.texts == ["sent", "hello"]


@either
async def test_database_connections_are_cleaned_up(
    writer: Any, diary: Diary, layer: NotingLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A sync handler runs between two clean-ups; an async one after one where a look is due.
    """
    cleaned: list[int] = []
    monkeypatch.setattr(db, "close_old_connections", lambda: cleaned.append(threading.get_ident()))
    monkeypatch.setattr(db.watch, "opened", set())
    monkeypatch.setattr(db.watch, "recheck", 0.0)
    server = FakeServer()
    await server.start(writer.as_asgi(diary=diary))
    handshake = len(cleaned)
    db.watch.opened.add(1)
    await server.text("hello")
    await server.text("again")
    message = len(cleaned) - handshake
    await server.end()
    assert (handshake, message) == ((0, 1) if writer is AsyncWriter else (2, 4))
    assert threading.get_ident() not in cleaned


@pytest.mark.parametrize("last", ["end", "fail"])
async def test_what_disconnect_opened_is_cleaned_up(
    diary: Diary, layer: NotingLayer, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """
    No connection of the last handler waits for another consumer to be cleaned up.
    """

    class Saver(AsyncWriter):
        async def disconnect(self, code: int) -> None:
            db.watch.opened.add(1)

    cleaned: list[str] = []
    monkeypatch.setattr(db, "close_old_connections", lambda: cleaned.append("cleaned"))
    monkeypatch.setattr(db.watch, "opened", set())
    server = FakeServer()
    await server.start(Saver.as_asgi(diary=diary))
    if last == "fail":
        await server.text("fail")
        with pytest.raises(LookupError):
            await server.end()
    else:
        await server.end()
    assert cleaned == ["cleaned"]


def test_client_disconnected_is_an_os_error() -> None:
    """
    Code of a project that catches OSError around a send, as ASGI 2.4 says, goes on working.
    """
    assert issubclass(ClientDisconnected, OSError)
