"""
What application authors write against: classes whose instances handle one connection each.

``base`` holds the life of a consumer, ``websocket`` the classes for WebSockets, ``handlers``
and ``sources`` what they stand on, ``application`` their two faces for servers and Django.
"""

from fairway.consumers.base import AsyncConsumer, SyncConsumer, get_handler_name
from fairway.consumers.sources import await_many_dispatch
from fairway.consumers.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)

__all__ = [
    "AsyncConsumer",
    "AsyncJsonWebsocketConsumer",
    "AsyncWebsocketConsumer",
    "JsonWebsocketConsumer",
    "SyncConsumer",
    "WebsocketConsumer",
    "await_many_dispatch",
    "get_handler_name",
]
