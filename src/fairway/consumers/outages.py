"""
What becomes of a consumer whose channel layer is away while it needs it.

Who cannot begin is refused with 503, and told to come again; what has begun stays. Only under
Fairway's server: elsewhere, and in tests, consumers raise what they meet.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from fairway import metrics
from fairway.exceptions import (
    ChannelLayerUnavailable,
    ClientDisconnected,
    LocalProtocolError,
)
from fairway.faults import Fault
from fairway.layers.notices import Notices
from fairway.ratelimits.connects import refusal
from fairway.types import Message, Send
from fairway.wire import codes

__all__ = ["BEGINNINGS", "bear", "turn_away"]

BEGINNINGS = frozenset({"http.request", "websocket.connect"})
"""
Events without whose handler a consumer has not begun.
"""

AGAIN_SECONDS = 2

notices = Notices(logging.getLogger("fairway.consumers"))


def bear(consumer: Any, error: ChannelLayerUnavailable) -> None:
    """
    Count and say that a handler ended early, after which its consumer goes on.

    It is mostly a message to a group that could not be sent; nobody loses a socket for it.
    """
    metrics.drops.add("unavailable")
    notices.say(
        "handler",
        "a handler of %s ended early and the connection stays: %s [%s]",
        type(consumer).__qualname__,
        error,
        Fault.LAYER_AWAY,
    )


async def turn_away(consumer: Any, send: Send, error: ChannelLayerUnavailable) -> Message | None:
    """
    Refuse a client whose consumer could not begin: it would hear nothing.

    Returns:
        The consumer's last event; None where it is too late to refuse, in an answer that began.
    """
    scope = consumer.scope
    if scope["type"] not in {"http", "websocket"} or getattr(consumer, "_fairway_begun", False):
        return None
    metrics.refusals.add("layer_unavailable")
    notices.say(
        "refused",
        "%s is refused with 503: %s [%s]",
        type(consumer).__qualname__,
        error,
        Fault.LAYER_AWAY,
    )
    code = codes.ABNORMAL
    with suppress(ClientDisconnected):
        try:
            for message in refusal(scope, 503, AGAIN_SECONDS, b"Please come again shortly.\n"):
                await send(message)
        except LocalProtocolError:  # It had accepted before.
            code = codes.TRY_AGAIN_LATER
            await send({"type": "websocket.close", "code": code})
    if scope["type"] == "http":
        return {"type": "http.disconnect"}
    return {"type": "websocket.disconnect", "code": code, "reason": ""}
