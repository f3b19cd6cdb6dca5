"""
Draws the picture of the tables: bars on a logarithmic scale, as SVG.

It brings its own light ground, so that it can be read on pages of any colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.harness.standings import Standing

__all__ = ["Panel", "draw"]

WIDTH, GAP, PAD = 510, 16, 20
COLUMNS = 2
LABEL, BAR, LINE = 244, 200, 18
HEAD, FOOT = 26, 16
INK, SOFT, GROUND, RULE = "#1f2933", "#52606d", "#ffffff", "#d9e0e6"
OURS, THEIRS, REFERENCE = "#0b7285", "#a9b4bf", "#e0a030"
REFERENCES = ("C,", "P,")


@dataclass(frozen=True, slots=True)
class Panel:
    """
    One test: who took it, the least first.
    """

    title: str
    unit: str
    standings: Sequence[Standing]

    @property
    def height(self) -> int:
        """
        How much room it takes.
        """
        return HEAD + LINE * len(self.standings) + FOOT


def draw(panels: Sequence[Panel], caption: str) -> str:
    """
    Return the picture.
    """
    columns: list[list[Panel]] = [[] for _ in range(COLUMNS)]
    heights = [0] * COLUMNS
    for panel in panels:
        shortest = heights.index(min(heights))
        columns[shortest].append(panel)
        heights[shortest] += panel.height
    width = 2 * PAD + COLUMNS * WIDTH + (COLUMNS - 1) * GAP
    height = 2 * PAD + HEAD + max(heights)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{escape(caption)}" '
            'font-family="system-ui, sans-serif" font-size="12">'
        ),
        f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}" stroke="{RULE}"/>',
        text(PAD, PAD + 8, caption, SOFT),
    ]
    for number, column in enumerate(columns):
        top = PAD + HEAD
        for panel in column:
            parts += draw_panel(panel, PAD + number * (WIDTH + GAP), top)
            top += panel.height
    return "\n".join([*parts, "</svg>", ""])


def draw_panel(panel: Panel, left: int, top: int) -> list[str]:
    """
    Return the title of a test, and a bar and its figure for each who took it.
    """
    values = [one.spread.median for one in panel.standings if one.spread]
    least, most = min(values), max(values)
    parts = [text(left, top + 12, f"{panel.title} ({panel.unit})", INK, weight=600)]
    for number, one in enumerate(panel.standings):
        line = top + HEAD + number * LINE
        weight = 600 if one.ours else 400
        parts.append(text(left + LABEL - 8, line + 10, one.title, INK, weight=weight, anchor="end"))
        if one.spread is None:
            parts.append(text(left + LABEL, line + 10, "failed", SOFT))
            continue
        length = bar_length(one.spread.median, least, most)
        parts += [
            (
                f'<rect x="{left + LABEL}" y="{line}" width="{length:.1f}" height="12" rx="2" '
                f'fill="{colour(one)}"/>'
            ),
            text(left + LABEL + length + 6, line + 10, figure(one.spread.median), SOFT),
        ]
    return parts


def bar_length(value: float, least: float, most: float) -> float:
    """
    Return how long a bar is: each doubling adds as much, and the least is a tenth of the most.
    """
    if most <= least:
        return BAR
    return BAR * (0.1 + 0.9 * math.log(value / least) / math.log(most / least))


def colour(one: Standing) -> str:
    """
    Return the colour of a bar: ours, a reference's, or anybody else's.
    """
    if one.ours:
        return OURS
    return REFERENCE if one.title.startswith(REFERENCES) else THEIRS


def figure(value: float) -> str:
    """
    Return a value with as many digits as can be told apart.
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def text(
    x: float, y: float, content: str, fill: str, *, weight: int = 400, anchor: str = "start"
) -> str:
    """
    Return a line of text.
    """
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(content)}</text>'
    )
