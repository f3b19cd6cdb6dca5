"""
The measurements behind decisions still run, and tell which of the ways they compare is better.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "timing")

FEW = {
    "path_steps": 400,
    "redis_publish": 40,
    "resting_connection": 20,
    "switch_interval": 2,
    "thread_hop": 20,
    "unsent_bytes": 131_072,
}
"""
How often the thing is done where 200 times is too much, or is no number of times.
"""


@pytest.mark.one_loop
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each compares several ways, and prints what it gives."""
    figures = importlib.import_module(f"experiments.{name}").main(FEW.get(name, 200))
    assert len(figures) > 1
    assert min(figures.values()) >= 0
    printed = capsys.readouterr().out
    assert all(way.removesuffix(", rounds") in printed for way in figures)


def test_each_says_what_it_decides() -> None:
    """
    Each names a file of the package that is there, how to run it and what came of it, and the
    table has a line for it.
    """
    table = (FOLDER / "README.md").read_text()
    assert sorted(re.findall(r"(?m)^\| \[`(\w+)`\]\(\1\.py\) ", table)) == NAMES
    for name in NAMES:
        text = (FOLDER / f"{name}.py").read_text().split('"""')[1]
        decided = re.search(r"(?s)\nDecides: (.*?)\nRun: ", text)
        assert decided, name
        for path in re.findall(r"``([\w/]+\.py)``", decided[1]):
            assert (FOLDER.parent / "src" / "fairway" / path).exists(), path
        assert f"\nRun: ``python experiments/{name}.py``" in text, name
        assert re.search(r"\nResult: .{20}", text), name
