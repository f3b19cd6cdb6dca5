"""
Fairway: realtime for Django in one package, server included.

Importing this package reads no settings and loads no models: public names are
found on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.lazy import lazy_names

if TYPE_CHECKING:
    from fairway.broadcasting import abroadcast, broadcast
    from fairway.consumers.base import AsyncConsumer, SyncConsumer
    from fairway.consumers.http import AsyncHttpConsumer
    from fairway.consumers.longpoll import LongPollConsumer
    from fairway.consumers.sse import EventStreamConsumer
    from fairway.consumers.websocket import (
        AsyncJsonWebsocketConsumer,
        AsyncWebsocketConsumer,
        JsonWebsocketConsumer,
        WebsocketConsumer,
    )
    from fairway.layers.registry import get_channel_layer
    from fairway.revocation import adisconnect, disconnect

__version__ = "0.1.0"

_HOMES = {
    "AsyncConsumer": "fairway.consumers.base",
    "AsyncHttpConsumer": "fairway.consumers.http",
    "AsyncJsonWebsocketConsumer": "fairway.consumers.websocket",
    "AsyncWebsocketConsumer": "fairway.consumers.websocket",
    "EventStreamConsumer": "fairway.consumers.sse",
    "JsonWebsocketConsumer": "fairway.consumers.websocket",
    "LongPollConsumer": "fairway.consumers.longpoll",
    "SyncConsumer": "fairway.consumers.base",
    "WebsocketConsumer": "fairway.consumers.websocket",
    "abroadcast": "fairway.broadcasting",
    "adisconnect": "fairway.revocation",
    "broadcast": "fairway.broadcasting",
    "disconnect": "fairway.revocation",
    "get_channel_layer": "fairway.layers.registry",
}

__all__ = [
    "AsyncConsumer",
    "AsyncHttpConsumer",
    "AsyncJsonWebsocketConsumer",
    "AsyncWebsocketConsumer",
    "EventStreamConsumer",
    "JsonWebsocketConsumer",
    "LongPollConsumer",
    "SyncConsumer",
    "WebsocketConsumer",
    "__version__",
    "abroadcast",
    "adisconnect",
    "broadcast",
    "disconnect",
    "get_channel_layer",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
