"""
What sockets notice while Redis is away, and what a message costs Redis.

Two servers with sockets each share a Redis of their own. Somebody talks on either of them all the
time, in numbered messages, so that each socket can tell what it did not hear; the servers' own
counters have to say the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep

from benchmarks.harness.cores import Cores
from benchmarks.harness.facts import Fact, Facts
from benchmarks.harness.facts_clients import Crowd, Socket, until
from benchmarks.harness.facts_sites import channels_site, counters, fairway_site
from benchmarks.harness.plan import Plan
from benchmarks.harness.subjects import Server, SubjectError
from tests.integration.layers.redis_server import RedisServer, redis_server, sentinel_server

__all__ = ["BROKER_AWAY", "BROKER_WORK"]

SOCKETS = 25
"""
Connected to each of the two servers.
"""

PACE = 0.01
AWAY_SECONDS = {"stop": 1.0, "kill": 7.0}
"""
A message waits for 5 s by default, so one of these costs some.
"""

HUNG_SECONDS = 4.0
"""
Longer than a command may take by default, so that the servers find out.
"""

FAILED_OVER_WITHIN = 15.0
MESSAGES = 100
CHANNEL = "*group:relay"
# What Redis itself does for its clients' sake, or was asked by this program.
NO_WORK = frozenset({"info", "pubsub", "ping", "client", "config", "hello"})


# --- The broker goes away ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where messages go through, and how it fails.

    Attributes:
        hosts: As settings name them.
        server: Whom clients are connected to at first.
        fail: Makes it fail; returns the moment it is back.
    """

    hosts: list[object]
    server: RedisServer
    fail: Callable[[], float]


@contextmanager
def single(ending: str) -> Iterator[Place]:
    """
    Run one Redis that ends, well or not, and is started again later.
    """
    with redis_server() as redis:
        yield Place([redis.url], redis, lambda: away(redis, ending))


@contextmanager
def hanging() -> Iterator[Place]:
    """
    Run one Redis that stands still for a while with its connections open.
    """
    with redis_server() as redis:
        yield Place([redis.url], redis, lambda: hang(redis))


@contextmanager
def replicated() -> Iterator[Place]:
    """
    Run a Redis with a replica and a Sentinel, and have the master die.
    """
    with ExitStack() as stack:
        master = stack.enter_context(redis_server())
        stack.enter_context(redis_server(replicaof=f"127.0.0.1 {master.port}"))
        sentinel = stack.enter_context(sentinel_server(master))
        host = {"sentinels": [list(sentinel.address)], "master_name": "mymaster"}
        yield Place([host], master, lambda: fail_over(master, sentinel))


KINDS = {
    "restarted": lambda: single("stop"),
    "killed": lambda: single("kill"),
    "hung": hanging,
    "failed over": replicated,
}


def away(redis: RedisServer, ending: str) -> float:
    """
    End a server, and start it again after a while. Waits.
    """
    getattr(redis, ending)()
    sleep(AWAY_SECONDS[ending])
    redis.start()
    return monotonic()


def hang(redis: RedisServer) -> float:
    """
    Stop a server in its tracks for a while. Waits.
    """
    redis.freeze()
    sleep(HUNG_SECONDS)
    redis.thaw()
    return monotonic()


def fail_over(master: RedisServer, sentinel: RedisServer) -> float:
    """
    Kill a master, and give the moment at which Sentinel names another. Waits.

    Raises:
        SubjectError: It names none in time.
    """
    master.kill()
    deadline = monotonic() + FAILED_OVER_WITHIN
    while named_by(sentinel) == master.port:
        if monotonic() > deadline:
            raise SubjectError(f"no other master was named within {FAILED_OVER_WITHIN:g} s")
        sleep(PACE)
    return monotonic()


def named_by(sentinel: RedisServer) -> int:
    """
    Give the port of the master as a Sentinel names it.
    """
    return int(sentinel.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")[1])


class Talk:
    """
    Somebody on a socket who says one numbered message after the other, with the time in it.
    """

    def __init__(self, name: str, socket: Socket) -> None:
        self.name = name
        self.number = 0
        self._socket = socket
        self._task = asyncio.create_task(self._talk())

    async def _talk(self) -> None:
        while True:
            self.number += 1
            self._socket.say(f"{self.name} {self.number} {monotonic()}")
            await asyncio.sleep(PACE)

    async def end(self) -> None:
        """
        Say no more.
        """
        self._task.cancel()
        await asyncio.wait([self._task])


def heard_since(socket: Socket, moment: float, names: set[str]) -> bool:
    """
    Whether a socket has heard from everybody what was said after a moment.
    """
    wanted = set(names)
    for heard_at, text in reversed(socket.heard):
        if heard_at < moment:
            return False
        name, _, said_at = text.split()
        if float(said_at) >= moment:
            wanted.discard(name)
        if not wanted:
            return True
    return False


async def watch(place: Place) -> dict[str, float]:
    """
    Have servers, sockets and talk while a broker fails; find out what came of it.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(fairway_site(place.hosts)) for _ in range(2)]
        ports = [server.port for server in servers]
        async with Crowd(ports, "/relay", SOCKETS, comes_again=False) as crowd:
            before = [await counters(server) for server in servers]
            talks = [Talk(f"t{number}", crowd.sockets[number]) for number in range(2)]

            async def all_hear(those: list[Talk], moment: float) -> float:
                names = {talk.name for talk in those}
                return await until(
                    lambda: all(heard_since(each, moment, names) for each in crowd.sockets)
                )

            await all_hear(talks, monotonic())
            back = await asyncio.to_thread(place.fail)
            # Those who talked on have much to work off; others have only now something to say.
            fresh = [Talk(f"f{number}", crowd.sockets[2 + number]) for number in range(2)]
            again = await all_hear(fresh, back)
            talks += fresh
            for talk in talks:
                await talk.end()
            # The servers work off what came meanwhile; then nothing is on its way any more.
            await until(lambda: all(ended(each, talks) for each in crowd.sockets))
            after = [await counters(server) for server in servers]
            died = crowd.ended
    lost = uncounted = unreported = 0
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        counted = grown("fairway_missing_total", old, new)
        losses = [missing(each, talks) for each in crowd.sockets[number::2]]
        lost = max(lost, *losses)
        uncounted = max(uncounted, *(abs(loss - counted) for loss in losses))
        unreported += bool(max(losses)) and not grown("fairway_gaps_total", old, new)
    return {
        "died": died,
        "back": again - back,
        "lost": lost,
        "uncounted": uncounted,
        "unreported": unreported,
    }


def ended(socket: Socket, talks: list[Talk]) -> bool:
    """
    Whether a socket has heard the last that everybody said.
    """
    return all(talk.number == max(numbers(socket, talk), default=0) for talk in talks)


def missing(socket: Socket, talks: list[Talk]) -> int:
    """
    Count what a socket should have heard: it was there before the first word.
    """
    return sum(talk.number - len(set(numbers(socket, talk))) for talk in talks)


def numbers(socket: Socket, talk: Talk) -> list[int]:
    """
    Give the numbers of one talk's messages that a socket heard.
    """
    found = (text.split() for _, text in socket.heard)
    return [int(number) for name, number, _ in found if name == talk.name]


def grown(name: str, before: dict[str, int], after: dict[str, int]) -> int:
    """
    Say by how much a counter grew.
    """
    return after.get(name, 0) - before.get(name, 0)


def broker_away(plan: Plan, cores: Cores, turn: int) -> dict[str, float]:
    """
    Play each kind of absence once, and the first of them with Channels, if it takes part.
    """
    found: dict[str, float] = {}
    for kind, place in KINDS.items():
        with place() as made:
            scene = asyncio.run(watch(made))
        found |= {f"{kind}: {name}": value for name, value in scene.items()}
    if plan.peers:
        with redis_server() as redis, channels_site(redis.url) as site:
            found["channels: died"] = asyncio.run(watch_channels(redis, site))
    return found


async def watch_channels(redis: RedisServer, site: Server) -> float:
    """
    Restart Redis under Channels, and give the share of sockets that ended with it.
    """
    async with Crowd([site.port], "/handler", 2 * SOCKETS, comes_again=False) as crowd:
        await asyncio.to_thread(away, redis, "stop")
        # What ends does so at once; what stays open would do so for ever.
        await asyncio.sleep(2 * AWAY_SECONDS["stop"])
        return crowd.ended / len(crowd.sockets)


def rows_of(kind: str) -> Iterator[Fact]:
    """
    Yield the facts of one kind of absence.
    """
    yield Fact(f"{kind}: died", f"broker {kind}: consumers that died, of 50", "consumers", 0)
    yield Fact(f"{kind}: back", f"broker {kind}: back, until all hear again", "s", 1)
    yield Fact(f"{kind}: lost", f"broker {kind}: messages lost to a socket", "messages")
    yield Fact(f"{kind}: uncounted", f"broker {kind}: lost and not counted", "messages", 0)
    yield Fact(f"{kind}: unreported", f"broker {kind}: losses without a gap told", "servers", 0)


BROKER_AWAY = Facts(
    name="broker-away",
    scenes=broker_away,
    facts=(
        *(fact for kind in KINDS for fact in rows_of(kind)),
        Fact(
            "channels: died",
            "Channels, core layer, Redis restarted: share of consumers that died",
            "x",
        ),
    ),
    repeat=3,
    redis=True,
    peers=True,
)


# --- What a group message is for Redis --------------------------------------------------------


def broker_work(plan: Plan, cores: Cores, turn: int) -> dict[str, float]:
    """
    Count commands and deliveries of some group messages, and Channels' commands, if it takes part.
    """
    with redis_server() as redis, ExitStack() as stack:
        members = [stack.enter_context(fairway_site([redis.url])) for _ in range(2)]
        others = stack.enter_context(fairway_site([redis.url]))
        found = asyncio.run(count_work(redis, members, others))
    if plan.peers:
        with redis_server() as redis, channels_site(redis.url) as site:
            found["channels: commands"] = asyncio.run(count_channels(redis, site))
    return found


async def count_work(redis: RedisServer, members: list[Server], others: Server) -> dict[str, float]:
    """
    Publish to members on two servers, while a third has none.
    """
    ports = [server.port for server in members]
    async with Crowd(ports, "/relay", SOCKETS, comes_again=False) as crowd:
        (channel,) = redis.do("PUBSUB", "CHANNELS", CHANNEL)
        before = await counters(others)
        old = commands(redis)
        for number in range(MESSAGES):
            crowd.sockets[0].say(f"m {number} 0")
        await until(lambda: all(len(each.heard) == MESSAGES for each in crowd.sockets))
        new = commands(redis)
        after = await counters(others)
        return {
            "publishes": (new["publish"] - old.get("publish", 0)) / MESSAGES,
            "commands": (sum(new.values()) - sum(old.values())) / MESSAGES,
            "processes": redis.listeners(channel.decode()),
            "uninterested": grown("fairway_delivered_uninterested_total", before, after),
        }


async def count_channels(redis: RedisServer, site: Server) -> float:
    """
    Count the commands of one group message with Channels and its core layer.
    """
    async with Crowd([site.port], "/handler", 2 * SOCKETS, comes_again=False) as crowd:
        await asyncio.sleep(AWAY_SECONDS["stop"])
        old = commands(redis)
        for _ in range(MESSAGES):
            heard = len(crowd.sockets[0].heard)
            crowd.sockets[0].say("publish 20 1")
            await until(partial(all_heard_more, crowd, heard))
        return (sum(commands(redis).values()) - sum(old.values())) / MESSAGES


def all_heard_more(crowd: Crowd, messages: int) -> bool:
    """
    Whether every socket has heard more than so many messages.
    """
    return all(len(each.heard) > messages for each in crowd.sockets)


def commands(redis: RedisServer) -> dict[str, int]:
    """
    Give how often each command was executed, for others.
    """
    found = {
        name.removeprefix("cmdstat_"): int(stats.split(",")[0].removeprefix("calls="))
        for name, stats in redis.info("commandstats").items()
    }
    return {name: calls for name, calls in found.items() if name.split("|")[0] not in NO_WORK}


BROKER_WORK = Facts(
    name="broker-work",
    scenes=broker_work,
    facts=(
        Fact("publishes", "Redis: PUBLISH per group message, 50 members", "commands", 1),
        Fact("commands", "Redis: commands of any kind per group message", "commands", 1),
        Fact("processes", "Redis: processes that get it, of 3, 2 with members", "processes", 2),
        Fact("uninterested", "Redis: messages to a process without members", "messages", 0),
        Fact("channels: commands", "Channels, core layer: commands, 50 members", "commands"),
    ),
    repeat=3,
    redis=True,
    peers=True,
)
