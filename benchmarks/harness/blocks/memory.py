"""
Memory: what an idle socket takes, and what a process takes before anybody came.
"""

from __future__ import annotations

from benchmarks.harness.blocks.common import CHANNELS, SERVERS, beside, table
from benchmarks.harness.rows import Block, Row, Task

__all__ = ["BLOCKS"]

SOCKETS = 5000
CROWD = 15_000


def idle(name: str, subject: str, path: str, title: str, sockets: int = SOCKETS) -> Task:
    """
    Return a task that holds idle sockets.
    """
    rounds = 1 if sockets == CROWD else 0
    return Task(name, subject, "idle", path, sockets, unit="KiB", title=title, rounds=rounds)


# The figures of repetitions differ in the third digit: one is enough where no bar counts.
PEERS = (
    *beside(("picows", *SERVERS), "idle", "/", SOCKETS, rounds=1, unit="KiB"),
    *beside(CHANNELS, "idle", "/idle", SOCKETS, rounds=1, unit="KiB"),
)

FEW = (
    idle("asgi", "asgi", "/", "Fairway, ASGI application"),
    idle("consumer", "site", "/idle", "Fairway, consumer"),
    idle("auth", "site-auth", "/visitor", "Fairway, session and user (no cookie)"),
    idle("bare", "bare", "/", "P, bare protocol"),
    Task(
        "deflate",
        "site",
        "idle",
        "/compressed-idle",
        SOCKETS,
        ("--deflate",),
        "KiB",
        "Fairway, consumer, compression agreed",
    ),
    *PEERS,
)

MANY = (
    idle("15,000 asgi", "asgi", "/", "Fairway, ASGI application", CROWD),
    idle("15,000 consumer", "site", "/idle", "Fairway, consumer", CROWD),
    idle("15,000 auth", "site-auth", "/visitor", "Fairway, session and user (no cookie)", CROWD),
    idle("15,000 bare", "bare", "/", "P, bare protocol", CROWD),
)

BLOCKS = (
    Block(
        "memory",
        "idle socket",
        (*FEW, *MANY),
        (
            Row("memory of an idle socket, ASGI", "asgi", "", "KiB", bar=7.0, aim=5.0),
            Row("memory of an idle socket, consumer", "consumer", "", "KiB", bar=9.5, aim=7.0),
            Row("the same with session and user (no cookie)", "auth", "", "KiB", bar=13.0, aim=9.0),
            Row("memory of an idle socket, bare protocol", "bare", "", "KiB"),
            Row(
                "compression agreed: more than a consumer without",
                "deflate",
                "consumer",
                "KiB",
                bar=1.0,
                more=True,
            ),
            Row("memory of an idle socket of 15,000, ASGI", "15,000 asgi", "", "KiB"),
            Row("memory of an idle socket of 15,000, consumer", "15,000 consumer", "", "KiB"),
            Row("the same of 15,000 with session and user (no cookie)", "15,000 auth", "", "KiB"),
        ),
        (
            table("Memory of an idle WebSocket, 5,000 held", FEW, floor="", plot=True),
            table("Memory of an idle WebSocket, 15,000 held", MANY, floor=""),
        ),
    ),
    Block(
        "rest",
        "process",
        (
            Task("worker", "site-2", "rest", unit="MiB"),
            Task("supervisor", "site-2", "rest", unit="MiB"),
            Task("alone", "site", "rest", unit="MiB"),
        ),
        (
            Row("memory of a worker at rest, of two", "worker", "", "MiB"),
            Row("memory of the supervisor", "supervisor", "", "MiB"),
            Row("memory of a server of one process at rest", "alone", "", "MiB"),
        ),
        repeat=3,
    ),
)
