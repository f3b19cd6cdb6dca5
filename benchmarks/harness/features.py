"""
What everything that can be switched on costs: pairs of the same work with all of it off and on.

On are the access log, written to a file, the counters as a view, rate limits too high to be met,
and pings at their default interval. Off are all of these.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.harness.blocks.common import PAGE, fan_out
from benchmarks.harness.cores import Cores
from benchmarks.harness.facts import Fact, Facts
from benchmarks.harness.measure import take_sample
from benchmarks.harness.plan import Plan
from benchmarks.harness.rows import Task
from benchmarks.harness.samples import rotated
from benchmarks.harness.subjects import FAIRWAY

__all__ = ["FEATURES"]

PAIRS_MIN = 15
SECONDS = 1.0
# Per minute, as much as there may be.
HIGH = {"CONNECTS": "1000000", "MESSAGES": "10000000"}
OFF = "--ping-interval 0"
ON = "--access-log --metrics-path /-/metrics --ping-interval 25"
LIMITS = {
    f"FAIRWAY_{what}_{name}": rate
    for what, rate in HIGH.items()
    for name in ("PER_ADDRESS", "PER_USER", "BURST")
}

TASKS = (
    Task("echo", "site", "echo", "/consumer-echo"),
    Task("get", "asgi", "get", options=PAGE),
    Task("page", "pages", "get", options=PAGE),
    Task("connect", "site", "connect", "/consumer-echo"),
    fan_out("broadcast", "site", "/broadcast"),
)


def pairs(plan: Plan, cores: Cores, turn: int) -> dict[str, float]:
    """
    Measure each kind of work with everything off and on, one right after the other.
    """
    plan = replace(plan, seconds=min(plan.seconds, SECONDS))
    found = {}
    for task in rotated(TASKS, turn):
        for switch in rotated(("off", "on"), turn):
            options, variables = (ON, LIMITS) if switch == "on" else (OFF, {})
            served = replace(plan, server_command=f"{plan.server_command or FAIRWAY} {options}")
            with added_variables(variables):
                sample = take_sample(task, served, cores, {})
            found[f"{task.name}, {switch}"] = sample.value
        found[task.name] = found[f"{task.name}, on"] / found[f"{task.name}, off"]
    return found


@contextmanager
def added_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """
    Have children inherit further variables for a while.
    """
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


FEATURES = Facts(
    name="features",
    scenes=pairs,
    facts=tuple(
        Fact(task.name, f"everything switched on against off: {title}", "x", 1.1, typical=True)
        for task, title in zip(
            TASKS,
            ("echo, consumer", "GET, ASGI", "GET, Django page", "connect + close", "broadcast"),
            strict=True,
        )
    ),
    repeat=PAIRS_MIN,
)
