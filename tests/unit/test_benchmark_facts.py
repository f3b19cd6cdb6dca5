"""
How facts of a benchmark are judged and shown.
"""

from __future__ import annotations

import pytest

from benchmarks.harness.cores import Cores
from benchmarks.harness.facts import Fact, Facts, fact_cells, median_interval, play, show
from benchmarks.harness.plan import Plan, Repetition, Sample


def of(*values: float) -> list[Repetition]:
    """
    Make repetitions of one fact.
    """
    return [{"it": Sample(value, 1)} for value in values]


def test_the_worst_counts() -> None:
    """One repetition above the bar misses it; ratios are judged by their median."""
    seconds = Fact("it", "back", "s", 0.5)
    assert fact_cells(seconds, of(0.1, 0.2, 0.4)) == (
        *("back", "<= 0.5 s", "", "0.20 s", "0.10 s to 0.40 s", "", "3", "holds"),
    )
    assert fact_cells(seconds, of(0.1, 0.2, 0.6))[-1] == "**missed**"
    ratio = Fact("it", "on against off", "x", 1.1, typical=True)
    cells = fact_cells(ratio, of(*[1.05] * 8, *[1.2] * 7))
    assert cells[3:] == ("1.05 x", "1.05 x to 1.20 x", "1.05 x to 1.20 x", "15", "holds")
    assert fact_cells(ratio, of(*[1.05] * 7, *[1.2] * 8))[-1] == "**missed**"
    assert fact_cells(Fact("it", "lost", "messages"), of(3.0))[-1] == ""


@pytest.mark.parametrize(("value", "verdict"), [(3.0, "aim reached"), (4.0, "holds")])
def test_an_aim(value: float, verdict: str) -> None:
    """Beside the bar stands what is to be come to."""
    cells = fact_cells(Fact("it", "a project", "files", 4, aim=3), of(value))
    assert (cells[1], cells[2], cells[-1]) == ("<= 4 files", "3", verdict)


def test_a_fact_that_nobody_looked_at() -> None:
    """What scenes leave out is not reported, and stands in the results as not measured."""
    block = Facts(
        name="scenes",
        scenes=lambda plan, cores, turn: {"it": 1.0},
        facts=(Fact("it", "seen", "s"), Fact("other", "not seen", "s", 1.0)),
        repeat=2,
    )
    lines: list[str] = []
    repetitions = play(block, Plan(), Cores(0, 0), lines.append)
    assert [line.split()[-3:] for line in lines] == [["seen:", "1.00", "s"]] * 2
    assert fact_cells(block.facts[1], repetitions)[-2:] == ("0", "not measured")


def test_interval_of_a_median() -> None:
    """It leaves out as many values at both ends as order statistics allow at 95 %."""
    values = [float(number) for number in range(1, 16)]
    assert median_interval(values) == (4.0, 12.0)
    assert median_interval(values[:6]) == (1.0, 6.0)
    assert median_interval(values[:5]) is None


def test_units() -> None:
    """Counts are whole, times and ratios are not."""
    assert show(2.0, Fact("it", "", "commands")) == "2 commands"
    assert show(1.5, Fact("it", "", "commands")) == "1.50 commands"
    assert show(2.0, Fact("it", "", "s")) == "2.00 s"
