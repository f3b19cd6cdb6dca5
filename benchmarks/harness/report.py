"""
Writes ``RESULTS.md`` from the stored records: rows against bars, then the ground under them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks.harness.measure import MEMORY_UNITS, UNITS, Repetition, figures
from benchmarks.harness.rows import BLOCKS, Block, Row
from benchmarks.harness.samples import Spread, ratios
from benchmarks.harness.store import Record

__all__ = ["render", "row_cells", "verdict"]

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
RUN_HEAD = ("Block", "finished (UTC)", "load average before", "window", "commit", "command")

INTRODUCTION = """\
# Results

Written by `benchmarks/run.py` from the raw samples in `results/`; do not edit. `README.md` says how
it measures. `C` is the floor (a C epoll server), `P` the bare protocol (`asyncio.Protocol` on
uvloop); a figure in C or P is the median of the ratios taken inside each repetition.
"""


COSTS = """\
Server CPU in microseconds, or memory. Busy is the share of the window; apart is the time a
cache line needs from one core to the other and back.
"""


def render(records: Mapping[str, Record]) -> str:
    """
    Return the whole page.
    """
    measured = [(block, records[block.name]) for block in BLOCKS if block.name in records]
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
            "## What one operation cost\n",
            COSTS,
            *table(TASK_HEAD, (cells for pair in measured for cells in task_cells(*pair))),
            "## Runs\n",
            *table(RUN_HEAD, (run_cells(*pair) for pair in measured)),
            *machines(record for _, record in measured),
        ]
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """
    Yield the lines of a Markdown table.
    """
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"
    yield ""


def row_cells(row: Row, repetitions: list[Repetition]) -> tuple[str, ...]:
    """
    Return one row with its verdict.
    """
    spread = Spread.of(figures(row, repetitions))
    digits = 2 if spread.median >= 0.2 else 3
    return (
        row.title,
        f"<= {row.bar:g} {row.unit}" if row.bar is not None else "",
        f"{row.aim:g}" if row.aim is not None else "",
        f"{spread.median:.{digits}f} {row.unit}",
        f"{spread.lower:.{digits}f} to {spread.upper:.{digits}f} ({spread.width:.0%})",
        str(spread.count),
        verdict(row, repetitions),
    )


def verdict(row: Row, repetitions: list[Repetition]) -> str:
    """
    Say whether the bar holds, or why it does not count.
    """
    if row.bar is None:
        return ""
    if row.condition is not None:
        task, against = (
            [samples[name].value for samples in repetitions]
            for name in (row.condition.task, row.condition.against)
        )
        ground = Spread.of(ratios(task, against)).median
        if ground > row.condition.limit:
            return f"does not count: P is {ground:.2f} C, above {row.condition.limit:g}"
    spread = Spread.of(figures(row, repetitions))
    if spread.median > row.bar:
        return "**missed**"
    return "aim reached" if row.aim is not None and spread.median <= row.aim else "holds"


def task_cells(block: Block, record: Record) -> Iterator[tuple[str, ...]]:
    """
    Yield what each task of a block cost.
    """
    for task in block.tasks:
        samples = [repetition[task.name] for repetition in record.repetitions]
        unit = MEMORY_UNITS.get(task.mode, "us")
        # Memory has no window, and two processes without a load generator have no shares of one.
        windowed = unit == "us" and task.mode != "pair"
        values = [sample.value / UNITS[unit] for sample in samples]
        busy = statistics.median(sample.server_busy for sample in samples)
        distances = [sample.distance for sample in samples]
        load_busy = statistics.median(sample.load_busy for sample in samples)
        yield (
            block.name,
            task.name,
            f"{statistics.median(values):.2f} {unit} per {block.operation}",
            f"{min(values):.2f} to {max(values):.2f}",
            f"{busy:.0%}" if windowed else "",
            f"{load_busy:.0%}" if windowed else "",
            f"{min(distances)} to {max(distances)} ns" if windowed else "",
        )


def run_cells(block: Block, record: Record) -> tuple[str, ...]:
    """
    Return when and how a block was measured.
    """
    return (
        block.name,
        record.measured[:16].replace("T", " "),
        f"{record.load_average:.2f} after {record.waited:.0f} s",
        f"{record.window:g} s",
        record.machine["commit"],
        f"`{record.command}`",
    )


def machines(records: Iterable[Record]) -> Iterator[str]:
    """
    Yield each different machine once; the commit stands with the run.
    """
    seen = []
    for record in records:
        facts = {name: fact for name, fact in record.machine.items() if name != "commit"}
        if facts not in seen:
            seen.append(facts)
            yield ", ".join(f"{name} {fact}" for name, fact in facts.items()) + ".\n"
