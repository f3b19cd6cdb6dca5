"""
Waits for acknowledgements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import pytest

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.ipc.joins import Joins, fail, new_wait


def make(timeout: float = 60) -> tuple[Joins, list[set[Hashable]]]:
    """
    Make joins on the running loop, and a list of those who were late.
    """
    late: list[set[Hashable]] = []
    return Joins(asyncio.get_running_loop(), timeout, late.append), late


def wait(joins: Joins, number: int, *missing: Hashable) -> asyncio.Future[None]:
    """
    Begin a wait.
    """
    future = new_wait(asyncio.get_running_loop())
    joins.wait(number, future, set(missing))
    return future


async def test_a_wait_for_nobody_is_over() -> None:
    """
    A process alone joins at once.
    """
    joins, _ = make()
    assert wait(joins, 1).done()


async def test_an_acknowledgement_covers_all_smaller_numbers() -> None:
    """
    Who heeds a number has heeded what came before it, and not what came after.
    """
    joins, late = make()
    first, second, third = (wait(joins, number, "A", "B") for number in (1, 2, 3))
    joins.heard("A", 3)
    assert not first.done()
    joins.heard("B", 2)
    assert first.done()
    assert second.done()
    assert not third.done()
    joins.gone("B")
    assert third.done()
    assert late == []


async def test_a_wait_ends_in_time_and_says_who_was_late() -> None:
    """
    Nobody keeps a join longer than the time it has.
    """
    joins, late = make(0.01)
    future = wait(joins, 1, "A", "B")
    joins.heard("A", 1)
    await asyncio.wait_for(future, 5)
    assert late == [{"B"}]
    joins.heard("B", 1)


async def test_the_end_fails_those_who_wait() -> None:
    """
    Nobody waits for a broker that was closed; who waits no more is not disturbed.
    """
    joins, late = make(0.01)
    waiting, cancelled = wait(joins, 1, "A"), wait(joins, 1, "A")
    cancelled.cancel()
    joins.close()
    fail(None)
    with pytest.raises(ChannelLayerUnavailable):
        await waiting
    await asyncio.sleep(0.02)
    assert late == []


def test_the_end_of_a_loop_that_has_ended_is_no_error() -> None:
    """
    A broker that is taken from a closed loop may have waits there.
    """

    async def begin() -> Joins:
        joins, _ = make()
        wait(joins, 1, "A")
        return joins

    asyncio.run(begin()).close()
