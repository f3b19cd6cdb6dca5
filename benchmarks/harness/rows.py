"""
What is measured and which figure each row has to reach: data only.

A block is measured in one go: each of its tasks once per repetition. A row
compares one task with another inside each repetition, or with a number. Bars
and aims are those of the project's design; ``C`` is the floor, ``P`` the bare
protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BLOCKS", "Block", "Condition", "Row", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """
    One subject doing one job under the load generator.
    """

    name: str
    subject: str
    mode: str
    path: str = "/"
    connections: int = 100
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """
    The bar counts only where the median of this ratio is at most the limit.
    """

    task: str
    against: str
    limit: float


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the results.

    Attributes:
        title: What a reader calls it.
        task: The task of the block it is about.
        against: The task it is divided by; empty for the value itself.
        unit: What the figure counts: C, P, a server of others, KiB, MiB or us; x is a ratio.
        bar: The figure that must not be exceeded; None is for information.
        aim: The figure to come to.
        condition: Where the bar counts; None is everywhere.
    """

    title: str
    task: str
    against: str
    unit: str
    bar: float | None = None
    aim: float | None = None
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """
    Tasks whose repetitions are interleaved, and the rows read from them.
    """

    name: str
    operation: str
    tasks: tuple[Task, ...]
    rows: tuple[Row, ...]


# The publisher is one of the members.
MEMBERS = 1000
MESSAGE = ("--bytes", "200")
PAGE = ("--bytes", "13")
SOCKETS = 4000


def fan_out(name: str, subject: str, path: str = "/", burst: int = 1) -> Task:
    """
    Return a task that publishes to all members, round after round.
    """
    options = (*MESSAGE, "--burst", str(burst))
    return Task(name, subject, "fanout", path, MEMBERS, options)


@dataclass(frozen=True, slots=True)
class Pair:
    """
    Two processes with a channel layer each: one publishes, the other has all members.

    Attributes:
        kind: Whether members take messages directly (``broadcast``) or by a Python handler.
        members: How many are in the group.
        rate: Messages per second; 0 is as many as the layer takes.
        layer: What joins the two.
    """

    kind: str
    members: int
    rate: int
    layer: str = "ipc"

    def task(self, side: str) -> Task:
        """
        Return the task that measures one side: ``publisher``, ``receiver`` or ``redis`` between.
        """
        options = ("--kind", self.kind, "--members", str(self.members), "--rate", str(self.rate))
        where = ("--layer", self.layer) if self.layer != "ipc" else ()
        return Task(f"{side}, {self.name}", side, "pair", options=(*options, *where, *MESSAGE))

    @property
    def name(self) -> str:
        """
        What tells it from other pairs.
        """
        pace = f"{self.rate} a second" if self.rate else "flood"
        carrier = f"{self.layer}, " if self.layer in CHANNELS_REDIS else ""
        return f"{carrier}{self.kind}, {self.members:,} members, {pace}"


# One rate for all sizes: what a message costs depends on how long the process slept before it.
PAIRS = (
    *(Pair("broadcast", members, 200) for members in (10, 100, 1000)),
    *(Pair("handler", members, 50) for members in (10, 100, 1000)),
    Pair("broadcast", 10, 0),
)
SIDES = ("publisher", "receiver")

CHANNELS_REDIS = ("channels_redis.core", "channels_redis.pubsub")
# As many as channels_redis core carries to so many members without falling behind.
REDIS_RATES = {10: 100, 100: 50, 1000: 10}
REDIS_SIDES = ("publisher", "redis", "receiver")
# A small and a large group at one rate: the publisher is to spend the same on both.
REDIS_SIZES = (Pair("broadcast", 10, 200, "redis"), Pair("broadcast", 1000, 200, "redis"))
REDIS_PAIRS = (
    *(
        pair
        for members, rate in REDIS_RATES.items()
        for pair in (
            Pair("broadcast", members, rate, "redis"),
            Pair("handler", members, rate, "redis"),
            *(Pair("handler", members, rate, layer) for layer in CHANNELS_REDIS),
        )
    ),
    *REDIS_SIZES,
)


BLOCKS = (
    Block(
        "echo",
        "message",
        (
            Task("asgi", "asgi", "echo"),
            Task("consumer", "site", "echo", "/consumer-echo"),
            Task("bare", "bare", "echo"),
            Task("floor", "floor", "echo"),
        ),
        (
            Row("echo through ASGI", "asgi", "floor", "C", bar=2.2, aim=1.8),
            Row("echo through a consumer", "consumer", "floor", "C", bar=3.2, aim=2.2),
            Row("echo, bare protocol", "bare", "floor", "C"),
        ),
    ),
    Block(
        "get",
        "request",
        (
            Task("asgi", "asgi", "get", options=PAGE),
            # With a cookie, whose fields the server does not remember from one GET to the next.
            Task("cookie", "asgi", "get", options=(*PAGE, "--cookie")),
            Task("bare", "bare", "get", options=PAGE),
            Task("floor", "floor", "get", options=PAGE),
        ),
        (
            Row("HTTP GET, keep-alive, ASGI", "asgi", "floor", "C", bar=3.0, aim=2.5),
            Row("the same with a session cookie", "cookie", "floor", "C"),
            Row("HTTP GET, bare protocol", "bare", "floor", "C"),
        ),
    ),
    Block(
        "connect",
        "connection",
        (
            Task("asgi", "asgi", "connect"),
            Task("consumer", "site", "connect", "/consumer-echo"),
            Task("bare", "bare", "connect"),
            Task("floor", "floor", "connect"),
        ),
        (
            Row("connect + close through ASGI", "asgi", "floor", "C", bar=3.5, aim=2.8),
            Row("connect + close through a consumer", "consumer", "floor", "C", bar=5.0, aim=4.0),
            Row("connect + close, bare protocol", "bare", "floor", "C"),
        ),
    ),
    Block(
        "broadcast",
        "delivery",
        (
            fan_out("broadcast", "site", "/broadcast"),
            fan_out("bare", "bare"),
            fan_out("floor", "floor"),
        ),
        (
            Row("broadcast, 1,000 sockets, against P", "broadcast", "bare", "P", bar=1.15),
            Row(
                "broadcast, 1,000 sockets, against C",
                "broadcast",
                "floor",
                "C",
                bar=1.5,
                aim=1.3,
                condition=Condition("bare", "floor", 1.3),
            ),
            Row("write loop of the bare protocol (P)", "bare", "floor", "C"),
        ),
    ),
    Block(
        "burst",
        "delivery",
        (
            fan_out("broadcast", "site", "/broadcast", burst=4),
            fan_out("bare", "bare", burst=4),
            # One message is what a delivery of the burst is compared with.
            fan_out("floor", "floor"),
        ),
        (
            Row("4 messages in one loop turn, each", "broadcast", "floor", "C", bar=0.5, aim=0.4),
            Row("the same, joined by the bare protocol", "bare", "floor", "C"),
        ),
    ),
    Block(
        "handler",
        "delivery",
        (fan_out("handler", "site", "/handler"), fan_out("floor", "floor")),
        (
            Row(
                "group message, a Python handler per socket",
                "handler",
                "floor",
                "C",
                bar=3.5,
                aim=2.5,
            ),
        ),
    ),
    Block(
        "pages",
        "page",
        (
            Task("pages", "pages", "get", options=PAGE),
            Task("granian", "granian", "get", options=PAGE),
            Task("gunicorn", "gunicorn", "get", options=PAGE),
            Task("uvicorn", "uvicorn", "get", options=PAGE),
            Task("floor", "floor", "get", options=PAGE),
        ),
        (
            Row(
                "sync Django view, startproject's 7 middlewares",
                "pages",
                "granian",
                "granian WSGI",
                bar=1.15,
                aim=1.0,
            ),
            Row("the same against the floor", "pages", "floor", "C"),
            Row("granian WSGI", "granian", "floor", "C"),
            Row("gunicorn, gthread", "gunicorn", "floor", "C"),
            Row("uvicorn, Django's own ASGI handler", "uvicorn", "floor", "C"),
        ),
    ),
    Block(
        "memory",
        "idle socket",
        (
            Task("asgi", "asgi", "idle", connections=SOCKETS),
            Task("consumer", "site", "idle", "/idle", connections=SOCKETS),
            Task("auth", "site-auth", "idle", "/visitor", connections=SOCKETS),
            Task("bare", "bare", "idle", connections=SOCKETS),
        ),
        (
            Row("memory of an idle socket, ASGI", "asgi", "", "KiB", bar=7.0, aim=5.0),
            Row("memory of an idle socket, consumer", "consumer", "", "KiB", bar=9.5, aim=7.0),
            Row("the same with session and user", "auth", "", "KiB", bar=13.0, aim=9.0),
            Row("memory of an idle socket, bare protocol", "bare", "", "KiB"),
        ),
    ),
    Block(
        "workers",
        "delivery",
        (
            fan_out("two workers", "site-2", "/broadcast"),
            fan_out("one process", "site", "/broadcast"),
            fan_out("floor", "floor"),
        ),
        (
            Row("broadcast over 2 workers, 1,000 sockets", "two workers", "floor", "C"),
            Row("the same on one process", "one process", "floor", "C"),
        ),
    ),
    Block(
        "ipc",
        "message",
        tuple(pair.task(side) for pair in PAIRS for side in SIDES),
        tuple(
            Row(f"ipc, {pair.name}: {side} per message", pair.task(side).name, "", "us")
            for pair in PAIRS
            for side in SIDES
        ),
    ),
    Block(
        "redis",
        "delivery",
        (
            fan_out("broadcast", "site-redis", "/broadcast"),
            fan_out("handler", "site-redis", "/handler"),
            fan_out("pubsub", "channels-pubsub", "/handler"),
            fan_out("core", "channels-core", "/handler"),
            fan_out("without", "site", "/broadcast"),
            fan_out("floor", "floor"),
        ),
        (
            Row(
                "broadcast through Redis, 1,000 sockets",
                "broadcast",
                "floor",
                "C",
                bar=1.7,
                aim=1.4,
            ),
            Row("the same without Redis", "without", "floor", "C"),
            Row("group message through Redis, a handler per socket", "handler", "floor", "C"),
            Row("channels_redis pub/sub, uvicorn", "pubsub", "floor", "C"),
            Row("channels_redis core, uvicorn", "core", "floor", "C"),
            # A fifteenth and an eighth.
            Row("broadcast against channels_redis pub/sub", "broadcast", "pubsub", "x", bar=0.066),
            Row("handlers against channels_redis pub/sub", "handler", "pubsub", "x", bar=0.125),
        ),
    ),
    Block(
        "redis-layers",
        "message",
        tuple(pair.task(side) for pair in REDIS_PAIRS for side in REDIS_SIDES),
        (
            Row(
                "redis: publisher for 1,000 members, against the same for 10",
                REDIS_SIZES[1].task("publisher").name,
                REDIS_SIZES[0].task("publisher").name,
                "x",
                bar=1.2,
            ),
            *(
                Row(f"redis, {pair.name}: {side} per message", pair.task(side).name, "", "us")
                for pair in REDIS_PAIRS
                for side in REDIS_SIDES
            ),
        ),
    ),
    Block(
        "rest",
        "process",
        (
            Task("worker", "site-2", "rest"),
            Task("supervisor", "site-2", "rest"),
            Task("alone", "site", "rest"),
        ),
        (
            Row("memory of a worker at rest, of two", "worker", "", "MiB"),
            Row("memory of the supervisor", "supervisor", "", "MiB"),
            Row("memory of a server of one process at rest", "alone", "", "MiB"),
        ),
    ),
)
