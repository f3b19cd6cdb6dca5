"""
Whether the interpreter has anything to give to one more thread, and how long one may keep it.

Python code runs in one thread at a time. Where that one is busy all the time, another makes
nothing faster: those that wait for the interpreter only wake each other up, once per switch
interval each, and the loop has to queue behind them all. With a single one at work the loop's
wait is one interval, which may then be longer for that: whatever the loop does in one go costs
less than in three.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic, process_time

__all__ = ["Gauge"]

WINDOW = 0.01
"""
Seconds of which it looks at the use of the processor.
"""

LEAST, MOST = 0.9, 1.1
"""
Share of one core between which the interpreter is in full use. Beyond it, something computes
without the interpreter, and nobody can tell how much of that is left.
"""


ALONE_SECONDS = 0.003
"""
How long a thread that works alone keeps the loop waiting at most.
"""


class Gauge:
    """
    Measures how much of a core the process uses, and sets the interpreter's switch interval.

    To be used under a lock; waits for nothing.
    """

    def __init__(
        self,
        wall: Callable[[], float] = monotonic,
        used: Callable[[], float] = process_time,
    ) -> None:
        """
        Begin to measure.

        Args:
            wall: Gives the time, in seconds.
            used: Gives the processor's time that this process has used, in seconds.
        """
        self._wall = wall
        self._used = used
        self._since = wall()
        self._used_then = used()
        self._full = False
        self._interval = sys.getswitchinterval()

    def is_full(self) -> bool:
        """
        Whether, as of the last window, the interpreter was in use all the time.

        Hot path: once per job; the processor's time is read once per window.
        """
        now = self._wall()
        passed = now - self._since
        if passed >= WINDOW:
            used = self._used()
            self._full = LEAST <= (used - self._used_then) / passed <= MOST
            self._since, self._used_then = now, used
        return self._full

    def work_alone(self) -> None:
        """
        Note that all work of a queue is one thread's.
        """
        sys.setswitchinterval(max(self._interval, ALONE_SECONDS))

    def work_together(self) -> None:
        """
        Note that several threads work, or none: as it was before.
        """
        sys.setswitchinterval(self._interval)
