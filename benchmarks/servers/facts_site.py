"""
The site of ``django_site`` with a consumer whose messages can be told apart.

``FACTS_LAYERS`` holds the project's ``CHANNEL_LAYERS`` as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import count

from django.conf import settings
from django.urls import path
from django_site import application, urlpatterns  # type: ignore[import-not-found] # beside this

import fairway

__all__ = ["application"]

# Before anybody asks for a layer.
settings.CHANNEL_LAYERS = json.loads(os.environ["FACTS_LAYERS"])


numbers = count()
still: list[str] = []
"""
The groups of those who do not read.
"""


class Relay(fairway.AsyncWebsocketConsumer):
    """
    A group member that publishes to the group what its client says.
    """

    groups: Sequence[str] | None = ("relay",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Broadcast it; ``fill <bytes> <count>`` to those who stand still alone.
        """
        text = text_data or ""
        if not text.startswith("fill "):
            await fairway.abroadcast("relay", text)
            return
        _, size, times = text.split()
        # A group for each, so that none shares what waits for it with the others.
        for group in still:
            for _ in range(int(times)):
                await fairway.abroadcast(group, "x" * int(size))


class Stalled(fairway.AsyncWebsocketConsumer):
    """
    A group member whose client does not read.
    """

    groups: Sequence[str] | None = ("relay",)

    async def connect(self) -> None:
        """
        Join a group of its own.
        """
        self.group = f"still.{next(numbers)}"
        await self.group_add(self.group)
        still.append(self.group)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """
        Be forgotten.
        """
        still.remove(self.group)


urlpatterns += [path("relay", Relay.as_asgi()), path("stalled", Stalled.as_asgi())]
