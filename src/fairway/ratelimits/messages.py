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
from fairway.ratelimits.limits import address_of, message_limits, user_of
from fairway.types import Message, Send
from fairway.wire import codes

if TYPE_CHECKING:
    from fairway.consumers.sources import Source

__all__ = ["CountingSource", "count_messages"]

logger = logging.getLogger("fairway.security")

notices = Notices(logger)


def count_messages(source: Source, consumer: Any, send: Send) -> Source:
    """
    Have a consumer's messages counted, where there is a limit for them; decided once.

    Args:
        source: Where its events come from.
        consumer: With its scope set.
        send: The application's own, to close the socket with.

    Returns:
        The source, or what counts in front of it.
    """
    limits = message_limits(type(consumer))
    if limits is None or consumer.scope["type"] != "websocket":
        return source
    kinds = (("address", limits.address, address_of), ("user", limits.user, user_of))
    counts = [
        (kind, buckets, key)
        for kind, buckets, find in kinds
        if buckets is not None and (key := find(consumer.scope)) is not None
    ]
    return CountingSource(source, consumer, send, counts) if counts else source


class CountingSource:
    """
    A source of events that closes the socket at a message too many, and keeps that back.

    Implements ``Source``. The consumer gets its ``websocket.disconnect`` with 1008 then.
    """

    __slots__ = ("_consumer", "_counts", "_inner", "_send", "attached", "tolerant")

    def __init__(
        self,
        inner: Source,
        consumer: Any,
        send: Send,
        counts: list[tuple[str, Buckets, Hashable]],
    ) -> None:
        self._inner = inner
        self._consumer = consumer
        self._send = send
        self._counts = counts
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
        See ``Source``.
        """
        while True:
            event = await self._inner.next_event()
            if not isinstance(event, dict) or event.get("type") != "websocket.receive":
                return event
            # What still comes behind a close is nobody's any more, and not counted.
            if not self._consumer._fairway_closing:  # noqa: SLF001 - kept for these modules
                over = self._take()
                if over is None:
                    return event
                await self._close(*over)

    def _take(self) -> tuple[str, Buckets, Hashable] | None:
        """
        Count a message; give the limit that it is over.
        """
        for count in self._counts:
            _, buckets, key = count
            if buckets.take(key):
                return count
        return None

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
