"""
One timing wheel per worker: every deadline of every connection.

A connection at rest costs the wheel one dictionary entry, and a deadline that
moves later costs one attribute: the wheel notices on its next visit. asyncio's
own timers would cost a heap entry and a handle for each change. Not for delays
of user code, and not finer than ``resolution``.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["TimingWheel", "Watched"]


class Watched(Protocol):
    """
    Something with one deadline, visited by the wheel when it has passed.

    Attributes:
        deadline: When to act, in seconds of ``loop.time()``; ``inf`` for never.
        slot: Kept by the wheel: where it expects the object, 0 for nowhere.
    """

    deadline: float
    slot: int

    def on_deadline(self, now: float) -> None:
        """
        Act, and set the next deadline (``inf`` for none).
        """


class TimingWheel:
    """
    Calls ``on_deadline`` of what it watches, at most ``resolution`` seconds late.

    Event-loop thread only. Sleeps until the next slot that holds something, so an
    idle process is not woken.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, resolution: float = 0.05) -> None:
        self.loop = loop
        self._resolution = resolution
        # Dicts for sets, here and in the worker: theirs are a third of the size.
        self._slots: dict[int, dict[Watched, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0

    def watch(self, watched: Watched) -> None:
        """
        Visit it at its deadline.

        Needed for a first deadline and for one that moved earlier. One that moved later costs
        nothing: the object is visited where it is expected, and expected anew from there.
        """
        if watched.deadline == inf:
            self.forget(watched)
            return
        slot = int(watched.deadline / self._resolution) + 1
        if watched.slot:
            if slot >= watched.slot:
                return
            self.forget(watched)
        watched.slot = slot
        entries = self._slots.get(slot)
        if entries is not None:
            entries[watched] = None
            return
        self._slots[slot] = {watched: None}
        if self._timer is None or slot < self._next:
            self._schedule(slot)

    def forget(self, watched: Watched) -> None:
        """
        Expect it no more, so that nothing keeps it alive here.
        """
        entries = self._slots.get(watched.slot)
        if entries is not None:
            entries.pop(watched, None)
        watched.slot = 0

    def close(self) -> None:
        """
        Forget everything.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()

    def _schedule(self, slot: int) -> None:
        """
        Sleep until the given slot is due.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._next = slot
        self._timer = self.loop.call_at(slot * self._resolution, self._tick)

    def _tick(self) -> None:
        """
        Visit every slot that is due, then sleep until the next one.
        """
        # While ticking nothing is scheduled: the earliest slot is known only at the end.
        self._next = 0
        now = self.loop.time()
        # The loop's timers are coarse (libuv: 1 ms): count a slot as due when within that.
        due = int((now + 0.001) / self._resolution)
        for slot in sorted(slot for slot in self._slots if slot <= due):
            for watched in self._slots.pop(slot):
                self._visit(watched, slot, now)
        self._timer = None
        if self._slots:
            self._schedule(min(self._slots))

    def _visit(self, watched: Watched, slot: int, now: float) -> None:
        """
        Let one object act if its deadline has passed, and expect it again.
        """
        if watched.slot != slot:
            return
        watched.slot = 0
        if watched.deadline <= now + 0.001:
            try:
                watched.on_deadline(now)
            except Exception as error:  # noqa: BLE001 - the deadlines of all others go on
                context = {"message": "a deadline could not be kept", "exception": error}
                self.loop.call_exception_handler(context)
        self.watch(watched)
