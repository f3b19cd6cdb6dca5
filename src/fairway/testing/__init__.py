"""
What Fairway gives to the tests of projects and of channel layers.

Names are found on first use (PEP 562), so that a project's tests import only what they ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.lazy import lazy_names

if TYPE_CHECKING:
    from fairway.testing.broadcasts import CapturedBroadcast, captured_broadcasts
    from fairway.testing.communicators import (
        ApplicationCommunicator,
        HttpCommunicator,
        WebsocketCommunicator,
    )
    from fairway.testing.live import LiveServer
    from fairway.testing.streams import EventStreamCommunicator, StreamEvent
    from fairway.testing.testcases import ChannelsLiveServerTestCase

_HOMES = {
    "ApplicationCommunicator": "fairway.testing.communicators",
    "CapturedBroadcast": "fairway.testing.broadcasts",
    "ChannelsLiveServerTestCase": "fairway.testing.testcases",
    "EventStreamCommunicator": "fairway.testing.streams",
    "HttpCommunicator": "fairway.testing.communicators",
    "LiveServer": "fairway.testing.live",
    "StreamEvent": "fairway.testing.streams",
    "WebsocketCommunicator": "fairway.testing.communicators",
    "captured_broadcasts": "fairway.testing.broadcasts",
}

__all__ = [
    "ApplicationCommunicator",
    "CapturedBroadcast",
    "ChannelsLiveServerTestCase",
    "EventStreamCommunicator",
    "HttpCommunicator",
    "LiveServer",
    "StreamEvent",
    "WebsocketCommunicator",
    "captured_broadcasts",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
