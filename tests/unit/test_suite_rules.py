"""
The rules of conftest.py hold: a small suite that breaks them is run once, in a process of its own.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import limit_of

ROOT = Path(__file__).parents[2]

BROKEN_RULES = """
import asyncio
import socket
import time

import pytest

import fairway.planted


async def test_loops():
    pass


@pytest.mark.one_loop
async def test_one_loop():
    pass


@pytest.mark.one_loop
async def test_task_nobody_waited_for():
    async def fail():
        raise ValueError

    asyncio.get_running_loop().create_task(fail())
    await asyncio.sleep(0)


def test_open_socket():
    cycle = [socket.socket()]
    cycle.append(cycle)


@pytest.mark.one_loop
async def test_blocked_loop():
    fairway.planted.block()


@pytest.mark.one_loop
async def test_blocked_by_itself():
    time.sleep(0)


def test_innocent():
    pass


@pytest.mark.slow(30, reason="shows that the limit arrives")
def test_slow(request):
    assert request.node.get_closest_marker("timeout").args == (30,)
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> str:
    """
    What pytest reports of the suite above, next to the project's own conftest and settings.
    """
    root = tmp_path_factory.mktemp("suite")
    (root / "tests/integration").mkdir(parents=True)
    (root / "tests/integration/test_rules.py").write_text(BROKEN_RULES)
    package = root / "fairway"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "planted.py").write_text("import time\n\ndef block():\n    time.sleep(0)\n")
    return run_pytest(root)


def run_pytest(root: Path) -> str:
    """
    Run the suite below root with the project's conftest and return the short report.
    """
    for path in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py", "tests/settings.py"):
        shutil.copy(ROOT / path, root / path)
    run = subprocess.run(
        # The package below root is a stand-in, without the plugin that the real one ships.
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-p", "no:fairway"],
        cwd=root,
        env={key: os.environ[key] for key in os.environ if not key.startswith("COVERAGE_")},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout + run.stderr


def outcomes_of(test: str, report: str) -> list[tuple[str, str]]:
    """
    The (outcome, parameters) pairs that the report's summary lists for one test.
    """
    return sorted(
        re.findall(
            rf"^([A-Z]+) tests/integration/\S+::{test}(\[\w+\])?(?: |$)", report, re.MULTILINE
        )
    )


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("test_loops", [("PASSED", "[asyncio]"), ("PASSED", "[uvloop]")]),
        ("test_one_loop", [("PASSED", "")]),
        ("test_task_nobody_waited_for", [("ERROR", ""), ("PASSED", "")]),
        ("test_open_socket", [("ERROR", ""), ("PASSED", "")]),
        ("test_blocked_loop", [("FAILED", "")]),
        ("test_blocked_by_itself", [("PASSED", "")]),
        ("test_innocent", [("PASSED", "")]),
        ("test_slow", [("PASSED", "")]),
    ],
)
def test_a_rule_holds(outcome: str, test: str, expected: list[tuple[str, str]]) -> None:
    """Each test of the small suite fares as the rules want it to, and no other pays for it."""
    assert outcomes_of(test, outcome) == expected


def test_another_way_to_a_longer_limit_is_refused(tmp_path: Path) -> None:
    """The plug-in's own mark, which needs no reason, stops the suite."""
    (tmp_path / "tests").mkdir()
    source = "import pytest\n\n@pytest.mark.timeout(60)\ndef test_long():\n    pass\n"
    (tmp_path / "tests/test_long.py").write_text(source)
    assert "expected slow(limit, reason) for a longer limit, got timeout" in run_pytest(tmp_path)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (pytest.mark.slow(20, reason="at the default").mark, "got limit 20 and reason 'at the d"),
        (pytest.mark.slow(120.5, reason="above the highest").mark, "got limit 120.5 and reason"),
        (pytest.mark.slow(60).mark, "got limit 60 and reason ''"),
        (pytest.mark.slow(60, " ").mark, "got limit 60 and reason ' '"),
        (pytest.mark.slow.mark, "got limit 0 and reason ''"),
    ],
)
def test_a_longer_limit_needs_bounds_and_a_reason(mark: pytest.Mark, message: str) -> None:
    """A limit out of bounds or without a reason is refused by name and value."""
    with pytest.raises(pytest.UsageError, match=re.escape(message)):
        limit_of(mark, "test_long")


@pytest.mark.parametrize("limit", [20.5, 120])
def test_a_limit_within_bounds_is_given(limit: float) -> None:
    """Anything above the default up to the highest limit is had for a reason."""
    assert limit_of(pytest.mark.slow(limit, "waits for a time-out").mark, "test_long") == limit
