"""
Who waits for a queue's messages in this process, on whichever loop, and in which order.

A message that has left its store (a file, a server) belongs to exactly one reader, or is on
its way back: that is what lives here, for the brokers that keep queues outside the process.
Nothing here reads or writes a store.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

__all__ = ["Reader", "Readers", "Taken"]


class Taken(Protocol):
    """
    A message that was taken out of its store, with what it takes to put it back.
    """

    @property
    def queue(self) -> str:
        """
        The queue it is from.
        """

    @property
    def payload(self) -> bytes:
        """
        What its reader gets.
        """


T = TypeVar("T", bound=Taken)


class Reader(Generic[T]):
    """
    One call that waits for a message.

    Attributes:
        queue: The queue it waits for.
        future: What it awaits, on its own loop.
        row: The message it was given, which is lost unless it is read or put back.
    """

    __slots__ = ("_loop", "future", "queue", "row")

    def __init__(self, queue: str, loop: asyncio.AbstractEventLoop) -> None:
        self.queue = queue
        self.future: asyncio.Future[bytes] = loop.create_future()
        self.row: T | None = None
        self._loop = loop

    def give(self, row: T) -> bool:
        """
        Hand over a message from any thread; False if the loop has ended.
        """
        return self._tell(lambda: self.future.set_result(row.payload))

    def fail(self, error: Exception) -> None:
        """
        End the wait without a message, from any thread.
        """
        self._tell(lambda: self.future.set_exception(error))

    def _tell(self, tell: Callable[[], None]) -> bool:
        def on_loop() -> None:
            if not self.future.done():
                tell()

        try:
            self._loop.call_soon_threadsafe(on_loop)
        except RuntimeError:
            return False
        return True


class Readers(Generic[T]):
    """
    The readers of all queues, each queue's in the order in which they came. From any thread.
    """

    def __init__(self) -> None:
        # Collecting a reader that nobody awaits any more may enter it a second time.
        self._lock = threading.RLock()
        self._lines: dict[str, deque[Reader[T]]] = {}
        self._returned: list[T] = []

    def __bool__(self) -> bool:
        """
        Whether anybody waits, or anything is on its way back.
        """
        return bool(self._lines or self._returned)

    def __contains__(self, queue: str) -> bool:
        """
        Whether anybody waits for a queue.
        """
        return queue in self._lines

    @property
    def queues(self) -> list[str]:
        """
        The queues that somebody waits for.
        """
        return list(self._lines)

    def wait(self, queue: str) -> Reader[T]:
        """
        Stand in line for a queue's next message, on the running loop.
        """
        reader: Reader[T] = Reader(queue, asyncio.get_running_loop())
        with self._lock:
            self._lines.setdefault(queue, deque()).append(reader)
        return reader

    def give_up(self, reader: Reader[T]) -> bool:
        """
        Leave the line; whether a message that was given meanwhile is to be put back.
        """
        with self._lock:
            line = self._lines.get(reader.queue)
            if line is not None and reader in line:
                line.remove(reader)
                if not line:
                    del self._lines[reader.queue]
            if reader.row is None:
                return False
            self._returned.append(reader.row)
            return True

    def wanted(self, queues: Iterable[str]) -> dict[str, int]:
        """
        Give the number of readers for those of some queues that have any.
        """
        return {queue: len(line) for queue in queues if (line := self._lines.get(queue))}

    def hand_out(self, row: T) -> bool:
        """
        Give a message to who has waited longest; False if nobody does and it is to be put back.
        """
        while True:
            with self._lock:
                reader = self._next(row.queue)
                if reader is None:
                    self._returned.append(row)
                    return False
                reader.row = row
            if reader.give(row):
                return True
            reader.row = None  # Its loop has ended; nobody else touches it.

    def returned(self, queue: str | None = None) -> list[T]:
        """
        Give what is to be put back, into one queue or into all of them.

        ``forget_returned`` follows once that has happened.
        """
        rows = list(self._returned)
        return rows if queue is None else [row for row in rows if row.queue == queue]

    def forget_returned(self, rows: Iterable[T]) -> None:
        """
        Forget some messages that ``returned`` gave: they are in their store again.
        """
        done = {id(row) for row in rows}
        with self._lock:
            self._returned = [row for row in self._returned if id(row) not in done]

    def dismiss(self, error: Exception) -> None:
        """
        End every wait with an error.
        """
        with self._lock:
            lines, self._lines = self._lines, {}
        for line in lines.values():
            for reader in line:
                reader.fail(error)

    def _next(self, queue: str) -> Reader[T] | None:
        """
        Take who has waited longest out of the line. The lock is held.
        """
        line = self._lines.get(queue)
        if line is None:
            return None
        reader = line.popleft()
        if not line:
            del self._lines[queue]
        return reader
