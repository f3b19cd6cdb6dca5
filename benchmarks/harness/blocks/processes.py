"""
More than one process: workers of one server, and channel layers between processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.harness.blocks.common import MEMBERS, MESSAGE, beside, fan_out, table
from benchmarks.harness.pair import PEER_LAYERS
from benchmarks.harness.rows import Block, Row, Task

__all__ = ["BLOCKS"]


@dataclass(frozen=True, slots=True)
class Pair:
    """
    Two processes with a channel layer each: one publishes, the other has all members.

    Attributes:
        kind: Whether members take messages directly (``broadcast``) or by a Python handler.
        members: How many are in the group.
        rate: Messages per second; 0 is as many as the layer takes.
        layer: What joins the two.
        rounds: Repetitions it takes part in; 0 for all.
    """

    kind: str
    members: int
    rate: int
    layer: str = "ipc"
    rounds: int = 0

    def task(self, side: str) -> Task:
        """
        Return the task that measures one side: ``publisher``, ``receiver`` or ``redis`` between.
        """
        options = ("--kind", self.kind, "--members", str(self.members), "--rate", str(self.rate))
        where = ("--layer", self.layer) if self.layer != "ipc" else ()
        return Task(
            f"{side}, {self.name}",
            side,
            "pair",
            options=(*options, *where, *MESSAGE),
            peer=self.layer in PEER_LAYERS,
            rounds=self.rounds,
        )

    @property
    def name(self) -> str:
        """
        What tells it from other pairs.
        """
        pace = f"{self.rate} a second" if self.rate else "flood"
        carrier = f"{self.layer}, " if self.layer in PEER_LAYERS else ""
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
            Pair("broadcast", members, rate, "redis", rounds=3),
            Pair("handler", members, rate, "redis", rounds=3),
            *(Pair("handler", members, rate, layer, rounds=2) for layer in CHANNELS_REDIS),
        )
    ),
    *REDIS_SIZES,
)

PUBSUB = "channels-uvicorn-pubsub"
REDIS = (
    fan_out("broadcast", "site-redis", "/broadcast", title="Fairway, broadcast"),
    fan_out("handler", "site-redis", "/handler", title="Fairway, a handler per socket"),
    *beside((PUBSUB,), "fanout", "/handler", MEMBERS, MESSAGE, rounds=0),
    fan_out("without", "site", "/broadcast", title="Fairway, broadcast without Redis"),
    fan_out("floor", "floor", title="C, floor without Redis"),
    *beside(
        (
            "channels-uvicorn-core",
            "channels-daphne-pubsub",
            "channels-daphne-core",
        ),
        "fanout",
        "/handler",
        MEMBERS,
        (*MESSAGE, "--patience", "30"),
        rounds=2,
    ),
    *(
        replace(task, title="Channels on Daphne, in memory")
        for task in beside(("channels-daphne",), "fanout", "/handler", MEMBERS, MESSAGE, rounds=2)
    ),
)

BLOCKS = (
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
        repeat=3,
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
        repeat=3,
    ),
    Block(
        "redis",
        "delivery",
        REDIS,
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
            Row("channels_redis pub/sub, uvicorn", PUBSUB, "floor", "C"),
            Row("channels_redis core, uvicorn", "channels-uvicorn-core", "floor", "C"),
            # A fifteenth and an eighth.
            Row("broadcast against channels_redis pub/sub", "broadcast", PUBSUB, "x", bar=0.066),
            Row("handlers against channels_redis pub/sub", "handler", PUBSUB, "x", bar=0.125),
        ),
        (table("A message through Redis to 1,000 WebSockets, per delivery", REDIS, plot=True),),
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
)
