"""
Fixtures for tests that start the commands as their users do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.project import Project


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    """
    A fresh project with one consumer.
    """
    project = Project(tmp_path)
    try:
        await project.create()
        yield project
    finally:
        await project.close()
