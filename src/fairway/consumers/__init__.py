"""
What application authors write against: classes whose instances handle one connection each.

``base`` holds the life of a consumer, ``websocket`` the classes for WebSockets, ``http``, ``sse``
and ``longpoll`` those for requests, ``handlers`` and ``sources`` what they stand on,
``application`` and ``view`` their two faces for servers and Django.
"""

from fairway.consumers.base import AsyncConsumer, SyncConsumer, get_handler_name
from fairway.consumers.http import AsyncHttpConsumer
from fairway.consumers.longpoll import LongPollConsumer
from fairway.consumers.sources import await_many_dispatch
from fairway.consumers.sse import EventStreamConsumer
from fairway.consumers.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)

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
    "await_many_dispatch",
    "get_handler_name",
]
