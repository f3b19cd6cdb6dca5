"""
Token buckets of one rate, one for each key, in a table that cannot grow.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from time import monotonic

__all__ = ["Buckets"]

PROBES = 8
"""
Entries that are looked at for the one to give up. Whoever wants an entry of somebody limited
given up has to have seven more that are limited worse beside it, and gains one.
"""
ROUNDING = 1e-6  # s; far below any interval there may be.


class Buckets:
    """
    Counts what each of many does, and says who does too much.

    A bucket holds ``burst`` tokens and gains one every ``60 / per_minute`` seconds. What is kept
    of it is one number: the time at which it will be full. One that is full need not be kept, so
    a table without room gives those up first, and then the fullest of a few: who is limited stays
    so, however many others come. The loop's thread, or any: two at once may count as one.

    Attributes:
        per_minute: Tokens gained in a minute.
        burst: Tokens that a bucket holds.
    """

    __slots__ = (
        "_capacity",
        "_clock",
        "_entries_max",
        "_full_at",
        "_interval",
        "burst",
        "per_minute",
    )

    def __init__(
        self,
        per_minute: int,
        burst: int,
        entries_max: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """
        Begin with all buckets full.

        Args:
            per_minute: At least 1.
            burst: At least 1.
            entries_max: Keys that are remembered, at least 1.
            clock: Gives seconds.
        """
        self.per_minute = per_minute
        self.burst = burst
        self._interval = 60.0 / per_minute
        self._capacity = self._interval * burst + ROUNDING
        self._entries_max = entries_max
        self._clock = clock
        # An ordinary dictionary would look for its oldest entry among all that have gone.
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable) -> float:
        """
        Take a token out of a key's bucket.

        Hot path: once per connect or message where a limit is set.

        Returns:
            0 if there was one, else the seconds until there will be.
        """
        now = self._clock()
        full_at = self._full_at.get(key)
        if full_at is None and len(self._full_at) >= self._entries_max:
            self._make_room(now)
        full_at = (now if full_at is None or full_at < now else full_at) + self._interval
        wait = full_at - now - self._capacity
        if wait > 0:
            return wait
        self._full_at[key] = full_at
        return 0.0

    def _make_room(self, now: float) -> None:
        """
        Give up the oldest entries that say nothing any more, or else the fullest bucket of them.
        """
        probed: dict[Hashable, float] = {}
        # There may be fewer.
        with suppress(KeyError):
            for _ in range(PROBES):
                key, full_at = self._full_at.popitem(last=False)
                probed[key] = full_at
        fullest = min(probed, key=probed.__getitem__, default=None)
        for key, full_at in probed.items():
            # Behind all others, so that the next look is at others.
            if full_at > now and key != fullest:
                self._full_at[key] = full_at
