"""
A Django project in one file, to measure consumers, groups and broadcasts.

Serve ``django_site:application``. With ``BENCHMARK_AUTH=1`` in the environment
the site has sessions and users, so that what they cost a socket can be told
from what a socket costs; without it, the site has neither. With ``BENCHMARK_REDIS``
its messages go through the Redis at that URL.

The group members publish when told ``publish <bytes> <burst>`` and are the
same for every way of publishing, so one load generator drives them all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

WITH_AUTH = os.environ.get("BENCHMARK_AUTH") == "1"
AUTH_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"]
REDIS = os.environ.get("BENCHMARK_REDIS")
LAYER = {"BACKEND": "fairway.layers.RedisChannelLayer", "CONFIG": {"url": REDIS}}

settings.configure(
    SECRET_KEY="for benchmarks only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[*(AUTH_APPS if WITH_AUTH else []), "fairway"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CHANNEL_LAYERS={"default": LAYER} if REDIS else {},
    USE_TZ=True,
)
django.setup()

# Only importable once there are settings.
import fairway  # noqa: E402
from fairway.asgi import application  # noqa: E402

__all__ = ["application", "urlpatterns"]

GROUP = "bench"


@cache
def prices(size: int) -> str:
    """
    Return JSON of about that size: names that come again and numbers that do not.
    """
    rows: list[dict[str, object]] = []
    text = ""
    while len(text) < size:
        number = len(rows) * 7919 % 10_007
        rows.append({"symbol": f"S{number}", "price": number / 100, "change": number % 17 - 8})
        text = json.dumps(rows)
    return text


def read_command(text: str) -> tuple[str, int]:
    """
    Return the message and how often ``publish <bytes> <burst>`` wants it sent.
    """
    _, size, burst = text.split()
    return "x" * int(size), int(burst)


class Echo(fairway.AsyncWebsocketConsumer):
    """
    Send each text back.
    """

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Echo.
        """
        await self.send(text_data=text_data)


class Broadcast(fairway.AsyncWebsocketConsumer):
    """
    A group member without a handler: messages go straight to its socket.
    """

    groups: Sequence[str] | None = (GROUP,)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Broadcast what the command asks for, all of it in one turn of the loop.
        """
        text, burst = read_command(text_data or "")
        for _ in range(burst):
            await fairway.abroadcast(GROUP, text)


class Prices(fairway.AsyncWebsocketConsumer):
    """
    A group member that is sent JSON, as it is.
    """

    groups: Sequence[str] | None = (GROUP,)
    compress: bool | None = False

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Broadcast JSON of the size that the command asks for.
        """
        text, _ = read_command(text_data or "")
        await fairway.abroadcast(GROUP, prices(len(text)))


class CompressedPrices(Prices):
    """
    The same, compressed.
    """

    compress: bool | None = True


class CompressedIdle(fairway.AsyncWebsocketConsumer):
    """
    A socket that is left alone and would be sent compressed messages.
    """

    compress: bool | None = True


class Handler(fairway.AsyncWebsocketConsumer):
    """
    A group member as in Channels: a Python handler for each message and socket.
    """

    groups: Sequence[str] | None = (GROUP,)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send what the command asks for to the group.
        """
        text, burst = read_command(text_data or "")
        for _ in range(burst):
            await self.channel_layer.group_send(GROUP, {"type": "bench.message", "text": text})

    async def bench_message(self, event: dict[str, Any]) -> None:
        """
        Send the group's message to this socket.
        """
        await self.send(text_data=event["text"])


class Events(fairway.EventStreamConsumer):
    """
    A reader of the group's messages as events.
    """

    groups: Sequence[str] | None = (GROUP,)


class Http(fairway.AsyncHttpConsumer):
    """
    An answer of a consumer.
    """

    async def handle(self, body: bytes) -> None:
        """
        Answer 13 bytes.
        """
        await self.send_response(200, b"Hello, world!", headers=[(b"Content-Type", b"text/plain")])


class Idle(fairway.AsyncWebsocketConsumer):
    """
    A socket that is accepted and left alone.
    """


class Visitor(fairway.AsyncWebsocketConsumer):
    """
    A socket whose session and user have been looked at, as a real page's would.
    """

    async def connect(self) -> None:
        """
        Look at both, then accept.
        """
        if self.scope["user"].is_anonymous and self.scope["session"].is_empty():
            await self.accept()


def page(request: HttpRequest) -> HttpResponse:
    """
    Answer 13 bytes.
    """
    return HttpResponse("Hello, world!", content_type="text/plain")


urlpatterns = [
    path("", page),
    path("consumer-echo", Echo.as_asgi()),
    path("broadcast", Broadcast.as_asgi()),
    path("handler", Handler.as_asgi()),
    path("prices", Prices.as_asgi()),
    path("compressed-prices", CompressedPrices.as_asgi()),
    path("compressed-idle", CompressedIdle.as_asgi()),
    path("events", Events.as_asgi()),
    path("http", Http.as_asgi()),
    path("idle", Idle.as_asgi()),
    path("visitor", Visitor.as_asgi()),
]
