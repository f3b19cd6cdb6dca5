"""
Fixtures for tests that start the commands as their users do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.acceptance.browser import chromium
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


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """
    The system's Chromium, without a window and with an empty profile.
    """
    async with chromium() as browser:
        yield browser
