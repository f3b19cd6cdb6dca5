"""
Handshakes, and requests to HTTP consumers, that are one too many: answered with 429.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from math import ceil
from typing import Any

from fairway import metrics
from fairway.exceptions import ClientDisconnected
from fairway.faults import Fault
from fairway.layers.notices import Notices
from fairway.ratelimits.buckets import Buckets
from fairway.ratelimits.limits import address_of, connect_limits, user_of
from fairway.types import Message, Receive, Scope, Send
from fairway.wire import codes

__all__ = ["admit_address", "admit_connect", "refusal"]

logger = logging.getLogger("fairway.security")

notices = Notices(logger)

COUNTED = "fairway.counted"
"""
In a scope: its address is counted already.
"""


async def admit_address(scope: Scope, receive: Receive, send: Send) -> bool:
    """
    Count a connect of an address, once, or answer that it is one too many.

    Returns:
        Whether it may go on.
    """
    limits = connect_limits()
    if limits is None or limits.address is None or COUNTED in scope:
        return True
    scope[COUNTED] = True
    key = address_of(scope)
    wait = 0.0 if key is None else limits.address.take(key)
    if not wait:
        return True
    client: Any = scope["client"]
    _report("address", f"address {client[0]!r}", limits.address)
    await _refuse(scope, receive, send, wait)
    return False


async def admit_connect(scope: Scope, receive: Receive, send: Send) -> bool:
    """
    Count a connect of a user, and of an address unless that is done, or answer that it is too many.

    Returns:
        Whether it may go on.
    """
    limits = connect_limits()
    if limits is None:
        return True
    if not await admit_address(scope, receive, send):
        return False
    key = None if limits.user is None else user_of(scope)
    if limits.user is None or key is None:
        return True
    wait = limits.user.take(key)
    if wait:
        _report("user", f"user {key!r}", limits.user)
        await _refuse(scope, receive, send, wait)
    return not wait


async def _refuse(scope: Scope, receive: Receive, send: Send, wait: float) -> None:
    """
    Answer with 429 and when to come again; where a handshake cannot be answered, with 403.
    """
    await receive()
    with suppress(ClientDisconnected):
        for message in refusal(scope, 429, ceil(wait), b"Too many connects; come again later.\n"):
            await send(message)


def _report(kind: str, who: str, limit: Buckets) -> None:
    """
    Count a refusal, and say who is refused unless that was said just now.
    """
    metrics.refusals.add("429")
    metrics.rate_limited.add(f"connects_per_{kind}")
    notices.say(
        kind,
        "Connects of %s refused with 429: more than %d in a minute (%d at once), "
        "CONNECTS_PER_%s [%s]",
        who[:100],
        limit.per_minute,
        limit.burst,
        kind.upper(),
        Fault.CONNECTS_LIMITED,
    )


def refusal(scope: Scope, status: int, seconds: int, words: bytes) -> list[Message]:
    """
    Say no, as far as this can be said before a handshake is done.

    Args:
        scope: Of whom.
        status: The status of the answer.
        seconds: After which to come again.
        words: The body.

    Returns:
        What to send.
    """
    if scope["type"] == "http":
        prefix = "http.response"
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        prefix = "websocket.http.response"
    else:
        return [{"type": "websocket.close", "code": codes.POLICY_VIOLATION}]
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"retry-after", str(seconds).encode()),
    ]
    return [
        {"type": f"{prefix}.start", "status": status, "headers": headers},
        {"type": f"{prefix}.body", "body": words},
    ]
