"""
The tools projects test their applications with behave as Channels' tools of the same names.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections
from django.test import Client

from fairway import db, testing
from fairway.auth import AuthMiddlewareStack
from fairway.consumers import (
    AsyncConsumer,
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from fairway.db import database_sync_to_async
from fairway.layers.codec import Kind
from fairway.layers.layer import InMemoryChannelLayer
from fairway.layers.registry import channel_layers
from fairway.testing import ApplicationCommunicator, HttpCommunicator, WebsocketCommunicator


class Echo(AsyncWebsocketConsumer):
    """
    Sends back what it gets.
    """

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send it back.
        """
        await self.send(text_data, bytes_data)


class SyncEcho(WebsocketConsumer):
    """
    The same, in threads.
    """

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send it back.
        """
        self.send(text_data, bytes_data)


@pytest.fixture
async def layer() -> AsyncIterator[InMemoryChannelLayer]:
    """
    The default channel layer, new and empty, and on no server's loop.
    """
    layer = InMemoryChannelLayer()
    previous = channel_layers.set("default", layer)
    yield layer
    await layer.close()
    channel_layers.set("default", previous)


def test_public_names() -> None:
    """
    The package offers the names on demand, and no others.
    """
    assert {"ApplicationCommunicator", "HttpCommunicator", "WebsocketCommunicator"} <= set(
        dir(testing)
    )
    with pytest.raises(AttributeError, match="no attribute 'Communicator'"):
        _ = testing.Communicator


class TestWebsocket:
    """
    WebsocketCommunicator plays the client.
    """

    @pytest.mark.parametrize("consumer", [Echo, SyncEcho])
    async def test_talks(self, consumer: Any) -> None:
        """
        Text, bytes and JSON go there and come back, until the client leaves.
        """
        communicator = WebsocketCommunicator(consumer.as_asgi(), "/echo/")
        assert await communicator.connect() == (True, None)
        await communicator.send_to(text_data="hello")
        assert await communicator.receive_from() == "hello"
        await communicator.send_to(bytes_data=b"\x00")
        assert await communicator.receive_from() == b"\x00"
        await communicator.send_json_to({"a": [1]})
        assert await communicator.receive_json_from() == {"a": [1]}
        assert await communicator.receive_nothing(0.01, 0.001)
        await communicator.disconnect()

    async def test_runs_an_instance(self) -> None:
        """
        A consumer that was made already is an application too.
        """
        communicator = WebsocketCommunicator(Echo(), "/echo/")
        assert await communicator.connect() == (True, None)
        await communicator.disconnect()

    async def test_runs_a_class_with_a_warning(self) -> None:
        """
        A consumer class works as in Channels 2; the warning names the line of the test.
        """
        with pytest.warns(DeprecationWarning, match=r"Echo lacks \.as_asgi\(\)") as caught:
            communicator = WebsocketCommunicator(Echo, "/echo/")
        assert caught[0].filename == __file__
        assert await communicator.connect() == (True, None)
        await communicator.disconnect()

    async def test_runs_a_double_callable(self) -> None:
        """
        An application of ASGI 2 works, with a warning.
        """

        def application(scope: Any) -> Any:
            async def run(receive: Any, send: Any) -> None:
                await receive()
                await send({"type": "websocket.accept", "subprotocol": scope["path"]})

            return run

        with pytest.warns(DeprecationWarning, match="application is an ASGI 2 application"):
            communicator = WebsocketCommunicator(application, "/old/")
        assert await communicator.connect() == (True, "/old/")
        await communicator.wait()

    @pytest.mark.parametrize(
        ("path", "decoded", "query"),
        [
            ("/ws/?a=1&b=%20", "/ws/", b"a=1&b=%20"),
            ("/%E9%A6%96/;x", "/首/;x", b""),
            ("wss://user@example.com:8080/p?query=首#hash", "/p", "query=首".encode()),
        ],
    )
    async def test_scope(self, path: str, decoded: str, query: bytes) -> None:
        """
        The scope is what a server would make of the handshake.
        """
        communicator = WebsocketCommunicator(
            Echo(), path, [(b"origin", b"null")], ["chat"], spec_version="2.5"
        )
        assert communicator.scope == {
            "type": "websocket",
            "path": decoded,
            "query_string": query,
            "headers": [(b"origin", b"null")],
            "subprotocols": ["chat"],
            "spec_version": "2.5",
        }

    async def test_scope_can_be_changed(self) -> None:
        """
        What a test adds before it connects, the consumer sees.
        """
        consumer = Echo()
        communicator = WebsocketCommunicator(consumer, "/")
        communicator.scope["user"] = "somebody"
        await communicator.connect()
        assert consumer.scope["user"] == "somebody"
        await communicator.disconnect()

    @pytest.mark.parametrize("path", [b"/", None, 1])
    def test_path_must_be_a_string(self, path: Any) -> None:
        """
        Anything else is a TypeError.
        """
        with pytest.raises(TypeError, match="Expected str, got <class"):
            WebsocketCommunicator(Echo(), path)

    async def test_accepted_with_subprotocol_and_headers(self) -> None:
        """
        connect() gives the subprotocol, response_headers what else came.
        """

        class Polite(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                await self.accept("chat", [(b"x-a", b"1")])

        communicator: Any = WebsocketCommunicator(Polite.as_asgi(), "/", subprotocols=["chat"])
        assert vars(communicator)["response_headers"] is None
        assert await communicator.connect() == (True, "chat")
        assert communicator.response_headers == [(b"x-a", b"1")]
        await communicator.disconnect()

    @pytest.mark.parametrize(("code", "given"), [(4003, 4003), (None, 1000)])
    async def test_refused(self, code: int | None, given: int) -> None:
        """
        connect() gives the close code, 1000 if there was none.
        """

        class Refusing(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                await self.close(code)

        communicator = WebsocketCommunicator(Refusing.as_asgi(), "/")
        assert await communicator.connect() == (False, given)
        await communicator.disconnect()

    async def test_a_message_must_be_text_or_bytes(self) -> None:
        """
        send_to() takes exactly one of them, and of the right type.
        """
        communicator = WebsocketCommunicator(Echo.as_asgi(), "/")
        await communicator.connect()
        wrong: list[dict[str, Any]] = [
            {},
            {"text_data": ""},
            {"text_data": "a", "bytes_data": b"b"},
            {"text_data": b"a"},
            {"bytes_data": "b"},
        ]
        for arguments in wrong:
            with pytest.raises(AssertionError):
                await communicator.send_to(**arguments)
        await communicator.disconnect()

    @pytest.mark.parametrize(
        "message",
        [
            {"type": "websocket.close"},
            {"type": "websocket.send"},
            {"type": "websocket.send", "text": "a", "bytes": b"b"},
            {"type": "websocket.send", "text": b"a"},
            {"type": "websocket.send", "bytes": "b"},
        ],
    )
    async def test_a_wrong_answer_fails_the_test(self, message: dict[str, Any]) -> None:
        """
        receive_from() takes one message with text or bytes, and nothing else.
        """

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send(message)

        communicator = WebsocketCommunicator(application, "/")
        await communicator.send_input({"type": "websocket.connect"})
        with pytest.raises(AssertionError):
            await communicator.receive_from()
        await communicator.wait()

    async def test_json_must_be_text(self) -> None:
        """
        receive_json_from() takes no bytes.
        """
        communicator = WebsocketCommunicator(Echo.as_asgi(), "/")
        await communicator.connect()
        await communicator.send_to(bytes_data=b"[]")
        with pytest.raises(AssertionError, match="JSON data must be str"):
            await communicator.receive_json_from()
        await communicator.disconnect()

    async def test_the_close_code_arrives(self) -> None:
        """
        disconnect() tells the application the code, and waits until it has ended.
        """
        codes = []

        class Leaving(AsyncWebsocketConsumer):
            async def disconnect(self, code: int) -> None:
                await asyncio.sleep(0)
                codes.append(code)

        communicator = WebsocketCommunicator(Leaving.as_asgi(), "/")
        await communicator.connect()
        await communicator.disconnect(4005)
        assert codes == [4005]


class TestBlocks:
    """
    ``async with`` connects and leaves.
    """

    async def test_connects_and_leaves(self) -> None:
        """
        The block begins connected; at its end the consumer has ended.
        """
        codes = []

        class Leaving(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                await self.accept("chat")

            async def disconnect(self, code: int) -> None:
                codes.append(code)

        async with WebsocketCommunicator(Leaving.as_asgi(), "/", subprotocols=["chat"]) as ws:
            assert ws.subprotocol == "chat"
        assert codes == [1000]
        assert ws.future.done()

    async def test_a_refusal_fails_the_test(self) -> None:
        """
        A block is not entered if the application refuses, and the code is named.
        """

        class Refusing(AsyncWebsocketConsumer):
            async def connect(self) -> None:
                await self.close(4003)

        with pytest.raises(AssertionError, match="/a/ refused the handshake, with code 4003"):
            async with WebsocketCommunicator(Refusing.as_asgi(), "/a/"):
                pass

    async def test_the_first_failure_counts(self) -> None:
        """
        What the test fails with is not hidden by what the application fails with then.
        """

        class Failing(AsyncWebsocketConsumer):
            async def disconnect(self, code: int) -> None:
                raise LookupError

        with pytest.raises(LookupError):
            async with WebsocketCommunicator(Failing.as_asgi(), "/"):
                pass
        with pytest.raises(ZeroDivisionError):
            async with WebsocketCommunicator(Failing.as_asgi(), "/"):
                raise ZeroDivisionError

    async def test_an_application_that_ended(self) -> None:
        """
        One that was cancelled, or has left by itself, is not left again; one that failed says so.
        """
        async with WebsocketCommunicator(Echo.as_asgi(), "/") as ws:
            with pytest.raises(TimeoutError):
                await ws.receive_from(timeout=0.01)

        class Failing(AsyncWebsocketConsumer):
            async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
                raise LookupError

        async def fail_in_a_block() -> None:
            async with WebsocketCommunicator(Failing.as_asgi(), "/") as ws:
                await ws.send_to(text_data="go")
                await asyncio.wait([ws.future])

        with pytest.raises(LookupError):
            await fail_in_a_block()

    async def test_other_communicators(self) -> None:
        """
        A request that lasts sees its client leave; any other application is cancelled.
        """
        events = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            try:
                while True:
                    events.append((await receive())["type"])
                    if events[-1] == "http.disconnect":
                        return
            except asyncio.CancelledError:
                events.append("cancelled")
                raise

        async with HttpCommunicator(application, "GET", "/") as http:
            await http.send_input({"type": "http.request"})
        async with ApplicationCommunicator(application, {"type": "lifespan"}) as other:
            await other.send_input({"type": "lifespan.startup"})
            assert await other.receive_nothing(0.01, 0.001)
        async with ApplicationCommunicator(application, {"type": "never begun"}):
            pass
        assert events == ["http.request", "http.disconnect", "lifespan.startup", "cancelled"]


class TestIdentity:
    """
    Who the application finds in its scope.
    """

    async def test_user(self) -> None:
        """
        A user who is given is there, whatever looks for users on the way.
        """
        consumer = Echo()
        user = AnonymousUser()
        async with WebsocketCommunicator(consumer, "/", user=user):
            assert consumer.scope["user"] is user
        found = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            found.append(scope["user"])
            await receive()

        stack = AuthMiddlewareStack(application)
        ws = WebsocketCommunicator(stack, "/", user=user)
        await ws.send_input({"type": "websocket.connect"})
        await ws.wait()
        http = HttpCommunicator(stack, "GET", "/", user=user)
        await http.send_input({"type": "http.request"})
        await http.wait()
        assert [one is user for one in found] == [True, True]

    async def test_client(self) -> None:
        """
        The cookies of Django's test client are sent beside the header fields that are given.
        """
        client = Client()
        given = [(b"a", b"b")]
        ws = WebsocketCommunicator(Echo(), "/", given, client=client)
        assert ws.scope["headers"] == given
        client.cookies["one"] = "1"
        client.cookies["two"] = "a b"
        ws = WebsocketCommunicator(Echo(), "/", given, client=client)
        assert ws.scope["headers"] == [*given, (b"cookie", b'one=1; two="a b"')]
        assert given == [(b"a", b"b")]


class TestTimeouts:
    """
    Waiting in vain ends the application.
    """

    async def test_receiving_in_vain_cancels(self) -> None:
        """
        Nothing within the time is a TimeoutError, and the application is cancelled by then.
        """
        communicator = WebsocketCommunicator(Echo.as_asgi(), "/")
        await communicator.connect()
        with pytest.raises(TimeoutError):
            await communicator.receive_from(timeout=0.01)
        assert communicator.future.cancelled()

    async def test_waiting_in_vain_cancels(self) -> None:
        """
        An application that does not end when its client has left is cancelled.
        """

        class Stuck(AsyncWebsocketConsumer):
            async def disconnect(self, code: int) -> None:
                await asyncio.Event().wait()

        communicator = WebsocketCommunicator(Stuck.as_asgi(), "/")
        await communicator.connect()
        await communicator.disconnect(timeout=0.01)
        assert communicator.future.cancelled()

    async def test_exceptions_come_out(self) -> None:
        """
        What leaves the application is raised by whichever call is next.
        """

        class Failing(AsyncWebsocketConsumer):
            async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
                raise LookupError

        communicator = WebsocketCommunicator(Failing.as_asgi(), "/")
        await communicator.connect()
        await communicator.send_to(text_data="go")
        with pytest.raises(LookupError):
            await communicator.receive_from(timeout=0.01)
        with pytest.raises(LookupError):
            await communicator.send_to(text_data="go")
        with pytest.raises(LookupError):
            await communicator.wait()


class TestHttp:
    """
    HttpCommunicator sends one request.
    """

    class Answer(AsyncConsumer):
        """
        Answers with what it was asked, in two parts.
        """

        async def http_request(self, event: Any) -> None:
            """
            Answer.
            """
            asked = [self.scope["method"], self.scope["path"], self.scope["query_string"].decode()]
            await self.send({"type": "http.response.start", "status": 201, "headers": []})
            body = json.dumps(asked).encode()
            await self.send({"type": "http.response.body", "body": body, "more_body": True})
            await self.send({"type": "http.response.body", "body": event["body"]})

    async def test_gives_the_whole_response(self) -> None:
        """
        Status, headers and the body in one piece.
        """
        communicator = HttpCommunicator(self.Answer.as_asgi(), "post", "/a/?b=c", b"!")
        assert await communicator.get_response() == {
            "status": 201,
            "headers": [],
            "body": b'["POST", "/a/", "b=c"]!',
        }
        await communicator.send_input({"type": "http.disconnect"})
        await communicator.wait()

    async def test_headers_may_be_missing(self) -> None:
        """
        An application need not send headers, nor a body in its last message.
        """

        async def application(scope: Any, receive: Any, send: Any) -> None:
            assert scope["headers"] == [(b"a", b"b")]
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})

        communicator = HttpCommunicator(application, "GET", "/", headers=[(b"a", b"b")])
        assert await communicator.get_response() == {"status": 204, "headers": [], "body": b""}

    def test_the_body_must_be_bytes(self) -> None:
        """
        Anything else fails the test at once.
        """
        with pytest.raises(AssertionError, match="must be bytes"):
            HttpCommunicator(self.Answer.as_asgi(), "GET", "/", body="text")  # type: ignore[arg-type] # the point

    async def test_a_page_closes_no_connection_of_the_test(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        What Django closes around requests stays open under a communicator, and only there.

        Django's test client does the same while it works, and undoes it afterwards.
        """
        closed: list[None] = []
        one = SimpleNamespace(
            close_if_unusable_or_obsolete=lambda: closed.append(None), queries_log=deque()
        )
        monkeypatch.setattr(connections, "all", lambda **given: [one])

        async def application(scope: Any, receive: Any, send: Any) -> None:
            request_started.send(sender=None)
            request_finished.send(sender=None)
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})
            await receive()

        first = HttpCommunicator(application, "GET", "/")
        await first.get_response()
        request_started.connect(close_old_connections)
        second = HttpCommunicator(application, "GET", "/")
        await second.get_response()
        for communicator in (first, second):
            assert not closed
            await communicator.wait()
        await asyncio.sleep(0)
        request_started.send(sender=None)
        request_finished.send(sender=None)
        assert len(closed) == 2


class TestChannelLayer:
    """
    A consumer under a communicator is a member of the channel layer as under a server.
    """

    @pytest.mark.parametrize("consumer", [Echo, SyncEcho])
    async def test_group_messages_reach_it(
        self, consumer: Any, layer: InMemoryChannelLayer
    ) -> None:
        """
        A group's message is handled; the group has gone once disconnect() returns.
        """
        cls: Any = type("Grouped", (consumer,), {"groups": ["room"]})
        communicator = WebsocketCommunicator(cls.as_asgi(), "/")
        await communicator.connect()
        await layer.group_send("room", {"type": "websocket.receive", "text": "handled"})
        assert await communicator.receive_from() == "handled"
        await layer.group_send("room", {"type": "websocket.send", "text": "direct"})
        assert await communicator.receive_from() == "direct"
        await communicator.disconnect()
        assert layer.groups == {}

    async def test_broadcasts_are_encoded_by_the_class(self, layer: InMemoryChannelLayer) -> None:
        """
        A value for all goes through a class's own encode_json here too.
        """

        class Shouting(AsyncJsonWebsocketConsumer):
            groups = ("room",)  # type: ignore[mutable-override] # as projects write it

            @classmethod
            async def encode_json(cls, content: Any) -> str:
                return json.dumps(content).upper()

        communicator = WebsocketCommunicator(Shouting.as_asgi(), "/")
        await communicator.connect()
        await layer.broadcast("room", b'["a"]', kind=Kind.JSON)
        assert await communicator.receive_from() == '["A"]'
        await communicator.disconnect()

    async def test_unknown_types_are_errors(self, layer: InMemoryChannelLayer) -> None:
        """
        A mistyped group message fails the test that sends it.
        """
        cls: Any = type("Grouped", (Echo,), {"groups": ["room"]})
        communicator = WebsocketCommunicator(cls.as_asgi(), "/")
        await communicator.connect()
        await layer.group_send("room", {"type": "no.such"})
        with pytest.raises(ValueError, match=r"No handler for message type no\.such"):
            await communicator.receive_from(timeout=0.1)


class TestDatabase:
    """
    A test's transaction lives in a connection that nobody must close.
    """

    async def test_connections_stay_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Nothing is cleaned up while an application runs, and everything is as before afterwards.
        """
        closed: list[str] = []

        def close() -> None:
            closed.append("closed")

        monkeypatch.setattr(db, "close_old_connections", close)
        communicator = WebsocketCommunicator(SyncEcho.as_asgi(), "/")
        assert db.close_old_connections is close
        await communicator.connect()
        await communicator.send_to(text_data="hello")
        await communicator.receive_from()
        # The handler's thread may still be at work here, while the test does something else.
        await database_sync_to_async(int)()
        await communicator.disconnect()
        assert closed == []
        assert db.close_old_connections is close

    async def test_for_several_applications_at_once(self) -> None:
        """
        The last one to end puts the clean-up back, whoever began.
        """
        before = db.close_old_connections
        first, second = (WebsocketCommunicator(Echo.as_asgi(), "/") for _ in range(2))
        await first.connect()
        await second.connect()
        await first.disconnect()
        assert db.close_old_connections is not before
        second.stop()
        await second.wait()
        assert db.close_old_connections is before
