"""
The four WebSocket classes: what their methods send, and what a peer may send them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from fairway.consumers import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from fairway.exceptions import AcceptConnection, DenyConnection, InvalidJSON, InvalidMessage
from fairway.layers.codec import Kind
from tests.unit.consumers.ends import FakeServer, NotingLayer

ACCEPT = {"type": "websocket.accept", "subprotocol": None}
HI = {"type": "websocket.send", "text": "hi"}
CLOSE = {"type": "websocket.close"}
plain = pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
jsonic = pytest.mark.parametrize("base", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])


def consumer_with(base: Any, **methods: Any) -> Any:
    """
    Make a consumer class whose methods call one of `self`, and await it where that is due.

    Each value is a function that takes the consumer and the arguments, and returns what to await.
    """

    def method(function: Any) -> Any:
        def sync(self: Any, *args: Any, **kwargs: Any) -> Any:
            return function(self, *args, **kwargs)

        async def coroutine(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = function(self, *args, **kwargs)
            return await result if hasattr(result, "__await__") else result

        return sync if base._sync else coroutine

    return type("Consumer", (base,), {name: method(one) for name, one in methods.items()})


async def run(consumer: Any, *texts: str, **scope: Any) -> FakeServer:
    """
    Let a consumer live, with some messages of its peer; raises what leaves it.
    """
    server = FakeServer(**scope)
    await server.start(consumer.as_asgi())
    for text in texts:
        await server.text(text)
    await server.end()
    return server


class TestConnect:
    """
    How a handshake is answered.
    """

    @plain
    async def test_accepts_by_itself(self, base: Any, layer: NotingLayer) -> None:
        """
        A class without connect() accepts everybody.
        """
        assert (await run(base)).sent == [ACCEPT]

    @plain
    async def test_accepts_with_subprotocol_and_headers(
        self, base: Any, layer: NotingLayer
    ) -> None:
        """
        What is chosen is sent along; any iterable of headers will do.
        """
        header = (b"x-room", b"lobby")
        consumer = consumer_with(base, connect=lambda self: self.accept("chat", iter([header])))
        assert (await run(consumer)).sent == [
            {"type": "websocket.accept", "subprotocol": "chat", "headers": [header]}
        ]

    @plain
    @pytest.mark.parametrize(
        ("error", "answer"),
        [(AcceptConnection, ACCEPT), (DenyConnection, {"type": "websocket.close"})],
    )
    async def test_decides_by_exception(
        self, base: Any, layer: NotingLayer, error: type[Exception], answer: dict[str, Any]
    ) -> None:
        """
        AcceptConnection accepts and DenyConnection refuses.
        """

        def connect(self: Any) -> None:
            raise error

        assert (await run(consumer_with(base, connect=connect))).sent == [answer]

    @plain
    @pytest.mark.parametrize("by", ["class", "instance"])
    async def test_joins_its_groups_before(self, base: Any, layer: NotingLayer, by: str) -> None:
        """
        The groups of a class, or of an instance made with some, have it as a member in connect().
        """
        seen: list[Any] = []

        def connect(self: Any) -> Any:
            seen.append({group: list(names) for group, names in layer.groups.items()})
            return self.accept()

        consumer = consumer_with(base, connect=connect)
        if by == "class":
            consumer.groups = ["room", "news"]
        else:
            consumer.__init__ = lambda self: setattr(self, "groups", ["room", "news"])
        await run(consumer)
        assert seen == [{"room": layer.names, "news": layer.names}]
        assert layer.all_gone

    @plain
    async def test_has_groups_of_its_own(self, base: Any) -> None:
        """
        Appending to the groups of one consumer adds nothing to those of another.
        """
        first, second = base(), base()
        first.groups.append("room")
        assert (first.groups, second.groups, base.groups) == (["room"], [], None)


class TestSend:
    """
    What leaves, and in which form.
    """

    @plain
    @pytest.mark.parametrize(
        ("arguments", "sent"),
        [
            ({"text_data": "hi"}, [HI]),
            ({"text_data": ""}, [{"type": "websocket.send", "text": ""}]),
            ({"bytes_data": b"\x00"}, [{"type": "websocket.send", "bytes": b"\x00"}]),
            ({"bytes_data": b""}, [{"type": "websocket.send", "bytes": b""}]),
            (
                {"text_data": "hi", "close": True},
                [HI, CLOSE],
            ),
            (
                {"text_data": "hi", "close": 4001},
                [
                    {"type": "websocket.send", "text": "hi"},
                    {"type": "websocket.close", "code": 4001},
                ],
            ),
        ],
    )
    async def test_sends_text_or_bytes_and_closes(
        self, base: Any, layer: NotingLayer, arguments: dict[str, Any], sent: list[Any]
    ) -> None:
        """
        Text or bytes, empty ones too, and then a close if that is asked for.
        """
        consumer = consumer_with(base, receive=lambda self, text_data: self.send(**arguments))
        assert (await run(consumer, "go")).sent == [ACCEPT, *sent]

    @plain
    async def test_refuses_to_send_nothing(self, base: Any, layer: NotingLayer) -> None:
        """
        Neither text nor bytes is a mistake.
        """
        consumer = consumer_with(base, receive=lambda self, text_data: self.send())
        with pytest.raises(ValueError, match="one of bytes_data or text_data"):
            await run(consumer, "go")

    @plain
    @pytest.mark.parametrize(
        ("arguments", "closed"),
        [
            ((), {}),
            ((None,), {}),
            ((True,), {}),
            ((4001,), {"code": 4001}),
            ((4001, ""), {"code": 4001}),
            ((4001, "over"), {"code": 4001, "reason": "over"}),
            ((None, "over"), {"reason": "over"}),
        ],
    )
    async def test_closes_with_what_is_given(
        self, base: Any, layer: NotingLayer, arguments: tuple[Any, ...], closed: dict[str, Any]
    ) -> None:
        """
        A code and a reason are sent only if there are any.
        """
        consumer = consumer_with(base, receive=lambda self, text_data: self.close(*arguments))
        assert (await run(consumer, "go")).sent[1:] == [{**CLOSE, **closed}]


class TestReceive:
    """
    What comes from the peer.
    """

    @plain
    @pytest.mark.parametrize(
        ("event", "received"),
        [
            ({"text": "hi"}, {"text_data": "hi"}),
            ({"text": ""}, {"text_data": ""}),
            ({"text": None, "bytes": b"\x00"}, {"bytes_data": b"\x00"}),
            ({"bytes": b""}, {"bytes_data": b""}),
        ],
    )
    async def test_is_given_by_name(
        self, base: Any, layer: NotingLayer, event: dict[str, Any], received: dict[str, Any]
    ) -> None:
        """
        Text arrives as text_data and bytes as bytes_data; a None beside the other is no text.
        """
        seen: list[Any] = []
        consumer = consumer_with(base, receive=lambda self, **given: seen.append(given))
        server = FakeServer()
        await server.start(consumer.as_asgi())
        server.inbox.push({"type": "websocket.receive", **event})
        await server.end()
        assert seen == [received]

    @plain
    async def test_may_be_ignored(self, base: Any, layer: NotingLayer) -> None:
        """
        A class without receive() listens to nobody.
        """
        assert (await run(base, "hello")).sent == [ACCEPT]


class TestJson:
    """
    The classes that speak JSON.
    """

    @jsonic
    async def test_decodes_and_encodes(self, base: Any, layer: NotingLayer) -> None:
        """
        Content goes in and out as values.
        """
        consumer = consumer_with(base, receive_json=lambda self, content: self.send_json([content]))
        assert (await run(consumer, '{"a": 1}', "2")).texts == ['[{"a": 1}]', "[2]"]

    @jsonic
    async def test_passes_keywords_on(self, base: Any, layer: NotingLayer) -> None:
        """
        An override of receive() may give receive_json() more than the content.
        """
        seen: list[Any] = []
        methods = {
            "receive": lambda self, text_data: base.receive(self, text_data, room="x"),
            "receive_json": lambda self, content, **kwargs: seen.append((content, kwargs)),
        }
        await run(consumer_with(base, **methods), "1")
        assert seen == [(1, {"room": "x"})]

    @jsonic
    async def test_may_be_ignored(self, base: Any, layer: NotingLayer) -> None:
        """
        A class without receive_json() listens to nobody.
        """
        assert (await run(base, "1")).sent == [ACCEPT]

    @jsonic
    async def test_closes_behind_a_message(self, base: Any, layer: NotingLayer) -> None:
        """
        send_json() takes close as send() does.
        """
        consumer = consumer_with(
            base, receive_json=lambda self, content: self.send_json(content, close=4001)
        )
        assert (await run(consumer, "1")).sent[1:] == [
            {"type": "websocket.send", "text": "1"},
            {"type": "websocket.close", "code": 4001},
        ]

    @jsonic
    async def test_uses_a_projects_own_codec(self, base: Any, layer: NotingLayer) -> None:
        """
        decode_json and encode_json are class methods a project may replace.
        """
        upper = consumer_with(
            base,
            decode_json=lambda cls, text: json.loads(text.lower()),
            encode_json=lambda cls, content: json.dumps(content).upper(),
            receive_json=lambda self, content: self.send_json(content),
        )
        for name in ("decode_json", "encode_json"):
            setattr(upper, name, classmethod(vars(upper)[name]))
        assert (await run(upper, '["A", TRUE]')).texts == ['["A", TRUE]']

    @jsonic
    @pytest.mark.parametrize(
        "text",
        ["{", "hello", "[1,]", "1" * 5000, "[" * 100_000, r'["\ud83d"]', r'["\uDE00 x"]'],
        ids=lambda text: text[:7],
    )
    async def test_bad_json_is_the_peers_fault(
        self, base: Any, layer: NotingLayer, text: str
    ) -> None:
        """
        Whatever is wrong with it: 1007 for the peer, and a JSONDecodeError for everybody else.
        """
        codes: list[int] = []
        consumer = consumer_with(base, disconnect=lambda self, code: codes.append(code))
        with pytest.raises(json.JSONDecodeError) as caught:
            await run(consumer, text)
        assert isinstance(caught.value, InvalidJSON)
        assert caught.value.code == 1007
        assert caught.value.reason.startswith("expected JSON: ")
        assert len(caught.value.reason.encode()) <= 123
        assert caught.value.doc == text
        assert codes == [1007]

    @jsonic
    async def test_a_whole_surrogate_pair_is_text(self, base: Any, layer: NotingLayer) -> None:
        """
        What JSON writes as two escapes is one character, which may pass.
        """
        got: list[Any] = []
        consumer = consumer_with(base, receive_json=lambda self, content: got.append(content))
        await run(consumer, r'["\ud83d\uDE00"]')
        assert got == [["😀"]]

    @jsonic
    async def test_a_projects_own_decoder_blames_the_peer_too(
        self, base: Any, layer: NotingLayer
    ) -> None:
        """
        A JSONDecodeError of any decoder is the peer's fault; any other exception is not.
        """

        def decode(cls: Any, text: str) -> Any:
            if text == "lookup":
                raise LookupError
            raise json.JSONDecodeError("no good", text, 3)

        consumer = consumer_with(base, decode_json=decode)
        consumer.decode_json = classmethod(vars(consumer)["decode_json"])
        with pytest.raises(InvalidJSON, match="expected JSON: no good") as caught:
            await run(consumer, "text")
        assert (caught.value.doc, caught.value.pos) == ("text", 3)
        with pytest.raises(LookupError):
            await run(consumer, "lookup")

    @jsonic
    @pytest.mark.parametrize("event", [{"bytes": b"[]"}, {"text": ""}, {"bytes": b""}])
    async def test_binary_and_empty_messages_are_the_peers_fault(
        self, base: Any, layer: NotingLayer, event: dict[str, Any]
    ) -> None:
        """
        What cannot be JSON by its kind: 4400 for the peer, a ValueError for everybody else.
        """
        server = FakeServer()
        await server.start(base.as_asgi())
        server.inbox.push({"type": "websocket.receive", **event})
        with pytest.raises(InvalidMessage, match="a text message with JSON") as caught:
            await server.end()
        assert isinstance(caught.value, ValueError)
        assert caught.value.code == 4400
        assert len(caught.value.reason.encode()) <= 123


class TestRelay:
    """
    Messages to the socket itself, for a class that has its own way of sending.
    """

    @plain
    async def test_takes_the_direct_path(self, base: Any, layer: NotingLayer) -> None:
        """
        A class without one never sees them: they are offered to the socket as they are.
        """
        consumer = consumer_with(base)
        consumer.groups = ["room"]
        server = FakeServer()
        await server.start(consumer.as_asgi())
        await layer.group_send("room", {"type": "websocket.send", "text": "text"})
        await layer.broadcast("room", b"[1]", kind=Kind.JSON)
        await layer.group_send("room", {"type": "websocket.send", "bytes": b"bytes"})
        await layer.group_send("room", {"type": "websocket.close", "code": 4000})
        await server.end()
        assert server.sent == [ACCEPT]
        assert server.outbox.offered == ["text", "[1]", b"bytes"]
        assert server.outbox.closed == [(4000, "")]

    @plain
    async def test_goes_through_an_own_send(self, base: Any, layer: NotingLayer) -> None:
        """
        send() is called as the project itself would call it, and close() likewise.
        """
        calls: list[Any] = []
        consumer = consumer_with(
            base,
            send=lambda self, **given: calls.append(given),
            close=lambda self, *given: calls.append(given),
        )
        consumer.groups = ["room"]
        server = FakeServer()
        await server.start(consumer.as_asgi())
        await layer.group_send("room", {"type": "websocket.send", "text": "text"})
        await layer.broadcast("room", b"[1]", kind=Kind.JSON)
        await layer.group_send("room", {"type": "websocket.send", "bytes": b"bytes"})
        await layer.group_send("room", {"type": "websocket.close"})
        await layer.group_send("room", {"type": "websocket.close", "code": 4000, "reason": "x"})
        await server.rest()
        await server.end()
        assert calls == [
            {"text_data": "text"},
            {"text_data": "[1]"},
            {"bytes_data": b"bytes"},
            (None,),
            (4000, "x"),
        ]

    @jsonic
    async def test_goes_through_an_own_encoder(self, base: Any, layer: NotingLayer) -> None:
        """
        A value is encoded by the class's own encode_json, text is left as it is.
        """
        consumer = consumer_with(base, encode_json=lambda cls, content: f"<{content}>")
        consumer.encode_json = classmethod(vars(consumer)["encode_json"])
        consumer.groups = ["room"]
        server = FakeServer()
        await server.start(consumer.as_asgi())
        await layer.broadcast("room", b"[1, true]", kind=Kind.JSON)
        await layer.broadcast("room", b"[1, true]", kind=Kind.TEXT)
        await server.rest()
        await server.end()
        assert server.texts == ["<[1, True]>", "[1, true]"]

    @jsonic
    async def test_goes_to_an_own_handler(self, base: Any, layer: NotingLayer) -> None:
        """
        A class that handles websocket.send or websocket.close itself is asked.
        """
        seen: list[Any] = []
        consumer = consumer_with(
            base,
            websocket_send=lambda self, event: seen.append(event),
            websocket_close=lambda self, event: seen.append(event),
        )
        consumer.groups = ["room"]
        events: Sequence[dict[str, Any]] = (
            {"type": "websocket.send", "text": "text"},
            {"type": "websocket.close", "code": 4000},
        )
        server = FakeServer()
        await server.start(consumer.as_asgi())
        for event in events:
            await layer.group_send("room", event)
        await server.rest()
        await server.end()
        assert seen == list(events)

    async def test_keeps_its_place_behind_a_handlers_message(self, layer: NotingLayer) -> None:
        """
        A direct message sent after one for a handler reaches the socket after the handler ran.
        """

        class Consumer(AsyncWebsocketConsumer):
            groups: Sequence[str] | None = ("room",)

            async def room_news(self, event: Any) -> None:
                assert server.outbox.offered == []

        server = FakeServer()
        await server.start(Consumer.as_asgi())
        await layer.group_send("room", {"type": "room.news"})
        await layer.group_send("room", {"type": "websocket.send", "text": "after"})
        assert server.outbox.offered == []
        await server.rest()
        await server.end()
        assert server.outbox.offered == ["after"]
