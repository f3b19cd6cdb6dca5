"""
Queues of unread messages that any loop and any thread may read.

A channel whose consumer has no inbox of the server's own (under another server,
in tests, in workers) has a mailbox here, and the queues of the broker ``local``
are mailboxes too. Waiting and waking live here; what a message means does not.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from time import monotonic
from typing import Generic, TypeVar

from fairway.queues import Expiring, ExpiringQueue

__all__ = ["Mailbox", "Mailboxes"]

T = TypeVar("T", bound=Expiring)

SWEEP_FROM = 1000
"""
Mailboxes from which on those who only send look for expired messages, too.
"""

ABANDONED_AFTER = 10
"""
Lifetimes of a message after which a mailbox that nobody reads takes no more for its groups.
"""


class Mailbox(Generic[T]):
    """
    The unread messages of one channel, each read by exactly one of those who wait.

    May be used from any thread. ``get`` is the collection's, which also forgets it.

    Attributes:
        held: Whether it is to be kept though empty, for a member of groups.
        touched: When somebody last read or began to wait, in seconds of ``time.monotonic()``.
    """

    __slots__ = ("_lock", "_patience", "_queue", "_waiters", "held", "touched")

    def __init__(self, lock: threading.Lock, patience: float) -> None:
        self._lock = lock
        self._queue: ExpiringQueue[T] = ExpiringQueue(capacity=1)
        self._waiters: deque[_Waiter] = deque()
        self.held = False
        self._patience = patience
        self.touched = monotonic()

    def qsize(self) -> int:
        """
        How many unread messages lie here.
        """
        return len(self._queue)

    def empty(self) -> bool:
        """
        Whether no unread message lies here.
        """
        return not len(self._queue)

    @property
    def abandoned(self) -> bool:
        """
        Whether nobody waits, nor has for so long that nobody is thought to come back.
        """
        return not self._waiters and monotonic() - self.touched > self._patience

    def put(self, item: T) -> bool:
        """
        Add a message and wake a reader, without waiting; False when it is full or abandoned.
        """
        with self._lock:
            return self.put_locked(item, self._queue.capacity)

    def put_locked(self, item: T, capacity: int) -> bool:
        """
        As ``put``, with a new capacity. The collection's lock is held.
        """
        self.resize_locked(capacity)
        queue = self._queue
        if len(queue) >= queue.capacity:
            queue.purge(monotonic())
        if (self.held and self.abandoned) or not queue.put(item):
            return False
        self.wake_locked()
        return True

    def resize_locked(self, capacity: int) -> None:
        """
        Set how many unread messages it may hold. The collection's lock is held.
        """
        self._queue.capacity = capacity

    def take_locked(self) -> T | None:
        """
        Take the oldest readable message, if any. The collection's lock is held.
        """
        self.touched = monotonic()
        return self._queue.get(self.touched)

    def wait_locked(self, loop: asyncio.AbstractEventLoop) -> _Waiter:
        """
        Stand in line for the next message. The collection's lock is held.
        """
        waiter = _Waiter(loop)
        self._waiters.append(waiter)
        return waiter

    def give_up_locked(self, waiter: _Waiter) -> None:
        """
        Leave the line; one that was already woken passes it on. The collection's lock is held.
        """
        self.touched = monotonic()
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        else:
            self.wake_locked()

    def wake_locked(self) -> None:
        """
        Wake who has waited longest, if there is something to read. The collection's lock is held.
        """
        while self._waiters and len(self._queue):
            if self._waiters.popleft().wake():
                return

    def purge_locked(self, now: float) -> bool:
        """
        Throw away what has expired; whether nothing else keeps it. The collection's lock is held.
        """
        self._queue.purge(now)
        return self.at_rest

    def clear_locked(self) -> bool:
        """
        Throw away everything; whether nothing else keeps it. The collection's lock is held.
        """
        self._queue.clear()
        return self.at_rest

    @property
    def at_rest(self) -> bool:
        """
        Whether nothing is unread, nobody waits and nobody holds it: it may be forgotten.
        """
        return not (len(self._queue) or self._waiters or self.held)

    @property
    def visible(self) -> bool:
        """
        Whether somebody sent here or waits here.
        """
        return bool(len(self._queue) or self._waiters)


class _Waiter:
    """
    One reader that waits, and the loop it waits on.
    """

    __slots__ = ("future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> bool:
        """
        End the wait from any thread; False if its loop has ended.
        """
        try:
            self.loop.call_soon_threadsafe(self._finish)
        except RuntimeError:
            return False
        return True

    def _finish(self) -> None:
        """
        End the wait, on its own loop, unless it was cancelled meanwhile.
        """
        if not self.future.done():
            self.future.set_result(None)


class Mailboxes(Generic[T]):
    """
    Mailboxes by name, made at first use and forgotten when they are at rest.

    May be used from any thread.
    """

    def __init__(self, expiry: float) -> None:
        """
        Make an empty collection, in which a message may lie unread for ``expiry`` seconds.
        """
        self._expiry = expiry
        self._boxes: dict[str, Mailbox[T]] = {}
        self._lock = threading.Lock()
        self._next_sweep = 0.0

    def put(self, name: str, item: T, capacity: int) -> bool:
        """
        Add a message to the mailbox of a name, without waiting; False when that is full.
        """
        if len(self._boxes) >= SWEEP_FROM:
            self._sweep()
        with self._lock:
            return self._open(name).put_locked(item, capacity)

    async def get(self, name: str) -> T:
        """
        Wait for the next message of a name and take it. A cancelled call loses nothing.
        """
        loop = asyncio.get_running_loop()
        self._sweep()
        while True:
            with self._lock:
                box = self._open(name)
                item = box.take_locked()
                if item is not None:
                    self._close(name, box)
                    return item
                waiter = box.wait_locked(loop)
            try:
                await waiter.future
            except BaseException:
                with self._lock:
                    box.give_up_locked(waiter)
                    self._close(name, box)
                raise

    def hold(self, name: str, capacity: int) -> Mailbox[T]:
        """
        Give the mailbox of a name, kept until ``release``.
        """
        with self._lock:
            box = self._open(name)
            box.held = True
            box.resize_locked(capacity)
            return box

    def release(self, name: str) -> None:
        """
        Say that the mailbox of a name needs not be kept any more.
        """
        with self._lock:
            box = self._boxes.get(name)
            if box is not None:
                box.held = False
                self._close(name, box)

    def take_all(self, name: str) -> list[T]:
        """
        Forget the mailbox of a name, and give what was readable in it.
        """
        taken: list[T] = []
        with self._lock:
            box = self._boxes.pop(name, None)
            while box is not None and (item := box.take_locked()) is not None:
                taken.append(item)
        return taken

    def snapshot(self) -> dict[str, Mailbox[T]]:
        """
        Give the mailboxes that hold messages or readers, by name.
        """
        with self._lock:
            return {name: box for name, box in self._boxes.items() if box.visible}

    def clear(self) -> None:
        """
        Throw away every message.
        """
        with self._lock:
            for name, box in list(self._boxes.items()):
                if box.clear_locked():
                    del self._boxes[name]

    def _open(self, name: str) -> Mailbox[T]:
        box = self._boxes.get(name)
        if box is None:
            box = self._boxes[name] = Mailbox(self._lock, self._expiry * ABANDONED_AFTER)
        return box

    def _close(self, name: str, box: Mailbox[T]) -> None:
        if box.at_rest and self._boxes.get(name) is box:
            del self._boxes[name]

    def _sweep(self) -> None:
        """
        Throw away what has expired everywhere, at most once per expiry.
        """
        now = monotonic()
        if now < self._next_sweep:
            return
        with self._lock:
            self._next_sweep = now + self._expiry
            for name, box in list(self._boxes.items()):
                if box.purge_locked(now):
                    del self._boxes[name]
