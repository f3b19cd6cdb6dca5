"""
What consumer classes say about readers who are too slow, and who hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
from django.urls import path
from pytest_django import Settings
from websockets.asyncio.client import connect

from fairway import metrics
from fairway.asgi import Application, Pages
from fairway.consumers import (
    AsyncConsumer,
    AsyncHttpConsumer,
    AsyncWebsocketConsumer,
    EventStreamConsumer,
    WebsocketConsumer,
)
from fairway.consumers.readers import outbox_settings
from fairway.exceptions import ConfigurationError
from fairway.layers.layer import InMemoryChannelLayer
from fairway.options import ServerOptions
from fairway.server.outbox import Outbox
from fairway.server.overflow import DropOldestOutbox, LatestOutbox
from fairway.testing import WebsocketCommunicator

Start = Callable[..., Awaitable[str]]


class Plain(AsyncWebsocketConsumer):
    """
    Says nothing.
    """


class Ticker(AsyncWebsocketConsumer):
    """
    Cares for the newest only.
    """

    groups: Sequence[str] | None = ("ticker",)
    overflow: str | None = "latest"


class Small(WebsocketConsumer):
    """
    Says both, with ordinary methods.
    """

    overflow: str | None = "drop_oldest"
    outbox_bytes_max: int | None = 4096


class Events(EventStreamConsumer):
    """
    Says so for an event stream.
    """

    overflow: str | None = "drop_oldest"
    outbox_bytes_max: int | None = 8192


class Answer(AsyncHttpConsumer):
    """
    Answers a request, where there is nothing to say it about.
    """

    overflow: str | None = "latest"

    async def handle(self, body: bytes) -> None:
        """
        Answer.
        """
        await self.send_response(200, b"answer")


urlpatterns = [
    path("ticker/", Ticker.as_asgi()),
    path("events/", Events.as_asgi()),
]


def noted(consumer_class: type[AsyncConsumer]) -> tuple[Any, list[tuple[type, int]]]:
    """
    Give the application of a class, and a list of what outboxes were as its consumers began.
    """
    found: list[tuple[type, int]] = []
    inner = consumer_class.as_asgi()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            if message["type"] in ("websocket.accept", "http.response.body") and not found:
                outbox = scope["extensions"]["fairway"]["outbox"]
                found.append((type(outbox), outbox.bytes_max))
            await send(message)

        noting.fairway_transparent = True  # type: ignore[attr-defined] # functions take attributes
        await inner(scope, receive, noting)

    return application, found


LIMIT = ServerOptions().outbox_bytes_max


@pytest.mark.parametrize(
    ("consumer_class", "expected"),
    [
        (Plain, (Outbox, LIMIT)),
        (Ticker, (LatestOutbox, LIMIT)),
        (Small, (DropOldestOutbox, 4096)),
    ],
)
async def test_sockets(
    serve: Start, consumer_class: type[AsyncConsumer], expected: tuple[type, int]
) -> None:
    """
    The server knows what the class says before the socket is accepted.
    """
    application, found = noted(consumer_class)
    async with connect(await serve(application)):
        assert found == [expected]


@pytest.mark.parametrize(
    ("consumer_class", "expected"),
    [(Events, (DropOldestOutbox, 8192)), (Answer, (Outbox, LIMIT))],
)
async def test_requests(
    serve: Start, consumer_class: type[AsyncConsumer], expected: tuple[type, int]
) -> None:
    """
    Of an event stream too; where only answers are sent there is nothing to be dropped.
    """
    application, found = noted(consumer_class)
    host, port = (await serve(application)).strip("/").removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert found == [expected]
    writer.close()


async def test_by_the_setting(serve: Start) -> None:
    """
    A class that says nothing has what the settings say.
    """
    application, found = noted(Plain)
    async with connect(await serve(application, overflow="latest", outbox_bytes_max=2048)):
        assert found == [(LatestOutbox, 2048)]


async def test_a_group(serve: Start, layer: InMemoryChannelLayer) -> None:
    """
    What a group sends to a reader who stands still is replaced by what it sends next.
    """
    address = await serve(Ticker.as_asgi(), send_buffer=4096)
    before = metrics.drops.values.get("latest", 0)
    async with connect(address, max_queue=1) as client:
        stream = cast("asyncio.ReadTransport", client.transport)
        stream.pause_reading()
        for number in range(2000):
            await layer.group_send(
                "ticker", {"type": "websocket.send", "text": f"{number}".ljust(4000)}
            )
            await asyncio.sleep(0)
        stream.resume_reading()
        numbers = [-1]
        while numbers[-1] < 1999:
            numbers.append(int(await client.recv()))
    dropped = metrics.drops.values["latest"] - before
    assert numbers == sorted(numbers)
    assert len(numbers) - 1 == 2000 - dropped


async def test_elsewhere(layer: InMemoryChannelLayer) -> None:
    """
    Where the server is another one, nothing is done.
    """
    async with WebsocketCommunicator(Ticker.as_asgi(), "/") as socket:
        await layer.group_send("ticker", {"type": "websocket.send", "text": "hello"})
        assert await socket.receive_from() == "hello"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("overflow", "newest", "must be one of close, drop_oldest, latest, not 'newest'"),
        ("overflow", 5, "must be one of close, drop_oldest, latest, not 5"),
        ("outbox_bytes_max", "5", "must be a whole number, not '5'"),
        ("outbox_bytes_max", 5, "must be at least 1024 bytes, not 5"),
    ],
)
@pytest.mark.parametrize("consumer_class", [AsyncWebsocketConsumer, EventStreamConsumer])
def test_mistakes(
    settings: Settings, consumer_class: type[AsyncConsumer], name: str, value: object, text: str
) -> None:
    """
    A mistake is told at the start, with class, attribute and what it may be.
    """
    wrong: Any = type("Wrong", (consumer_class,), {name: value})
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": [path("w/", wrong.as_asgi())]})
    with pytest.raises(ConfigurationError, match=rf"^Wrong\.{name} {text}$"):
        Application(Pages()).build()
    with pytest.raises(ConfigurationError, match=rf"^Wrong\.{name}"):
        outbox_settings(wrong)


async def test_mistakes_behind_a_router() -> None:
    """
    Where no start looks at the class, each connection is told.
    """
    wrong: Any = type("Wrong", (AsyncWebsocketConsumer,), {"overflow": "newest"})
    with pytest.raises(ConfigurationError, match=r"^Wrong\.overflow must be one of"):
        await WebsocketCommunicator(wrong.as_asgi(), "/").connect(timeout=0.2)
