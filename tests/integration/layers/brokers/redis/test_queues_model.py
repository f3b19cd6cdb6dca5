"""
A queue on Redis does what a list does, whatever is done to it in whichever order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given, settings, strategies as st

from fairway.exceptions import ChannelFull
from fairway.layers.brokers.redis import RedisBroker
from fairway.layers.brokers.redis.hosts import read_hosts
from fairway.options import RedisOptions
from tests.integration.layers.redis_server import RedisServer, redis_server

CAPACITY = 5

_prefixes = count()


@dataclass(frozen=True)
class Push:
    """
    A message, which may be expired from the beginning.
    """

    by: int
    expired: bool


@dataclass(frozen=True)
class Pop:
    """
    So many readers at once; what they get has to be there, though connections end meanwhile.
    """

    by: int
    readers: int
    cut_after: int | None = None


@dataclass(frozen=True)
class Cancel:
    """
    So many readers, cancelled after some turns of the loop.
    """

    by: int
    readers: int
    turns: int


@dataclass(frozen=True)
class Cut:
    """
    All connections end.
    """


@dataclass(frozen=True)
class Forget:
    """
    The server forgets its scripts.
    """


Step = Push | Pop | Cancel | Cut | Forget

who = st.integers(0, 1)
some = st.integers(1, 3)
steps = st.lists(
    st.one_of(
        st.builds(Push, who, st.booleans()),
        st.builds(Push, who, st.just(value=False)),
        st.builds(Pop, who, some),
        st.builds(Pop, who, some, st.integers(0, 8)),
        st.builds(Cancel, who, some, st.integers(0, 12)),
        st.just(Cut()),
        st.just(Forget()),
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """
    Run a server for the tests of this module.
    """
    with redis_server() as server:
        yield server


class Run:
    """
    One sequence of steps, with what should be in the queue.
    """

    def __init__(self, redis: RedisServer) -> None:
        self.redis = redis
        self.expected: list[bytes] = []
        self.numbers = count()
        prefix = f"model{next(_prefixes)}"
        options = RedisOptions(queue_poll=0.02, retry_delay_max=0.02)
        self.brokers = [
            RedisBroker(read_hosts([redis.url]), options, prefix=prefix) for _ in range(2)
        ]

    async def play(self, steps: list[Step]) -> None:
        """
        Take all steps, and find nothing but what is expected in the end.
        """
        for broker in self.brokers:
            await broker.start(ignore, ignore, ignore)
        async with asyncio.timeout(10):
            for step in steps:
                await self.take(step)
            await self.take(Pop(0, len(self.expected)))
        for broker in self.brokers:
            await broker.close()
        assert [key for key in self.redis.do("KEYS", "*") if b"held" in key] == []

    async def take(self, step: Step) -> None:
        """
        Take one step.
        """
        match step:
            case Push(by, expired):
                await self.push(self.brokers[by], expired)
            case Pop(by, readers, cut_after):
                await self.pop(self.brokers[by], min(readers, len(self.expected)), cut_after)
            case Cancel(by, readers, turns):
                await self.cancel(self.brokers[by], readers, turns)
            case Cut():
                self.redis.cut(*self.redis.clients())
            case Forget():
                self.redis.do("SCRIPT", "FLUSH")

    async def push(self, broker: RedisBroker, expired: bool) -> None:
        """
        Add a message, or find that there is no room.
        """
        # A push that meets the end of a connection fails, so it is established first.
        await broker.queues._nodes[0].commands.execute("PING", repeatable=True)
        payload = b"%d" % next(self.numbers)
        pushed = broker.push("jobs", payload, lifetime=0 if expired else 60, capacity=CAPACITY)
        assert pushed is not None
        if len(self.expected) >= CAPACITY:
            with pytest.raises(ChannelFull):
                await pushed
        else:
            await pushed
            self.expected += [] if expired else [payload]

    async def pop(self, broker: RedisBroker, readers: int, cut_after: int | None) -> None:
        """
        Have what is expected read, with all connections cut after some turns of the loop.
        """
        reading = asyncio.gather(*(broker.pop("jobs") for _ in range(readers)))
        if cut_after is not None:
            for _ in range(cut_after):
                await asyncio.sleep(0)
            self.redis.cut(*self.redis.clients())
        assert await reading == self.expected[:readers]
        del self.expected[:readers]

    async def cancel(self, broker: RedisBroker, readers: int, turns: int) -> None:
        """
        Have readers that may or may not get something before they are cancelled.
        """
        tasks = [asyncio.ensure_future(broker.pop("jobs")) for _ in range(readers)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        got = [task.result() for task in tasks if not task.cancelled()]
        assert got == self.expected[: len(got)]
        del self.expected[: len(got)]
        # Until it is put back, others may read what follows.
        nodes, locate = broker.queues._nodes, broker.queues._locate
        await broker.queues.end(5)
        broker.queues.begin(nodes, locate)


def ignore(*told: object) -> None:
    """
    Stand in for a hub.
    """


@pytest.mark.slow(60, "many sequences on a real server")
@given(steps)
@settings(max_examples=60)
def test_a_queue_is_a_list(redis: RedisServer, steps: list[Step]) -> None:
    """
    Nothing is lost, doubled or out of order, with connections cut between the steps.
    """
    redis.do("FLUSHALL")
    asyncio.run(Run(redis).play(steps))
