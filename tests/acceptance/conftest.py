"""
Fixtures for tests that start the commands as their users do.

A browser is that of a whole module, and hence on the module's loop: tests that take it say
``pytest.mark.asyncio(loop_scope="module")``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.acceptance.browser import chromium
from tests.acceptance.project import Project

of_module = pytest_asyncio.fixture(scope="module", loop_scope="module")
of_test = pytest_asyncio.fixture(loop_scope="module")


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


@of_module
async def shared_browser() -> AsyncIterator[Browser]:
    """
    The system's Chromium, without a window and with an empty profile, for all tests of a module.
    """
    async with chromium() as browser:
        yield browser


@of_test
async def browser(shared_browser: Browser) -> AsyncIterator[Browser]:
    """
    The system's Chromium, without a page when a test begins.
    """
    yield shared_browser
    for context in shared_browser.contexts:
        await context.close()
