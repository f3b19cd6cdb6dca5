"""
The arithmetic of a measurement: medians, quartiles, and whose turn it is.

Pure functions on numbers. Nothing here knows what was measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["WIDTH_MAX", "Spread", "rotated"]

# Quartiles further apart than this, relative to the median, ask for more repetitions.
WIDTH_MAX = 0.15

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Spread:
    """
    Median and quartiles of some values.
    """

    median: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """
        Summarise at least one value; the quartiles lie between the values themselves.

        Raises:
            ValueError: There is no value.
        """
        if not values:
            raise ValueError("at least one value is needed, none was given")
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper, len(values))

    @property
    def width(self) -> float:
        """
        Distance of the quartiles as a fraction of the median.
        """
        return (self.upper - self.lower) / self.median if self.median else 0.0

    @property
    def steady(self) -> bool:
        """
        Whether the quartiles are close enough to stop repeating.
        """
        return self.width <= WIDTH_MAX


def rotated(items: Sequence[Item], turn: int) -> list[Item]:
    """
    Return the items in the order of the given repetition, so that none is always first.
    """
    start = turn % len(items)
    return [*items[start:], *items[:start]]
