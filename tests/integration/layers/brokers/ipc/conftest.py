"""
Directories short enough for the addresses of Unix sockets.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """
    Give an empty directory of this user, removed afterwards.
    """
    path = Path(tempfile.mkdtemp(prefix="fw", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def directory(place: Path) -> Path:
    """
    Give the path of a namespace that nobody has opened yet.
    """
    return place / "root" / "project"
