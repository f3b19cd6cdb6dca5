"""
Sockets whose address or user sends too many messages: closed with 1008.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fairway import metrics
from fairway.exceptions import ClientDisconnected
from fairway.faults import Fault
from fairway.layers.notices import Notices
from fairway.ratelimits.buckets import Buckets
from fairway.ratelimits.limits import Limits, address_of, user_of
from fairway.types import Message, Send
from fairway.wire import codes

if TYPE_CHECKING:
    from fairway.consumers.sources import Source

__all__ = ["CountingSource", "count_messages"]

logger = logging.getLogger("fairway.security")

notices = Notices(logger)


def count_messages(source: Source, limits: Limits, consumer: Any, send: Send) -> Source:
    """
    Have the messages to a consumer counted.

    Args:
        source: Where its events come from.
        limits: Those of its class.
        consumer: With its scope set.
        send: The application's own, to close the socket with.

    Returns:
        What counts in front of the source; the source itself where there are no messages.
    """
    if consumer.scope["type"] != "websocket":
        return source
    return CountingSource(source, limits, consumer, send)


class CountingSource:
    """
    A source of events that closes the socket at a message too many, and keeps that back.

    Implements ``Source``. The consumer gets its ``websocket.disconnect`` with 1008 then.
    """

    __slots__ = (
        "_address",
        "_by_address",
        "_by_user",
        "_consumer",
        "_inner",
        "_next_event",
        "_send",
        "attached",
        "tolerant",
    )

    def __init__(self, inner: Source, limits: Limits, consumer: Any, send: Send) -> None:
        self._inner = inner
        self._next_event = inner.next_event
        self._consumer = consumer
        self._send = send
        self._address = address_of(consumer.scope)
        self._by_address = None if self._address is None else limits.address
        self._by_user = limits.user
        self.attached = inner.attached
        self.tolerant = inner.tolerant

    @property
    def unpack(self) -> Callable[[Any], Message | None]:
        """
        See ``Source``.
        """
        return self._inner.unpack

    def stop(self) -> None:
        """
        See ``Source``.
        """
        self._inner.stop()

    async def next_event(self) -> Any:
        """
        See ``Source``. Hot path: once per message where a limit is set.
        """
        while True:
            event = await self._next_event()
            if not isinstance(event, dict) or event.get("type") != "websocket.receive":
                return event
            # What still comes behind a close is nobody's any more, and not counted.
            if self._consumer._fairway_closing:  # noqa: SLF001 - kept for these modules
                continue
            if self._by_address is not None and self._by_address.take(self._address):
                await self._close("address", self._by_address, self._address)
                continue
            if self._by_user is None:
                return event
            # Looked at each time: a consumer may log in, or learn from a message who is there.
            user = user_of(self._consumer.scope)
            if user is None or not self._by_user.take(user):
                return event
            await self._close("user", self._by_user, user)

    async def _close(self, kind: str, buckets: Buckets, key: Hashable) -> None:
        """
        End the socket.
        """
        metrics.rate_limited.add(f"messages_per_{kind}")
        who = key if kind == "user" else self._consumer.scope["client"][0]
        notices.say(
            kind,
            "WebSocket %r of %s %r closed with 1008: more than %d messages in a minute "
            "(%d at once), MESSAGES_PER_%s [%s]",
            self._consumer.scope.get("path", "")[:200],
            kind,
            str(who)[:100],
            buckets.per_minute,
            buckets.burst,
            kind.upper(),
            Fault.MESSAGES_LIMITED,
        )
        self._consumer._fairway_closing = True  # noqa: SLF001 - as above
        with suppress(ClientDisconnected):
            await self._send(
                {
                    "type": "websocket.close",
                    "code": codes.POLICY_VIOLATION,
                    "reason": "too many messages",
                }
            )
