"""
Group members as in ``django_site``, with Channels and channels_redis, for other ASGI servers.

``BENCHMARK_REDIS`` says where Redis is and ``BENCHMARK_LAYER`` which of the two layers joins
them. Needs no Fairway.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import django
from django.conf import settings
from django.urls import path

__all__ = ["application", "urlpatterns"]

LAYER = os.environ["BENCHMARK_LAYER"]
# As many connections as it likes: by default those of one of the layers run out at 100.
HOST = {"address": os.environ["BENCHMARK_REDIS"], "max_connections": 10_000}

settings.configure(
    SECRET_KEY="for benchmarks only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={"default": {"BACKEND": LAYER, "CONFIG": {"hosts": [HOST]}}},
    USE_TZ=True,
)
django.setup()

# Only importable once there are settings.
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


class Handler(AsyncWebsocketConsumer):  # type: ignore[misc]
    """
    A group member with a Python handler for each message and socket.
    """

    groups: Sequence[str] | None = (GROUP,)

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


application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("handler", Handler.as_asgi())]),
    }
)
