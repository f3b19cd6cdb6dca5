"""
Mailboxes: unread messages that any loop and any thread may read.
"""

from __future__ import annotations

import asyncio
import threading
from time import monotonic

import pytest

from fairway.layers import mailbox as module
from fairway.layers.codec import Envelope, Kind
from fairway.layers.mailbox import Mailboxes


def envelope(text: str = "x", lifetime: float = 60.0) -> Envelope:
    """
    Make a message to put into mailboxes.
    """
    return Envelope(Kind.TEXT, text.encode(), expires=monotonic() + lifetime)


def boxes(expiry: float = 60.0) -> Mailboxes[Envelope]:
    """
    Make an empty collection.
    """
    return Mailboxes(expiry)


async def test_messages_are_read_in_their_order() -> None:
    """
    First in, first out, and an empty mailbox is forgotten.
    """
    all_boxes = boxes()
    items = [envelope(), envelope(), envelope()]
    for item in items:
        assert all_boxes.put("a", item, 3)
    assert all_boxes.snapshot()["a"].qsize() == 3
    assert [await all_boxes.get("a") for _ in items] == items
    assert all_boxes.snapshot() == {}


async def test_a_full_mailbox_refuses_the_newest() -> None:
    """
    Capacity counts per mailbox; what lies there stays.
    """
    all_boxes = boxes()
    first = envelope()
    assert all_boxes.put("a", first, 1)
    assert not all_boxes.put("a", envelope(), 1)
    assert all_boxes.put("b", envelope(), 1)
    assert await all_boxes.get("a") is first


async def test_expired_messages_make_room_and_are_not_read() -> None:
    """
    An expired message neither fills a mailbox nor reaches a reader.
    """
    all_boxes = boxes()
    assert all_boxes.put("a", envelope(lifetime=-1), 1)
    assert not all_boxes.snapshot()["a"].empty()
    fresh = envelope()
    assert all_boxes.put("a", fresh, 1)
    assert await all_boxes.get("a") is fresh


async def test_readers_are_served_in_their_order() -> None:
    """
    Who has waited longest gets the next message; each message goes to one.
    """
    all_boxes = boxes()
    got: list[tuple[int, Envelope]] = []

    async def read(number: int) -> None:
        got.append((number, await all_boxes.get("a")))

    readers = [asyncio.ensure_future(read(number)) for number in range(3)]
    await asyncio.sleep(0)
    items = [envelope(), envelope(), envelope()]
    for item in items:
        all_boxes.put("a", item, 3)
    await asyncio.gather(*readers)
    assert got == list(enumerate(items))


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancelled_reader_passes_its_turn_on(turns: int) -> None:
    """
    Whenever a reader is cancelled, the message goes to the next one.
    """
    all_boxes = boxes()
    first = asyncio.ensure_future(all_boxes.get("a"))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(all_boxes.get("a"))
    await asyncio.sleep(0)
    one, two = envelope(), envelope()
    all_boxes.put("a", one, 2)
    for _ in range(turns):
        await asyncio.sleep(0)
    first.cancel()
    all_boxes.put("a", two, 2)
    async with asyncio.timeout(5):
        got = await second
        await asyncio.wait([first])
        if first.cancelled():
            assert got is one
            assert await all_boxes.get("a") is two
        else:
            assert first.result() is one
            assert got is two
    assert all_boxes.snapshot() == {}


async def test_other_loops_read_and_write() -> None:
    """
    A reader on another thread's loop gets what is put here, and the reverse.
    """
    all_boxes = boxes()
    there = asyncio.to_thread(asyncio.run, all_boxes.get("a"))
    reader = asyncio.ensure_future(there)
    item = envelope()
    all_boxes.put("a", item, 1)
    assert await asyncio.wait_for(reader, 5) is item
    here = asyncio.ensure_future(all_boxes.get("b"))
    await asyncio.sleep(0)
    thread = threading.Thread(target=all_boxes.put, args=("b", item, 1))
    thread.start()
    assert await asyncio.wait_for(here, 5) is item
    thread.join()


async def test_a_reader_whose_loop_has_ended_is_passed_over() -> None:
    """
    A message finds the next reader when the first one's loop is gone.
    """
    all_boxes = boxes()
    loop = asyncio.new_event_loop()
    lost = all_boxes.get("a")

    async def begin() -> None:
        # As far as a task would get in its first turn, without a task to complain later.
        lost.send(None)

    await asyncio.to_thread(loop.run_until_complete, begin())
    loop.close()
    here = asyncio.ensure_future(all_boxes.get("a"))
    await asyncio.sleep(0)
    item = envelope()
    all_boxes.put("a", item, 1)
    assert await asyncio.wait_for(here, 5) is item
    lost.close()


async def test_reading_sweeps_what_expired_elsewhere() -> None:
    """
    Messages nobody reads are forgotten when others read, at most once per expiry.
    """
    all_boxes = boxes(expiry=60.0)
    all_boxes.put("old", envelope(lifetime=-1), 1)
    all_boxes.put("a", envelope(), 1)
    await all_boxes.get("a")
    assert all_boxes.snapshot() == {}
    all_boxes.put("old", envelope(lifetime=-1), 1)
    all_boxes.put("a", envelope(), 1)
    await all_boxes.get("a")
    assert list(all_boxes.snapshot()) == ["old"]


async def test_many_mailboxes_are_swept_without_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process that only sends does not gather mailboxes for ever.
    """
    monkeypatch.setattr(module, "SWEEP_FROM", 2)
    all_boxes = boxes()
    for name in ("old", "older"):
        all_boxes.put(name, envelope(lifetime=-1), 1)
    all_boxes.put("a", envelope(), 1)
    assert list(all_boxes.snapshot()) == ["a"]


async def test_a_held_mailbox_is_kept_until_released() -> None:
    """
    A member of groups keeps its mailbox while it is empty.
    """
    all_boxes = boxes()
    box = all_boxes.hold("a", 1)
    box.put(envelope())
    assert not box.put(envelope())
    await all_boxes.get("a")
    assert all_boxes.hold("a", 1) is box
    all_boxes.release("a")
    all_boxes.release("unknown")
    assert all_boxes.hold("a", 1) is not box


async def test_a_held_mailbox_nobody_reads_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A member that has not read for many lifetimes takes no more; a waiting one does.
    """
    all_boxes = boxes(expiry=1.0)
    box = all_boxes.hold("a", 10)
    now = monotonic()
    monkeypatch.setattr(module, "monotonic", lambda: now + module.ABANDONED_AFTER + 1)
    assert box.abandoned
    assert not box.put(envelope(lifetime=1000))
    reader = asyncio.ensure_future(all_boxes.get("a"))
    await asyncio.sleep(0)
    monkeypatch.setattr(module, "monotonic", lambda: now + 10 * module.ABANDONED_AFTER)
    item = envelope(lifetime=1000)
    assert box.put(item)
    assert await reader is item


async def test_taking_all_forgets_the_mailbox() -> None:
    """
    Whoever gives a channel an inbox gets what lay unread, without what has expired.
    """
    all_boxes = boxes()
    items = [envelope(lifetime=-1), envelope(), envelope()]
    for item in items:
        all_boxes.put("a", item, 3)
    assert all_boxes.take_all("a") == items[1:]
    assert all_boxes.take_all("a") == []
    assert all_boxes.snapshot() == {}


async def test_clearing_keeps_readers_and_held_mailboxes() -> None:
    """
    Clearing throws messages away, not those who wait for them.
    """
    all_boxes = boxes()
    box = all_boxes.hold("held", 1)
    box.put(envelope())
    all_boxes.put("full", envelope(), 1)
    reader = asyncio.ensure_future(all_boxes.get("read"))
    await asyncio.sleep(0)
    all_boxes.clear()
    assert list(all_boxes.snapshot()) == ["read"]
    item = envelope()
    all_boxes.put("read", item, 1)
    assert await reader is item
    assert box.put(item)
