"""
Which method a message type leads to, and which it never leads to.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from fairway import metrics
from fairway.consumers import (
    AsyncConsumer,
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    SyncConsumer,
    WebsocketConsumer,
    get_handler_name,
    handlers,
)
from fairway.consumers.handlers import find_handler, overrides, report
from fairway.exceptions import NoHandler

CLASSES = [
    AsyncConsumer,
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    SyncConsumer,
    WebsocketConsumer,
]


class Chat(AsyncJsonWebsocketConsumer):
    """
    A consumer with handlers of a project.
    """

    room = "lobby"

    async def chat_message(self, event: Any) -> None:
        """
        Handle `chat.message`.
        """

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Override what a base class calls.
        """


def test_dots_become_underscores() -> None:
    """
    The name of a handler is the type with underscores for dots.
    """
    assert get_handler_name({"type": "chat.room.message"}) == "chat_room_message"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({}, "Incoming message has no 'type' attribute"),
        ({"type": "_private"}, r"Malformed type in message \(leading underscore\)"),
        ({"type": ".private"}, r"Malformed type in message \(leading underscore\)"),
        ({"type": 7}, "no string: 7"),
        ({"type": ["chat"]}, "no string"),
    ],
)
def test_malformed_types_are_value_errors(message: dict[str, Any], text: str) -> None:
    """
    A message without a usable type is refused before anything is looked up.
    """
    with pytest.raises(ValueError, match=text):
        get_handler_name(message)
    with pytest.raises(ValueError, match=text):
        find_handler(Chat(), message)


@pytest.mark.parametrize("kind", ["chat.message", "chat_message"])
def test_finds_the_methods_of_a_project(kind: str) -> None:
    """
    A method that a class adds handles its type, again and again.
    """
    consumer = Chat()
    for _ in range(2):
        assert find_handler(consumer, {"type": kind}) == consumer.chat_message


def test_finds_what_an_instance_was_given() -> None:
    """
    A handler may be an attribute of one consumer, and then is not one of others of its class.
    """
    first, second = Chat(), Chat()
    first.private_message = print  # type: ignore[attr-defined] # the point
    assert find_handler(first, {"type": "private.message"}) is print
    with pytest.raises(NoHandler):
        find_handler(second, {"type": "private.message"})


def test_classes_do_not_share_what_was_found() -> None:
    """
    A handler of one class is none of its siblings.
    """

    class Other(AsyncWebsocketConsumer):
        pass

    find_handler(Chat(), {"type": "chat.message"})
    with pytest.raises(NoHandler):
        find_handler(Other(), {"type": "chat.message"})


@pytest.mark.parametrize("base", CLASSES)
def test_names_of_fairway_are_no_handlers(base: type[AsyncConsumer]) -> None:
    """
    No message reaches anything a base class defines, except by the names of ASGI events.
    """

    class Consumer(base):  # type: ignore[valid-type, misc] # a class by parameter
        pass

    consumer = Consumer()
    events = {"websocket_connect", "websocket_receive", "websocket_disconnect"}
    names = {name for name in dir(Consumer) if not name.startswith("_")} - events
    assert {"send", "group_add", "group_discard", "as_asgi", "dispatch", "url_kwargs"} <= names
    for name in names | {"base_send", "channel_layer", "channel_name", "scope"}:
        with pytest.raises(ValueError, match="never a handler"):
            find_handler(consumer, {"type": name})


@pytest.mark.parametrize("kind", ["receive.json", "accept", "close", "connect", "group.add"])
def test_overriding_makes_no_handler(kind: str) -> None:
    """
    Nor does a project's own version of such a method become one.
    """
    with pytest.raises(ValueError, match="Hint: give the handler in Chat"):
        find_handler(Chat(), {"type": kind})


@pytest.mark.parametrize("kind", ["websocket.connect", "websocket.receive", "websocket.disconnect"])
def test_events_are_handled(kind: str) -> None:
    """
    The events of a server have handlers, which a group message may reach too, as in Channels.
    """
    consumer = Chat()
    assert find_handler(consumer, {"type": kind}) == getattr(consumer, kind.replace(".", "_"))


@pytest.mark.parametrize("kind", ["websocket.send", "websocket.close"])
def test_send_types_go_to_the_socket(kind: str) -> None:
    """
    An ASGI send type is relayed, unless the project handles it.
    """

    class Handles(Chat):
        async def websocket_send(self, event: Any) -> None:
            """
            Handle what would go to the socket.
            """

        websocket_close = websocket_send

    relaying, handling = Chat(), Handles()
    assert find_handler(relaying, {"type": kind}) == relaying._fairway_relay
    assert find_handler(handling, {"type": kind}) == getattr(handling, kind.replace(".", "_"))


def test_says_what_was_looked_for_and_probably_meant() -> None:
    """
    A mistyped type is answered with the method that comes nearest.
    """
    with pytest.raises(NoHandler) as caught:
        find_handler(Chat(), {"type": "chat.messages"})
    assert str(caught.value) == (
        "No handler for message type chat.messages: Chat has no method chat_messages(). "
        "Hint: did you mean 'chat.message'?"
    )


def test_attributes_are_no_handlers() -> None:
    """
    Only what can be called handles a message.
    """
    with pytest.raises(NoHandler):
        find_handler(Chat(), {"type": "room"})


def test_remembers_only_what_classes_have() -> None:
    """
    Types without a handler leave nothing behind, however many come.
    """
    consumer = Chat()
    before = len(Chat._fairway_handler_names)
    for number in range(100):
        with pytest.raises(NoHandler):
            find_handler(consumer, {"type": f"made.up.{number}"})
    assert len(Chat._fairway_handler_names) == before


def test_overrides_counts_projects_only() -> None:
    """
    A method is overridden if any class of a project defines it, and not by Fairway's own.
    """

    class Mixin:
        def send(self) -> None:
            """
            Stand in the way.
            """

    class Mixed(Mixin, Chat):  # type: ignore[misc] # the signatures differ
        pass

    assert not overrides(Chat, ("send", "encode_json"))
    assert overrides(Mixed, ("send", "encode_json"))


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Forget what was reported before.
    """
    monkeypatch.setattr(handlers, "_reported", set())
    monkeypatch.setattr(metrics.drops, "values", {})


@pytest.mark.usefixtures("reports")
def test_reports_each_case_once(caplog: pytest.LogCaptureFixture) -> None:
    """
    Every message is counted, and one line is logged per class and type.
    """
    for _ in range(3):
        for kind in ("chat.messages", "chat.message_"):
            with pytest.raises(NoHandler) as caught:
                find_handler(Chat(), {"type": kind})
            report(Chat(), caught.value)
    assert metrics.drops.values == {"no_handler": 6}
    assert [record.name for record in caplog.records] == ["fairway.consumers"] * 2


@pytest.mark.usefixtures("reports")
def test_reports_have_a_limit(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Types that are made up as they go fill neither memory nor the log.
    """
    monkeypatch.setattr(handlers, "REPORTS_MAX", 10)
    with caplog.at_level(logging.WARNING, "fairway.consumers"):
        for number in range(11):
            report(Chat(), NoHandler("no", {"type": f"made.up.{number}"}))
    assert len(caplog.records) == 10
    assert metrics.drops.values == {"no_handler": 11}
