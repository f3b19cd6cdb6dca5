"""
What a new project costs until two tabs chat: the tutorial, followed to the letter and counted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness.cores import Cores
from benchmarks.harness.facts import Fact, Facts
from benchmarks.harness.plan import Plan

__all__ = ["NEWCOMER"]


def newcomer(plan: Plan, cores: Cores, turn: int) -> dict[str, float]:
    """
    Do what the tutorial says in an empty folder, and count.
    """
    # Only who asks for this needs what the tests need.
    from tests.acceptance.docs.newcomer import arrived

    with tempfile.TemporaryDirectory(prefix="fairway-bench-") as folder:
        return {name: float(count) for name, count in arrived(Path(folder)).counts().items()}


NEWCOMER = Facts(
    name="newcomer",
    scenes=newcomer,
    facts=(
        Fact("commands", "new project to two chatting tabs", "commands", 4, aim=3),
        Fact("files", "new project: files made or changed", "files", 4, aim=3),
        Fact("lines", "new project: lines written", "lines", 40, aim=25),
        Fact("packages", "new project: packages installed", "packages", 8),
        Fact("services", "new project: services to run", "services", 0),
    ),
    repeat=1,
)
