"""
The pages under docs name what exists: options, settings, counters, checks, files.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from fairway.options import AREAS, ServerOptions

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
SOURCES = "".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.py")))

FLAGS_OF_OTHERS = {"--database", "--deploy", "--help", "--layer", "--pid", "--preload", "--tag"}
"""
Options of Django and py-spy that the pages mention.
"""

KEYS = {
    AREAS[area] + spec.name.upper(): spec
    for area in AREAS
    for spec in fields(area)
    if spec.metadata["setting"]
}

pytestmark = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_flags(page: Path) -> None:
    """
    Every flag is one of the server's.
    """
    known = {f"--{spec.name.replace('_', '-')}" for spec in fields(ServerOptions)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()))
    assert named <= known | FLAGS_OF_OTHERS


def test_settings(page: Path) -> None:
    """
    Every key of FAIRWAY and every variable exists.
    """
    text = page.read_text()
    named = [
        *re.findall(r"FAIRWAY(?:\[| = \{)\"(\w+)\"", text),
        *re.findall(r"\bFAIRWAY_([A-Z_]+)\b", text),
        *re.findall(r"\b(?:IPC|LAYER)_[A-Z_]+\b", text),
    ]
    assert set(named) <= KEYS.keys()


def test_defaults(page: Path) -> None:
    """
    A default behind a setting or flag, in a table, is the one in the code.
    """
    units = {"s": 1, "MiB": 1 << 20, "KiB": 1 << 10, "": 1}
    flags = {f"--{spec.name.replace('_', '-')}": spec for spec in fields(ServerOptions)}
    rows = re.findall(
        r"^\| `([\w-]+)(?: [A-Z]+)?` \| ([\d.]+) ?(\w*) \|", page.read_text(), re.MULTILINE
    )
    for name, number, unit in rows:
        default = {**KEYS, **flags}[name].default
        assert default is not MISSING
        assert float(number) * units[unit] == default, name


def test_counters(page: Path) -> None:
    """
    Every counter exists, and so does every reason that is given for its rise.
    """
    text = page.read_text()
    known = set(re.findall(r'"(fairway_\w+)"', SOURCES))
    assert set(re.findall(r"\bfairway_[a-z_]+\b", text)) <= known
    for reason in re.findall(r'reason="(\w+)"', text):
        kind = reason.removeprefix("link_")
        assert f'"{reason}"' in SOURCES or f'"{kind}"' in SOURCES, reason


def test_checks(page: Path) -> None:
    """
    Every check exists, and the page of checks has every one there is.
    """
    named = set(re.findall(r"\bfairway\.[EW]\d{3}\b", page.read_text()))
    known = set(re.findall(r'id="(fairway\.\w\d{3})"', SOURCES))
    assert named <= known
    if page.stem == "checks":
        assert named == known


def test_links(page: Path) -> None:
    """
    Every file that is linked to exists, and the index leads to every page.
    """
    linked = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in linked if not (page.parent / link).exists()] == []
    if page.stem == "index":
        assert {other.name for other in PAGES} <= {page.name, *linked}
