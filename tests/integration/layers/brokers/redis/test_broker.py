"""
The broker over Redis by itself: its connections, its subscriptions, and the loops it lives on.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.redis import RedisBroker
from fairway.layers.brokers.redis.hosts import read_hosts, shard
from fairway.options import RedisOptions
from tests.integration.layers.redis_server import RedisServer, redis_server, sentinel_server

numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """
    Give a server of this module's own.
    """
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def second() -> Iterator[RedisServer]:
    """
    Give another one.
    """
    with redis_server() as server:
        yield server


class Heard:
    """
    What a broker told its hub.
    """

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.gaps: asyncio.Queue[str] = asyncio.Queue()
        self.states: asyncio.Queue[bool] = asyncio.Queue()

    def deliver(self, subject: str, payload: bytes) -> None:
        """
        Take a message.
        """
        self.messages.put_nowait((subject, payload))

    def on_gap(self, subject: str, lost: int | None) -> None:
        """
        Take a break.
        """
        assert lost is None
        self.gaps.put_nowait(subject)

    async def begin(self, broker: RedisBroker, *subjects: str) -> None:
        """
        Start a broker that tells it.
        """
        await broker.start(self.deliver, self.on_gap, self.states.put_nowait, subjects)


def make(*servers: RedisServer, prefix: str = "", **options: Any) -> RedisBroker:
    """
    Make a broker over some servers, with a prefix of its own.
    """
    hosts = read_hosts([server.address for server in servers])
    given = RedisOptions(**{"retry_delay_max": 0.05, **options})
    return RedisBroker(hosts, given, prefix=prefix or f"broker{next(numbers)}")


@asynccontextmanager
async def started(broker: RedisBroker, *subjects: str) -> AsyncIterator[tuple[RedisBroker, Heard]]:
    """
    Start a broker; closed afterwards.
    """
    heard = Heard()
    await heard.begin(broker, *subjects)
    try:
        yield broker, heard
    finally:
        await broker.close()


async def done(pending: Awaitable[None] | None) -> None:
    """
    Wait for what may be done already.
    """
    if pending is not None:
        await soon(pending)


async def soon(awaitable: Awaitable[Any]) -> Any:
    """
    Wait a few seconds at most.
    """
    async with asyncio.timeout(5):
        return await awaitable


async def until(holds: Callable[[], bool]) -> None:
    """
    Wait for something to hold on a server, which tells nobody.
    """
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - nothing here knows
            await asyncio.sleep(0.002)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """
    Call what blocks in a thread.
    """
    return await soon(asyncio.get_running_loop().run_in_executor(None, function, *args))


class TestConnections:
    """
    How many there are, and what is said on them.
    """

    async def test_two_whatever_the_number_of_groups(self, server: RedisServer) -> None:
        """
        Their names say whose they are and what for.
        """
        async with started(make(server)) as (broker, _):
            joins = [broker.subscribe(f"group:{number}") for number in range(300)]
            await asyncio.gather(*(done(join) for join in joins))
            assert len(server.clients()) == 2
            [listening], [commanding] = server.subscribers(), server.commanders()
            assert listening["name"] == f"fairway:{os.getpid()}:sub"
            assert commanding["name"] == f"fairway:{os.getpid()}:pub"
        await until(lambda: not server.clients())

    async def test_subjects_are_spread_over_nodes(
        self, server: RedisServer, second: RedisServer
    ) -> None:
        """
        Each by its name alone, so that everybody looks in the same place.
        """
        subjects = [f"group:{number}" for number in range(20)]
        one, other = (make(server, second, prefix="both") for _ in range(2))
        async with started(one, *subjects) as (_, heard), started(other) as (sender, _):
            for node in (server, second):
                assert len(node.clients()) == 4
            for number, node in enumerate((server, second)):
                belong = {
                    f"both/0:{name}".encode() for name in subjects if shard(name, 2) == number
                }
                assert belong
                assert belong <= set(node.channels())
            for name in subjects:
                await done(sender.publish(name, name.encode()))
            got = {await soon(heard.messages.get()) for _ in subjects}
            assert got == {(name, name.encode()) for name in subjects}

    @pytest.mark.one_loop
    async def test_one_to_a_sentinel(self) -> None:
        """
        Whichever answers, also where the first of them is gone; and two to the master.
        """
        with (
            redis_server() as master,
            redis_server(replicaof=f"127.0.0.1 {master.port}"),
            sentinel_server(master) as sentinel,
        ):
            before = len(sentinel.clients())
            [host] = read_hosts(
                [{"sentinels": [("127.0.0.1", 1), sentinel.address], "master_name": "mymaster"}]
            )
            broker = RedisBroker([host], RedisOptions(probe_interval=0.05), prefix="sentinel")
            async with started(broker, "group:a"):
                # So long that probes, too, have asked where the master is.
                for _ in range(3):
                    await asyncio.sleep(0.1)
                    assert len(sentinel.clients()) - before == 1
                held = [one for one in master.clients() if "sentinel" not in one["name"]]
                assert len(held) == 2

    async def test_a_turn_is_one_write(self, server: RedisServer) -> None:
        """
        However many groups are joined and messages published in it.
        """
        async with started(make(server)) as (broker, _):
            reads = int(server.info("stats")["total_reads_processed"])
            joins = [broker.subscribe(f"group:{number}") for number in range(100)]
            sends = [broker.publish("group:x", b"hello") for _ in range(100)]
            await asyncio.gather(*(done(one) for one in (*joins, *sends)))
            # One for each of the two connections, and those of who asks.
            assert int(server.info("stats")["total_reads_processed"]) - reads <= 4

    async def test_a_message_is_one_publish(self, server: RedisServer) -> None:
        """
        Which reaches nobody who does not want it.
        """
        prefix = f"broker{next(numbers)}"
        uninterested = make(server, prefix=prefix)
        async with started(make(server, prefix=prefix), "group:a") as (broker, heard):  # noqa: SIM117
            async with started(uninterested, "group:b") as (_, other):
                before = server.calls("publish")
                await done(broker.publish("group:a", b"1"))
                assert await soon(heard.messages.get()) == ("group:a", b"1")
                assert server.calls("publish") == before + 1
                assert other.messages.empty()
                assert uninterested.received == 0

    async def test_describing_tells_no_password(self, server: RedisServer) -> None:
        """
        But where it is.
        """
        broker = make(server, prefix="mine")
        assert broker.describe() == f"redis, 127.0.0.1:{server.port}/0, prefix mine"


class TestSubscriptions:
    """
    Joining, leaving and coming back.
    """

    async def test_joining_returns_once_it_is_confirmed(self, server: RedisServer) -> None:
        """
        By then a publish of anybody arrives.
        """
        async with started(make(server)) as (broker, _):
            for number in range(20):
                subject = f"group:{number}"
                joined = broker.subscribe(subject)
                assert joined is not None
                await soon(joined)
                assert await broker.audience(subject) == 1

    async def test_leaving_is_heeded_at_once_and_told_later(self, server: RedisServer) -> None:
        """
        Messages that still come are no member's; coming back in between costs nothing.
        """
        broker = make(server, unsubscribe_delay=0.1)
        async with started(broker, "group:a", "group:b") as (_, heard):
            before = server.calls("subscribe")
            broker.unsubscribe("group:a")
            await done(broker.publish("group:a", b"nobody"))
            await done(broker.publish("group:b", b"somebody"))
            assert await soon(heard.messages.get()) == ("group:b", b"somebody")
            assert broker.subscribe("group:a") is None
            assert await broker.audience("group:a") == 1
            assert server.calls("subscribe") == before
            broker.unsubscribe("group:a")
            async with asyncio.timeout(5):
                while await broker.audience("group:a"):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
            assert await broker.audience("group:b") == 1

    async def test_a_break_is_told_once_for_each_subject(self, server: RedisServer) -> None:
        """
        When it is subscribed to again.
        """
        async with started(make(server), "group:a", "group:b") as (broker, heard):
            server.cut(*server.subscribers())
            gaps = {await soon(heard.gaps.get()) for _ in range(2)}
            assert gaps == {"group:a", "group:b"}
            assert [await soon(heard.states.get()) for _ in range(2)] == [False, True]
            assert broker.connected
            assert await broker.audience("group:a") == 1
            await done(broker.publish("group:a", b"1"))
            assert await soon(heard.messages.get()) == ("group:a", b"1")
            assert heard.gaps.empty()

    async def test_publishing_survives_the_end_of_its_connection(self, server: RedisServer) -> None:
        """
        Whatever was on its way is sent again, in its order.
        """
        async with started(make(server), "group:a") as (broker, heard):
            sends = []
            for number in range(200):
                sends.append(broker.publish("group:a", str(number).encode()))
                if number % 50 == 25:
                    server.cut(*server.commanders())
                await asyncio.sleep(0)
            await asyncio.gather(*(done(send) for send in sends))
            got: list[int] = []
            while not got or got[-1] != 199:
                _, payload = await soon(heard.messages.get())
                got.append(int(payload))
            # Some may come twice, which the numbers of the hub sort out; none is missing.
            assert list(dict.fromkeys(got)) == sorted(set(got))
            assert set(got) == set(range(200))


class TestLoops:
    """
    A broker that moves from loop to loop, ends, or is forked.
    """

    async def test_it_may_be_started_again(self, server: RedisServer) -> None:
        """
        After it was closed, with two connections as before.
        """
        broker = make(server)
        for _ in range(3):
            async with started(broker, "group:a") as (_, heard):
                await done(broker.publish("group:a", b"1"))
                assert await soon(heard.messages.get()) == ("group:a", b"1")
                assert len(server.clients()) == 2
            assert not broker.connected
            with pytest.raises(ChannelLayerUnavailable, match="closed"):
                broker.publish("group:a", b"2")
            assert broker.subscribe("group:b") is None
            broker.unsubscribe("group:b")
        await until(lambda: not server.clients())

    async def test_closing_flushes(self, server: RedisServer) -> None:
        """
        What was published in the same turn has left.
        """
        prefix = f"broker{next(numbers)}"
        async with started(make(server, prefix=prefix), "group:a") as (_, heard):
            sender = make(server, prefix=prefix)
            await sender.start(heard.deliver, heard.on_gap, heard.states.put_nowait)
            sends = [sender.publish("group:a", str(number).encode()) for number in range(50)]
            await sender.close()
            await asyncio.gather(*(done(send) for send in sends))
            got = [(await soon(heard.messages.get()))[1] for _ in range(50)]
            assert got == [str(number).encode() for number in range(50)]

    async def test_closing_while_redis_is_away_is_bounded(self) -> None:
        """
        And who waits is told.
        """
        with redis_server() as server:
            broker = make(server)
            heard = Heard()
            await heard.begin(broker)
            server.kill()
            pending = broker.publish("group:a", b"1")
            assert pending is not None
            begin = asyncio.get_running_loop().time()
            await broker.close()
            assert asyncio.get_running_loop().time() - begin < 2
            with pytest.raises(ChannelLayerUnavailable):
                await pending

    async def test_a_loop_that_ended_without_a_word_is_left(self, server: RedisServer) -> None:
        """
        Its connections end, and the broker lives on the next loop.
        """
        broker = make(server)

        def live_shortly() -> None:
            loop = asyncio.new_event_loop()
            loop.run_until_complete(Heard().begin(broker, "group:a"))
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        thread = threading.Thread(target=live_shortly)
        thread.start()
        await in_thread(thread.join)
        assert len(server.clients()) == 2
        async with started(broker, "group:a") as (_, heard):
            await until(lambda: len(server.clients()) == 2)
            await done(broker.publish("group:a", b"1"))
            assert await soon(heard.messages.get()) == ("group:a", b"1")

    async def test_a_loop_that_stands_still_is_left(self, server: RedisServer) -> None:
        """
        What lived there ends once it goes on, and tells nobody anything until then.
        """
        broker, heard_there = make(server), Heard()
        lives, goes_on = threading.Event(), threading.Event()

        async def stand_still() -> None:
            await heard_there.begin(broker, "group:a")
            lives.set()
            goes_on.wait(10)  # The point: the loop does nothing meanwhile.
            await asyncio.sleep(0.2)

        thread = threading.Thread(target=asyncio.run, args=(stand_still(),))
        thread.start()
        await in_thread(lives.wait)
        async with started(broker, "group:a") as (_, heard):
            await done(broker.publish("group:a", b"1"))
            assert await soon(heard.messages.get()) == ("group:a", b"1")
            assert len(server.clients()) == 4
            goes_on.set()
            await until(lambda: len(server.clients()) == 2)
            await in_thread(thread.join)
            await done(broker.publish("group:a", b"2"))
            assert await soon(heard.messages.get()) == ("group:a", b"2")
            assert heard_there.messages.empty()
            assert heard.messages.empty()
            assert heard.gaps.empty()

    async def test_a_child_has_connections_of_its_own(self, server: RedisServer) -> None:
        """
        And leaves those of its parent alone, also when it ends.
        """
        prefix = f"broker{next(numbers)}"
        async with started(make(server, prefix=prefix), "group:a") as (broker, heard):
            child = os.fork()
            if not child:
                status = 1
                try:
                    broker.forked()
                    with asyncio.Runner() as runner:
                        runner.get_loop()
                        asyncio.events._set_running_loop(None)
                        runner.run(publish_from_child(broker))
                    status = 0
                finally:
                    os._exit(status)
            assert await soon(heard.messages.get()) == ("group:a", b"child")
            _, status = await asyncio.get_running_loop().run_in_executor(None, os.waitpid, child, 0)
            assert status == 0
            await done(broker.publish("group:a", b"parent"))
            assert await soon(heard.messages.get()) == ("group:a", b"parent")
            assert heard.gaps.empty()


async def publish_from_child(broker: RedisBroker) -> None:
    """
    Publish in a forked process.
    """
    await Heard().begin(broker)
    await done(broker.publish("group:a", b"child"))
    await broker.close()
