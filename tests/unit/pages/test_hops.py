"""
A function in a thread, which tells things as it goes, and the task that waits for them.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from fairway.pages.hops import Hop, _copy_values
from tests.protocol.harness import until

variable: ContextVar[int] = ContextVar("variable", default=0)


async def test_tells_as_it_goes() -> None:
    """What is told wakes the task at once, and the end comes after it."""
    go_on = threading.Event()

    def function(hop: Hop) -> None:
        hop.tell("first")
        go_on.wait(5)
        hop.tell("second")

    hop = Hop(copy_context(), function)
    hop.start()
    await hop.wait()
    assert (hop.told, hop.ended) == (["first"], False)
    hop.told.clear()
    go_on.set()
    await hop.wait()
    assert hop.told == ["second"]
    await hop.wait_ended()
    assert hop.done()


async def test_raises_in_the_task() -> None:
    """An exception belongs to who waits, once."""

    def function(hop: Hop) -> None:
        raise ValueError("no")

    hop = Hop(copy_context(), function)
    hop.start()
    with pytest.raises(ValueError, match="no"):
        await hop.wait_ended()
    hop.raise_error()


async def test_one_context_for_all_hops() -> None:
    """What a function sets is there for the next in the same context, and nowhere else."""
    context = copy_context()
    seen: list[int] = []

    def function(hop: Hop) -> None:
        seen.append(variable.get())
        variable.set(variable.get() + 1)

    for _ in range(3):
        hop = Hop(context, function)
        hop.start()
        await hop.wait_ended()
    assert seen == [0, 1, 2]
    assert variable.get() == 0


async def test_a_deserted_function() -> None:
    """It runs on, knows of it, and what it still tells goes to whoever looks after orphans."""
    go_on, running = threading.Event(), threading.Event()
    knew: list[bool] = []
    orphans: asyncio.Queue[Any] = asyncio.Queue()

    def function(hop: Hop) -> None:
        running.set()
        go_on.wait(5)
        knew.append(hop.deserted)
        hop.tell("late")

    hop = Hop(copy_context(), function)
    hop.orphaned = orphans.put_nowait
    hop.start()
    task = asyncio.ensure_future(hop.wait())
    await asyncio.to_thread(running.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await asyncio.wait_for(orphans.get(), 5) == "late"
    assert knew == [True]


async def test_a_function_deserted_before_it_began() -> None:
    """It is never called."""
    hop = Hop(copy_context(), lambda hop: hop.tell("never"))
    task = asyncio.ensure_future(hop.wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hop.start()
    await until(lambda: hop.begun)
    assert not hop.told
    assert not hop.ended


def test_a_loop_that_is_gone() -> None:
    """Telling a closed loop does nothing."""

    async def make() -> Hop:
        return Hop(copy_context(), lambda hop: None)

    hop = asyncio.run(make())
    hop.tell("nobody")
    hop.run()()


def test_values_without_asgirefs_help() -> None:
    """Variables are copied one by one where asgiref has no function for it."""
    other = copy_context()
    other.run(variable.set, 7)

    def look() -> int:
        _copy_values(other)
        return variable.get()

    assert copy_context().run(look) == 7
