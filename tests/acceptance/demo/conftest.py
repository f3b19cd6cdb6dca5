"""
The demo as a stranger has it: its real server on a free port, and Chromium in front of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import TypeAlias

import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.acceptance.project import Project
from tests.integration.layers.redis_server import RedisServer, redis_server

DEMO = Path(__file__).parents[3] / "examples" / "demo"
MILLISECONDS_MAX = 12_000
"""
Time for a page to show what a test waits for.
"""

OpenTab: TypeAlias = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A folder with the demo's key and database, made once as scripts/demo does it.
    """
    folder = tmp_path_factory.mktemp("demo")
    environment = {
        **os.environ,
        "DEMO_DATA_DIR": str(folder),
        "DJANGO_SETTINGS_MODULE": "demo.settings",
    }
    for command in ("migrate", "makeusers"):
        subprocess.run(
            [sys.executable, "manage.py", command], cwd=DEMO, env=environment, check=True
        )
    return folder


@pytest.fixture
async def demo(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Project]:
    """
    The demo with a database of its own.
    """
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DEMO_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("REDIS_URL", raising=False)
    project = Project(DEMO, "demo.settings")
    try:
        yield project
    finally:
        await project.close()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """
    A Redis between servers of the demo.
    """
    with redis_server() as server:
        yield server


@pytest.fixture
async def addresses(request: pytest.FixtureRequest, demo: Project, tmp_path: Path) -> list[str]:
    """
    Where the demo serves: in one place, or in as many as a test asks for.

    Several have nothing in common but their database, and a Redis between them.
    """
    count = getattr(request, "param", 1)
    if count == 1:
        return [await (await demo.manage("serve", "--port", "0", "--workers", "2")).ready()]
    redis: RedisServer = request.getfixturevalue("redis")
    servers = [
        await demo.manage(
            *("serve", "--port", "0"),
            REDIS_URL=redis.url,
            FAIRWAY_RUNTIME_DIR=str(tmp_path / f"machine-{number}"),
        )
        for number in range(count)
    ]
    return [await server.ready() for server in servers]


@pytest.fixture
def address(addresses: list[str]) -> str:
    """
    Where the demo serves, or one of the places.
    """
    return addresses[0]


@pytest.fixture
async def open_tab(browser: Browser, addresses: list[str]) -> OpenTab:
    """
    Opens a page of the demo, of each server in turn, and waits until its socket is connected.
    """
    turns = cycle(addresses)

    async def open_tab(path: str, context: BrowserContext | None = None) -> Page:
        page = await (context or browser).new_page()
        await page.goto(f"http://{next(turns)}{path}")
        await connected(page)
        return page

    return open_tab


async def connected(page: Page) -> None:
    """
    Wait until a page says that its socket is connected.
    """
    await until(page, "document.getElementById('status').textContent === 'connected'")


async def until(page: Page, condition: str, argument: object = None) -> None:
    """
    Wait until something holds in a page, for less than a test may take.
    """
    await page.wait_for_function(condition, arg=argument, timeout=MILLISECONDS_MAX)


async def log_in(browser: Browser, address: str, name: str) -> BrowserContext:
    """
    Log one of the demo's users in, in a context of their own.
    """
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"http://{address}/login/")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(name)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/rooms/")
    await page.close()
    return context
