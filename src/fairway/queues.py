"""
The one bounded queue of Fairway: a capacity in items, an expiry per item, counted losses.

The server's inbox and the layers' mailboxes both stand on it, so that capacity
and expiry mean the same everywhere. There is no clock and no waiting here: the
owner passes the time and wakes whoever waits.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

from fairway import metrics

__all__ = ["Expiring", "ExpiringQueue"]


class Expiring(Protocol):
    """
    Something that is worthless after a point in time.
    """

    @property
    def expires(self) -> float:
        """
        The last moment at which it may be read, in seconds of ``time.monotonic()``.
        """


T = TypeVar("T", bound=Expiring)


class ExpiringQueue(Generic[T]):
    """
    A first-in first-out queue that refuses the newest item when full.

    Belongs to one thread. Holds no memory beyond itself until the first item.

    Attributes:
        capacity: Items held at most.
        refused: How many items ``put`` turned away.
        expired: How many items were thrown away unread by ``get``.
    """

    __slots__ = ("_items", "capacity", "expired", "refused")

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] | None = None
        self.capacity = capacity
        self.refused = 0
        self.expired = 0

    def __len__(self) -> int:
        """
        How many items lie here, expired ones included.
        """
        return len(self._items) if self._items is not None else 0

    def put(self, item: T) -> bool:
        """
        Append an item without waiting.

        Returns:
            Whether there was room. If not, the item is counted in ``refused``.
        """
        items = self._items
        if items is None:
            items = self._items = deque()
        if len(items) >= self.capacity:
            self.refused += 1
            return False
        items.append(item)
        return True

    def get(self, now: float) -> T | None:
        """
        Take the oldest item that has not expired, without waiting.

        Args:
            now: The present, in seconds of ``time.monotonic()``.

        Returns:
            The item, or None when nothing readable is left.
        """
        items = self._items
        while items:
            item = items.popleft()
            if item.expires >= now:
                return item
            self._count_expired()
        return None

    def put_back(self, item: T) -> None:
        """
        Return an item to the old end, where it was taken from, whatever the capacity.
        """
        if self._items is None:
            self._items = deque()
        self._items.appendleft(item)

    def purge(self, now: float) -> int:
        """
        Throw away what has expired at the old end, so that a silent reader blocks nobody.

        Returns:
            How many items went.
        """
        items, before = self._items, self.expired
        while items and items[0].expires < now:
            items.popleft()
            self._count_expired()
        return self.expired - before

    def clear(self) -> int:
        """
        Empty the queue and say how many items were in it.
        """
        count = len(self)
        self._items = None
        return count

    def _count_expired(self) -> None:
        """
        Count an item that nobody read in time, here and for the whole process.
        """
        self.expired += 1
        metrics.drops.add("expired")
