"""
What the experiments share: ways of doing one thing, timed side by side; the ends of an outbox.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import uvloop

__all__ = ["Peer", "Way", "compare", "measure_alone", "run_measure", "show"]

Way = Callable[[int], None]
"""
Does the thing as often as it is told.
"""

ROUNDS = 5
RUNS_WITHIN = 600.0


class Peer:
    """
    Stands for the exchange and the transport of an outbox.

    Attributes:
        held: Bytes that the kernel has not taken.
        write: Takes what the outbox writes.
    """

    def __init__(self, held: int = 0, write: Callable[[bytes], object] | None = None) -> None:
        self.held = held
        self.write = write or _keep_nothing

    def get_write_buffer_size(self) -> int:
        """
        Give them.
        """
        return self.held

    def is_closing(self) -> bool:
        """
        Stay open.
        """
        return False

    def end(self, code: int, reason: str = "") -> None:
        """
        Be ended.
        """


def _keep_nothing(data: bytes) -> None:
    """
    Write to nobody.
    """


def compare(ways: Mapping[str, Way], count: int) -> dict[str, float]:
    """
    Time each way in turn, several rounds; give the CPU nanoseconds of one time in the best round.

    Interleaved, so that a machine that is slow for a while is slow for all; the least of several
    is what the work costs without what disturbs it.
    """
    best = dict.fromkeys(ways, float("inf"))
    for way in ways.values():
        way(max(1, count // 10))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begin = time.process_time_ns()
            way(count)
            best[name] = min(best[name], (time.process_time_ns() - begin) / count)
    return best


def show(figures: Mapping[str, float], unit: str = "ns") -> dict[str, float]:
    """
    Print figures beside the first of them, and give them back.
    """
    first = next(iter(figures.values()))
    for name, value in figures.items():
        ratio = f"{value / first:8.2f} x" if first else ""
        print(f"{name:<44} {value:12,.0f} {unit}{ratio}")
    return dict(figures)


def measure_alone(file: str, count: int, **environment: str) -> dict[str, float]:
    """
    Run an experiment in a process of its own, and read what it prints: a label and a number a line.

    Args:
        file: The experiment, which calls ``run_measure`` where it is given a count.
        count: How much is measured.
        environment: What its environment says besides.
    """
    with tempfile.TemporaryDirectory() as directory:
        lines = subprocess.run(
            [sys.executable, file, str(count)],
            check=True,
            timeout=RUNS_WITHIN,
            capture_output=True,
            text=True,
            env={**os.environ, "FAIRWAY_RUNTIME_DIR": directory, **environment},
        ).stdout
    print(lines)
    rows = (line.rsplit(maxsplit=1) for line in lines.splitlines())
    return {label: float(number) for label, number in rows}


def run_measure(measure: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """
    Be that process: measure as often as the command line says, and end at once.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(int(sys.argv[1])))
    sys.stdout.flush()
    os._exit(0)
