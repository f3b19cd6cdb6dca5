"""
Queues on a Redis of the test's own: who gets what, in which order, and what faults do to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

import pytest

from fairway import metrics
from fairway.exceptions import ChannelFull, ChannelLayerUnavailable
from fairway.layers.brokers.redis import (
    RedisBroker,
    broker as broker_module,
    queues as queues_module,
)
from fairway.layers.brokers.redis.hosts import read_hosts
from fairway.layers.brokers.redis.scripts import TAKE
from fairway.layers.crypto import AESCipher
from fairway.options import RedisOptions
from tests.integration.layers.redis_server import RedisServer, cluster_of_three, redis_server
from tests.unit.layers.fakes import LoopThread, until

T = TypeVar("T")

LONG = 3600.0
"""
A poll that no test waits for.
"""

Make = Callable[..., Awaitable[RedisBroker]]

_prefixes = count()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """
    Run a server for the tests of this module.
    """
    with redis_server() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """
    Give what no other test uses.
    """
    return f"test{next(_prefixes)}"


@pytest.fixture
async def make(redis: RedisServer, prefix: str) -> AsyncIterator[Make]:
    """
    Make what different processes would have on one server, and close it at the end.
    """
    made: list[RedisBroker] = []

    async def one(keys: list[str] | None = None, hosts: Any = None, **options: Any) -> RedisBroker:
        broker = RedisBroker(
            read_hosts(hosts or [redis.url]),
            RedisOptions(**{"queue_poll": LONG, **options}),
            prefix=prefix,
            cipher=None if keys is None else AESCipher(keys),
        )
        await broker.start(ignore, ignore, ignore)
        made.append(broker)
        return broker

    yield one
    for broker in made:
        await broker.close()


def ignore(*told: object) -> None:
    """
    Stand in for a hub.
    """


async def push(
    broker: RedisBroker,
    *payloads: bytes,
    queue: str = "jobs",
    lifetime: float = 60,
    capacity: int = 1000,
) -> None:
    """
    Add payloads to a queue, one after another.
    """
    for payload in payloads:
        pushed = broker.push(queue, payload, lifetime=lifetime, capacity=capacity)
        assert pushed is not None
        await pushed


async def pop(broker: RedisBroker, number: int = 1, queue: str = "jobs") -> list[bytes]:
    """
    Take payloads that must come, one after another.
    """
    return [await soon(broker.pop(queue)) for _ in range(number)]


async def soon(awaitable: Awaitable[T]) -> T:
    """
    Await what must happen.
    """
    async with asyncio.timeout(10):
        return await awaitable


async def waiting(broker: RedisBroker, number: int = 1) -> list[asyncio.Task[bytes]]:
    """
    Have readers wait, of whom the server knows.
    """
    tasks = [asyncio.create_task(broker.pop("jobs")) for _ in range(number)]
    node = broker.queues._nodes[0]

    def confirmed() -> bool:
        subscription = node.listener.subscriptions.get("queue:jobs")
        return subscription is not None and subscription.confirmed

    await until(confirmed)
    line = broker.queues._lines["jobs"]
    await until(lambda: not line.stirred.is_set())
    await soon(node.commands.execute("PING"))  # What was asked for before is answered.
    return tasks


async def given(broker: RedisBroker) -> None:
    """
    Wait for the turn in which the only reader has been given a message and not read it.
    """
    while "jobs" in broker.queues._readers or not broker.queues._lines:  # noqa: ASYNC110 - each turn
        await asyncio.sleep(0)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """
    Cancel readers and wait for their ends.
    """
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def keys(redis: RedisServer, prefix: str) -> list[bytes]:
    """
    Give what a test's queues keep in Redis.
    """
    return sorted(redis.do("KEYS", f"{prefix}:*"))


def numbers(total: int, start: int = 0) -> list[bytes]:
    """
    Give payloads that can be told apart.
    """
    return [b"%d" % number for number in range(start, total)]


class TestOrder:
    """
    First in, first out, and each message to one reader.
    """

    async def test_messages_come_in_the_order_of_their_pushes(self, make: Make) -> None:
        """
        Of several processes, awaited or not, to the byte.
        """
        one, other = await make(), await make()
        payloads = [b"", b"\x00\xff\r\n", b"x" * 1_048_576, *numbers(200)]
        pushed = [one.push("jobs", each, lifetime=60, capacity=1000) for each in payloads]
        await asyncio.gather(*(each for each in pushed if each is not None))
        await push(other, b"last")
        assert await pop(other, len(payloads) + 1) == [*payloads, b"last"]

    async def test_each_message_goes_to_one_reader(self, make: Make) -> None:
        """
        Of many in two processes, who wait before and after the pushes.
        """
        readers = [await make(), await make()]
        early = [*await waiting(readers[0], 20), *await waiting(readers[1], 20)]
        pusher = await make()
        await asyncio.gather(*(push(pusher, each) for each in numbers(100)))
        late = [asyncio.ensure_future(pop(one, 30)) for one in readers]
        got = [*await asyncio.gather(*early)]
        for taken in late:
            got += await taken
        assert sorted(got) == sorted(numbers(100))

    async def test_readers_who_wait_together_are_served_by_one_request(
        self, make: Make, redis: RedisServer
    ) -> None:
        """
        Fifty messages for fifty readers of one process cost no fifty requests.
        """
        broker = await make()
        await push(broker, *numbers(50))
        before = redis.calls("evalsha") + redis.calls("eval")
        assert await asyncio.gather(*(broker.pop("jobs") for _ in range(50))) == numbers(50)
        assert redis.calls("evalsha") + redis.calls("eval") - before <= 3

    async def test_queues_are_apart(self, make: Make) -> None:
        """
        A reader of one gets nothing of another.
        """
        broker = await make()
        await push(broker, b"1", queue="a")
        await push(broker, b"2", queue="b")
        assert await pop(broker, queue="b") == [b"2"]
        assert await pop(broker, queue="a") == [b"1"]

    async def test_a_push_wakes_a_reader_at_once(self, make: Make) -> None:
        """
        Each push, with a poll an hour away; also a reader that came back for more.
        """
        reader, pusher = await make(), await make()
        [task] = await waiting(reader)
        for payload in numbers(20):
            await push(pusher, payload)
            assert await soon(task) == payload
            [task] = await waiting(reader)
        await cancel(task)

    async def test_a_push_that_was_not_made_known_is_found_by_the_poll(
        self, make: Make, redis: RedisServer, prefix: str
    ) -> None:
        """
        Where a reader's subscription failed, say.
        """
        reader = await make(queue_poll=0.05)
        [task] = await waiting(reader)
        reader.unsubscribe("queue:jobs")
        await push(await make(), b"1")
        assert await soon(task) == b"1"

    async def test_a_queue_that_nobody_reads_any_more_is_left(
        self, make: Make, redis: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        No task, no subscription and nothing in Redis stays.
        """
        monkeypatch.setattr(queues_module, "LINGER_SECONDS", 0.05)
        broker = await make(queue_poll=0.02, unsubscribe_delay=0)
        await push(broker, b"1")
        assert await pop(broker) == [b"1"]
        await until(lambda: not broker.queues._lines)
        assert keys(redis, prefix) == []
        await until(lambda: not redis.listeners(f"{prefix}/0:queue:jobs"))
        await push(broker, b"2")
        assert await pop(broker) == [b"2"]


class TestCapacity:
    """
    What a queue holds, and for how long.
    """

    async def test_a_full_queue_refuses_until_something_is_read(self, make: Make) -> None:
        """
        Each push says what capacity counts; what lies there stays.
        """
        one, other = await make(), await make()
        await push(one, b"1", b"2", capacity=2)
        for broker in (one, other):
            with pytest.raises(ChannelFull, match="jobs"):
                await push(broker, b"3", capacity=2)
        await push(other, b"3", capacity=3)
        assert await pop(one, 2) == [b"1", b"2"]
        await push(one, b"4", capacity=2)
        assert await pop(other, 2) == [b"3", b"4"]

    async def test_pushes_at_once_fill_a_queue_exactly(self, make: Make) -> None:
        """
        Of two processes, however they mix.
        """
        brokers = [await make(), await make()]
        results = await asyncio.gather(
            *(push(broker, b"x", capacity=50) for broker in brokers for _ in range(40)),
            return_exceptions=True,
        )
        assert sorted(map(repr, results)) == ["ChannelFull('jobs')"] * 30 + ["None"] * 50

    async def test_expired_messages_make_room_and_are_counted(self, make: Make) -> None:
        """
        By a push into a full queue, and by a reader, who gets none of them.
        """
        broker = await make()
        before = metrics.drops.values.get("queue_expired", 0)
        await push(broker, b"old", b"old too", lifetime=0.02, capacity=2)
        await push(broker, b"long", lifetime=60, capacity=3)
        await asyncio.sleep(0.04)
        await push(broker, b"new", capacity=2)
        assert metrics.drops.values["queue_expired"] - before == 2
        await push(broker, b"short", lifetime=0.02)
        await asyncio.sleep(0.04)
        await push(broker, b"end")
        assert await pop(broker, 3) == [b"long", b"new", b"end"]
        assert metrics.drops.values["queue_expired"] - before == 3

    async def test_expired_messages_are_counted_by_who_comes_much_later(
        self, make: Make, redis: RedisServer, prefix: str
    ) -> None:
        """
        Redis has thrown the payloads away by then, and only knows their ids.
        """
        broker = await make()
        before = metrics.drops.values.get("queue_expired", 0)
        await push(broker, b"x" * 100, b"y" * 100, lifetime=0.01)
        redis.do("DEL", f"{prefix}:queue:{{jobs}}:body")
        await asyncio.sleep(0.02)
        await push(broker, b"new")
        assert await pop(broker) == [b"new"]
        assert metrics.drops.values["queue_expired"] - before == 2
        assert redis.do("PTTL", f"{prefix}:queue:{{jobs}}:held:{broker.queues._process}") > 0

    async def test_nothing_stays_for_ever(
        self, make: Make, redis: RedisServer, prefix: str
    ) -> None:
        """
        Every key ends by itself, payloads soon after the last of them expired.
        """
        broker = await make()
        await push(broker, b"long", lifetime=60)
        await push(broker, b"short", lifetime=1)
        left = {key.rpartition(b":")[2]: redis.do("PTTL", key) for key in keys(redis, prefix)}
        assert set(left) == {b"order", b"until", b"body"}
        assert 55_000 < left[b"body"] <= 61_001
        assert 3_600_000 < left[b"order"] <= 3_661_001
        assert await pop(broker, 2) == [b"long", b"short"]

    async def test_what_the_server_threw_away_is_counted_and_told(
        self, make: Make, redis: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        A server short of memory may drop payloads; the queue goes on behind them.
        """
        broker = await make()
        before = metrics.drops.values.get("queue_evicted", 0)
        await push(broker, b"1", b"2")
        redis.do("DEL", f"{prefix}:queue:{{jobs}}:body")
        await push(broker, b"3")
        assert await pop(broker) == [b"3"]
        assert metrics.drops.values["queue_evicted"] - before == 2
        assert "maxmemory-policy" in caplog.text

    async def test_flushing_empties_all_queues_of_the_prefix_alone(
        self, make: Make, redis: RedisServer, prefix: str
    ) -> None:
        """
        Whatever their names; others' keys stay.
        """
        broker = await make()
        redis.do("SET", f"other:{prefix}:queue:{{jobs}}:order", "1")
        for queue in ("a", "b", "jobs"):
            await push(broker, b"1", queue=queue)
        await broker.flush()
        assert keys(redis, prefix) == []
        assert redis.do("DEL", f"other:{prefix}:queue:{{jobs}}:order") == 1
        await push(broker, b"2")
        assert await pop(broker) == [b"2"]


class TestReaders:
    """
    Those who give up, those on other loops, and processes that end.
    """

    async def test_a_cancelled_reader_loses_nothing(self, make: Make) -> None:
        """
        Whenever it is cancelled, what it was about to get is read before what follows.
        """
        broker = await make()
        for turns in range(30):
            await push(broker, b"1", b"2")
            task = asyncio.create_task(broker.pop("jobs"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await cancel(task)
            got = [] if task.cancelled() else [task.result()]
            assert got + await pop(broker, 2 - len(got)) == [b"1", b"2"]

    async def test_what_a_cancelled_reader_gave_back_reaches_another_process(
        self, make: Make
    ) -> None:
        """
        In its place, and without a poll.
        """
        one, other = await make(), await make()
        await push(one, *numbers(3))
        task = asyncio.create_task(one.pop("jobs"))
        await given(one)
        await cancel(task)
        assert task.cancelled()
        assert await pop(other, 3) == numbers(3)

    async def test_readers_on_other_loops_are_served(self, make: Make) -> None:
        """
        By the loop that the broker lives on.
        """
        broker = await make()
        with LoopThread() as thread:
            there = asyncio.gather(*(thread.run(pop(broker)) for _ in range(3)))
            await push(broker, *numbers(3))
            got = [payload for payloads in await soon(there) for payload in payloads]
            assert sorted(got) == numbers(3)

    async def test_a_reader_whose_loop_ended_loses_nothing(self, make: Make) -> None:
        """
        Others get what was meant for it.
        """
        broker = await make()

        async def begin() -> None:
            task = asyncio.ensure_future(broker.pop("jobs"))
            await asyncio.sleep(0)
            abandoned.append(task)

        abandoned: list[asyncio.Task[bytes]] = []
        loop = asyncio.new_event_loop()
        await asyncio.to_thread(loop.run_until_complete, begin())
        await until(lambda: "jobs" in broker.queues._lines)
        await asyncio.to_thread(loop.run_until_complete, asyncio.sleep(0))
        loop.call_soon(loop.stop)
        for task in abandoned:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        await asyncio.to_thread(loop.close)
        await push(broker, b"1")
        assert await pop(broker) == [b"1"]

    async def test_a_reader_that_nobody_awaits_any_more_loses_nothing(self, make: Make) -> None:
        """
        Collected where no loop runs, what it had been given is put back all the same.
        """
        broker = await make()
        await push(broker, b"1", b"2")
        readers = [broker.queues.pop("jobs")]
        waits = readers[0].send(None)
        assert waits is not None
        await given(broker)
        await asyncio.sleep(0)
        await asyncio.to_thread(readers.clear)
        del waits
        assert await pop(broker, 2) == [b"1", b"2"]

    async def test_closing_puts_back_what_was_given_up(
        self, make: Make, redis: RedisServer, prefix: str
    ) -> None:
        """
        A process that ends amid reading leaves everything to others, and nothing of its own.
        """
        broker, other = await make(), await make()
        await push(broker, *numbers(3))
        task = asyncio.create_task(broker.pop("jobs"))
        await given(broker)
        await cancel(task)
        assert task.cancelled()
        await broker.close()
        assert await pop(other, 3) == numbers(3)
        await other.close()
        assert keys(redis, prefix) == []

    async def test_readers_wait_on_while_the_broker_moves(self, make: Make) -> None:
        """
        Closed and started again, here or on another loop, it serves those who waited.
        """
        broker, pusher = await make(), await make()
        [task] = await waiting(broker)
        await broker.close()
        await push(pusher, b"1")
        await asyncio.sleep(0)
        assert not task.done()
        await broker.start(ignore, ignore, ignore)
        assert await soon(task) == b"1"

    async def test_a_loop_that_ended_without_a_word_costs_nothing(
        self, make: Make, redis: RedisServer, prefix: str
    ) -> None:
        """
        What it had read is not read twice, and what it had asked for in vain is read.
        """
        pusher = await make()
        await push(pusher, *numbers(4))
        broker = RedisBroker(read_hosts([redis.url]), RedisOptions(queue_poll=LONG), prefix=prefix)

        async def read() -> bytes:
            await broker.start(ignore, ignore, ignore)
            payload = await broker.pop("jobs")
            # The loop ends with a request that was written and never answered.
            link = broker.queues._nodes[0].commands._link
            assert link is not None
            assert link._transport is not None
            link._transport.pause_reading()
            reader = broker.queues._readers.wait("jobs")
            broker.queues._look("jobs")
            await until(lambda: redis.do("HLEN", f"{prefix}:queue:{{jobs}}:body") == 2)
            broker.queues._readers.give_up(reader)
            return payload

        loop = asyncio.new_event_loop()
        assert await asyncio.to_thread(loop.run_until_complete, read()) == b"0"
        await broker.start(ignore, ignore, ignore)
        assert await pop(broker, 3) == numbers(4, 1)
        await broker.close()
        assert keys(redis, prefix) == []
        await asyncio.to_thread(loop.run_until_complete, cancel(*asyncio.all_tasks(loop)))
        await asyncio.to_thread(loop.close)


class TestFaults:
    """
    Links that end, servers that forget, and requests that arrive late.
    """

    async def test_a_server_that_forgot_the_scripts_is_given_them_again(
        self, make: Make, redis: RedisServer
    ) -> None:
        """
        Nobody notices, and the order stays.
        """
        broker = await make()
        [task] = await waiting(broker)
        redis.do("SCRIPT", "FLUSH")
        await asyncio.gather(*(push(broker, each) for each in numbers(20)))
        assert [await soon(task), *await pop(broker, 19)] == numbers(20)
        redis.do("SCRIPT", "FLUSH")
        await push(broker, b"1")
        assert await pop(broker) == [b"1"]

    @pytest.mark.fault
    async def test_a_reader_whose_link_is_cut_again_and_again_loses_nothing(
        self, make: Make, redis: RedisServer
    ) -> None:
        """
        Everything is read, in order and once, with links killed amid the requests.
        """
        reader, pusher = await make(queue_poll=0.05, retry_delay_max=0.01), await make()
        await push(pusher, *numbers(400))
        cuts = 0

        async def cut_for_ever() -> None:
            nonlocal cuts
            while True:
                for client in redis.commanders():
                    with suppress(AssertionError):  # It has ended meanwhile.
                        redis.cut(client)
                        cuts += 1
                await asyncio.sleep(0.01)

        task = asyncio.create_task(cut_for_ever())
        got = await pop(reader, 400)
        task.cancel()
        await asyncio.wait([task])
        assert got == numbers(400)
        assert cuts > 5

    @pytest.mark.fault
    async def test_a_push_whose_link_is_cut_is_in_the_queue_once_or_never(
        self, make: Make, redis: RedisServer
    ) -> None:
        """
        What was taken is there; what raised may be there; nothing is there twice.
        """
        pusher, reader = await make(retry_delay_max=0.01), await make(retry_delay_max=0.01)
        taken: list[bytes] = []
        refused: list[bytes] = []
        for number in range(300):
            payload = b"%d" % number
            pushing = asyncio.ensure_future(push(pusher, payload))
            await asyncio.sleep(0)
            if number % 10 == 5:
                await asyncio.sleep(0)
                redis.cut(*redis.commanders())
            try:
                await soon(pushing)
            except ChannelLayerUnavailable:
                refused.append(payload)
            else:
                taken.append(payload)
        await push(pusher, b"end")
        got = []
        while (payload := (await pop(reader))[0]) != b"end":
            got.append(payload)
        assert len(set(got)) == len(got)
        assert set(taken) <= set(got) <= {*taken, *refused}
        assert got == sorted(got, key=int)
        assert len(taken) > 200

    async def test_a_request_that_arrives_late_takes_nothing_for_nobody(
        self, make: Make, redis: RedisServer, prefix: str
    ) -> None:
        """
        One that lay in an old link, and was repeated on a new one since.
        """
        broker = await make()
        [task] = await waiting(broker)
        line = broker.queues._lines["jobs"]
        commands = broker.queues._nodes[0].commands
        late = 1  # The first request, which found nothing.
        await cancel(task)
        await push(broker, *numbers(3))
        stale = await TAKE.run(commands, [4, *line.keys, late, 0, 2, 1000, "channel"], list)
        assert stale[4::4] != []
        assert await pop(broker, 3) == numbers(3)
        await push(broker, b"3")
        stale = await TAKE.run(commands, [4, *line.keys, late, 0, 2, 1000, "channel"], list)
        assert stale == [0, 0, 0]
        assert await pop(broker) == [b"3"]

    @pytest.mark.fault
    async def test_a_restart_of_the_server_leaves_readers_waiting(
        self, prefix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        They read what is pushed afterwards, at once; the empty server is given the scripts.
        """
        with redis_server() as server:
            options = RedisOptions(queue_poll=LONG, retry_delay_max=0.05)
            broker = RedisBroker(read_hosts([server.url]), options, prefix=prefix)
            await broker.start(ignore, ignore, ignore)
            [task] = await waiting(broker)
            await asyncio.to_thread(server.restart)
            async with asyncio.timeout(5):
                while True:
                    try:
                        await push(broker, b"1")
                    except ChannelLayerUnavailable:
                        await asyncio.sleep(0.01)
                    else:
                        break
            assert await soon(task) == b"1"
            server.kill()
            waits = asyncio.create_task(broker.pop("jobs"))
            await until(lambda: not broker.connected)
            await asyncio.to_thread(server.start)
            await until(lambda: broker.connected)
            await push(broker, b"2")
            assert await soon(waits) == b"2"
            await broker.close()
        assert not [one for one in caplog.records if one.levelno >= logging.ERROR]

    async def test_a_server_without_memory_still_gives_what_it_has(
        self, make: Make, redis: RedisServer
    ) -> None:
        """
        Pushes raise; what a reader was given and gave up is put back and read again.
        """
        broker, other = await make(queue_poll=0.02), await make()
        await push(broker, *numbers(10))
        try:
            redis.set("maxmemory", 1)
            with pytest.raises(ChannelLayerUnavailable, match="OOM"):
                await push(broker, b"more")
            task = asyncio.create_task(broker.pop("jobs"))
            await given(broker)
            await cancel(task)
            assert task.cancelled()
            await until(lambda: not broker.queues._readers)
            assert await pop(other, 10) == numbers(10)
        finally:
            redis.set("maxmemory", 0)
        await push(broker, b"more")
        assert await pop(broker) == [b"more"]

    async def test_what_nobody_thought_of_is_logged_and_readers_wait_on(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Nobody loses what was taken then.
        """
        broker = await make(queue_poll=0.02)
        await push(broker, b"1", b"2")
        with monkeypatch.context() as patch:
            patch.setattr(broker.queues, "_count_lost", lambda *counts: counts[-1] / 0)
            task = asyncio.create_task(broker.pop("jobs"))
            await until(lambda: "the queue 'jobs' cannot be read" in caplog.text)
            assert await soon(task) == b"1"
        assert await pop(broker) == [b"2"]

    async def test_a_server_that_is_away_at_the_end_holds_nobody_up(
        self, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Closing ends in bounded time, and what was read is not read again by who comes back.
        """
        monkeypatch.setattr(broker_module, "PARTING_SECONDS", 0.1)
        with redis_server() as server:
            broker = RedisBroker(
                read_hosts([server.url]), RedisOptions(queue_poll=LONG), prefix=prefix
            )
            await broker.start(ignore, ignore, ignore)
            await push(broker, b"1", b"2")
            assert await pop(broker) == [b"1"]
            server.freeze()
            await soon(broker.close())
            task = asyncio.create_task(broker.pop("jobs"))
            await asyncio.sleep(0)
            server.thaw()
            await broker.start(ignore, ignore, ignore)
            assert await soon(task) == b"2"
            await broker.close()
            with pytest.raises(ChannelLayerUnavailable, match="closed"):
                await push(broker, b"3")

    async def test_a_user_with_few_rights_has_enough(
        self, redis: RedisServer, prefix: str, make: Make
    ) -> None:
        """
        Those of the documentation, on names with the prefix alone.
        """
        rights = (
            f"resetkeys ~{prefix}:* resetchannels &{prefix}:* &{prefix}/* -@all +@connection "
            "+@pubsub +@scripting +@sortedset +@hash +@list +@keyspace +time"
        )
        redis.do("ACL", "SETUSER", "site", "on", ">secret", *rights.split())
        host = f"redis://site:secret@127.0.0.1:{redis.port}/0"
        reader, pusher = await make(hosts=[host]), await make(hosts=[host])
        [task] = await waiting(reader)
        await push(pusher, *numbers(3))
        assert [await soon(task), *await pop(reader, 2)] == numbers(3)
        await pusher.flush()

    @pytest.mark.fault
    async def test_a_server_that_stood_still_gives_each_message_once(self, prefix: str) -> None:
        """
        Requests that were given up and sent again are not executed twice when it goes on.
        """
        with redis_server() as server:
            hasty = RedisOptions(queue_poll=0.05, command_timeout=0.1, retry_delay_max=0.05)
            reader, pusher = (
                RedisBroker(read_hosts([server.url]), options, prefix=prefix)
                for options in (hasty, RedisOptions(queue_poll=LONG))
            )
            for broker in (reader, pusher):
                await broker.start(ignore, ignore, ignore)
            await push(pusher, *numbers(40))
            got = await pop(reader, 5)
            for _ in range(3):
                readers = [asyncio.create_task(reader.pop("jobs")) for _ in range(5)]
                server.freeze()
                # Until requests lie in several connections.
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.4):
                        await push(pusher, b"1000")
                server.thaw()
                got += await soon(asyncio.gather(*readers))
            await push(pusher, b"end")
            while (payload := (await pop(reader))[0]) != b"end":
                got.append(payload)
            assert sorted(got) == sorted([*numbers(40), *[b"1000"] * 3])
            for broker in (reader, pusher):
                await broker.close()

    async def test_a_refused_command_is_told_and_tried_again(
        self, make: Make, redis: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        A key of somebody else's in the way: pushes raise, readers wait until it is gone.
        """
        broker = await make(queue_poll=0.02)
        redis.do("SET", f"{prefix}:queue:{{jobs}}:order", "taken")
        with pytest.raises(ChannelLayerUnavailable, match="WRONGTYPE"):
            await push(broker, b"1")
        task = asyncio.create_task(broker.pop("jobs"))
        await until(lambda: "queues cannot be read" in caplog.text)
        assert "fairway.R405" in caplog.text
        redis.do("DEL", f"{prefix}:queue:{{jobs}}:order")
        await push(broker, b"2")
        assert await soon(task) == b"2"


class TestEncryption:
    """
    Payloads that only those with a key can read.
    """

    async def test_redis_sees_no_payload(self, make: Make, redis: RedisServer, prefix: str) -> None:
        """
        Not while it lies there; who has the key reads it.
        """
        one, other = await make(["new", "old"]), await make(["old", "new"])
        await push(one, b"a secret payload")
        [body] = redis.do("HVALS", f"{prefix}:queue:{{jobs}}:body")
        assert b"secret" not in body
        assert await pop(other) == [b"a secret payload"]

    async def test_what_cannot_be_read_is_dropped_counted_and_told(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Without a key, with another one, or from another queue; the reader gets what follows.
        """
        reader = await make(["key"])
        before = metrics.drops.values.get("undecipherable", 0)
        await push(await make(), b"plain", b"x" * 100)
        await push(await make(["other"]), b"sealed otherwise")
        await push(await make(), AESCipher(["key"]).seal("queue:other", b"moved"))
        await push(await make(["key"]), b"mine")
        assert await pop(reader) == [b"mine"]
        assert metrics.drops.values["undecipherable"] - before == 4
        assert "fairway.R403" in caplog.text


class TestSeveralServers:
    """
    Hosts among which queues are distributed.
    """

    async def test_each_queue_is_on_one_of_them(
        self, make: Make, redis: RedisServer, prefix: str
    ) -> None:
        """
        The same for all processes, and both are used, with all that queues do.
        """
        with redis_server() as second:
            hosts = [redis.url, second.url]
            one, other = await make(hosts=hosts), await make(hosts=hosts)
            for number in range(20):
                queue = f"jobs{number}"
                task = asyncio.create_task(other.pop(queue))
                await push(one, b"1", b"2", queue=queue)
                assert await soon(task) == b"1"
                assert await pop(one, queue=queue) == [b"2"]
                await push(one, b"3", queue=queue)
            assert keys(redis, prefix)
            assert keys(second, prefix)
            await one.flush()
            assert not [key for key in keys(redis, prefix) if b"held" not in key]
            assert not [key for key in keys(second, prefix) if b"held" not in key]
            await one.close()
            await other.close()


class TestCluster:
    """
    A cluster, over any of its nodes.
    """

    @pytest.mark.fault
    async def test_queues_work_on_a_cluster(self, make: Make, prefix: str) -> None:
        """
        Whichever node a process asks, and whichever holds the queue.
        """
        with cluster_of_three() as nodes:
            one = await make(hosts=[nodes[0].url])
            other = await make(hosts=[nodes[1].url])
            for number in range(12):
                queue = f"jobs{number}"
                task = asyncio.create_task(other.pop(queue))
                await push(one, b"1", b"2", queue=queue)
                assert await soon(task) == b"1"
                with pytest.raises(ChannelFull):
                    await push(other, b"3", queue=queue, capacity=1)
                assert await pop(one, queue=queue) == [b"2"]
                await push(one, b"3", queue=queue)
            assert all(keys(node, prefix) for node in nodes)
            await one.flush()
            assert not [key for node in nodes for key in keys(node, prefix) if b"held" not in key]
            await one.close()
            await other.close()
