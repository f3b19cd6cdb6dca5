"""
Fixtures for tests that start the commands as their users do.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from tests.acceptance.project import Project

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


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
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing; scripts/bootstrap installs it"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        await browser.close()
