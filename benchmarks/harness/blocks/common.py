"""
What the blocks have in common: tasks for peers, fan-outs, and the tables that they stand in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.harness.peers import TITLES
from benchmarks.harness.rows import Table, Task

__all__ = [
    "CHANNELS",
    "MEMBERS",
    "MESSAGE",
    "PAGE",
    "SERVERS",
    "beside",
    "fan_out",
    "table",
]

# The publisher is one of the members.
MEMBERS = 1000
MESSAGE = ("--bytes", "200")
PAGE = ("--bytes", "13")

SERVERS = ("uvicorn", "uvicorn-zttp", "granian-asgi", "hypercorn", "daphne")
"""
Servers of others, with a plain ASGI application.
"""

CHANNELS = ("channels-daphne", "channels-uvicorn")
"""
Channels with its layer in memory.
"""

# Nothing hangs on a peer's quartiles, and there are many of them.
ROUNDS = 3
SECONDS = 1.0


def beside(  # noqa: PLR0913 - what a task has, in the order it has it
    subjects: Iterable[str],
    mode: str,
    path: str = "/",
    connections: int = 100,
    options: tuple[str, ...] = (),
    *,
    prefix: str = "",
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    unit: str = "us",
) -> tuple[Task, ...]:
    """
    Return the same task for some peers, each under its subject's name.

    Args:
        subjects: Who.
        mode: What they do.
        path: Where.
        connections: With how many.
        options: Further options of the load generator.
        prefix: What goes before the names, where a block has several tests.
        rounds: Repetitions they take part in.
        seconds: Their window.
        unit: What their samples are shown in.
    """
    return tuple(
        Task(
            f"{prefix}{subject}",
            subject,
            mode,
            path,
            connections,
            options,
            unit,
            TITLES[subject],
            peer=True,
            rounds=rounds,
            seconds=seconds,
        )
        for subject in subjects
    )


def fan_out(
    name: str,
    subject: str,
    path: str = "/",
    burst: int = 1,
    members: int = MEMBERS,
    *,
    title: str = "",
    rounds: int = 0,
) -> Task:
    """
    Return a task that publishes to all members, round after round.
    """
    options = (*MESSAGE, "--burst", str(burst))
    return Task(name, subject, "fanout", path, members, options, title=title, rounds=rounds)


def table(
    title: str, tasks: Sequence[Task], prefix: str = "", floor: str = "floor", *, plot: bool = False
) -> Table:
    """
    Return the table of those of the tasks that have a title.

    Args:
        title: What is done.
        tasks: Those of its test; of a block with several, the ones of this.
        prefix: What goes before the names of peers.
        floor: What all are divided by.
        plot: Whether it is in the picture.
    """
    names = tuple(task.name for task in tasks if task.title)
    channels = f"{prefix}channels-daphne"
    return Table(title, names, floor, channels if channels in names else "", plot)
