"""
Which loop a hub belongs to, and how everybody else gets in.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from fairway.exceptions import ChannelLayerUnavailable, ConfigurationError
from fairway.faults import Fault
from fairway.layers import owner as module
from fairway.layers.owner import Owner, bind, release
from tests.unit.layers.fakes import LoopThread, until


class Resident:
    """
    Notes where it lives.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, asyncio.AbstractEventLoop]] = []
        self.wanted = False
        self.arrive_fails: list[Exception] = []
        self.depart_fails: list[Exception] = []
        self.gate: asyncio.Event | None = None
        self.forks = 0

    async def arrive(self) -> None:
        """
        Begin, unless told to fail.
        """
        if self.arrive_fails:
            raise self.arrive_fails.pop()
        if self.gate is not None:
            await self.gate.wait()
        self.events.append(("arrive", asyncio.get_running_loop()))

    async def depart(self) -> None:
        """
        End, unless told to fail.
        """
        self.events.append(("depart", asyncio.get_running_loop()))
        if self.depart_fails:
            raise self.depart_fails.pop()

    def forked(self) -> None:
        """
        Count the children.
        """
        self.forks += 1


async def result(future: Future[Any]) -> Any:
    """
    Wait for what was entered.
    """
    return await asyncio.wait_for(asyncio.wrap_future(future), 5)


@asynccontextmanager
async def bound() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """
    Make the loop of the test a server's.
    """
    loop = asyncio.get_running_loop()
    await bind(loop)
    try:
        yield loop
    finally:
        await release(loop)


async def test_without_a_server_the_thread_fairway_io_owns_a_hub() -> None:
    """
    The first call starts the thread; all hubs share it.
    """
    first, second = Owner(Resident()), Owner(Resident())
    assert first.loop is None
    names = [
        await result(one.enter(lambda: threading.current_thread().name)) for one in (first, second)
    ]
    assert names == ["fairway-io", "fairway-io"]
    assert first.loop is second.loop is not asyncio.get_running_loop()
    assert not first.here()
    assert await result(first.enter(first.here))


def test_a_thread_without_a_loop_may_call() -> None:
    """
    A view, a task or the shell enters and waits for the result.
    """
    owner = Owner(Resident())
    assert owner.enter(lambda: 5).result(5) == 5
    assert not owner.here()


async def test_calls_run_in_their_order_and_may_be_awaitables() -> None:
    """
    Functions are called one after the other; what they return is awaited in a task.
    """
    owner = Owner(Resident())
    order: list[int] = []

    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return number * 10

    def call(number: int) -> Any:
        order.append(number)
        return later(number) if number % 2 else None

    futures = [owner.enter(call, number) for number in range(500)]
    results = await asyncio.gather(*map(result, futures))
    assert order == list(range(500))
    assert results == [number * 10 if number % 2 else None for number in range(500)]


async def test_a_caller_is_told_after_what_the_call_left_for_the_end_of_the_turn() -> None:
    """
    Brokers write then, and a process may end as soon as it is told.
    """
    events: list[str] = []
    owner = Owner(Resident())
    await result(owner.enter(lambda: None))

    def publish() -> None:
        asyncio.get_running_loop().call_soon(events.append, "written")

    told = owner.enter(publish)
    told.add_done_callback(lambda _: events.append("told"))
    await result(told)
    assert events == ["written", "told"]
    await owner.retire()


async def test_an_error_is_the_callers() -> None:
    """
    What a function or its awaitable raises comes out where it was entered.
    """

    async def fail() -> None:
        raise KeyError("late")

    def fail_at_once() -> None:
        raise KeyError("early")

    owner = Owner(Resident())
    for function, text in ((fail, "late"), (fail_at_once, "early")):
        with pytest.raises(KeyError, match=text):
            await result(owner.enter(function))


async def test_a_call_whose_caller_gave_up_is_not_made() -> None:
    """
    Cancelling before the call begins keeps it from happening.
    """
    resident = Resident()
    owner = Owner(resident)
    calls: list[int] = []
    async with bound():
        futures = [owner.enter(calls.append, number) for number in range(3)]
        futures[1].cancel()
        await result(futures[2])
    assert calls == [0, 2]


async def test_a_flood_of_calls_leaves_the_loop_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Only so many calls are made before the loop does something else.
    """
    monkeypatch.setattr(module, "CALLS_PER_TURN", 10)
    owner = Owner(Resident())
    async with bound():
        last = [owner.enter(int) for _ in range(100)][-1]
        turns = 0
        while not last.done():
            await asyncio.sleep(0)
            turns += 1
    assert turns >= 10


async def test_too_many_waiting_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A loop that stands still does not gather calls for ever.
    """
    monkeypatch.setattr(module, "CALLS_MAX", 2)
    owner = Owner(Resident())
    async with bound():
        futures = [owner.enter(int), owner.enter(int)]
        with pytest.raises(ChannelLayerUnavailable, match="stands still"):
            owner.enter(int)
        await result(futures[1])
        await result(owner.enter(int))


async def test_a_server_takes_over_and_hands_back() -> None:
    """
    The hub ends on the old loop before it begins on the new one, both ways.
    """
    resident = Resident()
    resident.wanted = True
    owner = Owner(resident)
    await result(owner.enter(int))
    io = owner.loop
    assert io is not None
    async with bound() as here:
        assert owner.loop is here
        assert owner.here()
    await result(owner.enter(int))
    assert owner.loop is io
    assert resident.events == [
        ("arrive", io),
        ("depart", io),
        ("arrive", here),
        ("depart", here),
        ("arrive", io),
    ]


async def test_an_unused_hub_is_on_no_loop_after_the_server() -> None:
    """
    Nothing is started for a hub that nobody waits for.
    """
    owner = Owner(Resident())
    async with bound():
        assert owner.loop is None
        await result(owner.enter(int))
    assert owner.loop is None


async def test_a_hub_made_under_a_server_begins_there() -> None:
    """
    Binding counts for hubs to come.
    """
    async with bound() as here:
        owner = Owner(Resident())
        assert await result(owner.enter(asyncio.get_running_loop)) is here


async def test_calls_during_a_move_wait_for_the_new_loop() -> None:
    """
    Nothing that is entered while the hub moves is lost or made on the old loop.
    """
    resident = Resident()
    owner = Owner(resident)
    await result(owner.enter(int))
    resident.gate = asyncio.Event()
    here = asyncio.get_running_loop()
    moving = asyncio.ensure_future(bind(here))
    await until(lambda: len(resident.events) == 2)
    futures = [owner.enter(asyncio.get_running_loop) for _ in range(3)]
    futures += [await asyncio.to_thread(owner.enter, asyncio.get_running_loop)]
    assert not any(future.done() for future in futures)
    resident.gate.set()
    await moving
    assert {await result(future) for future in futures} == {here}
    resident.gate = None
    await release(here)


async def test_the_newest_of_several_servers_owns_the_hubs() -> None:
    """
    When it ends, the one before it does.
    """
    owner = Owner(Resident())
    await result(owner.enter(int))
    async with bound() as here:
        with LoopThread() as other:
            await other.run(bind(other.loop))
            assert owner.loop is other.loop
            await other.run(release(other.loop))
            await result(owner.enter(int))
            assert owner.loop is here


async def test_a_loop_that_ended_without_a_word_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    The next call finds out, says so and goes on elsewhere.
    """
    resident = Resident()
    owner = Owner(resident)
    await result(owner.enter(int))
    with LoopThread() as other:
        await other.run(bind(other.loop))
        assert owner.loop is other.loop
    assert await result(owner.enter(lambda: 5)) == 5
    assert "ended without releasing" in caplog.text
    assert owner.loop is not other.loop
    module._servers.remove(other.loop)


async def test_a_call_stranded_on_an_ended_loop_is_made_with_the_next() -> None:
    """
    A wake-up that a loop took to its grave is repeated.
    """
    owner = Owner(Resident())
    await result(owner.enter(int))
    other = LoopThread()
    with other:
        await other.run(bind(other.loop))
        other.loop.call_soon_threadsafe(other.loop.stop)
        other.thread.join()
        stranded = owner.enter(lambda: 1)
        other.loop.close()
    assert not stranded.done()
    assert await result(owner.enter(lambda: 2)) == 2
    assert await result(stranded) == 1
    module._servers.remove(other.loop)


async def test_a_move_stranded_on_an_ended_loop_is_taken_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A server does not wait for a loop that will never begin.
    """
    monkeypatch.setattr(module, "PARTING_SECONDS", 0.05)
    owner = Owner(Resident())
    other = LoopThread()
    other.thread.start()
    other.loop.call_soon_threadsafe(other.loop.stop)
    other.thread.join()
    module._servers.append(other.loop)
    stranded = owner.enter(lambda: 1)
    taking_over = asyncio.ensure_future(bind(asyncio.get_running_loop()))
    await asyncio.sleep(0.01)
    assert not taking_over.done()
    other.loop.close()
    await taking_over
    assert owner.here()
    assert await result(stranded) == 1
    module._servers.remove(other.loop)
    await release(asyncio.get_running_loop())


async def test_a_loop_that_stands_still_is_taken_over_from(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A hub waits only so long for its old loop to let it go.
    """
    monkeypatch.setattr(module, "PARTING_SECONDS", 0.05)
    resident = Resident()
    owner = Owner(resident)
    await result(owner.enter(int))
    other = LoopThread()
    with other:
        await other.run(bind(other.loop))
        go_on = threading.Event()
        other.loop.call_soon_threadsafe(go_on.wait)
        async with bound() as here:
            assert owner.loop is here
            go_on.set()
            await other.run(asyncio.sleep(0))
            assert resident.events[-1] == ("arrive", here)  # The old loop ends it no more.
            assert owner.loop is here
        await other.run(release(other.loop))
    assert "stands still" in caplog.text


async def test_a_hub_that_cannot_begin_tells_its_callers_and_may_try_again() -> None:
    """
    Everybody who waits gets the error; the next call is a new attempt.
    """
    resident = Resident()
    resident.arrive_fails = [ValueError("no such host")]
    owner = Owner(resident)
    with pytest.raises(ValueError, match="no such host"):
        await result(owner.enter(int))
    assert await result(owner.enter(int)) == 0
    await owner.retire()
    resident.arrive_fails = [ConfigurationError("no such user", fault=Fault.LAYER_INVALID)]
    with pytest.raises(ChannelLayerUnavailable, match="no such user") as caught:
        await result(owner.enter(int))
    assert isinstance(caught.value, ConfigurationError)
    assert caught.value.fault is Fault.LAYER_INVALID
    assert await result(owner.enter(int)) == 0
    resident.arrive_fails = [ValueError("refused")]
    with pytest.raises(ValueError, match="refused"):
        async with bound():
            pass
    module._servers.remove(asyncio.get_running_loop())
    assert await result(owner.enter(int)) == 0


async def test_a_move_that_is_cancelled_leaves_callers_waiting_for_the_next_loop() -> None:
    """
    A server that is stopped while it starts takes nobody's call with it.
    """
    resident = Resident()
    owner = Owner(resident)
    await result(owner.enter(int))
    here = asyncio.get_running_loop()
    resident.gate = asyncio.Event()
    starting = asyncio.ensure_future(bind(here))
    await until(lambda: len(resident.events) == 2)
    waiting = owner.enter(asyncio.get_running_loop)
    starting.cancel()
    resident.gate = None
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert await result(waiting) is here
    await release(here)


async def test_a_loop_that_ends_before_a_hub_has_begun_is_no_loss() -> None:
    """
    The task that would begin is cancelled with its loop, and the call goes elsewhere.
    """
    resident = Resident()
    resident.gate = asyncio.Event()
    owner = Owner(resident)

    async def serve_shortly() -> Future[Any]:
        module._servers.append(asyncio.get_running_loop())
        waiting = owner.enter(lambda: 5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        module._servers.clear()
        resident.gate = None
        return waiting

    waiting = await asyncio.to_thread(asyncio.run, serve_shortly())
    assert await result(waiting) == 5


async def test_releasing_a_server_that_owns_nothing_disturbs_no_calls() -> None:
    """
    Calls entered while somebody else's server stops are made where the hub is.
    """
    owner = Owner(Resident())
    await result(owner.enter(int))
    io = owner.loop
    futures = []
    for _ in range(20):
        futures.append(owner.enter(asyncio.get_running_loop))
        await release(asyncio.get_running_loop())
        futures.append(owner.enter(asyncio.get_running_loop))
    assert {await result(future) for future in futures} == {io}


async def test_a_broker_that_closes_badly_stops_no_move(caplog: pytest.LogCaptureFixture) -> None:
    """
    The failure is logged, and the hub is on its new loop.
    """
    resident = Resident()
    owner = Owner(resident)
    await result(owner.enter(int))
    resident.depart_fails = [ValueError("already gone")]
    async with bound() as here:
        assert owner.loop is here
    assert "did not close cleanly" in caplog.text


async def test_what_runs_on_the_old_loop_ends_before_the_move() -> None:
    """
    A call that was begun is finished where it was begun.
    """
    owner = Owner(Resident())
    loops: list[asyncio.AbstractEventLoop] = []

    async def slow() -> None:
        await asyncio.sleep(0.05)
        loops.append(asyncio.get_running_loop())

    future = owner.enter(slow)
    await until(future.running)
    io = owner.loop
    async with bound():
        assert future.done()
    assert loops == [io]


async def test_a_call_cut_off_by_its_loop_is_unavailable() -> None:
    """
    Whoever waits for a call on a loop that ends hears of it.
    """
    owner = Owner(Resident())
    await result(owner.enter(int))
    with LoopThread() as other:
        await other.run(bind(other.loop))
        future = owner.enter(asyncio.Event().wait)
        await until(lambda: owner._tasks)
        [task] = owner._tasks
        other.loop.call_soon_threadsafe(task.cancel)
        with pytest.raises(ChannelLayerUnavailable, match="loop ended"):
            await result(future)
        await other.run(release(other.loop))


async def test_on_the_owning_loop_a_function_may_run_at_once() -> None:
    """
    run_or_enter makes no detour where none is needed.
    """
    owner = Owner(Resident())
    elsewhere = owner.run_or_enter(threading.current_thread)
    assert (await result(elsewhere)).name == "fairway-io"
    async with bound():
        assert owner.run_or_enter(lambda: 5).result(0) == 5
        slow = owner.run_or_enter(lambda: asyncio.sleep(0, 6))
        assert not slow.done()
        assert await result(slow) == 6


async def test_a_failure_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """
    What runs without a caller does not fail in silence.
    """

    async def fail() -> None:
        raise ValueError("unheard")

    owner = Owner(Resident())
    async with bound():
        owner.spawn(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert "unheard" in caplog.text


async def test_a_retired_hub_begins_anew_with_the_next_call() -> None:
    """
    Retiring ends the hub where it is, from any loop or thread.
    """
    resident = Resident()
    owner = Owner(resident)
    await owner.retire()
    owner.retire_soon()
    assert resident.events == []
    await result(owner.enter(int))
    await owner.retire()
    assert owner.loop is None
    await result(owner.enter(int))
    owner.retire_soon()
    await result(owner.enter(int))
    async with bound() as here:
        await owner.retire()
        assert owner.loop is None
        assert await result(owner.enter(asyncio.get_running_loop)) is here
    names = [name for name, _ in resident.events]
    assert names == ["arrive", "depart"] * (len(names) // 2)


async def test_the_end_of_the_process_waits_for_what_was_entered() -> None:
    """
    Calls that are made in time are not lost; those that are not are counted.
    """
    owner = Owner(Resident())
    done = owner.enter(asyncio.sleep, 0.01)
    assert await asyncio.to_thread(owner.finish, monotonic() + 5) == 0
    assert done.done()
    never = owner.enter(asyncio.Event().wait)
    assert await asyncio.to_thread(owner.finish, monotonic() + 0.05) >= 1
    assert not never.done()
    for task in list(owner._tasks):
        task.get_loop().call_soon_threadsafe(task.cancel)


async def test_a_child_process_begins_without_loop_and_calls() -> None:
    """
    Nothing of the parent is waited for or answered.
    """
    resident = Resident()
    owner = Owner(resident)
    await result(owner.enter(int))
    owner.forked()
    assert owner.loop is None
    assert resident.forks == 1
    assert await result(owner.enter(lambda: 5)) == 5
