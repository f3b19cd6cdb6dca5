"""
The two cores of a measurement: who runs where, and how far they are apart.

What a loopback send costs depends, by a factor of 2.5 on virtual machines, on how
long a cache line travels between the server's core and the load generator's.
A host may move virtual cores at any time. So the cores are kept from sleeping,
which mostly keeps them in place, and a sample counts only if they were equally
far apart before and after it.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.harness.build import build

__all__ = ["Cores", "kept_awake", "pinned", "same_distance"]

# Two placements differ by a factor of about 5, two readings of one by less than 1.3.
TOLERANCE = 1.6
LOOKS = 60
PAUSE = 0.3


@dataclass(frozen=True, slots=True)
class Cores:
    """
    One core for the server and another, where there is one, for the load generator.
    """

    server: int
    load: int

    @classmethod
    def choose(cls) -> Cores:
        """
        Take the last and the first core this process may run on.
        """
        allowed = sorted(os.sched_getaffinity(0))
        return cls(server=allowed[-1], load=allowed[0])

    def distance(self) -> int:
        """
        Return the nanoseconds of a cache line's way there and back; 0 on a single core.
        """
        if self.server == self.load:
            return 0
        command = [str(build("distance")), str(self.server), str(self.load)]
        return int(subprocess.run(command, check=True, capture_output=True).stdout)

    def usual_distance(self) -> int:
        """
        Return the largest distance of several looks.

        Cores that are awake and busy are mostly held apart, so that is what can be had
        again for the samples to come. A host takes up to a quarter of a minute to move
        cores that have just woken.
        """
        if self.server == self.load:
            return 0
        distances = [self.distance()]
        for _ in range(LOOKS - 1):
            time.sleep(PAUSE)
            distances.append(self.distance())
        return max(distances)

    def wait_for(self, distance: int, patience: float) -> int:
        """
        Wait until the cores are about that far apart; return how far they are.
        """
        deadline = time.monotonic() + patience
        while not same_distance(now := self.distance(), distance) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        return now


def same_distance(one: int, other: int) -> bool:
    """
    Tell whether two readings are of the same placement.
    """
    return max(one, other) <= TOLERANCE * min(one, other)


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """
    Run on one core for a while; children started meanwhile stay there.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def kept_awake(cores: Cores) -> Iterator[None]:
    """
    Run a process of the lowest priority on each core; ``c/awake.c`` says more.
    """
    program = build("awake")
    with ExitStack() as stack:
        for core in {cores.server, cores.load}:
            with pinned(core):
                process = stack.enter_context(subprocess.Popen([program]))
            # Unwound in reverse: first told to end, then waited for.
            stack.callback(process.terminate)
        yield
