"""
The consumers of ``django_site`` with Channels, as its documentation writes them.

``BENCHMARK_LAYER`` names one of the layers of channels_redis and ``BENCHMARK_REDIS`` its Redis;
without them the layer is the one in memory. Needs no Fairway.
"""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings
from django.urls import path, re_path

__all__ = ["application", "urlpatterns"]

MEMORY = "channels.layers.InMemoryChannelLayer"
# As many connections as it likes: by default those of one of the layers run out at 100.
HOST = {"address": os.environ.get("BENCHMARK_REDIS"), "max_connections": 10_000}
LAYER: dict[str, Any] = {"BACKEND": os.environ.get("BENCHMARK_LAYER", MEMORY)}
if LAYER["BACKEND"] != MEMORY:
    LAYER["CONFIG"] = {"hosts": [HOST]}

settings.configure(
    SECRET_KEY="for benchmarks only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={"default": LAYER},
    USE_TZ=True,
)
django.setup()

# Only importable once there are settings.
from channels.generic.http import AsyncHttpConsumer  # type: ignore[import-untyped]  # noqa: E402
from channels.generic.websocket import (  # type: ignore[import-untyped]  # noqa: E402
    AsyncWebsocketConsumer,
)
from channels.routing import (  # type: ignore[import-untyped]  # noqa: E402
    ProtocolTypeRouter,
    URLRouter,
)
from django.core.asgi import get_asgi_application  # noqa: E402

GROUP = "bench"
urlpatterns: list[Any] = []


class Echo(AsyncWebsocketConsumer):  # type: ignore[misc] # untyped
    """
    Send each text back.
    """

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Echo.
        """
        await self.send(text_data=text_data)


class Handler(AsyncWebsocketConsumer):  # type: ignore[misc] # untyped
    """
    A group member with a Python handler for each message and socket.
    """

    async def connect(self) -> None:
        """
        Join the group, then accept.
        """
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """
        Leave the group.
        """
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send what ``publish <bytes> <burst>`` asks for to the group.
        """
        _, size, burst = (text_data or "").split()
        for _ in range(int(burst)):
            message = {"type": "bench.message", "text": "x" * int(size)}
            await self.channel_layer.group_send(GROUP, message)

    async def bench_message(self, event: dict[str, Any]) -> None:
        """
        Send the group's message to this socket.
        """
        await self.send(text_data=event["text"])


class Idle(AsyncWebsocketConsumer):  # type: ignore[misc] # untyped
    """
    A socket that is accepted and left alone.
    """


class Http(AsyncHttpConsumer):  # type: ignore[misc] # untyped
    """
    An answer of a consumer.
    """

    async def handle(self, body: bytes) -> None:
        """
        Answer 13 bytes.
        """
        headers = [(b"Content-Type", b"text/plain"), (b"Content-Length", b"13")]
        await self.send_response(200, b"Hello, world!", headers=headers)


class Events(AsyncHttpConsumer):  # type: ignore[misc] # untyped
    """
    A reader of the group's messages as events.
    """

    async def http_request(self, message: dict[str, Any]) -> None:
        """
        Begin, and stay: as it is inherited, the consumer ends with ``handle()``.
        """
        if not message.get("more_body"):
            await self.handle(b"")

    async def handle(self, body: bytes) -> None:
        """
        Join the group, then begin the stream.
        """
        await self.channel_layer.group_add(GROUP, self.channel_name)
        headers = [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache")]
        await self.send_headers(headers=headers)
        await self.send_body(b": open\n\n", more_body=True)

    async def disconnect(self) -> None:
        """
        Leave the group.
        """
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def bench_message(self, event: dict[str, Any]) -> None:
        """
        Send the group's message to this reader.
        """
        await self.send_body(f"data: {event['text']}\n\n".encode(), more_body=True)


application = ProtocolTypeRouter(
    {
        "http": URLRouter(
            [
                path("http", Http.as_asgi()),
                path("events", Events.as_asgi()),
                re_path("", get_asgi_application()),  # type: ignore[arg-type] # stubs know views alone
            ]
        ),
        "websocket": URLRouter(
            [
                path("echo", Echo.as_asgi()),
                path("handler", Handler.as_asgi()),
                path("idle", Idle.as_asgi()),
            ]
        ),
    }
)
