"""
What the experiments share: ways of doing one thing, timed side by side; the ends of an outbox.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

__all__ = ["Peer", "compare", "show"]

Way = Callable[[int], None]
"""
Does the thing as often as it is told.
"""

ROUNDS = 5


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
