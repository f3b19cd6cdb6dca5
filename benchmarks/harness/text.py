"""
The Markdown that reports are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.harness.samples import Spread

__all__ = ["cell", "judgement", "spread_text", "table"]

CELL_MAX = 160


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """
    Yield the lines of a Markdown table.
    """
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"
    yield ""


def cell(text: str) -> str:
    """
    Return a text of others as one cell may hold it.
    """
    plain = " ".join(text.replace("|", "/").replace("`", "'").replace("<", "(").split())
    return plain if len(plain) <= CELL_MAX else plain[: CELL_MAX - 3] + "..."


def spread_text(spread: Spread, digits: int) -> str:
    """
    Return the quartiles of a figure, and how far they are apart where that is a share of it.
    """
    quartiles = f"{spread.lower:.{digits}f} to {spread.upper:.{digits}f}"
    return quartiles if spread.lower <= 0 else f"{quartiles} ({spread.width:.0%})"


def judgement(value: float, bar: float | None, aim: float | None) -> str:
    """
    Say what a figure is against its bar and its aim; nothing where it has no bar.
    """
    if bar is None:
        return ""
    if value > bar:
        return "**missed**"
    return "aim reached" if aim is not None and value <= aim else "holds"
