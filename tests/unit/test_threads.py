"""
Each connection's work is done in order, on a few threads shared by all.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from math import inf
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async

from fairway import metrics, threads
from fairway.threads import Lane, Seat, Threads

SECONDS_MAX = 5


class Notes:
    """
    A ledger that does as it is told, by attributes of the class.
    """

    hold = False
    cursors: Any = None
    rolled_back = 0
    closed = 0

    def __init__(self, seat: Seat) -> None:
        self.due_at = inf

    def begin(self, lane: Lane) -> None:
        """
        Leave everything.
        """

    def end(self, lane: Lane) -> bool:
        """
        Leave what the test wants to be left.
        """
        lane.cursors = self.cursors
        return self.hold

    def tidy(self) -> None:
        """
        Have nothing to tidy.
        """

    def roll_back(self) -> None:
        """
        Count it.
        """
        type(self).rolled_back += 1

    def close(self) -> None:
        """
        Count it.
        """
        type(self).closed += 1


class Ward:
    """
    Threads of two consumers and one page, and tasks that stand for connections.
    """

    def __init__(self) -> None:
        self.notes: type[Notes] = type("OwnNotes", (Notes,), {})
        self.threads = Threads(self.notes, consumers=2, pages=1, close_timeout=0.05)
        self.threads.start()
        self.gates: list[threading.Event] = []
        self._context = contextvars.copy_context()

    def connection(self, work: Callable[[], Awaitable[Any]], *, page: bool = False) -> Any:
        """
        Do something as a connection of its own does.
        """

        async def live() -> Any:
            entered = threads.enter(page=page)
            assert entered is not None
            try:
                return await work()
            finally:
                threads.leave(entered)

        return asyncio.create_task(live(), context=self._context.copy())

    def gate(self) -> threading.Event:
        """
        Make something for a thread to be stuck on, until the end of the test.
        """
        gate = threading.Event()
        self.gates.append(gate)
        return gate

    async def block(self, gate: threading.Event) -> None:
        """
        Keep a thread at a gate.
        """
        await sync_to_async(gate.wait)(SECONDS_MAX)


@pytest.fixture
async def ward() -> AsyncIterator[Ward]:
    """
    Threads that end with the test.
    """
    ward = Ward()
    yield ward
    for gate in ward.gates:
        gate.set()
    await ward.threads.stop()


async def identity() -> int:
    """
    Give the thread that work is sent to.
    """
    return await sync_to_async(threading.get_ident)()


async def until(condition: Callable[[], object]) -> None:
    """
    Wait for a condition.
    """
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def test_nothing_is_mapped_without_a_server() -> None:
    """
    Elsewhere a connection gets no lane and work goes where asgiref sends it.
    """
    assert threads.enter() is None
    assert SyncToAsync.thread_sensitive_context.get(None) is None
    threads.rest()
    await threads.give_up()


async def test_a_connection_without_work_costs_one_object(ward: Ward) -> None:
    """
    No lane, no entry in asgiref's mapping and no thread is made before the first work.
    """
    gc.collect()  # Those of earlier servers are in cycles.
    before = len(SyncToAsync.context_to_thread_executor)
    seen: list[Any] = []

    async def work() -> None:
        context = SyncToAsync.thread_sensitive_context.get()
        seen.append(context)
        assert threads.enter() is None  # Set once.
        assert SyncToAsync.thread_sensitive_context.get() is context

    await asyncio.gather(*(ward.connection(work) for _ in range(3)))
    assert len({id(each) for each in seen}) == 3
    assert {each.grip for each in seen} == {None}
    assert len(SyncToAsync.context_to_thread_executor) == before
    assert not ward.threads.consumers.seats


async def test_work_of_one_connection_is_serial(ward: Ward) -> None:
    """
    What a connection's tasks send at once is done one by one, as it was sent.
    """
    running, order = [0], []

    def job(number: int) -> None:
        running[0] += 1
        assert running[0] == 1
        order.append(number)
        time.sleep(0.002)
        running[0] -= 1

    async def work() -> None:
        await asyncio.gather(*(sync_to_async(job)(number) for number in range(10)))

    await ward.connection(work)
    assert order == list(range(10))


async def test_connections_run_in_parallel_within_the_pool(ward: Ward) -> None:
    """
    Two consumers and a page meet at once; a third consumer waits for one of the two.
    """
    meeting = threading.Barrier(3)
    names: list[str] = []

    def meet() -> None:
        names.append(threading.current_thread().name)
        meeting.wait(SECONDS_MAX)

    async def work() -> None:
        await sync_to_async(meet)()

    await asyncio.gather(
        ward.connection(work), ward.connection(work), ward.connection(work, page=True)
    )
    assert sorted(names) == ["fairway-consumer", "fairway-consumer", "fairway-page"]
    found = await asyncio.gather(*(ward.connection(identity) for _ in range(50)))
    assert len(set(found)) <= 2


async def test_threads_that_the_system_does_not_give(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Without any, work fails and later work tries again; with fewer than wanted, these do it.
    """
    real, allowed = threading.Thread.start, 0

    def start(thread: threading.Thread) -> None:
        nonlocal allowed
        if allowed < 1:
            raise RuntimeError("can't start new thread")
        allowed -= 1
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)

    async def work() -> list[int]:
        with pytest.raises(RuntimeError, match="gives no thread for consumers"):
            await identity()
        nonlocal allowed
        allowed = 1
        others = [ward.connection(identity) for _ in range(3)]
        return [await identity(), *(await asyncio.gather(*others))]

    assert len(set(await ward.connection(work))) == 1


async def test_who_waits_longest_is_next(ward: Ward) -> None:
    """
    Connections get the threads in the order in which they came.
    """
    gates = [ward.gate(), ward.gate()]
    blocked = [ward.connection(partial(ward.block, gate)) for gate in gates]
    await asyncio.sleep(0)
    order: list[int] = []
    waiting = []
    for number in range(6):

        async def work(number: int = number) -> None:
            await sync_to_async(order.append)(number)

        waiting.append(ward.connection(work))
        await asyncio.sleep(0.001)
    assert order == []
    gates[0].set()
    await asyncio.gather(*waiting)
    assert order == list(range(6))
    gates[1].set()
    await asyncio.gather(*blocked)


async def test_the_previous_thread_is_preferred_and_any_free_one_taken(ward: Ward) -> None:
    """
    A connection stays on its thread while that is free, and goes to another when it is not.
    """
    gate = ward.gate()
    seats = ward.threads.consumers.seats

    async def work() -> None:
        first = await identity()
        other = ward.connection(identity)
        assert await other == first
        assert await identity() == first
        blocked = ward.connection(lambda: ward.block(gate))
        await until(lambda: any(each.lane for each in seats))
        second = await identity()
        assert second != first
        gate.set()
        await blocked
        assert await identity() == second

    await ward.connection(work)
    assert len(seats) == 2


async def test_an_open_cursor_keeps_its_connection_on_the_thread(ward: Ward) -> None:
    """
    Who has rows left waits for the thread they come from, while others use the free ones.
    """
    gate = ward.gate()
    ward.notes.cursors = {"rows left"}
    entered, asked = asyncio.Event(), asyncio.Event()
    found: list[int] = []

    async def iterate() -> None:
        found.append(await identity())
        entered.set()
        await asked.wait()
        found.append(await identity())

    reader = ward.connection(iterate)
    await entered.wait()
    ward.notes.cursors = None
    # The first takes the reader's thread, which is the only one so far.
    blocked = ward.connection(lambda: ward.block(gate))
    await until(lambda: any(each.lane for each in ward.threads.consumers.seats))
    asked.set()
    other = await ward.connection(identity)
    assert other != found[0]
    assert len(found) == 1
    gate.set()
    await asyncio.gather(reader, blocked)
    assert found[0] == found[1]


async def test_a_transaction_reserves_its_thread(ward: Ward) -> None:
    """
    Nobody else comes between two hops of a transaction; its end frees the thread.
    """
    begun, go = asyncio.Event(), asyncio.Event()
    found: list[int] = []

    async def transaction() -> None:
        ward.notes.hold = True
        found.append(await identity())
        begun.set()
        await go.wait()
        ward.notes.hold = True
        found.append(await identity())
        ward.notes.hold = False
        found.append(await identity())

    task = ward.connection(transaction)
    await begun.wait()
    ward.notes.hold = False
    others = await asyncio.gather(*(ward.connection(identity) for _ in range(10)))
    assert found[0] not in others
    go.set()
    await task
    assert len(set(found)) == 1
    assert ward.notes.rolled_back == 0
    assert not any(each.held for each in ward.threads.consumers.seats)


async def test_a_transaction_ends_with_its_connection(ward: Ward) -> None:
    """
    What a connection leaves open is undone and the thread serves others.
    """

    async def forget() -> None:
        ward.notes.hold = True
        await identity()
        ward.notes.hold = False

    await ward.connection(forget)
    await until(lambda: ward.notes.rolled_back == 1)
    await until(lambda: not any(each.held for each in ward.threads.consumers.seats))


async def test_a_transaction_of_a_task_that_outlives_its_connection_ends_with_it(
    ward: Ward,
) -> None:
    """
    After the connection its tasks still have its lane, and what they leave is undone too.
    """
    left, outcome = asyncio.Event(), []

    async def outlive() -> None:
        await left.wait()
        ward.notes.hold = True
        outcome.append(await identity())
        ward.notes.hold = False

    tasks = []

    async def work() -> None:
        outcome.append(await identity())
        tasks.append(asyncio.create_task(outlive()))

    await ward.connection(work)
    left.set()
    await tasks[0]
    tasks.clear()

    def is_undone() -> bool:
        # Again and again: the loop still holds the task in the turn that it woke this one in.
        gc.collect()
        return ward.notes.rolled_back == 1

    await until(is_undone)
    assert outcome[0] == outcome[1]


async def test_an_application_of_others_is_bounded_too(ward: Ward) -> None:
    """
    A task that never entered anything gets a lane on the threads of pages when it needs one.
    """
    names = []

    async def work() -> None:
        names.append(await sync_to_async(lambda: threading.current_thread().name)())
        names.append(await sync_to_async(lambda: threading.current_thread().name)())

    await asyncio.gather(*(asyncio.create_task(work()) for _ in range(5)))
    assert set(names) == {"fairway-page"}
    assert len(ward.threads.pages.seats) == 1


async def test_nested_calls_come_back(ward: Ward) -> None:
    """
    async_to_sync in a thread runs on this loop, and its own work in the waiting thread.
    """
    loop = asyncio.get_running_loop()

    async def inner() -> tuple[bool, int]:
        return asyncio.get_running_loop() is loop, await identity()

    def outer() -> tuple[bool, bool]:
        same_loop, thread = async_to_sync(inner)()
        return same_loop, thread == threading.get_ident()

    async def work() -> Any:
        return await sync_to_async(outer)()

    found = await asyncio.gather(*(ward.connection(work) for _ in range(6)))
    assert found == [(True, True)] * 6


async def test_context_variables_do_not_stay_in_a_thread(ward: Ward) -> None:
    """
    What one job sets, the next job on the thread does not see; its own connection does.
    """
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")

    async def setting() -> str:
        await sync_to_async(variable.set)("mine")
        return await sync_to_async(variable.get)()

    async def looking() -> str:
        return await sync_to_async(variable.get)()

    assert await ward.connection(setting, page=True) == "mine"
    assert await ward.connection(looking, page=True) == "nothing"
    executor = SyncToAsync.context_to_thread_executor[SyncToAsync.thread_sensitive_context.get()]
    await asyncio.wrap_future(executor.submit(variable.set, "raw"))
    assert await asyncio.wrap_future(executor.submit(variable.get)) == "nothing"
    executor.shutdown()
    assert await asyncio.wrap_future(executor.submit(variable.get)) == "nothing"


async def test_cancelled_work_that_has_not_begun_is_left_out(ward: Ward) -> None:
    """
    Who gives up while waiting for a thread leaves nothing behind.
    """
    gates = [ward.gate(), ward.gate()]
    blocked = [ward.connection(partial(ward.block, gate)) for gate in gates]
    done: list[int] = []

    async def work() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sync_to_async(done.append)(1), 0.01)
        await sync_to_async(done.append)(2)

    task = ward.connection(work)
    await asyncio.sleep(0.03)
    for gate in gates:
        gate.set()
    await asyncio.gather(task, *blocked)
    assert done == [2]


async def test_a_stuck_thread_is_replaced(ward: Ward, caplog: pytest.LogCaptureFixture) -> None:
    """
    A thread nobody waits for is given up after the close time-out: counted, its stack logged
    once, replaced up to twice the pool, and gone when it ends after all.
    """
    stuck_before = metrics.threads_stuck.value
    pool = ward.threads.consumers
    gate = ward.gate()

    standing: list[int] = []

    def stand_still_here(number: object) -> None:
        standing.append(id(number))
        gate.wait(SECONDS_MAX)

    async def work() -> None:
        number = object()
        task = asyncio.create_task(sync_to_async(stand_still_here)(number))
        await until(lambda: id(number) in standing)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with caplog.at_level(logging.ERROR, "fairway.threads"):
        await asyncio.gather(ward.connection(work), ward.connection(work))
        await until(lambda: metrics.threads_stuck.value == stuck_before + 2)
        assert [record.getMessage().count("stand_still_here") for record in caplog.records] == [
            1,
            1,
        ]
    await asyncio.gather(*(ward.connection(identity) for _ in range(5)))
    # Two more, and nothing is left to replace them.
    await asyncio.gather(ward.connection(work), ward.connection(work))
    await until(lambda: metrics.threads_stuck.value == stuck_before + 4)
    late = ward.connection(identity)
    await asyncio.sleep(0.02)
    assert not late.done()
    assert len(pool.lost) == 4
    gate.set()
    await asyncio.wait_for(late, SECONDS_MAX)
    await until(lambda: not pool.lost)
    assert ward.notes.closed == 4


@pytest.mark.parametrize("seconds", [60, 0])
async def test_giving_up_a_job_that_has_had_its_time(ward: Ward, seconds: int) -> None:
    """
    After a cancellation the next work need not wait, unless the job had only just begun.
    """
    pool = ward.threads.consumers
    pool.close_timeout = 60
    gate = ward.gate()
    found = []

    async def work() -> None:
        task = asyncio.create_task(ward.block(gate))
        await until(lambda: any(each.job for each in lanes()))
        (lane,) = lanes()
        assert lane.job is not None
        lane.job.started -= seconds
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await threads.give_up()
        found.append(len(pool.lost))
        if not seconds:
            gate.set()
        await identity()

    def lanes() -> list[Lane]:
        return [each.lane for each in pool.seats if each.lane]

    await asyncio.wait_for(ward.connection(work), SECONDS_MAX)
    assert found == [1 if seconds else 0]


async def test_giving_up_leaves_a_working_thread_alone(ward: Ward) -> None:
    """
    Work of the connection that somebody still waits for goes on.
    """
    ward.threads.consumers.close_timeout = 60
    gate = ward.gate()

    async def work() -> None:
        task = asyncio.create_task(ward.block(gate))
        await until(lambda: any(each.lane for each in ward.threads.consumers.seats))
        await threads.give_up()
        gate.set()
        await task

    await ward.connection(work)
    assert not ward.threads.consumers.lost


async def test_stopping_ends_the_threads(ward: Ward) -> None:
    """
    Idle threads close what they hold; what comes later is still done, then ends too.
    """
    await asyncio.gather(ward.connection(identity), ward.connection(identity, page=True))
    await ward.threads.stop()
    assert ward.notes.closed == 2
    assert not ward.threads.consumers.seats
    assert await ward.connection(identity)
    await until(lambda: ward.notes.closed == 3)


async def test_a_ledger_that_fails_ends_no_thread(
    ward: Ward, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The job's result arrives, the fault is logged, and the thread goes on.
    """

    def fail(self: Any, lane: Lane) -> bool:
        raise LookupError

    monkeypatch.setattr(ward.notes, "end", fail, raising=False)
    first = await asyncio.wait_for(ward.connection(identity), SECONDS_MAX)
    monkeypatch.undo()
    assert await ward.connection(identity) == first
    assert "failed between two jobs" in caplog.text


async def test_exceptions_reach_who_waits(ward: Ward) -> None:
    """
    A job's exception is its caller's, and the thread goes on.
    """

    def fail() -> None:
        raise LookupError("mine")

    async def work() -> None:
        with pytest.raises(LookupError, match="mine"):
            await sync_to_async(fail)()
        await identity()

    await ward.connection(work)
