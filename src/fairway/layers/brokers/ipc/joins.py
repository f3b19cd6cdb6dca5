"""
Who has yet to acknowledge what: the waits of joins, each with its deadline.

A number stands for everything this process wanted up to a point; another process
acknowledges a number and with it all smaller ones. Belongs to one loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextlib import suppress

from fairway.exceptions import ChannelLayerUnavailable

__all__ = ["Joins", "fail", "new_wait"]


class _Wait:
    """
    One wait: for whom, up to which number.
    """

    __slots__ = ("future", "missing", "number", "timer")

    def __init__(self, number: int, future: asyncio.Future[None], missing: set[Hashable]) -> None:
        self.number = number
        self.future = future
        self.missing = missing
        self.timer: asyncio.TimerHandle | None = None


class Joins:
    """
    The waits that are open, in the order of their numbers.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        on_late: Callable[[set[Hashable]], None],
    ) -> None:
        """
        Begin without waits.

        Args:
            loop: Whose timers end them.
            timeout: Seconds that a wait takes at most.
            on_late: Called with those who did not acknowledge in that time.
        """
        self._loop = loop
        self._timeout = timeout
        self._on_late = on_late
        self._waits: list[_Wait] = []

    def wait(self, number: int, future: asyncio.Future[None], missing: set[Hashable]) -> None:
        """
        Have a future done once all of ``missing`` have acknowledged, or the time is over.
        """
        if not missing:
            _finish(future)
            return
        wait = _Wait(number, future, missing)
        wait.timer = self._loop.call_later(self._timeout, self._expire, wait)
        self._waits.append(wait)

    def heard(self, who: Hashable, number: int) -> None:
        """
        Note that somebody has acknowledged everything up to a number.
        """
        for wait in list(self._waits):
            if wait.number > number:
                break
            self._strike(wait, who)

    def gone(self, who: Hashable) -> None:
        """
        Wait for somebody no more.
        """
        for wait in list(self._waits):
            self._strike(wait, who)

    def close(self) -> None:
        """
        End all waits with ChannelLayerUnavailable.
        """
        waits, self._waits = self._waits, []
        for wait in waits:
            self._stop(wait)
            fail(wait.future)

    def _strike(self, wait: _Wait, who: Hashable) -> None:
        """
        Cross somebody off, and end the wait if that was the last one.
        """
        wait.missing.discard(who)
        if not wait.missing:
            self._waits.remove(wait)
            self._stop(wait)
            _finish(wait.future)

    def _expire(self, wait: _Wait) -> None:
        """
        End a wait whose time is over.
        """
        self._waits.remove(wait)
        self._on_late(wait.missing)
        _finish(wait.future)

    @staticmethod
    def _stop(wait: _Wait) -> None:
        if wait.timer is not None:
            wait.timer.cancel()


def new_wait(loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
    """
    Give a future for ``Joins.wait``, which may fail without anybody having waited.
    """
    future: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(_retrieve)
    return future


def fail(future: asyncio.Future[None] | None) -> None:
    """
    End a wait with ChannelLayerUnavailable, if it has not ended.
    """
    if future is not None and not future.done():
        with suppress(RuntimeError):  # Its loop has been closed, and nobody waits on it any more.
            future.set_exception(ChannelLayerUnavailable("the broker was closed"))


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
