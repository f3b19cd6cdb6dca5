"""
The timing wheel, on a clock that the test moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, cast

import pytest

from fairway.server.timers import TimingWheel


class Handle:
    """
    A timer of the fake loop.
    """

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """
        Forget it.
        """
        self.cancelled = True


class FakeLoop:
    """
    As much of a loop as the wheel needs; its time passes only by ``advance``.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.handles: list[Handle] = []
        self.errors: list[dict[str, Any]] = []

    def time(self) -> float:
        """
        The present.
        """
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        """
        Keep a timer.
        """
        self.handles.append(Handle(when, callback))
        return self.handles[-1]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """
        Keep an error.
        """
        self.errors.append(context)

    def pending(self) -> list[Handle]:
        """
        The timers that would still fire, in order.
        """
        self.handles = [handle for handle in self.handles if not handle.cancelled]
        return sorted(self.handles, key=lambda handle: handle.when)

    def advance(self, seconds: float) -> None:
        """
        Let time pass and fire what falls due.
        """
        until = self.now + seconds
        while (pending := self.pending()) and pending[0].when <= until:
            handle = pending[0]
            self.now = max(self.now, handle.when)
            self.handles.remove(handle)
            handle.callback()
        self.now = until


class Watched:
    """
    Something with a deadline that remembers when it was visited.
    """

    def __init__(self, loop: FakeLoop, deadline: float = inf, every: float = inf) -> None:
        self.loop = loop
        self.deadline = deadline
        self.slot = 0
        self.every = every
        self.visits: list[float] = []

    def on_deadline(self, now: float) -> None:
        """
        Note the visit.
        """
        self.visits.append(round(self.loop.now - 1000, 3))
        self.deadline = now + self.every


@pytest.fixture
def loop() -> FakeLoop:
    """
    A loop at the time 1000.
    """
    return FakeLoop()


@pytest.fixture
def wheel(loop: FakeLoop) -> TimingWheel:
    """
    A wheel with slots of 50 ms.
    """
    return TimingWheel(cast("asyncio.AbstractEventLoop", loop))


def watch(wheel: TimingWheel, deadline: float, every: float = inf) -> Watched:
    """
    Something watched, with a deadline in seconds from the start.
    """
    watched = Watched(cast("FakeLoop", wheel.loop), 1000 + deadline, every)
    wheel.watch(watched)
    return watched


def test_never_early_and_hardly_late(loop: FakeLoop, wheel: TimingWheel) -> None:
    """
    A deadline is met at most one slot late and never early.
    """
    deadlines = [0.001, 0.049, 0.05, 0.051, 0.1, 7.77, 60.0]
    things = [watch(wheel, deadline) for deadline in deadlines]
    loop.advance(100)
    for deadline, thing in zip(deadlines, things, strict=True):
        (visit,) = thing.visits
        assert deadline <= visit <= deadline + 0.051


def test_others_are_not_forgotten(loop: FakeLoop, wheel: TimingWheel) -> None:
    """
    A visit that sets a far deadline does not postpone the near ones of others.
    """
    often = watch(wheel, 0.1, every=25)
    soon = watch(wheel, 0.5)
    later = watch(wheel, 3)
    loop.advance(30)
    assert [len(thing.visits) for thing in (often, soon, later)] == [2, 1, 1]
    assert soon.visits[0] < 0.6
    assert later.visits[0] < 3.1


def test_moved_later(loop: FakeLoop, wheel: TimingWheel) -> None:
    """
    A deadline that moves later needs nobody to say so.
    """
    thing = watch(wheel, 1)
    thing.deadline = 1005.0
    loop.advance(4.9)
    assert thing.visits == []
    loop.advance(0.2)
    assert len(thing.visits) == 1


def test_moved_earlier(loop: FakeLoop, wheel: TimingWheel) -> None:
    """
    A deadline that moves earlier is watched anew; the old entry is passed over.
    """
    thing = watch(wheel, 5)
    thing.deadline = 1001.0
    wheel.watch(thing)
    loop.advance(1.1)
    assert len(thing.visits) == 1
    loop.advance(10)
    assert len(thing.visits) == 1


def test_never(loop: FakeLoop, wheel: TimingWheel) -> None:
    """
    Without a deadline nothing is kept, and an idle wheel sets no timer.
    """
    thing = watch(wheel, inf)
    assert loop.pending() == []
    thing.deadline = 1001.0
    wheel.watch(thing)
    thing.deadline = inf
    loop.advance(5)
    assert thing.visits == []
    assert loop.pending() == []


def test_one_timer(loop: FakeLoop, wheel: TimingWheel) -> None:
    """
    However much is watched, the loop holds one timer.
    """
    things = [watch(wheel, 0.3 * number, every=0.7) for number in range(1, 50)]
    loop.advance(10)
    assert len(loop.pending()) == 1
    assert all(thing.visits for thing in things[:30])


def test_failure(loop: FakeLoop, wheel: TimingWheel) -> None:
    """
    A visit that fails costs nobody else theirs.
    """

    class Broken(Watched):
        def on_deadline(self, now: float) -> None:
            self.deadline = inf
            raise ValueError

    broken = Broken(loop, 1001.0)
    wheel.watch(broken)
    same_slot, next_slot = watch(wheel, 1), watch(wheel, 2)
    loop.advance(5)
    assert len(same_slot.visits) == len(next_slot.visits) == 1
    assert len(loop.errors) == 1


def test_watch_within_visit(loop: FakeLoop, wheel: TimingWheel) -> None:
    """
    What begins to be watched while others are visited is visited in its time.
    """
    born = []

    class Parent(Watched):
        def on_deadline(self, now: float) -> None:
            super().on_deadline(now)
            born.append(watch(wheel, now - 1000 + 0.2))

    wheel.watch(Parent(loop, 1001.0))
    loop.advance(2)
    assert [len(child.visits) for child in born] == [1]


def test_close(loop: FakeLoop, wheel: TimingWheel) -> None:
    """
    A closed wheel visits nobody.
    """
    thing = watch(wheel, 1)
    wheel.close()
    loop.advance(5)
    assert thing.visits == []
    assert loop.pending() == []
