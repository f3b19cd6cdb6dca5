"""
The inbox of one exchange: what its application has yet to read.

Two sources meet here: the peer's events, which the application awaits with
``receive()``, and channel layer messages, which a Fairway consumer awaits
together with them by ``next_event()``. One future serves both, so that a
consumer needs no second task. Flow control and framing live elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from fairway.queues import Expiring, ExpiringQueue

if TYPE_CHECKING:
    from fairway.types import Message

__all__ = ["Inbox"]


class Reading(Protocol):
    """
    An exchange, as its inbox knows it.
    """

    def message_read(self) -> None:
        """
        Read on, if reading was paused for what is read now.
        """


class Inbox:
    """
    Unread events of the peer and unread layer messages of one exchange.

    Event-loop thread only. An inbox at rest holds one future and no queue.

    Attributes:
        capacity: See ``types.Inbox``.
        idle: See ``types.Inbox``.
        unread_bytes: Size of the peer's messages not yet received by the application.
        unread_messages: Their number.
    """

    __slots__ = (
        "_disconnect",
        "_events",
        "_exchange",
        "_items",
        "_layer_turn",
        "_loop",
        "_waiter",
        "_waits_for_layer",
        "capacity",
        "idle",
        "unread_bytes",
        "unread_messages",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, capacity: int, exchange: Reading | None
    ) -> None:
        """
        Make an empty inbox.

        Args:
            loop: The loop everything here runs on.
            capacity: Layer messages held at most.
            exchange: Is told when the application took an event that had to wait, as long
                as more may follow.
        """
        self._loop = loop
        self.capacity = capacity
        self._exchange = exchange
        self._events: deque[tuple[Message, int]] | None = None
        self._items: ExpiringQueue[Expiring] | None = None
        self._waiter: asyncio.Future[Any] | None = None
        self._waits_for_layer = False
        self._layer_turn = False
        self._disconnect: Message | None = None
        self.idle = True
        self.unread_bytes = 0
        self.unread_messages = 0

    def push(self, event: Message, size: int = 0) -> None:
        """
        Add an event of the peer, or hand it to the application that waits.

        Args:
            event: An ASGI event.
            size: What it counts for in flow control, in bytes.
        """
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._waiter = None
            waiter.set_result(event)
            return
        if self._disconnect is not None:
            # What crossed the end on its way.
            return
        if self._events is None:
            self._events = deque()
        self._events.append((event, size))
        self.unread_bytes += size
        self.unread_messages += 1

    def disconnect(self, event: Message) -> None:
        """
        Say that nothing follows: once all before it is read, ``receive`` gives this each time.
        """
        if self._disconnect is None:
            self._disconnect = event
            # Nobody is held back any more, and nothing here refers to the exchange.
            self._exchange = None
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                self._waiter = None
                waiter.set_result(event)

    def put(self, item: Expiring) -> bool:
        """
        Add a layer message and wake the consumer, without waiting.

        Returns:
            Whether there was room; if not, nothing changed.
        """
        waiter = self._waiter
        if waiter is not None and self._waits_for_layer and not waiter.done():
            self._waiter = None
            self.idle = False
            waiter.set_result(item)
            return True
        items = self._items
        if items is None:
            items = self._items = ExpiringQueue(self.capacity)
        elif len(items) >= items.capacity:
            items.purge(self._loop.time())
        if not items.put(item):
            return False
        self.idle = False
        return True

    @property
    def awaited(self) -> bool:
        """
        Whether the application waits for what comes next.
        """
        return self._waiter is not None and not self._waiter.done()

    async def receive(self) -> Message:
        """
        Wait for the peer's next event: the ASGI ``receive`` of this exchange.

        A cancelled call loses no event.
        """
        if self._events:
            return self._take()
        if self._disconnect is not None:
            return self._disconnect
        waiter = self._wait(layer=False)
        try:
            event: Message = await waiter
        except BaseException:
            self._give_up(waiter)
            raise
        return event

    async def next_event(self) -> Message | Expiring:
        """
        Wait for the peer's next event or the next layer message, alternating.

        Asking again says that what was given before has been handled: from then on
        ``idle`` holds if no layer message is left. A cancelled call loses nothing.
        """
        items = self._items
        if items is not None and (
            self._layer_turn or not (self._events or self._disconnect is not None)
        ):
            item = items.get(self._loop.time())
            if item is not None:
                self._layer_turn = False
                return item
        if not items:
            self.idle = True
        if self._events:
            self._layer_turn = True
            return self._take()
        if self._disconnect is not None:
            return self._disconnect
        # As in receive(): a coroutine of its own would be a frame for each connection at rest.
        waiter = self._wait(layer=True)
        try:
            event: Message | Expiring = await waiter
        except BaseException:
            self._give_up(waiter)
            raise
        return event

    def _take(self) -> Message:
        """
        Pop the oldest event of the peer, for which flow control may have paused reading.
        """
        assert self._events  # noqa: S101 - the callers looked
        event, size = self._events.popleft()
        self.unread_bytes -= size
        self.unread_messages -= 1
        if not self._events:
            self._events = None
        if self._exchange is not None:
            self._exchange.message_read()
        return event

    def _wait(self, *, layer: bool) -> asyncio.Future[Any]:
        """
        Give what is done when ``push``, ``disconnect`` or (with ``layer``) ``put`` gives something.
        """
        if self._waiter is not None and not self._waiter.done():
            raise RuntimeError(
                "receive() was called while another receive() of the same connection waits; "
                "await them one after the other"
            )
        waiter = self._waiter = self._loop.create_future()
        self._waits_for_layer = layer
        return waiter

    def _give_up(self, waiter: asyncio.Future[Any]) -> None:
        """
        Wait no more, and keep what was handed over already.
        """
        if self._waiter is waiter:
            self._waiter = None
        if waiter.done() and not waiter.cancelled():
            self._give_back(waiter.result())

    def _give_back(self, thing: Any) -> None:
        """
        Return to the front what a cancelled call had already been handed.
        """
        if thing is self._disconnect:
            return
        if isinstance(thing, dict):
            if self._events is None:
                self._events = deque()
            self._events.appendleft((thing, 0))
            self.unread_messages += 1
        else:
            if self._items is None:
                self._items = ExpiringQueue(self.capacity)
            self._items.put_back(thing)
