"""
Consumers of requests under communicators, as Channels' own tests drive them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

from fairway import metrics
from fairway.broadcasting import abroadcast
from fairway.consumers import AsyncHttpConsumer, EventStreamConsumer, LongPollConsumer
from fairway.exceptions import LocalProtocolError
from fairway.layers import get_channel_layer
from fairway.testing import HttpCommunicator
from fairway.types import Message
from tests.unit.consumers.ends import NotingLayer
from tests.unit.wire.events import Event, EventReader


async def open_stream(application: Any, path: str = "/", **fields: Any) -> HttpCommunicator:
    """
    Send a request whose answer goes on.
    """
    communicator = HttpCommunicator(application, "GET", path, **fields)
    await communicator.send_input({"type": "http.request", "body": b""})
    return communicator


async def body_of(communicator: HttpCommunicator) -> bytes:
    """
    Give the next part of the answer's body.
    """
    message = await communicator.receive_output()
    assert message["type"] == "http.response.body"
    body: bytes = message["body"]
    return body


class Noting(AsyncHttpConsumer):
    """
    Notes how it ended.
    """

    ends: list[str]

    async def disconnect(self) -> None:
        """
        Note it.
        """
        self.ends.append("disconnect")


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """
    What the consumers of a test noted at their ends.
    """
    monkeypatch.setattr(Noting, "ends", [], raising=False)
    return Noting.ends


class TestHandle:
    """
    One request and its answer.
    """

    async def test_leaves_no_cycle(self, layer: NotingLayer) -> None:
        """What a request held is gone with it, without the garbage collector."""
        made: list[weakref.ref[AsyncHttpConsumer]] = []

        class Consumer(AsyncHttpConsumer):
            async def handle(self, body: bytes) -> None:
                made.append(weakref.ref(self))
                await self.send_response(200, body)

        gc.disable()
        try:
            communicator = HttpCommunicator(Consumer.as_asgi(), "GET", "/")
            await communicator.get_response()
            await communicator.wait()
            assert made[0]() is None
        finally:
            gc.enable()

    async def test_response(self, layer: NotingLayer, ends: list[str]) -> None:
        """The whole body comes in one piece, and headers may be a mapping."""

        class Consumer(Noting):
            async def handle(self, body: bytes) -> None:
                assert self.scope["path"] == "/test/"
                headers = {b"content-type": b"application/json"}
                await self.send_response(201, body[::-1], headers=headers)

        communicator = HttpCommunicator(Consumer.as_asgi(), "POST", "/test/")
        await communicator.send_input({"type": "http.request", "body": b"ab", "more_body": True})
        await communicator.send_input({"type": "http.request", "body": b"cd"})
        communicator.sent_request = True
        response = await communicator.get_response()
        assert response == {
            "status": 201,
            "headers": [(b"content-type", b"application/json")],
            "body": b"dcba",
        }
        await communicator.wait()
        assert ends == ["disconnect"]
        assert layer.all_gone

    @pytest.mark.parametrize("headers", [{"X-Word": "é"}, [("X-Word", b"\xe9")]])
    async def test_headers_may_be_text(self, layer: NotingLayer, headers: Any) -> None:
        """ASGI wants bytes, and people write text."""

        class Consumer(AsyncHttpConsumer):
            async def handle(self, body: bytes) -> None:
                await self.send_response(200, b"", headers=headers)

        response = await HttpCommunicator(Consumer.as_asgi(), "GET", "/").get_response()
        assert response["headers"] == [(b"X-Word", b"\xe9")]

    async def test_error(self, layer: NotingLayer, ends: list[str]) -> None:
        """What handle() raises leaves the consumer, after disconnect()."""

        class Consumer(Noting):
            async def handle(self, body: bytes) -> None:
                raise LookupError("as told")

        with pytest.raises(LookupError, match="as told"):
            await HttpCommunicator(Consumer.as_asgi(), "GET", "/").get_response(0.05)
        assert ends == ["disconnect"]
        assert layer.all_gone

    async def test_without_handle(self, layer: NotingLayer) -> None:
        """A class without a handle() says so."""
        with pytest.raises(NotImplementedError, match="must provide a handle"):
            await HttpCommunicator(AsyncHttpConsumer.as_asgi(), "GET", "/").get_response(0.05)

    async def test_body_must_be_bytes(self, layer: NotingLayer) -> None:
        """Text as a body is refused in Channels' words."""

        class Consumer(AsyncHttpConsumer):
            async def handle(self, body: bytes) -> None:
                await self.send_response(200, "text")  # type: ignore[arg-type] # the point

        with pytest.raises(AssertionError, match="Body is not bytes"):
            await HttpCommunicator(Consumer.as_asgi(), "GET", "/").get_response(0.05)

    async def test_sees_the_client_leave(self, layer: NotingLayer, ends: list[str]) -> None:
        """A client that leaves cancels handle(), which may clean up; then disconnect() runs."""

        class Consumer(Noting):
            async def handle(self, body: bytes) -> None:
                await self.send_headers()
                await self.send_body(b"", more_body=True)
                try:
                    await asyncio.Event().wait()
                finally:
                    self.ends.append("cleaned")

        communicator = await open_stream(Consumer.as_asgi())
        await communicator.receive_output()
        await communicator.receive_output()
        await communicator.send_input({"type": "http.disconnect"})
        await communicator.wait()
        assert ends == ["cleaned", "disconnect"]
        assert layer.all_gone

    async def test_work_after_the_answer(self, layer: NotingLayer, ends: list[str]) -> None:
        """Once the answer is complete, the client's leaving cancels nothing."""
        go_on = asyncio.Event()

        class Consumer(Noting):
            async def handle(self, body: bytes) -> None:
                await self.send_response(200, b"")
                await go_on.wait()
                self.ends.append("done")

        communicator = HttpCommunicator(Consumer.as_asgi(), "GET", "/")
        await communicator.get_response()
        await communicator.send_input({"type": "http.disconnect"})
        await asyncio.sleep(0)
        go_on.set()
        await communicator.wait()
        assert ends == ["done", "disconnect"]

    async def test_cancelled_from_outside(self, layer: NotingLayer) -> None:
        """A server that cancels the consumer cancels its handle()."""
        cancelled = asyncio.Event()

        class Consumer(AsyncHttpConsumer):
            async def handle(self, body: bytes) -> None:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.set()
                    raise

        communicator = await open_stream(Consumer.as_asgi())
        await asyncio.sleep(0.01)
        communicator.stop()
        await asyncio.wait_for(cancelled.wait(), 1)

    async def test_groups_meanwhile(self, layer: NotingLayer) -> None:
        """Handlers of group messages run while handle() does, in order, and may end it."""

        class Consumer(AsyncHttpConsumer):
            groups: Sequence[str] | None = ("room",)

            async def handle(self, body: bytes) -> None:
                self.over = asyncio.Event()
                await self.send_headers()
                await self.send_body(b"first", more_body=True)
                await self.over.wait()
                await self.send_body(b"last")

            async def room_news(self, event: Message) -> None:
                if event["text"]:
                    await self.send_body(event["text"].encode(), more_body=True)
                else:
                    self.over.set()

        communicator = await open_stream(Consumer.as_asgi())
        await communicator.receive_output()
        assert await body_of(communicator) == b"first"
        for text in ("a", "b", ""):
            await layer.group_send("room", {"type": "room.news", "text": text})
        assert [await body_of(communicator) for _ in range(3)] == [b"a", b"b", b"last"]
        await communicator.wait()
        assert layer.all_gone

    async def test_open_after_handle(self, layer: NotingLayer) -> None:
        """A response that handle() has begun may be completed by a handler of messages."""

        class Consumer(AsyncHttpConsumer):
            async def handle(self, body: bytes) -> None:
                await self.group_add("chat")
                await self.send_headers(headers=[(b"Content-Type", b"application/json")])
                await self.send_body(b"", more_body=True)

            async def chat_message(self, event: Message) -> None:
                await self.send_body(json.dumps(event).encode())

        communicator = await open_stream(Consumer.as_asgi())
        await communicator.receive_output()
        assert await body_of(communicator) == b""
        await layer.group_send("chat", {"type": "chat.message", "text": "hello"})
        assert json.loads(await body_of(communicator))["text"] == "hello"
        await communicator.wait()

    async def test_large_body(
        self, layer: NotingLayer, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A body above the limit is answered with 413, counted, and never handled."""
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 3
        before = metrics.refusals.values.get("413", 0)

        class Consumer(AsyncHttpConsumer):
            async def handle(self, body: bytes) -> None:
                await self.send_response(200, body)

        class Larger(Consumer):
            body_bytes_max: int | None = 4

        for consumer, status in ((Consumer, 413), (Larger, 200)):
            communicator = HttpCommunicator(consumer.as_asgi(), "POST", "/", b"four")
            assert (await communicator.get_response())["status"] == status
            await communicator.wait()
        assert metrics.refusals.values["413"] == before + 1
        assert "body_bytes_max" in caplog.text

    async def test_login_required(self, layer: NotingLayer) -> None:
        """Without a user who is logged in, the answer is 401."""

        class Consumer(AsyncHttpConsumer):
            login_required = True

        class Nobody:
            is_authenticated = False

        communicator = HttpCommunicator(Consumer.as_asgi(), "GET", "/")
        communicator.scope["user"] = Nobody()
        response = await communicator.get_response()
        assert response["status"] == 401
        assert (b"www-authenticate", b"Cookie") in response["headers"]


class TestEventStream:
    """
    Server-sent events.
    """

    async def test_accept(self, layer: NotingLayer) -> None:
        """A stream begins at once, with the fields that keep proxies from holding it back."""
        communicator = await open_stream(EventStreamConsumer.as_asgi())
        start = await communicator.receive_output()
        assert start["status"] == 200
        assert dict(start["headers"]) == {
            b"content-type": b"text/event-stream",
            b"cache-control": b"no-cache, no-transform",
            b"x-accel-buffering": b"no",
        }
        assert await body_of(communicator) == b"retry: 3000\n\n"
        await communicator.send_input({"type": "http.disconnect"})
        await communicator.wait()
        assert layer.all_gone

    async def test_events(self, layer: NotingLayer) -> None:
        """Text goes as it is, values as JSON; names and ids beside them."""

        class Consumer(EventStreamConsumer):
            retry: float | None = None

            async def connect(self) -> None:
                await self.accept(headers={b"Cache-Control": b"no-store"})
                await self.send_event("a\nb")
                await self.send_event({"n": [1]}, event="tick", id="7")
                await self.close()

        communicator = HttpCommunicator(Consumer.as_asgi(), "GET", "/")
        response = await communicator.get_response()
        assert (b"Cache-Control", b"no-store") in response["headers"]
        assert len(response["headers"]) == 3
        reader = EventReader()
        reader.feed(response["body"])
        assert reader.events == [Event("a\nb"), Event('{"n":[1]}', "tick", "7")]
        await communicator.wait()

    @pytest.mark.parametrize(
        ("path", "headers", "expected"),
        [
            ("/", [], None),
            ("/", [(b"last-event-id", "é7".encode())], "é7"),
            ("/?last_event_id=8", [], "8"),
            ("/?last_event_id=8", [(b"last-event-id", b"9")], "9"),
        ],
    )
    async def test_last_event_id(
        self,
        layer: NotingLayer,
        path: str,
        headers: list[tuple[bytes, bytes]],
        expected: str | None,
    ) -> None:
        """What the reader has seen last is known in connect(); the header counts first."""

        class Consumer(EventStreamConsumer):
            async def connect(self) -> None:
                await self.accept()
                await self.send_event([self.last_event_id])
                await self.close()

        communicator = HttpCommunicator(Consumer.as_asgi(), "GET", path, headers=headers)
        reader = EventReader()
        reader.feed((await communicator.get_response())["body"])
        assert json.loads(reader.events[0].data) == [expected]

    async def test_refused(self, layer: NotingLayer) -> None:
        """Closed before it is accepted, the request gets 204, at which no reader comes back."""

        class Consumer(EventStreamConsumer):
            async def connect(self) -> None:
                await self.close()

        communicator = HttpCommunicator(Consumer.as_asgi(), "GET", "/")
        assert (await communicator.get_response())["status"] == 204
        await communicator.wait()

    async def test_head(self, layer: NotingLayer) -> None:
        """A HEAD gets a head and no stream."""
        communicator = HttpCommunicator(EventStreamConsumer.as_asgi(), "HEAD", "/")
        assert (await communicator.get_response())["status"] == 200
        await communicator.wait()

    @pytest.mark.parametrize(
        ("data", "fields", "error"),
        [(b"x", {}, TypeError), ("x", {"id": "1\n2"}, LocalProtocolError)],
    )
    async def test_refuses_what_no_event_holds(
        self, layer: NotingLayer, data: Any, fields: dict[str, str], error: type[Exception]
    ) -> None:
        """Bytes, and names or ids that break their line, are the sender's mistake."""

        class Consumer(EventStreamConsumer):
            async def connect(self) -> None:
                await self.accept()
                await self.send_event(data, **fields)

        with pytest.raises(error):
            await HttpCommunicator(Consumer.as_asgi(), "GET", "/").get_response(0.05)

    async def test_group_messages(self, layer: NotingLayer) -> None:
        """What a group sends to sockets becomes events here too; a close ends the stream."""

        class Consumer(EventStreamConsumer):
            groups: Sequence[str] | None = ("room",)

        communicator = await open_stream(Consumer.as_asgi())
        await communicator.receive_output()
        reader = EventReader()
        reader.feed(await body_of(communicator))
        await abroadcast("room", "text")
        await abroadcast("room", {"a": 1}, event="tick", id="5")
        await abroadcast("room", b"\xff")
        part = {"type": "http.response.body", "body": b"data: own\n\n", "more_body": True}
        await layer.group_send("room", part)
        for _ in range(4):
            reader.feed(await body_of(communicator))
        assert reader.events == [
            Event("text"),
            Event('{"a":1}', "tick", "5"),
            Event("/w==", "binary", "5"),
            Event("own", id="5"),
        ]
        await layer.group_send("room", {"type": "websocket.close", "code": 4401})
        assert await body_of(communicator) == b""
        await communicator.wait()

    async def test_heartbeat_of_other_servers(self, layer: NotingLayer) -> None:
        """Where the server knows of no heartbeat, one timer of the loop beats for all streams."""

        class Consumer(EventStreamConsumer):
            heartbeat = 0.02

        streams = [await open_stream(Consumer.as_asgi()) for _ in range(3)]
        for stream in streams:
            await stream.receive_output()
            await stream.receive_output()
        for _ in range(2):
            assert [await body_of(stream) for stream in streams] == [b":\n\n"] * 3
        for stream in streams:
            await stream.send_input({"type": "http.disconnect"})
            await stream.wait()


class Poll(LongPollConsumer):
    """
    Polls a group.
    """

    groups: Sequence[str] | None = ("news",)
    kept: ClassVar[list[tuple[Any, str | None]]] = []

    async def missed(self, cursor: str | None) -> list[tuple[Any, str | None]]:
        """
        Look it up.
        """
        return [one for one in self.kept if cursor is not None and (one[1] or "") > cursor]


class TestLongPoll:
    """
    Requests that are answered when there is news.
    """

    async def poll(self, path: str = "/", consumer: Any = None) -> tuple[HttpCommunicator, Any]:
        """
        Ask, and give what waits for the answer; whatever is sent from then on may be it.
        """
        communicator = await open_stream((consumer or Poll).as_asgi(), path)
        communicator.sent_request = True
        layer = get_channel_layer()
        async with asyncio.timeout(5):
            while not layer.groups and not communicator.future.done():  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)
        return communicator, asyncio.create_task(communicator.get_response())

    async def test_news(self, layer: NotingLayer) -> None:
        """The first message and what comes right behind it are one answer, with their cursor."""
        communicator, answer = await self.poll()
        await abroadcast("news", "one", id="1")
        await abroadcast("news", {"two": 2}, id="2")
        response = await answer
        assert response["status"] == 200
        assert (b"cache-control", b"no-store") in response["headers"]
        assert json.loads(response["body"]) == {"cursor": "2", "messages": ["one", {"two": 2}]}
        await communicator.wait()
        assert layer.all_gone

    async def test_time_over(self, layer: NotingLayer) -> None:
        """Without news the answer is empty and the cursor stays."""

        class Short(Poll):
            timeout = 0.01

        _, answer = await self.poll("/?cursor=7", Short)
        response = await answer
        assert json.loads(response["body"]) == {"cursor": "7", "messages": []}

    async def test_missed(self, layer: NotingLayer, monkeypatch: pytest.MonkeyPatch) -> None:
        """What came between two polls is answered at once, where the project keeps it."""
        monkeypatch.setattr(Poll, "kept", [("a", "1"), ("b", "2"), ("c", "3")])
        _, answer = await self.poll("/?cursor=1")
        content = json.loads((await answer)["body"])
        assert content == {"cursor": "3", "messages": ["b", "c"]}

    async def test_answered_otherwise(self, layer: NotingLayer) -> None:
        """connect() may answer by itself."""

        class Denied(LongPollConsumer):
            async def connect(self) -> None:
                await self.send_response(403, b"no")

        _, answer = await self.poll(consumer=Denied)
        assert (await answer)["status"] == 403

    async def test_more_than_an_answer_holds(self, layer: NotingLayer) -> None:
        """What is above the limit of an answer is counted."""

        class Few(Poll):
            messages_max = 2

        before = metrics.drops.values.get("full", 0)
        _, answer = await self.poll(consumer=Few)
        for number in range(3):
            await abroadcast("news", number)
        assert json.loads((await answer)["body"]) == {"cursor": None, "messages": [0, 1]}
        assert metrics.drops.values["full"] == before + 1

    @pytest.mark.parametrize(("code", "status"), [(4401, 401), (4000, 403)])
    async def test_closed(self, layer: NotingLayer, code: int, status: int) -> None:
        """A close of the group refuses the poll, by the status that says why."""
        _, answer = await self.poll()
        await layer.group_send("news", {"type": "websocket.close", "code": code})
        assert (await answer)["status"] == status


async def test_many_requests_do_not_wake_each_other(layer: NotingLayer) -> None:
    """A hundred handlers that end at once end each its own consumer."""
    go = asyncio.Event()

    class Consumer(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await go.wait()
            await self.send_response(200, self.scope["path"].encode())

    calls: list[Callable[[], Any]] = []
    for number in range(100):
        communicator = HttpCommunicator(Consumer.as_asgi(), "GET", f"/{number}")
        calls.append(communicator.get_response)
    answers = [asyncio.create_task(call()) for call in calls]
    begun = time.monotonic()
    await asyncio.sleep(0)
    go.set()
    bodies = [(await answer)["body"] for answer in answers]
    assert bodies == [f"/{number}".encode() for number in range(100)]
    assert time.monotonic() - begun < 5
