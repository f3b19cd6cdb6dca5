"""
The site of ``django_site`` with a consumer whose messages can be told apart.

``FACTS_LAYERS`` holds the project's ``CHANNEL_LAYERS`` as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from django.conf import settings
from django.urls import path
from django_site import application, urlpatterns  # type: ignore[import-not-found]

import fairway

__all__ = ["application"]

# Before anybody asks for a layer.
settings.CHANNEL_LAYERS = json.loads(os.environ["FACTS_LAYERS"])


class Relay(fairway.AsyncWebsocketConsumer):
    """
    A group member that publishes to the group what its client says.
    """

    groups: Sequence[str] | None = ("relay",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Broadcast it.
        """
        await fairway.abroadcast("relay", text_data)


urlpatterns.append(path("relay", Relay.as_asgi()))
