"""
What readers who stand still cost: the others in time, and the server in memory.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from benchmarks.harness.cores import Cores
from benchmarks.harness.facts import Fact, Facts
from benchmarks.harness.facts_clients import HANDSHAKE, HAPPENS_WITHIN, Crowd, until
from benchmarks.harness.facts_sites import counters, fairway_site
from benchmarks.harness.plan import Plan
from benchmarks.harness.subjects import Server, SubjectError

__all__ = ["STALLED"]

READERS = 1000
MESSAGES = 40
PAUSE = 0.1
TURNS = 3
MANY = 10
# Below what overflows, above what the kernel takes for a reader who stands still.
FILL_BYTES, FILL_MESSAGES = 4096, 240
CLOSED = 'fairway_closes_total{code="1013"}'


def stalled(plan: Plan, cores: Cores, turn: int) -> dict[str, float]:
    """
    Time messages to a thousand readers without and with one who stands still, then have ten.
    """
    with fairway_site() as site:
        return asyncio.run(watch(site))


async def watch(site: Server) -> dict[str, float]:
    """
    Compare by turns on one server, then look at its memory.
    """
    async with Crowd([site.port], "/relay", READERS, comes_again=False) as crowd:
        await slowest(crowd)
        pairs = []
        for _ in range(TURNS):
            alone = await slowest(crowd)
            with standing_still(site, 1):
                await fill(site, crowd, 1)
                pairs.append(await slowest(crowd) / alone)
        before = site.memory()
        with standing_still(site, MANY):
            await fill(site, crowd, MANY)
            await slowest(crowd)
            after = site.memory()
        if crowd.ended or (await counters(site)).get(CLOSED, 0):
            raise SubjectError("a reader was disconnected")
    return {"ratio": statistics.median(pairs), "memory": (after - before) / 1024**2}


async def slowest(crowd: Crowd) -> float:
    """
    Give the 99th percentile of the time that messages take to reach everybody.
    """
    for each in crowd.sockets:
        each.heard.clear()
    for _ in range(MESSAGES):
        crowd.sockets[0].say(str(monotonic()))
        await asyncio.sleep(PAUSE)
    await until(lambda: all(len(each.heard) == MESSAGES for each in crowd.sockets))
    taken = sorted(at - float(said) for each in crowd.sockets for at, said in each.heard)
    return taken[len(taken) * 99 // 100]


@contextmanager
def standing_still(site: Server, number: int) -> Iterator[None]:
    """
    Have members of the group that read their handshake's answer and nothing else.
    """
    found = []
    try:
        for _ in range(number):
            found.append(one := socket.socket())
            one.settimeout(HAPPENS_WITHIN)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", site.port))
            one.sendall(HANDSHAKE.format(path="/stalled").encode())
            if not one.recv(4096).startswith(b"HTTP/1.1 101 "):
                raise SubjectError("a reader who was to stand still was refused")
        yield
    finally:
        for one in found:
            one.close()


async def fill(site: Server, crowd: Crowd, number: int) -> None:
    """
    Have those who stand still be behind by nearly all that they may.
    """
    written = "fairway_published_total"
    before = (await counters(site))[written]
    crowd.sockets[0].say(f"fill {FILL_BYTES} {FILL_MESSAGES}")

    async def filled() -> bool:
        return (await counters(site))[written] - before >= number * FILL_MESSAGES

    await until(filled)


STALLED = Facts(
    name="stalled",
    scenes=stalled,
    facts=(
        Fact(
            "ratio",
            "one of 1,000 readers stands still: p99 of the others against none",
            "x",
            1.5,
            typical=True,
        ),
        Fact("memory", "ten readers stand still: memory of the server", "MiB", 32),
    ),
    repeat=5,
)
