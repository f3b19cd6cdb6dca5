"""
Who may open a WebSocket or reach an HTTP consumer: the rules about Host and Origin.

Browsers send cookies with a WebSocket handshake from any page, and no other rule of
theirs protects it, so the server has to look at the Origin. ``handshake`` holds Fairway's own
rule, ``websocket`` the validators of Channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.lazy import lazy_names

if TYPE_CHECKING:
    from fairway.security.handshake import (
        Refusal,
        admit,
        admit_request,
        refusal,
        request_refusal,
    )
    from fairway.security.websocket import (
        AllowedHostsOriginValidator,
        OriginValidator,
        WebsocketDenier,
    )

_HOMES = {
    "AllowedHostsOriginValidator": "fairway.security.websocket",
    "OriginValidator": "fairway.security.websocket",
    "Refusal": "fairway.security.handshake",
    "WebsocketDenier": "fairway.security.websocket",
    "admit": "fairway.security.handshake",
    "admit_request": "fairway.security.handshake",
    "refusal": "fairway.security.handshake",
    "request_refusal": "fairway.security.handshake",
}

__all__ = [
    "AllowedHostsOriginValidator",
    "OriginValidator",
    "Refusal",
    "WebsocketDenier",
    "admit",
    "admit_request",
    "refusal",
    "request_refusal",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
