"""
Writes ``RESULTS.md`` from the stored records: rows against bars, then the ground under them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping

from benchmarks.harness.all_facts import ALL_FACTS
from benchmarks.harness.blocks import BLOCKS
from benchmarks.harness.facts import Facts, fact_table
from benchmarks.harness.measure import figures
from benchmarks.harness.plan import UNITS, Repetition
from benchmarks.harness.rows import Block, Row
from benchmarks.harness.samples import Spread
from benchmarks.harness.standings import standing_tables
from benchmarks.harness.store import Record
from benchmarks.harness.text import cell, judgement, spread_text, table

__all__ = [
    "bar_table",
    "commits",
    "machines",
    "measured_blocks",
    "measured_facts",
    "render",
    "row_cells",
    "verdict",
]

ROW_HEAD = ("What", "bar", "aim", "measured", "quartiles", "n", "verdict")
TASK_HEAD = (
    "Block",
    "task",
    "median",
    "least to most",
    "server busy",
    "load generator busy",
    "cores apart",
)
RUN_HEAD = (
    "Block",
    "finished (UTC)",
    "load average before",
    "load of that wait",
    "window",
    "commit",
    "command",
)

INTRODUCTION = """\
# Results

Written by `benchmarks/run.py` from the raw samples in `results/`; do not edit. `README.md` says how
it measures. `C` is the floor (a C epoll server), `P` the bare protocol (`asyncio.Protocol` on
uvloop); a figure in C or P is the median of the ratios taken inside each repetition.
"""

PEERS = """\
What an operation costs each server that takes the same test, the least first: the median of its
samples, their quartiles, and the medians of the ratios taken inside each repetition. n is how many
samples there are: those of others are fewer and shorter where no bar is measured by them.
"""

COSTS = """\
Server CPU in microseconds, or memory. Busy is the share of the window; apart is the time a
cache line needs from one core to the other and back.
"""


def render(records: Mapping[str, Record]) -> str:
    """
    Return the whole page.
    """
    measured, facts = measured_blocks(records), measured_facts(records)
    runs: list[tuple[Block | Facts, Record]] = [*measured, *facts]
    return "\n".join(
        [
            INTRODUCTION,
            "## Rows\n",
            *table(
                ROW_HEAD,
                (
                    row_cells(row, record.repetitions)
                    for block, record in measured
                    for row in block.rows
                ),
            ),
            *fact_table(facts),
            "## Peers\n",
            PEERS,
            *standing_tables(measured),
            "## What one operation cost\n",
            COSTS,
            *table(TASK_HEAD, (cells for pair in measured for cells in task_cells(*pair))),
            "## Runs\n",
            *table(RUN_HEAD, (run_cells(*pair) for pair in runs)),
            *machines(record for _, record in runs),
        ]
    )


def measured_blocks(records: Mapping[str, Record]) -> list[tuple[Block, Record]]:
    """
    Return the blocks there are records of, in their order.
    """
    return [(block, records[block.name]) for block in BLOCKS if block.name in records]


def measured_facts(records: Mapping[str, Record]) -> list[tuple[Facts, Record]]:
    """
    Return the blocks of facts there are records of, in their order.
    """
    return [(block, records[block.name]) for block in ALL_FACTS if block.name in records]


def bar_table(measured: Iterable[tuple[Block, Record]]) -> Iterator[str]:
    """
    Yield the table of the rows that have a bar.
    """
    yield from table(
        ROW_HEAD,
        (
            row_cells(row, record.repetitions)
            for block, record in measured
            for row in block.rows
            if row.bar is not None
        ),
    )


def row_cells(row: Row, repetitions: list[Repetition]) -> tuple[str, ...]:
    """
    Return one row with its verdict.
    """
    bar = f"<= {row.bar:g} {row.unit}" if row.bar is not None else ""
    aim = f"{row.aim:g}" if row.aim is not None else ""
    values = figures(row, repetitions)
    if not values:
        return (row.title, bar, aim, "", "", "0", verdict(row, repetitions))
    spread = Spread.of(values)
    digits = 2 if spread.median >= 0.2 else 3
    return (
        row.title,
        bar,
        aim,
        f"{spread.median:.{digits}f} {row.unit}",
        spread_text(spread, digits),
        str(spread.count),
        verdict(row, repetitions),
    )


def verdict(row: Row, repetitions: list[Repetition]) -> str:
    """
    Say whether the bar holds, or why it does not count.
    """
    values = figures(row, repetitions)
    if not values:
        return failure_of(row, repetitions) or "not measured"
    if row.bar is None:
        return ""
    if row.condition is not None:
        asked = Row("", row.condition.task, row.condition.against, "C")
        ground = Spread.of(figures(asked, repetitions)).median
        if ground > row.condition.limit:
            return f"does not count: P is {ground:.2f} C, above {row.condition.limit:g}"
    return judgement(Spread.of(values).median, row.bar, row.aim)


def failure_of(row: Row, repetitions: list[Repetition]) -> str:
    """
    Return why a row has no figure; empty where nobody tried.
    """
    for samples in repetitions:
        for name in (row.task, row.against):
            if name in samples and samples[name].failed:
                return f"failed: {cell(samples[name].failed)}"
    return ""


def task_cells(block: Block, record: Record) -> Iterator[tuple[str, ...]]:
    """
    Yield what each task of a block cost that has been measured.
    """
    for task in block.tasks:
        tried = [samples[task.name] for samples in record.repetitions if task.name in samples]
        samples = [sample for sample in tried if not sample.failed]
        if not samples:
            if tried:
                yield (block.name, task.name, cell(f"failed: {tried[0].failed}"), "", "", "", "")
            continue
        # Memory has no window, and two processes without a load generator have no shares of one.
        windowed = samples[0].load_busy > 0
        values = [sample.value / UNITS[task.unit] for sample in samples]
        busy = statistics.median(sample.server_busy for sample in samples)
        distances = [sample.distance for sample in samples]
        load_busy = statistics.median(sample.load_busy for sample in samples)
        yield (
            block.name,
            task.name,
            f"{statistics.median(values):.2f} {task.unit} per {block.operation}",
            f"{min(values):.2f} to {max(values):.2f}",
            f"{busy:.0%}" if windowed else "",
            f"{load_busy:.0%}" if windowed else "",
            f"{min(distances)} to {max(distances)} ns" if windowed else "",
        )


def run_cells(block: Block | Facts, record: Record) -> tuple[str, ...]:
    """
    Return when and how a block was measured.
    """
    return (
        block.name,
        record.measured[:16].replace("T", " "),
        f"{record.load_average:.2f} after {record.waited:.0f} s",
        "" if record.meanwhile is None else f"{record.meanwhile:.2f}",
        f"{record.window:g} s",
        record.machine["commit"],
        f"`{record.command}`",
    )


def machines(records: Iterable[Record]) -> Iterator[str]:
    """
    Yield each different machine once, with all that stood beside; the commit stands with the run.
    """
    seen = []
    for record in records:
        facts = {name: fact for name, fact in record.machine.items() if name != "commit"}
        if facts not in seen:
            seen.append(facts)
    for facts in seen:
        if not any(facts.items() < more.items() for more in seen):
            yield ", ".join(f"{name} {fact}" for name, fact in facts.items()) + ".\n"


def commits(runs: Iterable[tuple[Block | Facts, Record]]) -> Iterator[str]:
    """
    Yield a line for each state of the source: when it was measured, and which blocks.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for block, record in runs:
        found.setdefault(record.machine["commit"], []).append((record.measured[:10], block.name))
    for commit, measured in found.items():
        days, names = sorted({day for day, _ in measured}), [name for _, name in measured]
        yield f"- `{commit}`, {' to '.join(dict.fromkeys((days[0], days[-1])))}: {', '.join(names)}"
