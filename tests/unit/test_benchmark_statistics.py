"""
The arithmetic behind ``benchmarks/RESULTS.md``, and that a partial run loses no row.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness.cores import same_distance
from benchmarks.harness.measure import Repetition, Sample, figures
from benchmarks.harness.report import render, verdict
from benchmarks.harness.rows import BLOCKS, Condition, Row
from benchmarks.harness.samples import WIDTH_MAX, Spread, ratios, rotated
from benchmarks.harness.store import Record, load, save

ROW = Row("a row", "ours", "floor", "C", bar=2.0, aim=1.5)


def repetition(**values: float) -> Repetition:
    """
    Return one repetition in which each task cost what is given.
    """
    return {task: Sample(value, operations=1000) for task, value in values.items()}


def record(block: str, value: float, day: str = "2026-01-02") -> Record:
    """
    Return a record in which every task of the block cost the same.
    """
    tasks = next(known.tasks for known in BLOCKS if known.name == block)
    return Record(
        measured=f"{day}T03:04:05+00:00",
        command="python benchmarks/run.py",
        machine={"cpu": "a processor", "commit": "abc1234"},
        load_average=0.1,
        waited=0.0,
        window=2.0,
        repetitions=[repetition(**{task.name: value for task in tasks})],
    )


class TestSpread:
    """
    Median and quartiles.
    """

    def test_known_values(self) -> None:
        """Quartiles of five values are the second, third and fourth of them."""
        assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0, 5)

    def test_between_values(self) -> None:
        """Quartiles of an even number of values lie between two of them."""
        assert Spread.of([1.0, 2.0, 3.0, 4.0]) == Spread(2.5, 1.75, 3.25, 4)

    def test_one_value(self) -> None:
        """One value is its own median and quartiles."""
        assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)

    def test_no_value(self) -> None:
        """No value has no median."""
        with pytest.raises(ValueError, match="at least one value"):
            Spread.of([])

    def test_steady_up_to_the_limit(self) -> None:
        """Quartiles 15 % apart are steady, a little more is not."""
        at_the_limit = Spread(1.0, 1.0, 1.0 + WIDTH_MAX - 1e-9, 5)
        assert at_the_limit.steady
        assert not replace(at_the_limit, upper=1.0 + WIDTH_MAX + 1e-9).steady


class TestRatios:
    """
    Ratios are taken inside each repetition.
    """

    def test_each_by_its_own_reference(self) -> None:
        """A repetition on a slow machine counts like one on a fast machine."""
        assert ratios([2.0, 20.0], [1.0, 10.0]) == [2.0, 2.0]

    def test_a_reference_is_missing(self) -> None:
        """Repetitions that cannot be paired are an error."""
        with pytest.raises(ValueError, match="zip"):
            ratios([1.0, 2.0], [1.0])

    def test_figures_of_a_row(self) -> None:
        """A row against the floor is a ratio, a row against nothing counts KiB."""
        repetitions = [repetition(ours=3.0, floor=2.0), repetition(ours=9.0, floor=4.5)]
        memory = Row("memory", "ours", "", "KiB")
        assert figures(ROW, repetitions) == [1.5, 2.0]
        assert figures(memory, [repetition(ours=3072.0)]) == [3.0]

    def test_order_turns(self) -> None:
        """Every task is the first in its turn, and none is left out."""
        assert [rotated("abc", turn) for turn in range(4)] == [
            ["a", "b", "c"],
            ["b", "c", "a"],
            ["c", "a", "b"],
            ["a", "b", "c"],
        ]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(80, 75, True), (440, 360, True), (80, 360, False), (360, 80, False), (0, 0, True)],
)
def test_same_distance(one: int, other: int, same: bool) -> None:
    """Two readings of one placement are told from readings of two."""
    assert same_distance(one, other) is same


class TestVerdict:
    """
    What a row says about its bar.
    """

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(1.5, "aim reached"), (1.51, "holds"), (2.0, "holds"), (2.01, "**missed**")],
    )
    def test_bar_and_aim(self, value: float, expected: str) -> None:
        """The bar holds and the aim is reached at exactly their figure."""
        assert verdict(ROW, [repetition(ours=value, floor=1.0)]) == expected

    def test_condition(self) -> None:
        """A bar with a condition counts only where the condition is met."""
        row = replace(ROW, condition=Condition("bare", "floor", 1.3))
        met = [repetition(ours=9.0, bare=1.3, floor=1.0)]
        unmet = [repetition(ours=9.0, bare=1.4, floor=1.0)]
        assert verdict(row, met) == "**missed**"
        assert verdict(row, unmet) == "does not count: P is 1.40 C, above 1.3"


class TestStore:
    """
    Results are kept as JSON and the page is written from it.
    """

    def test_a_partial_run_keeps_other_rows(self, tmp_path: Path) -> None:
        """Measuring one block again replaces it and leaves the others."""
        save("echo", record("echo", 5.0), tmp_path)
        save("get", record("get", 6.0), tmp_path)
        save("echo", record("echo", 7.0), tmp_path)
        assert load(tmp_path) == {"echo": record("echo", 7.0), "get": record("get", 6.0)}

    def test_the_newest_day_counts(self, tmp_path: Path) -> None:
        """A block measured on several days is shown as it was last."""
        save("get", record("get", 2.0, day="2026-02-01"), tmp_path)
        save("get", record("get", 1.0, day="2026-01-31"), tmp_path)
        assert load(tmp_path)["get"].repetitions[0]["asgi"].value == 2.0

    def test_every_block_is_rendered(self) -> None:
        """The page holds each row, what each task cost and how it was run."""
        page = render({block.name: record(block.name, 1024.0) for block in BLOCKS})
        assert all(row.title in page for block in BLOCKS for row in block.rows)
        assert "1.00 KiB per idle socket" in page
        assert "abc1234" in page


def test_rows_name_their_tasks() -> None:
    """Each row and condition is about tasks its block measures."""
    for block in BLOCKS:
        names = {"", *(task.name for task in block.tasks)}
        for row in block.rows:
            assert {row.task, row.against} <= names
            if row.condition is not None:
                assert {row.condition.task, row.condition.against} <= names
