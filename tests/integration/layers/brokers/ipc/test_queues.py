"""
Queues in a file: who gets what and in which order, and what faults of file and thread do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import TypeAlias

import pytest

from fairway import metrics
from fairway.exceptions import ChannelFull, ChannelLayerUnavailable
from fairway.layers.brokers.ipc import queues as queues_module, store
from fairway.layers.brokers.ipc.queues import SQLiteQueues
from fairway.layers.brokers.ipc.store import Store
from tests.unit.layers.fakes import LoopThread, until

LONG = 3600.0
"""
A poll that no test waits for.
"""

Make: TypeAlias = Callable[..., SQLiteQueues]


@pytest.fixture
def file(place: Path) -> Path:
    """
    Give the path of a file that is not there yet.
    """
    return place / "queues.sqlite3"


@pytest.fixture
async def make(file: Path) -> AsyncIterator[Make]:
    """
    Make what different processes would have on one file, and close it at the end.
    """
    made: list[SQLiteQueues] = []

    def one(poll: float = LONG, busy: float = 2.0) -> SQLiteQueues:
        made.append(SQLiteQueues(file, poll, busy=busy))
        return made[-1]

    yield one
    for queues in made:
        await queues.close(5)
    await until(lambda: not threads())


def threads() -> list[threading.Thread]:
    """
    Give the threads of queues that run.
    """
    return [one for one in threading.enumerate() if one.name == "fairway-queues"]


async def push(
    queues: SQLiteQueues,
    *payloads: bytes,
    queue: str = "jobs",
    lifetime: float = 60,
    capacity: int = 100,
) -> None:
    """
    Add payloads to a queue, one after another.
    """
    for payload in payloads:
        await asyncio.wrap_future(queues.push(queue, payload, lifetime, capacity))


async def pop(queues: SQLiteQueues, count: int = 1, queue: str = "jobs") -> list[bytes]:
    """
    Take payloads that must come.
    """
    async with asyncio.timeout(5):
        return [await queues.pop(queue) for _ in range(count)]


async def waiting(queues: SQLiteQueues, queue: str = "jobs") -> asyncio.Task[bytes]:
    """
    Begin to wait for a message that is not there, until the thread has looked for it.
    """
    task = asyncio.ensure_future(queues.pop(queue))
    await asyncio.sleep(0)
    await push(queues, b"-", queue="settled")
    assert await pop(queues, queue="settled") == [b"-"]
    return task


class TestOrder:
    """
    Each message is read once, in the order in which they were pushed.
    """

    async def test_messages_leave_in_the_order_they_came(self, make: Make) -> None:
        """
        Whichever process pushes and whichever reads.
        """
        one, two = make(), make()
        for number in range(0, 10, 2):
            await push(one, b"%d" % number)
            await push(two, b"%d" % (number + 1))
        got = [*await pop(two, 3), *await pop(one, 4), *await pop(two, 3)]
        assert got == [b"%d" % number for number in range(10)]

    async def test_queues_have_nothing_to_do_with_each_other(self, make: Make) -> None:
        """
        A name is exact, whatever is in it.
        """
        queues = make()
        names = ["a", "A", "a'; --", "a%", "a_", ""]
        for name in names:
            await push(queues, name.encode(), queue=name)
        for name in reversed(names):
            assert await pop(queues, queue=name) == [name.encode()]

    async def test_readers_are_served_in_the_order_they_came(self, make: Make) -> None:
        """
        Who waits longest gets the oldest message.
        """
        queues = make()
        readers = [await waiting(queues) for _ in range(5)]
        await push(queues, *(b"%d" % number for number in range(5)))
        assert await asyncio.gather(*readers) == [b"%d" % number for number in range(5)]

    async def test_a_reader_that_waits_is_served_at_once(self, make: Make) -> None:
        """
        Neither a poll nor a wake is needed for what is pushed in the same process.
        """
        queues = make()
        reader = await waiting(queues)
        await push(queues, b"now")
        assert await asyncio.wait_for(reader, 5) == b"now"

    async def test_many_calls_at_once_keep_their_order(self, make: Make) -> None:
        """
        What is written together is as if it had been written one by one.
        """
        queues = make()
        pushed = [queues.push("jobs", b"%d" % number, 60, 1000) for number in range(500)]
        await asyncio.gather(*map(asyncio.wrap_future, pushed))
        got = await asyncio.gather(*(queues.pop("jobs") for _ in range(500)))
        assert got == [b"%d" % number for number in range(500)]

    async def test_a_megabyte_arrives_as_it_was(self, make: Make) -> None:
        """
        Large messages and empty ones, of every byte.
        """
        one, two = make(), make()
        large = os.urandom(1_048_576)
        await push(one, large, b"", bytes(range(256)))
        assert await pop(two, 3) == [large, b"", bytes(range(256))]

    async def test_readers_of_several_loops_and_threads_share_a_queue(self, make: Make) -> None:
        """
        Nothing is lost and nothing read twice, and each loop wakes up by itself.
        """
        queues = make()
        got: list[bytes] = []

        async def read() -> None:
            while (payload := await queues.pop("jobs")) != b"stop":
                got.append(payload)

        with LoopThread() as one, LoopThread() as two:
            readers = [asyncio.ensure_future(thread.run(read())) for thread in (one, two, one, two)]
            await push(queues, *(b"%d" % number for number in range(50)), *[b"stop"] * 4)
            await asyncio.wait(readers)
        assert sorted(map(int, got)) == list(range(50))


class TestCapacityAndExpiry:
    """
    A queue holds so many messages that may still be read, each for so long.
    """

    async def test_a_full_queue_refuses(self, make: Make) -> None:
        """
        The first that does not fit is refused, in every process, until one is read.
        """
        one, two = make(), make()
        await push(one, b"1", b"2", capacity=2)
        for queues in (one, two):
            with pytest.raises(ChannelFull):
                await push(queues, b"3", capacity=2)
        await push(two, b"other", queue="other", capacity=1)
        assert await pop(two) == [b"1"]
        await push(one, b"3", capacity=2)
        assert await pop(two, 2) == [b"2", b"3"]

    async def test_a_refusal_among_others_takes_none_with_it(self, make: Make) -> None:
        """
        Calls written together succeed and fail each for itself.
        """
        queues = make()
        pushed = [queues.push("jobs", b"%d" % number, 60, 3) for number in range(6)]
        results = await asyncio.gather(*map(asyncio.wrap_future, pushed), return_exceptions=True)
        assert results[:3] == [None] * 3
        assert [type(result) for result in results[3:]] == [ChannelFull] * 3
        assert await pop(queues, 3) == [b"0", b"1", b"2"]

    async def test_what_has_expired_is_never_read_and_is_counted(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Expiry counts when a message is read, in whichever process.
        """
        now = [1000.0]
        monkeypatch.setattr(store, "time", lambda: now[0])
        one, two = make(), make()
        await push(one, b"short", lifetime=10)
        await push(one, b"long", lifetime=20)
        now[0] += 10
        before = metrics.drops.values.get("queue_expired", 0)
        assert await pop(two) == [b"long"]
        assert metrics.drops.values["queue_expired"] == before + 1

    async def test_what_has_expired_makes_room(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A queue full of expired messages is not full.
        """
        now = [1000.0]
        monkeypatch.setattr(store, "time", lambda: now[0])
        queues = make()
        await push(queues, b"1", b"2", capacity=2, lifetime=10)
        now[0] += 10
        await push(queues, b"3", b"4", capacity=2)
        assert await pop(queues, 2) == [b"3", b"4"]

    async def test_a_queue_that_nobody_uses_any_more_is_purged(
        self, make: Make, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Its expired messages go when others write, and the file gives the room back.
        """
        now = [1000.0]
        monkeypatch.setattr(store, "time", lambda: now[0])
        queues = make()
        await push(queues, *[b"x" * 1_000_000] * 8, queue="forgotten", lifetime=10)
        now[0] += 10 + store.PURGE_SECONDS
        await push(queues, b"-")
        await queues.close(5)
        assert len(contents(file.parent)["queues.sqlite3"]) < 1_000_000

    async def test_flush_throws_everything_away(self, make: Make) -> None:
        """
        In every queue, and what comes afterwards stays.
        """
        one, two = make(), make()
        await push(one, b"1")
        await push(one, b"2", queue="other")
        await asyncio.wrap_future(two.flush())
        await push(one, b"3")
        await push(one, b"4", queue="other")
        assert [*await pop(two), *await pop(two, queue="other")] == [b"3", b"4"]


class TestWaking:
    """
    Other processes' messages come by a wake, or by the poll at the latest.
    """

    async def test_a_wake_brings_what_another_process_pushed(self, make: Make) -> None:
        """
        Within moments, though the poll is an hour away; a wake for others does nothing.
        """
        one, two = make(), make()
        reader = await waiting(two)
        await push(one, b"1")
        two.wake("other")
        two.wake("jobs")
        before = monotonic()
        assert await asyncio.wait_for(reader, 5) == b"1"
        assert monotonic() - before < 1
        one.wake("jobs")

    async def test_the_poll_brings_what_no_wake_told_of(self, make: Make) -> None:
        """
        Within its time, for every queue that somebody waits for.
        """
        one, two = make(), make(poll=0.05)
        readers = [await waiting(two, name) for name in ("a", "b")]
        await push(one, b"a", queue="a")
        await push(one, b"b", queue="b")
        async with asyncio.timeout(5):
            assert await asyncio.gather(*readers) == [b"a", b"b"]

    async def test_a_message_waits_for_its_reader(self, make: Make) -> None:
        """
        Even if everybody was gone meanwhile.
        """
        first = make()
        await push(first, b"1", b"2")
        await first.close(5)
        assert await pop(make(), 2) == [b"1", b"2"]

    async def test_nothing_is_opened_before_the_first_use(self, make: Make, file: Path) -> None:
        """
        Neither file nor thread; a wake and a close are no use.
        """
        queues = make()
        queues.wake("jobs")
        await queues.close(5)
        assert contents(file.parent) == {}
        assert not threads()

    async def test_a_thread_without_readers_sleeps(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        However short the poll, nobody looks at the file unless somebody waits.
        """
        looks: list[str] = []
        holds = Store.holds

        def note(self: Store, queue: str) -> bool:
            looks.append(queue)
            return holds(self, queue)

        monkeypatch.setattr(Store, "holds", note)
        queues = make(poll=0.01)
        await push(queues, b"1")
        assert await pop(queues) == [b"1"]
        reader = await waiting(queues)
        await until(lambda: len(looks) > 5)
        reader.cancel()
        await asyncio.wait([reader])
        await push(queues, b"-", queue="settled")
        turns = count_turns(queues, monkeypatch)
        await asyncio.sleep(0.1)
        assert turns == []


def count_turns(queues: SQLiteQueues, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """
    Note from now on each time that the thread does anything, whatever it finds.
    """
    turns: list[int] = []
    work = queues._work

    def note(*arguments: object) -> None:
        turns.append(1)
        work(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(queues, "_work", note)
    return turns


class TestCancelling:
    """
    A reader that gives up loses nothing.
    """

    async def test_a_cancelled_reader_that_got_nothing_leaves_the_line(self, make: Make) -> None:
        """
        What comes next goes to who waits behind it.
        """
        queues = make()
        gives_up, stays = await waiting(queues), await waiting(queues)
        gives_up.cancel()
        await asyncio.wait([gives_up])
        await push(queues, b"1")
        assert await asyncio.wait_for(stays, 5) == b"1"

    @pytest.mark.parametrize("turns", range(6))
    async def test_a_message_for_a_cancelled_reader_goes_back_to_its_place(
        self, make: Make, turns: int
    ) -> None:
        """
        Whenever it is cancelled, the next reader gets it first, then the others in order.
        """
        queues = make()
        reader = await waiting(queues)
        pushed = [queues.push("jobs", b"%d" % number, 60, 100) for number in range(3)]
        pushed[0].result(5)  # Blocks this loop: the message is on its way and cannot arrive.
        for _ in range(turns):
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
        rest = [b"0", b"1", b"2"]
        if not reader.cancelled():
            assert reader.result() == rest.pop(0)
        assert await pop(queues, len(rest)) == rest

    async def test_what_goes_back_serves_who_waits(self, make: Make) -> None:
        """
        In the same process at once.
        """
        queues = make()
        first, second = await waiting(queues), await waiting(queues)
        queues.push("jobs", b"1", 60, 100).result(5)
        first.cancel()
        await asyncio.wait([first])
        assert await asyncio.wait_for(second, 5) == b"1"

    async def test_a_full_queue_takes_back_what_it_gave(self, make: Make) -> None:
        """
        Its capacity is for what is new.
        """
        queues = make()
        reader = await waiting(queues)
        queues.push("jobs", b"1", 60, 1).result(5)
        queues.push("jobs", b"2", 60, 1).result(5)
        reader.cancel()
        await asyncio.wait([reader])
        assert await pop(queues, 2) == [b"1", b"2"]

    async def test_a_reader_whose_loop_has_ended_loses_nothing(self, make: Make) -> None:
        """
        Its message goes to the next one, here or elsewhere.
        """
        queues = make()
        loop = asyncio.new_event_loop()
        lost = loop.create_task(queues.pop("jobs"))
        await asyncio.to_thread(loop.run_until_complete, asyncio.sleep(0))
        loop.close()
        await push(queues, b"1")
        assert await pop(queues) == [b"1"]
        assert not lost.done()
        lost._log_destroy_pending = False  # type: ignore[attr-defined]

    async def test_a_cancelled_push_is_not_written(self, make: Make) -> None:
        """
        As long as it has not begun.
        """
        queues = make()
        with at_work(queues):
            queues.push("jobs", b"0", 60, 100)
            second = queues.push("jobs", b"1", 60, 100)
            assert second.cancel()
        assert await pop(queues) == [b"0"]
        await push(queues, b"2")
        assert await pop(queues) == [b"2"]


@contextmanager
def at_work(queues: SQLiteQueues) -> Iterator[None]:
    """
    Keep the thread from the file, with one call in its hands.
    """
    queues._at_work.acquire()
    try:
        queues.push("occupied", b"", 60, 100)
        lane = queues._lane
        assert lane is not None
        while lane.pending:
            sleep(0.001)
        yield
    finally:
        queues._at_work.release()


class TestClosing:
    """
    Closing takes bounded time and leaves nothing.
    """

    async def test_what_was_pushed_is_written_first(self, make: Make) -> None:
        """
        Without anybody having waited for it.
        """
        one, two = make(), make()
        pushed = [one.push("jobs", b"%d" % number, 60, 1000) for number in range(200)]
        await one.close(5)
        assert all(future.done() for future in pushed)
        assert await pop(two, 200) == [b"%d" % number for number in range(200)]

    async def test_whoever_waits_hears_of_it(self, make: Make) -> None:
        """
        On this loop and on others.
        """
        queues = make()
        reader = await waiting(queues)
        with LoopThread() as thread:
            other = asyncio.ensure_future(thread.run(queues.pop("jobs")))
            await until(lambda: queues._readers.wanted(["jobs"])["jobs"] == 2)
            await queues.close(5)
            for one in (reader, other):
                with pytest.raises(ChannelLayerUnavailable, match="were closed"):
                    await one

    async def test_it_may_be_used_again(self, make: Make) -> None:
        """
        As if it were new.
        """
        queues = make()
        for number in range(3):
            await push(queues, b"%d" % number)
            assert await pop(queues) == [b"%d" % number]
            await queues.close(5)
            await until(lambda: not threads())

    async def test_a_message_on_its_way_to_a_reader_is_put_back(self, make: Make) -> None:
        """
        A close between the taking and the reading loses nothing.
        """
        queues = make()
        reader = await waiting(queues)
        queues.push("jobs", b"1", 60, 100).result(5)
        reader.cancel()
        await asyncio.wait([reader])
        await queues.close(5)
        assert await pop(make()) == [b"1"]

    async def test_a_file_that_stands_still_does_not_hold_it_up(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        After its time it returns, with a line.
        """
        queues = make()
        with at_work(queues):
            before = monotonic()
            await queues.close(0.05)
            assert monotonic() - before < 2
            assert "did not close within 0.05 s" in caplog.text
        await until(lambda: not threads())

    async def test_too_many_calls_are_refused_at_once(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        By number and by bytes; afterwards there is room again.
        """
        monkeypatch.setattr(queues_module, "PENDING_MAX", 3)
        monkeypatch.setattr(queues_module, "PENDING_BYTES_MAX", 100)
        queues = make()
        with at_work(queues):
            queues.push("jobs", b"x" * 60, 60, 100)
            with pytest.raises(ChannelLayerUnavailable, match="1 calls with 60 bytes wait"):
                queues.push("jobs", b"x" * 41, 60, 100)
            queues.push("jobs", b"x", 60, 100)
            queues.push("jobs", b"x", 60, 100)
            with pytest.raises(ChannelLayerUnavailable, match="3 calls"):
                queues.push("jobs", b"x", 60, 100)
        assert len(await pop(queues, 3)) == 3
        await push(queues, b"y" * 100)

    async def test_without_a_thread_the_queues_are_unavailable(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        As while the interpreter ends.
        """

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        queues = make()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ChannelLayerUnavailable, match="can't start new thread"):
                queues.push("jobs", b"1", 60, 100)
            with pytest.raises(ChannelLayerUnavailable):
                await queues.pop("jobs")
        await push(queues, b"2")
        assert await pop(queues) == [b"2"]


@pytest.mark.fault
class TestFaults:
    """
    What happens to the file ends no thread and no reader.
    """

    async def test_another_process_that_writes_for_long_is_waited_for_within_bounds(
        self, make: Make, file: Path
    ) -> None:
        """
        A push fails in time, and one after it works once the other is done; readers wait on.
        """
        queues, other = make(busy=0.1), make()
        await push(other, b"1")
        with writing(file):
            before = monotonic()
            with pytest.raises(ChannelLayerUnavailable, match="locked"):
                await push(queues, b"2")
            assert monotonic() - before < 2
            reader = asyncio.ensure_future(queues.pop("jobs"))
            await asyncio.sleep(0.3)
            assert not reader.done()
        queues.wake("jobs")
        assert await asyncio.wait_for(reader, 5) == b"1"
        await push(queues, b"3")
        assert await pop(other) == [b"3"]

    async def test_a_short_write_of_another_process_is_not_noticed(
        self, make: Make, file: Path
    ) -> None:
        """
        The call takes a little longer.
        """
        queues = make()
        await push(queues, b"1")
        with writing(file):
            pushed = queues.push("jobs", b"2", 60, 100)
            await asyncio.sleep(0.05)
            assert not pushed.done()
        await asyncio.wrap_future(pushed)
        assert await pop(queues, 2) == [b"1", b"2"]

    @pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" * 99])
    async def test_a_file_that_cannot_be_read_is_set_aside(
        self, make: Make, file: Path, caplog: pytest.LogCaptureFixture, content: bytes
    ) -> None:
        """
        One process renames it with one line, and all go on with a new one.
        """
        write(file, content)
        before = metrics.queue_files_set_aside.value
        one, two = make(), make()
        await asyncio.gather(push(one, b"1"), push(two, b"1"))
        assert await pop(one, 2) == [b"1", b"1"]
        assert metrics.queue_files_set_aside.value == before + 1
        assert contents(file.parent)["queues.sqlite3.corrupt"] == content
        [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert "was set aside as" in record.getMessage()

    async def test_a_file_that_breaks_in_use_is_set_aside(
        self, make: Make, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        What was pushed into it is lost, what is pushed then is not, for readers of before, too.
        """
        one, two = make(), make(poll=0.05)
        reader = await waiting(two)
        await push(one, *[b"x" * 5000] * 50, queue="other")
        await one.close(5)
        damage(file)
        with suppress(ChannelLayerUnavailable):
            await asyncio.wrap_future(one.flush())
        before = metrics.queue_files_set_aside.value
        await push(one, b"after")
        assert await asyncio.wait_for(reader, 5) == b"after"
        assert metrics.queue_files_set_aside.value >= before

    async def test_a_journal_of_the_old_file_does_not_reach_the_new_one(
        self, make: Make, file: Path
    ) -> None:
        """
        What lies beside the file goes with it.
        """
        write(file, b"no database" * 1000)
        for suffix in ("-wal", "-shm"):
            write(file.with_name(file.name + suffix), b"left over")
        queues = make()
        await push(queues, b"1")
        assert await pop(queues) == [b"1"]
        assert contents(file.parent).get("queues.sqlite3-wal") != b"left over"

    async def test_a_directory_that_is_gone_makes_the_queues_unavailable_until_it_is_back(
        self, make: Make, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Pushing says so at once; readers wait, with a line, and get what comes then.
        """
        queues = make(poll=0.05)
        reader = await waiting(queues)
        shutil.rmtree(file.parent)
        with pytest.raises(ChannelLayerUnavailable, match=f"the queues in {file} cannot be used"):
            await push(queues, b"1")
        await until(lambda: "cannot be used" in caplog.text)
        assert not reader.done()
        file.parent.mkdir(mode=0o700)
        other = make()
        await push(other, b"2")
        assert await asyncio.wait_for(reader, 5) == b"2"
        assert len(caplog.records) == 1

    async def test_a_file_replaced_by_another_process_is_opened_anew(
        self, make: Make, file: Path
    ) -> None:
        """
        Nobody goes on writing into one that others do not see.
        """
        one, two = make(), make()
        await push(one, b"old")
        for path in file.parent.iterdir():
            path.rename(path.with_name(f"old-{path.name}"))
        await push(two, b"new")
        await push(one, b"newer")
        assert await pop(two, 2) == [b"new", b"newer"]

    @pytest.mark.parametrize("kind", ["link", "directory"])
    async def test_something_else_in_its_place_is_not_used(
        self, make: Make, file: Path, place: Path, kind: str
    ) -> None:
        """
        A link is not followed, and nothing is made where it leads.
        """
        make_other(kind, file)
        with pytest.raises(ChannelLayerUnavailable, match="expected a file of uid"):
            await push(make(), b"1")
        assert not (await asyncio.to_thread((place / "elsewhere").exists))

    async def test_a_disk_that_is_nearly_full_takes_no_more_and_is_read_empty(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Senders are told in time, since readers need some room to take anything out.
        """
        queues = make()
        await push(queues, b"1")
        monkeypatch.setattr(store, "RESERVE_BYTES", sys.maxsize)
        with pytest.raises(ChannelLayerUnavailable, match="free on their disk"):
            await push(queues, b"2")
        assert await pop(queues, 1) == [b"1"]

    async def test_a_full_disk_makes_the_queues_unavailable_until_there_is_room(
        self, make: Make, file: Path
    ) -> None:
        """
        What was refused is not there afterwards, and what was there still is.
        """
        queues = make()
        await push(queues, b"before")
        with file_size_limit(65_536):
            with pytest.raises(ChannelLayerUnavailable, match="cannot be used"):
                await push(queues, b"x" * 200_000)
            await push(queues, b"small")
        await push(queues, b"after")
        assert await pop(queues, 3) == [b"before", b"small", b"after"]

    async def test_what_cannot_be_put_back_yet_is_put_back_later(
        self, make: Make, file: Path
    ) -> None:
        """
        A message out of the file is kept until the file takes it again.
        """
        queues = make(poll=0.05, busy=0.05)
        reader = await waiting(queues)
        queues.push("jobs", b"1", 60, 100).result(5)
        with writing(file):
            reader.cancel()
            await asyncio.wait([reader])
            await asyncio.sleep(0.2)
        assert await pop(make(poll=0.05)) == [b"1"]

    async def test_what_nobody_thought_of_ends_no_thread(
        self, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        The caller hears of it, the log has the traceback, and the next call works.
        """

        def surprise(*arguments: object) -> bool:
            raise ZeroDivisionError("surprise")

        queues = make()
        with monkeypatch.context() as patch:
            patch.setattr(store, "add", surprise)
            with pytest.raises(ChannelLayerUnavailable, match="surprise"):
                await push(queues, b"1")
        assert "ZeroDivisionError" in caplog.text
        await push(queues, b"2")
        assert await pop(queues) == [b"2"]


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """
    Hold the lock on a file, as a process does that was stopped while writing.

    By a connection of this process: SQLite keeps its connections apart as it does processes.
    """
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def write(file: Path, content: bytes) -> None:
    """
    Make a file.
    """
    file.write_bytes(content)


def make_other(kind: str, file: Path) -> None:
    """
    Make something else than a file: a link into the same directory, or a directory.
    """
    if kind == "link":
        file.symlink_to("elsewhere")
    else:
        file.mkdir()


def contents(directory: Path) -> dict[str, bytes]:
    """
    Give what lies in a directory, by name.
    """
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def damage(file: Path) -> None:
    """
    Overwrite the middle of a file, keeping its head.
    """
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(b"\xff" * (file.stat().st_size - 4096))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """
    Let no file of this process grow beyond a size, as on a disk that is full.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
