"""
The demo as a stranger has it: its real servers on free ports, and Chromium in front of them.

Servers and browser are those of a whole module, and so is the loop; a test gets them as if
they were new: no page is open, every server runs.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.acceptance.conftest import of_module, of_test
from tests.acceptance.project import Command, Project
from tests.integration.layers.redis_server import RedisServer, redis_server

DEMO = Path(__file__).parents[3] / "examples" / "demo"
MILLISECONDS_MAX = 12_000
"""
Time for a page to show what a test waits for.
"""

OpenTab: TypeAlias = Callable[..., Awaitable[Page]]
LogIn: TypeAlias = Callable[[str], Awaitable[BrowserContext]]

numbers = count(1)


class Place:
    """
    Where the demo serves: a server that may end and come back at its address.

    Attributes:
        address: Its host and port.
        command: What serves there.
    """

    address = "127.0.0.1:0"
    command: Command

    def __init__(self, project: Project, *flags: str, **environment: str) -> None:
        self._project = project
        self._flags = flags
        self._environment = environment

    async def start(self) -> None:
        """
        Start it, and come back once it serves.
        """
        port = self.address.rpartition(":")[2]
        self.command = await self._project.manage(
            "serve", "--port", port, *self._flags, **self._environment
        )
        self.address = await self.command.ready()

    @property
    def runs(self) -> bool:
        """
        Whether it was started and has not ended.
        """
        return self.command.process.returncode is None


@of_module
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Project]:
    """
    The demo with a database of its own, made as scripts/demo does it.
    """
    project = Project(DEMO, "demo.settings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEMO_DATA_DIR", str(tmp_path_factory.mktemp("demo")))
        patch.delenv("REDIS_URL", raising=False)
        try:
            for command in ("migrate", "makeusers"):
                status, output = await (await project.manage(command)).ended()
                assert status == 0, output
            yield project
        finally:
            await project.close()


@of_test
async def copied(demo: Project, tmp_path: Path) -> AsyncIterator[Project]:
    """
    The demo's files and database for one test, which may change them.
    """
    folder = shutil.copytree(DEMO, tmp_path / "demo", ignore=shutil.ignore_patterns("data"))
    project = Project(folder, "demo.settings")
    try:
        yield project
    finally:
        await project.close()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """
    A Redis between servers of the demo.
    """
    with redis_server() as server:
        yield server


@of_module
async def two_servers(
    demo: Project, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> list[Place]:
    """
    Two servers that have nothing in common but their database, and a Redis between them.
    """
    places = [
        Place(
            demo,
            REDIS_URL=redis.url,
            FAIRWAY_RUNTIME_DIR=str(tmp_path_factory.mktemp(f"machine-{number}")),
        )
        for number in (1, 2)
    ]
    await asyncio.gather(*(place.start() for place in places))
    return places


@of_module
async def one_server(demo: Project) -> list[Place]:
    """
    A server with two workers that compresses, and nothing beside it.
    """
    place = Place(demo, "--workers", "2", "--compress")
    await place.start()
    return [place]


@pytest.fixture
def places(request: pytest.FixtureRequest) -> list[Place]:
    """
    Where the demo serves: in two places with Redis between them, or where a test says.
    """
    found: list[Place] = request.getfixturevalue(getattr(request, "param", "two_servers"))
    return found


@of_test
async def addresses(places: list[Place]) -> AsyncIterator[list[str]]:
    """
    The addresses of these places, at which the demo serves again whatever a test does.
    """
    yield [place.address for place in places]
    for place in places:
        if not place.runs:
            await place.start()


@pytest.fixture
def address(addresses: list[str]) -> str:
    """
    Where the demo serves, or one of the places.
    """
    return addresses[0]


@of_test
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


@pytest.fixture(scope="module")
def sessions() -> dict[str, Any]:
    """
    What a browser keeps of each user who has logged in.
    """
    return {}


@pytest.fixture
def log_in(browser: Browser, address: str, sessions: dict[str, Any]) -> LogIn:
    """
    Gives one of the demo's users a context of their own, in which they are logged in.
    """

    async def log_in(name: str) -> BrowserContext:
        if name not in sessions:
            sessions[name] = await (await fill_in(browser, address, name)).storage_state()
        return await browser.new_context(storage_state=sessions[name])

    return log_in


async def fill_in(browser: Browser, address: str, name: str) -> BrowserContext:
    """
    Log a user in by the form, as the first test that needs one does.
    """
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"http://{address}/login/")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(name)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/rooms/")
    return context


@pytest.fixture
def room() -> str:
    """
    A room in which nobody has said anything yet.
    """
    return f"/rooms/room-{next(numbers)}/"


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
