"""
Who takes what in one test: the tables of peers, and what the picture is drawn from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.measure import figures
from benchmarks.harness.plan import Repetition
from benchmarks.harness.rows import Block, Row, Table, Task
from benchmarks.harness.samples import Spread
from benchmarks.harness.store import Record
from benchmarks.harness.text import cell, spread_text, table

__all__ = ["Standing", "standing_tables", "standings"]

OURS = "Fairway"


@dataclass(frozen=True, slots=True)
class Standing:
    """
    One of those who take a test.

    Attributes:
        title: What readers call it.
        spread: What an operation costs it; None if it never came to an end.
        floor: How often the floor's cost that is, if the test has a floor.
        channels: The same of whom the table names as ``channels``.
        failures: How many samples were tried in vain.
        failed: Why the first of them was.
    """

    title: str
    spread: Spread | None
    floor: float | None
    channels: float | None
    failures: int
    failed: str

    @property
    def ours(self) -> bool:
        """
        Whether it is Fairway.
        """
        return self.title.startswith(OURS)


def standings(asked: Table, block: Block, repetitions: list[Repetition]) -> list[Standing]:
    """
    Return all that were measured, the least first and those that failed last.
    """
    tasks = {task.name: task for task in block.tasks}
    found = []
    for name in asked.tasks:
        tried = [samples[name] for samples in repetitions if name in samples]
        if not tried:
            continue
        failures = [sample.failed for sample in tried if sample.failed]
        task = tasks[name]
        values = figures(Row("", name, "", task.unit), repetitions)
        found.append(
            Standing(
                task.title,
                Spread.of(values) if values else None,
                ratio(task, asked.floor, repetitions),
                ratio(task, asked.channels, repetitions),
                len(failures),
                failures[0] if failures else "",
            )
        )
    return sorted(found, key=lambda one: one.spread.median if one.spread else float("inf"))


def ratio(task: Task, against: str, repetitions: list[Repetition]) -> float | None:
    """
    Return the median of the ratios inside the repetitions, where there are any.
    """
    if not against:
        return None
    values = figures(Row("", task.name, against, "x"), repetitions)
    return Spread.of(values).median if values else None


def standing_tables(measured: Iterable[tuple[Block, Record]]) -> Iterator[str]:
    """
    Yield every table with a heading above it.
    """
    for block, record in measured:
        tasks = {task.name: task for task in block.tasks}
        for asked in block.tables:
            found = standings(asked, block, record.repetitions)
            if found:
                yield f"### {asked.title}\n"
                yield from standing_table(found, asked, tasks)


def standing_table(found: list[Standing], asked: Table, tasks: Mapping[str, Task]) -> Iterator[str]:
    """
    Yield one table; columns that would be empty are left out.
    """
    columns = {"x C": [one.floor for one in found]}
    if asked.channels:
        columns[f"x {tasks[asked.channels].title}"] = [one.channels for one in found]
    columns = {head: values for head, values in columns.items() if any(values)}
    unit = tasks[asked.tasks[0]].unit
    yield from table(
        ["Who", unit, "quartiles", *columns, "n"],
        (cells(one, ratios) for one, *ratios in zip(found, *columns.values(), strict=True)),
    )


def cells(one: Standing, ratios: Sequence[float | None]) -> list[str]:
    """
    Return one line of a table, with ratios to others.
    """
    title = f"**{one.title}**" if one.ours else one.title
    count = str(one.spread.count if one.spread else 0)
    if one.failures:
        count += f", and {one.failures} failed: {cell(one.failed)}"
    written = ["" if value is None else three_digits(value) for value in ratios]
    if one.spread is None:
        return [title, "failed", "", *written, count]
    # More repetitions are no spread where there was one.
    spread = spread_text(one.spread, 2) if one.spread.count > 1 else ""
    return [title, f"{one.spread.median:.2f}", spread, *written, count]


def three_digits(value: float) -> str:
    """
    Return a ratio as long as its precision.
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
