"""
Writes ``docs/benchmarks.md`` and its picture: the same results for those who choose a server.

What stands there beside the figures is in ``page.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness.build import HERE
from benchmarks.harness.facts import Facts, fact_table
from benchmarks.harness.plot import Panel, draw
from benchmarks.harness.report import (
    bar_table,
    commits,
    machines,
    measured_blocks,
    measured_facts,
)
from benchmarks.harness.rows import Block
from benchmarks.harness.standings import standing_tables, standings
from benchmarks.harness.store import Record

__all__ = ["panels", "render_page", "write_page"]

DOCS = HERE.parent / "docs"
PICTURE = "images/benchmarks.svg"
TEMPLATE = HERE / "page.md"
CAPTION = "Less is better. Each doubling makes a bar longer by the same length."


def write_page(records: Mapping[str, Record], folder: Path = DOCS) -> None:
    """
    Write the page and its picture.
    """
    (folder / "benchmarks.md").write_text(render_page(records), encoding="utf-8")
    picture = folder / PICTURE
    picture.parent.mkdir(exist_ok=True)
    picture.write_text(draw(panels(measured_blocks(records)), CAPTION), encoding="utf-8")


def render_page(records: Mapping[str, Record]) -> str:
    """
    Return the page.
    """
    measured, facts = measured_blocks(records), measured_facts(records)
    runs: list[tuple[Block | Facts, Record]] = [*measured, *facts]
    made = {
        "{bars}": bar_table(measured),
        "{facts}": fact_table(facts),
        "{tables}": standing_tables(measured),
        "{commits}": commits(runs),
        "{machine}": machines(record for _, record in runs),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    for place, lines in made.items():
        page = page.replace(place, "\n".join(lines).strip())
    return page


def panels(measured: list[tuple[Block, Record]]) -> list[Panel]:
    """
    Return what the picture shows.
    """
    found = []
    for block, record in measured:
        for asked in block.tables:
            those = standings(asked, block, record.repetitions) if asked.plot else []
            if any(one.spread for one in those):
                found.append(Panel(asked.title, unit_of(block, asked.tasks[0]), those))
    return found


def unit_of(block: Block, name: str) -> str:
    """
    Return the unit of a task's samples.
    """
    return next(task.unit for task in block.tasks if task.name == name)
