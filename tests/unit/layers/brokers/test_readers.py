"""
Who gets a message that has left its store, and what becomes of one that nobody takes.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from fairway.layers.brokers.readers import Readers as AnyReaders


class Row(NamedTuple):
    """
    A message.
    """

    queue: str
    payload: bytes


Readers = AnyReaders[Row]


def row(number: int, queue: str = "jobs") -> Row:
    """
    Make a message.
    """
    return Row(queue, b"%d" % number)


async def test_messages_go_to_readers_in_the_order_they_came() -> None:
    """
    Each to one, and only to those of its queue.
    """
    readers = Readers()
    first, second, other = (readers.wait(queue) for queue in ("jobs", "jobs", "other"))
    assert readers.wanted(["jobs", "other", "none"]) == {"jobs": 2, "other": 1}
    assert readers.hand_out(row(1))
    assert readers.hand_out(row(2))
    assert [await first.future, await second.future] == [b"1", b"2"]
    assert not other.future.done()
    assert readers.queues == ["other"]


async def test_a_message_without_a_reader_is_put_back() -> None:
    """
    It is kept until somebody says that it is in its store again.
    """
    readers = Readers()
    assert not readers
    assert not readers.hand_out(row(1))
    assert readers
    assert not readers.hand_out(row(2))
    assert readers.returned() == [row(1), row(2)]
    assert not readers.hand_out(row(3, "other"))
    assert readers.returned("jobs") == [row(1), row(2)]
    readers.forget_returned(readers.returned("jobs"))
    assert readers.returned() == [row(3, "other")]
    readers.forget_returned(readers.returned())
    assert not readers


async def test_messages_that_are_alike_are_told_apart() -> None:
    """
    Forgetting one leaves the other.
    """
    readers = Readers()
    first, second = row(1), row(1)
    readers.hand_out(first)
    readers.hand_out(second)
    readers.forget_returned([second])
    assert readers.returned() == [first]
    assert readers.returned()[0] is first


async def test_a_reader_that_gives_up_before_it_was_served_leaves_the_line() -> None:
    """
    Nothing is put back for it.
    """
    readers = Readers()
    first, second = readers.wait("jobs"), readers.wait("jobs")
    assert not readers.give_up(first)
    assert readers.hand_out(row(1))
    assert await second.future == b"1"
    assert not first.future.done()


@pytest.mark.parametrize("turns", [0, 3])
async def test_a_reader_that_gives_up_after_it_was_served_gives_back(turns: int) -> None:
    """
    Whether its loop has told it already or not.
    """
    readers = Readers()
    reader = readers.wait("jobs")
    assert readers.hand_out(row(1))
    for _ in range(turns):
        await asyncio.sleep(0)
    assert reader.future.done() is (turns > 0)
    assert readers.give_up(reader)
    assert readers.returned() == [row(1)]


async def test_a_reader_of_an_ended_loop_is_passed_by() -> None:
    """
    Its message goes to the next, once.
    """
    readers = Readers()
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        readers.wait("jobs")

    await asyncio.to_thread(loop.run_until_complete, wait())
    loop.close()
    stays = readers.wait("jobs")
    assert readers.hand_out(row(1))
    assert await stays.future == b"1"
    assert readers.returned() == []


async def test_dismissed_readers_get_the_error() -> None:
    """
    All of them, and the lines are empty.
    """
    readers = Readers()
    waiting = [readers.wait(queue).future for queue in ("a", "a", "b")]
    readers.dismiss(ZeroDivisionError("gone"))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError] * 3
    assert not readers
