"""
The arithmetic behind ``benchmarks/RESULTS.md``, and that a partial run loses no row.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.harness import machine
from benchmarks.harness.all_facts import ALL_FACTS
from benchmarks.harness.blocks import BLOCKS
from benchmarks.harness.build import HERE
from benchmarks.harness.cores import same_distance
from benchmarks.harness.machine import load_of
from benchmarks.harness.measure import enough, figures, taking_part, without_peers
from benchmarks.harness.page import panels, render_page, write_page
from benchmarks.harness.peers import PEERS
from benchmarks.harness.plan import Plan, Repetition, Sample
from benchmarks.harness.report import commits, machines, render, verdict
from benchmarks.harness.rows import Block, Condition, Row, Table, Task
from benchmarks.harness.samples import WIDTH_MAX, Spread, rotated
from benchmarks.harness.standings import standing_tables, standings
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
    return of_block([repetition(**{task.name: value for task in tasks})], day)


def of_block(repetitions: list[Repetition], day: str = "2026-01-02") -> Record:
    """
    Return the record of some repetitions.
    """
    return Record(
        measured=f"{day}T03:04:05+00:00",
        command="python benchmarks/run.py",
        machine={"cpu": "a processor", "commit": "abc1234"},
        load_average=0.1,
        waited=0.0,
        window=2.0,
        repetitions=repetitions,
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
        repetitions = [repetition(ours=2.0, floor=1.0), repetition(ours=20.0, floor=10.0)]
        assert figures(ROW, repetitions) == [2.0, 2.0]

    def test_figures_of_a_row(self) -> None:
        """A row against the floor is a ratio or a difference, one against nothing counts KiB."""
        repetitions = [repetition(ours=3.0, floor=2.0), repetition(ours=9.0, floor=4.5)]
        memory = Row("memory", "ours", "", "KiB")
        assert figures(ROW, repetitions) == [1.5, 2.0]
        assert figures(memory, [repetition(ours=3072.0)]) == [3.0]
        more = replace(memory, against="floor", more=True)
        assert figures(more, [repetition(ours=3072.0, floor=2048.0)]) == [1.0]

    def test_failures_are_no_figures(self) -> None:
        """A repetition in which one side failed or took no part is left out."""
        failed = Sample(0.0, operations=0, failed="ended with 1")
        repetitions = [
            repetition(ours=3.0, floor=2.0),
            {"ours": failed, "floor": Sample(2.0, operations=1)},
            {"ours": Sample(3.0, operations=1), "floor": failed},
            repetition(floor=2.0),
        ]
        assert figures(ROW, repetitions) == [1.5]
        assert verdict(ROW, repetitions[1:2]) == "failed: ended with 1"
        assert verdict(ROW, repetitions[3:]) == "not measured"

    def test_cores_that_were_moved(self) -> None:
        """Samples with the cores next to each other and apart are not compared."""
        ours, floor = (
            Sample(3.0, operations=1, distance=300),
            Sample(2.0, operations=1, distance=50),
        )
        apart = replace(floor, value=1.5, distance=290)
        repetitions = [{"ours": ours, "floor": floor}, {"ours": ours, "floor": apart}]
        assert figures(ROW, repetitions) == [2.0]

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


def test_load_of_the_wait() -> None:
    """What an average of a minute owes to the last ticks alone is told from how it fell."""
    assert load_of(4.0, 4.0 * 0.7788, 3) == 0.0
    assert load_of(2.0, 2.0, 3) == 2.0
    assert load_of(0.0, 0.2212, 3) == 1.0


class Machine:
    """
    A clock that goes on when slept on, and the kernel's average of the load on it.
    """

    def __init__(self, average: float, load: float) -> None:
        self.seconds, self.average, self.load = 2.0, average, load

    def monotonic(self) -> float:
        """Give the time."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Go on, and renew the average where it is due."""
        due = int(self.seconds / machine.TICK)
        self.seconds += seconds
        if int(self.seconds / machine.TICK) > due:
            self.average = self.average * machine.DECAY + self.load * (1 - machine.DECAY)

    def getloadavg(self) -> tuple[float, float, float]:
        """Give the averages as the kernel writes them."""
        return (round(self.average, 2), 0.0, 0.0)


@pytest.mark.parametrize(
    ("average", "load", "waited"),
    [(0.3, 0.0, (0, 0)), (4.0, 0.0, (15, 22)), (4.0, 1.0, (60, 61)), (1.0, 1.0, (60, 61))],
)
def test_calm_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, average: float, load: float, waited: tuple[float, float]
) -> None:
    """What was measured before is told from what others do, who are waited for."""
    fake = Machine(average, load)
    monkeypatch.setattr(machine, "time", fake)
    monkeypatch.setattr(machine, "os", fake)
    found = machine.wait_until_calm(60)
    assert waited[0] <= found.waited <= waited[1]
    if found.meanwhile is not None:
        assert found.meanwhile == pytest.approx(load, abs=0.06)


BLOCK = Block(
    "a block",
    "message",
    (
        Task("ours", "asgi", "echo", title="Fairway"),
        Task("floor", "floor", "echo", title="C, floor"),
        Task("theirs", "daphne", "echo", title="Channels on Daphne", peer=True, rounds=1),
        Task("dead", "hypercorn", "echo", title="another", peer=True, rounds=1),
    ),
    (ROW,),
    (Table("echo", ("ours", "floor", "theirs", "dead"), channels="theirs"),),
)


class TestPeers:
    """
    Servers of others beside ours.
    """

    def test_standings(self) -> None:
        """The cheapest is first, and one that failed is last and says why."""
        repetitions = [
            {**repetition(ours=3.0, floor=2.0, theirs=30.0)}
            | {"dead": Sample(0.0, operations=0, failed="did not answer")},
            repetition(ours=5.0, floor=2.0),
        ]
        found = standings(BLOCK.tables[0], BLOCK, repetitions)
        assert [one.title for one in found] == [
            "C, floor",
            "Fairway",
            "Channels on Daphne",
            "another",
        ]
        ours, dead = found[1], found[3]
        assert ours.spread is not None
        assert (ours.spread.median, ours.floor, ours.channels) == (4.0, 2.0, 0.1)
        assert (dead.spread, dead.failures, dead.failed) == (None, 1, "did not answer")

    def test_columns(self) -> None:
        """The last column says whose cost it is in, and is left out where they took no part."""
        repetitions = [repetition(ours=3.0, floor=2.0, theirs=30.0)]
        alone = [repetition(ours=3.0, floor=2.0)]
        page = "\n".join(standing_tables([(BLOCK, of_block(repetitions))]))
        assert "| Who | us | quartiles | x C | x Channels on Daphne | n |" in page
        assert "| **Fairway** | 3.00 |  | 1.5 | 0.1 | 1 |" in page
        page = "\n".join(standing_tables([(BLOCK, of_block(alone))]))
        assert "| Who | us | quartiles | x C | n |" in page
        assert "| **Fairway** | 3.00 |  | 1.5 | 1 |" in page

    def test_repetitions(self) -> None:
        """Rows with a bar decide how often a block is repeated, and peers do not."""
        plan = Plan(repeat=2, repeat_max=4)
        steady, unsteady = repetition(ours=1.0, floor=1.0), repetition(ours=9.0, floor=1.0)
        assert not enough(BLOCK, plan, [steady])
        assert enough(BLOCK, plan, [steady, steady])
        assert not enough(BLOCK, plan, [steady, unsteady])
        assert enough(BLOCK, plan, [steady, unsteady, steady, unsteady])
        assert enough(replace(BLOCK, repeat=1), plan, [steady])
        parts = [[task.name for task in taking_part(BLOCK, plan, turn)] for turn in range(3)]
        assert parts == [["ours", "floor", "theirs", "dead"], ["ours", "floor"], ["ours", "floor"]]

    def test_without_peers(self) -> None:
        """Those that a bar is measured by stay."""
        assert [task.name for task in without_peers(BLOCK).tasks] == ["ours", "floor"]
        bar = Row("beside them", "ours", "theirs", "x", bar=1.0)
        kept = without_peers(replace(BLOCK, rows=(bar,))).tasks
        assert [task.name for task in kept] == ["ours", "floor", "theirs"]

    def test_the_page_and_its_picture(self, tmp_path: Path) -> None:
        """Both hold everybody of every test, and a failure is a line of them."""
        records = {block.name: record(block.name, 1024.0) for block in BLOCKS}
        records["echo"].repetitions[0]["daphne"] = Sample(0.0, operations=0, failed="a <b> | c")
        write_page(records, tmp_path)
        page = (tmp_path / "benchmarks.md").read_text()
        assert page == render_page(records)
        assert "| Daphne | failed |" in page
        assert "a (b> / c" in page
        assert all(table.title in page for block in BLOCKS for table in block.tables)
        picture = ET.fromstring((tmp_path / "images/benchmarks.svg").read_text())
        texts = {element.text for element in picture.iter() if element.text}
        assert {"Daphne", "failed", "1,024"} <= texts
        measured = [(block, records[block.name]) for block in BLOCKS]
        assert len(panels(measured)) == sum(
            table.plot for block in BLOCKS for table in block.tables
        )


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
        assert len(names) == len(block.tasks) + 1
        for table in block.tables:
            assert {*table.tasks, table.floor, table.channels} <= names
        for row in block.rows:
            assert {row.task, row.against} <= names
            if row.condition is not None:
                assert {row.condition.task, row.condition.against} <= names


def test_what_was_measured_when() -> None:
    """The page says of each state of the source which blocks were measured, and on which days."""
    later = record("get", 1.0, day="2026-01-03")
    runs = [(block, record(block.name, 1.0)) for block in BLOCKS if block.name in {"echo", "sse"}]
    (get,) = (block for block in BLOCKS if block.name == "get")
    older = replace(later, machine={"commit": "old"})
    assert list(commits([*runs, (get, later)])) == [
        "- `abc1234`, 2026-01-02 to 2026-01-03: echo, sse, get"
    ]
    assert list(commits([*runs, (get, older)])) == [
        "- `abc1234`, 2026-01-02: echo, sse",
        "- `old`, 2026-01-03: get",
    ]


def test_each_block_is_explained() -> None:
    """README's tables have a line for every block, and for every server that is measured."""
    text = (HERE / "README.md").read_text()
    first_cells = re.findall(r"(?m)^\| ([^|]+) \|", text)
    lines = {name.strip() for cell in first_cells for name in cell.split(",")}
    assert {block.name for block in BLOCKS} | {facts.name for facts in ALL_FACTS} <= lines
    ours = {task.subject for block in BLOCKS for task in block.tasks if not task.peer}
    assert ours - {"floor", "bare"} <= lines
    assert {name for name in PEERS if not name.endswith(("-core", "-pubsub"))} <= lines


def test_one_machine() -> None:
    """A machine stands on the page once, with all that took part in any block."""
    alone = record("echo", 1.0)
    beside = replace(alone, machine=alone.machine | {"beside": "channels 1.2"})
    other = replace(alone, machine={"cpu": "another", "commit": "abc1234"})
    assert list(machines([alone, beside, alone, other])) == [
        "cpu a processor, beside channels 1.2.\n",
        "cpu another.\n",
    ]
