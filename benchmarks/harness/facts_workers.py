"""
What the clients of a worker notice when it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from time import monotonic

from benchmarks.harness.cores import Cores
from benchmarks.harness.facts import Fact, Facts
from benchmarks.harness.facts_clients import Crowd, until
from benchmarks.harness.facts_sites import counters, fairway_site
from benchmarks.harness.plan import Plan
from benchmarks.harness.subjects import Server, SubjectError

__all__ = ["WORKER_KILLED"]

SOCKETS = 200
WORKERS = 2


def worker_killed(plan: Plan, cores: Cores, turn: int) -> dict[str, float]:
    """
    Kill one of two workers, and have its clients come again as soon as they notice.
    """
    with fairway_site(None, "--workers", str(WORKERS)) as site:
        return asyncio.run(watch(site))


async def watch(site: Server) -> dict[str, float]:
    """
    Find out how long everybody takes to be back.
    """

    async def all_serve() -> bool:
        return (await counters(site))["fairway_workers"] == WORKERS

    await until(all_serve)
    async with Crowd([site.port], "/relay", SOCKETS, comes_again=True) as crowd:
        victim = workers(site)[0]
        begin = monotonic()
        os.kill(victim, signal.SIGKILL)
        await until(lambda: crowd.ended > 0)
        back = await until(crowd.all_open) - begin
        ended = crowd.ended
        # Those who are back hear each other, over the worker that stayed and the one to come.
        await until(all_serve)
        crowd.sockets[0].say("m 1 0")
        await until(lambda: all(each.heard for each in crowd.sockets))
        if crowd.ended > ended:
            raise SubjectError("clients of the worker that stayed were disconnected")
        return {"back": back, "ended": ended}


def workers(site: Server) -> list[int]:
    """
    Give the processes below the supervisor.
    """
    return site.pids()[1:]


WORKER_KILLED = Facts(
    name="worker-killed",
    scenes=worker_killed,
    facts=(
        Fact("back", "worker killed, of 2: its clients are back", "s", 0.5),
        Fact("ended", "worker killed: connections that ended, of 200", "connections"),
    ),
    repeat=5,
)
