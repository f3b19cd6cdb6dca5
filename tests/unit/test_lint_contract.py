"""
The import contracts of pyproject.toml notice what they are there to notice.

All forbidden imports are planted together in one copy of the package, and one run of the
checker over it serves every test. Rooms to come are made in the copy.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FORBIDDEN = [
    ("fairway.exceptions", "logging"),
    ("fairway.metrics", "time"),
    ("fairway.options", "django"),
    ("fairway.types", "fairway.conf"),
    ("fairway.wire.planted", "asyncio"),
    ("fairway.wire.planted", "django"),
    ("fairway.wire.planted", "socket"),
    ("fairway.wire.planted", "threading"),
    ("fairway.wire.planted", "fairway.server.planted"),
    ("fairway.wire.planted", "fairway.conf"),
    ("fairway.conf", "fairway.layers.planted"),
    ("fairway.layers.planted", "django"),
    ("fairway.layers.planted", "fairway.conf"),
    ("fairway.layers.planted", "fairway.consumers.planted"),
    ("fairway.layers.planted", "fairway.server.planted"),
    ("fairway.layers.brokers.local", "fairway.layers.brokers.redis"),
    ("fairway.layers.brokers.base", "fairway.layers.brokers.local"),
    ("fairway.server.planted", "django"),
    ("fairway.server.planted", "fairway.conf"),
    ("fairway.server.planted", "fairway.consumers.planted"),
    ("fairway.server.planted", "fairway.layers.planted"),
    ("fairway.consumers.planted", "fairway.server.planted"),
    ("fairway.routing", "fairway.management.planted"),
    ("fairway.live.planted", "fairway.graphql.planted"),
    ("fairway.workers.planted", "fairway.server.planted"),
    ("fairway.monitor.planted", "fairway.testing.planted"),
]
ALLOWED = [
    ("fairway.layers.namespace", "django"),
    ("fairway.layers.namespace", "fairway.conf"),
    ("fairway.layers.registry", "django"),
    ("fairway.layers.registry", "fairway.conf"),
    ("fairway.wire.planted", "zlib"),
    ("fairway.server.planted", "asyncio"),
    ("fairway.cli", "fairway.server.planted"),
]
UNKNOWN_ROOM = "fairway.attic"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """
    What the checker says of a copy of the package with every forbidden import planted in it.
    """
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src", root, dirs_exist_ok=True)
    source_of(root, UNKNOWN_ROOM)
    return checked(root, FORBIDDEN)


def checked(root: Path, imports: list[tuple[str, str]]) -> str:
    """
    Plant the imports in the package below root and return what the checker prints.
    """
    shutil.copy(ROOT / "pyproject.toml", root)
    for importer, imported in imports:
        if imported.startswith("fairway."):
            source_of(root, imported)
        with source_of(root, importer).open("a") as source:
            source.write(f"\nimport {imported}\n")
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout + run.stderr


def source_of(root: Path, module: str) -> Path:
    """
    The file of a module in the copy, made with its packages where there is none.
    """
    path = root.joinpath(*module.split("."))
    if path.is_dir():
        return path / "__init__.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    for package in path.relative_to(root).parents:
        if package.name:
            (root / package / "__init__.py").touch()
    path.with_suffix(".py").touch()
    return path.with_suffix(".py")


@pytest.mark.parametrize(("importer", "imported"), FORBIDDEN)
def test_a_forbidden_import_is_reported(report: str, importer: str, imported: str) -> None:
    """An import that leaves its room the wrong way is named with its line."""
    assert re.search(rf"{re.escape(importer)} -> {re.escape(imported)} \(l\.\d+\)", report)


def test_allowed_imports_pass(tmp_path: Path) -> None:
    """What the table of rooms allows is not reported, in a package with nothing else in it."""
    for module in ("exceptions", "faults", "lazy", "metrics", "options", "types"):
        source_of(tmp_path, f"fairway.{module}")
    assert "Contracts: 5 kept, 0 broken." in checked(tmp_path, ALLOWED)


def test_a_module_without_a_room_is_reported(report: str) -> None:
    """A new module of the package has to be given a room before it passes."""
    assert f"- {UNKNOWN_ROOM}" in report


def test_every_contract_is_broken_by_what_was_planted(report: str) -> None:
    """No contract passes over the copy, so none of them has stopped looking."""
    assert "Contracts: 0 kept, 5 broken." in report
