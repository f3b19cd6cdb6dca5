"""
Facts that are no CPU figure: how many died, how long until all were back, what was lost.

Each block is a function that plays its scenes once and gives a number for each fact; it is
repeated, and judged by its worst repetition, or by the median where the fact is a ratio. What
the scenes are is in ``facts_*`` and ``features``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb

from benchmarks.harness.cores import Cores
from benchmarks.harness.plan import Plan, Repetition, Sample
from benchmarks.harness.store import Record
from benchmarks.harness.text import judgement, table

__all__ = ["Fact", "Facts", "Scenes", "fact_cells", "fact_table", "median_interval", "play"]

HEAD = ("What", "bar", "aim", "median", "least to most", "interval of the median", "n", "verdict")
CONFIDENCE = 0.95

Scenes = Callable[[Plan, Cores, int], dict[str, float]]
"""
Plays everything once, given how often it was played before; gives a number for each fact.
"""


@dataclass(frozen=True, slots=True)
class Fact:
    """
    One line of the results.

    Attributes:
        name: What the scenes call it.
        title: What a reader calls it.
        unit: What is counted; x is a ratio.
        bar: What must not be exceeded; None is for information.
        aim: The number to come to.
        typical: Whether the median is judged, and not the worst.
    """

    name: str
    title: str
    unit: str
    bar: float | None = None
    aim: float | None = None
    typical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """
    A block of facts that are found out together.

    Attributes:
        name: As the command line has it.
        scenes: Find them out once.
        facts: What is found out.
        repeat: How often.
        redis: Whether a Redis takes part.
        peers: Whether what others have made takes part, where the plan has peers.
    """

    name: str
    scenes: Scenes
    facts: tuple[Fact, ...]
    repeat: int
    redis: bool = False
    peers: bool = False


def play(block: Facts, plan: Plan, cores: Cores, report: Callable[[str], None]) -> list[Repetition]:
    """
    Find out a block's facts, as often as it wants and the plan allows.

    Raises:
        SubjectError: A server did not start, or something did not happen in time.
        LoadError: A server answered wrongly.
    """
    repetitions: list[Repetition] = []
    for turn in range(min(block.repeat, plan.repeat_max)):
        found = block.scenes(plan, cores, turn)
        repetitions.append({name: Sample(round(value, 6), 1) for name, value in found.items()})
        for fact in block.facts:
            if fact.name in found:
                number = show(found[fact.name], fact)
                report(f"{block.name:>9} {turn + 1:2}  {fact.title}: {number}")
    return repetitions


def fact_table(measured: Sequence[tuple[Facts, Record]]) -> Iterator[str]:
    """
    Yield the lines of the results' part about facts; none without any.
    """
    if not measured:
        return
    yield "## Facts\n"
    yield (
        "Judged by the worst repetition; ratios (x) by their median, whose interval is that of "
        f"order statistics at {CONFIDENCE:.0%}.\n"
    )
    yield from table(
        HEAD,
        (
            fact_cells(fact, record.repetitions)
            for block, record in measured
            for fact in block.facts
        ),
    )


def fact_cells(fact: Fact, repetitions: Sequence[Mapping[str, Sample]]) -> tuple[str, ...]:
    """
    Return one line with its verdict.
    """
    bar = f"<= {fact.bar:g} {fact.unit}" if fact.bar is not None else ""
    aim = f"{fact.aim:g}" if fact.aim is not None else ""
    values = sorted(samples[fact.name].value for samples in repetitions if fact.name in samples)
    if not values:
        return (fact.title, bar, aim, "", "", "", "0", "not measured")
    median = statistics.median(values)
    interval = median_interval(values) if fact.typical else None
    return (
        fact.title,
        bar,
        aim,
        show(median, fact),
        f"{show(values[0], fact)} to {show(values[-1], fact)}",
        f"{show(interval[0], fact)} to {show(interval[1], fact)}" if interval else "",
        str(len(values)),
        judgement(median if fact.typical else values[-1], fact.bar, fact.aim),
    )


def show(value: float, fact: Fact) -> str:
    """
    Write a number with its unit; counts as whole numbers.
    """
    text = f"{value:.0f}" if value == int(value) and fact.unit not in {"s", "x"} else f"{value:.2f}"
    return f"{text} {fact.unit}"


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """
    Give the narrowest pair of values around which the true median lies with confidence.

    They are as many places from both ends as a fair coin allows, whatever the distribution.

    Args:
        values: In order.

    Returns:
        The pair; None where the values are too few for any.
    """
    count = len(values)
    cut, outside = 0, 2 * comb(count, 0) / 2**count
    if outside > 1 - CONFIDENCE:
        return None
    while (wider := outside + 2 * comb(count, cut + 1) / 2**count) <= 1 - CONFIDENCE:
        cut, outside = cut + 1, wider
    return values[cut], values[count - 1 - cut]
