"""
Fixtures for the first hour: one project, made once and copied for each fault.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.ux.sites import CONSUMERS, URLS, Site


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The folder of a project without faults, with a database.
    """
    folder = tmp_path_factory.mktemp("template")

    async def create() -> None:
        site = Site(folder)
        await site.create()
        site.urls.write_text(URLS)
        site.consumers.write_text(CONSUMERS)
        command = await site.manage("migrate", "--verbosity", "0")
        assert await command.ended() == (0, "")

    asyncio.run(create())
    return folder


@pytest.fixture
async def site(template: Path, tmp_path: Path) -> AsyncIterator[Site]:
    """
    A fresh copy of that project.
    """
    site = Site(Path(shutil.copytree(template, tmp_path / "site")))
    try:
        yield site
    finally:
        await site.close()
