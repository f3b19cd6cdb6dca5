"""
While the interpreter is in full use, one thread serves the queue, and nobody waits for long.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from fairway.threads import pool as pool_module
from fairway.threads.gauge import ALONE_SECONDS, WINDOW, Gauge
from fairway.threads.pool import Pool
from tests.unit.test_threads import SECONDS_MAX, Ward, until

THREADS = 4


class Clocks:
    """
    The time, and what of it the process has used.
    """

    def __init__(self) -> None:
        self.now = self.used = 0.0
        self.readings = 0

    def wall(self) -> float:
        """
        Give the time.
        """
        return self.now

    def cpu(self) -> float:
        """
        Give what was used, and count that somebody asked.
        """
        self.readings += 1
        return self.used

    def pass_by(self, seconds: float, used: float) -> None:
        """
        Let time pass, of which a share is used.
        """
        self.now += seconds
        self.used += seconds * used


class FakeGauge(Gauge):
    """
    A gauge that finds what the test wants to be found.
    """

    full = True

    def is_full(self) -> bool:
        """
        Say so.
        """
        return self.full


class Spare(Ward):
    """
    Four threads of pages, and a gauge that says what the test says.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool: Pool = self.threads.pages
        self.pool.size = THREADS
        self.gauge = self.pool._gauge = FakeGauge()


@pytest.fixture
async def spare(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Spare]:
    """
    Threads whose pool's time stands still, so that whoever has begun gets on.
    """
    monkeypatch.setattr(pool_module, "monotonic", lambda: 1000.0)
    spare = Spare()
    yield spare
    for gate in spare.gates:
        gate.set()
    await spare.threads.stop()


@pytest.fixture(autouse=True)
def interval() -> Iterator[float]:
    """
    A switch interval as servers have it, which is as before at the end.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(ALONE_SECONDS / 3)
    short = sys.getswitchinterval()
    yield short
    after = sys.getswitchinterval()
    sys.setswitchinterval(before)
    assert after == short


@pytest.mark.parametrize(
    ("share", "full"), [(0.2, False), (0.95, True), (1.05, True), (1.6, False)]
)
def test_the_gauge_is_full_at_one_core(share: float, full: bool) -> None:
    """
    Less leaves something to others, and more is not the interpreter's doing.
    """
    clocks = Clocks()
    gauge = Gauge(clocks.wall, clocks.cpu)
    clocks.pass_by(WINDOW, share)
    assert gauge.is_full() is full


def test_the_processors_time_is_read_once_per_window() -> None:
    """
    In between, what was found last holds.
    """
    clocks = Clocks()
    gauge = Gauge(clocks.wall, clocks.cpu)
    clocks.pass_by(WINDOW, 1.0)
    assert gauge.is_full()
    before = clocks.readings
    clocks.pass_by(WINDOW / 2, 0.0)
    assert gauge.is_full()
    assert clocks.readings == before
    clocks.pass_by(WINDOW / 2, 0.0)
    assert not gauge.is_full()


async def test_one_thread_serves_the_queue(spare: Spare, interval: float) -> None:
    """
    Whoever comes while it gets on waits for it, and it may keep the interpreter for longer.
    """
    gate = spare.gate()
    first = spare.connection(lambda: spare.block(gate), page=True)
    await until(lambda: spare.pool.seats)
    found: list[int] = []

    async def work() -> None:
        found.append(await sync_to_async(threading.get_ident)())

    others = [spare.connection(work, page=True) for _ in range(20)]
    await until(lambda: len(spare.pool._queue) == len(others))
    assert sys.getswitchinterval() == pytest.approx(ALONE_SECONDS)
    assert interval < ALONE_SECONDS
    gate.set()
    await asyncio.gather(first, *others)
    assert len(set(found)) == 1
    assert len(spare.pool.seats) == 1


async def test_all_threads_work_where_the_interpreter_has_time(spare: Spare) -> None:
    """
    As many jobs wait at their gates as there are threads.
    """
    spare.gauge.full = False
    gate = spare.gate()
    tasks = [spare.connection(lambda: spare.block(gate), page=True) for _ in range(THREADS + 1)]
    await until(lambda: len(spare.pool.seats) == THREADS and len(spare.pool._queue) == 1)
    gate.set()
    await asyncio.gather(*tasks)


async def test_threads_that_are_too_many_go_to_rest(spare: Spare) -> None:
    """
    Each as it ends its job, except the one that serves the queue then.
    """
    spare.gauge.full = False
    gates = [spare.gate() for _ in range(THREADS)]
    tasks = [spare.connection(partial(spare.block, gate), page=True) for gate in gates]
    await until(lambda: len(at_work(spare.pool)) == THREADS)
    spare.gauge.full = True
    last = spare.connection(lambda: spare.block(spare.gate()), page=True)
    await until(lambda: spare.pool._queue)
    for gate in gates[1:]:
        gate.set()
    await until(lambda: len(spare.pool._idle) == THREADS - 1)
    assert len(spare.pool._queue) == 1
    gates[0].set()
    await asyncio.gather(*tasks)
    await until(lambda: not spare.pool._queue)
    spare.gates[-1].set()
    await last


async def test_who_waits_behind_a_long_job_gets_another_thread(
    spare: Spare, monkeypatch: pytest.MonkeyPatch, interval: float
) -> None:
    """
    A job that computes without the interpreter, say a password's hash, looks like full use too.
    """
    gate = spare.gate()
    long = spare.connection(lambda: spare.block(gate), page=True)
    await until(lambda: spare.pool.seats)

    async def work() -> None:
        await sync_to_async(threading.get_ident)()

    others = [spare.connection(work, page=True) for _ in range(3)]
    await until(lambda: spare.pool._queue)
    monkeypatch.setattr(pool_module, "monotonic", lambda: 1001.0)
    async with asyncio.timeout(SECONDS_MAX):
        await asyncio.gather(*others)
    assert not long.done()
    assert sys.getswitchinterval() == pytest.approx(interval)
    gate.set()
    await long


async def test_nobody_is_forgotten_however_the_gauge_turns() -> None:
    """
    Every job of many connections is done, in its connection's order, with time as it is.
    """
    spare = Spare()

    async def work(number: int) -> list[int]:
        done: list[int] = []
        for step in range(10):
            spare.gauge.full = (number + step) % 3 != 0
            await sync_to_async(done.append)(step)
        return done

    def connection(number: int) -> Any:
        return spare.connection(lambda: work(number), page=True)

    try:
        async with asyncio.timeout(SECONDS_MAX):
            results = await asyncio.gather(*(connection(number) for number in range(100)))
    finally:
        await spare.threads.stop()
    assert results == [list(range(10))] * 100


def at_work(pool: Pool) -> list[Any]:
    """
    Give the jobs that have begun.
    """
    return [seat.lane.job for seat in pool.seats if seat.lane is not None and seat.lane.job]
