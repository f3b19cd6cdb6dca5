"""
The tutorial holds: followed literally it leads to what it promises, at the price it promises.
"""

from __future__ import annotations

import asyncio
import os
import pty
import signal
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.acceptance.conftest import of_test
from tests.acceptance.docs.newcomer import FIRST, Newcomer, arrived, is_server
from tests.acceptance.docs.tutorial import CommandStep, sections
from tests.acceptance.project import Command, Project

MILLISECONDS_MAX = 10_000
PASSWORD = "swordfish-and-chips"

ROOMS = "Rooms"
LAST = "In production"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow(90, reason="installs the package from its wheel into a new environment"),
]
with_browser = pytest.mark.asyncio(loop_scope="module")


class Server(Project):
    """
    The newcomer's server, started as the tutorial says.
    """

    def __init__(self, newcomer: Newcomer) -> None:
        super().__init__(newcomer.folder)
        self.newcomer = newcomer

    async def begin(self, heading: str) -> Command:
        """
        Type the section's command that serves, and wait until it does.
        """
        (line,) = (
            step.line
            for step in sections()[heading]
            if isinstance(step, CommandStep) and is_server(step)
        )
        command = await self.type(line)
        assert await command.ready() == self.newcomer.address
        return command

    async def type(self, line: str, stdin: int = asyncio.subprocess.DEVNULL) -> Command:
        """
        Type a command that goes on, or asks.
        """
        self.newcomer.typed.append(line)
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f"exec {line}"),
            cwd=self.folder,
            env=self.newcomer.variables,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self.commands.append(Command(process))
        return self.commands[-1]

    async def sign_up(self, line: str) -> None:
        """
        Type the command that makes a user, and answer what it asks.
        """
        keyboard, terminal = pty.openpty()
        try:
            command = await self.type(line, terminal)
            for question, answer in (
                ("Username.*: ", "ada"),
                ("Email address: ", ""),
                ("Password: ", PASSWORD),
                (r"Password \(again\): ", PASSWORD),
            ):
                await command.expect(question)
                os.write(keyboard, f"{answer}\n".encode())
            assert (await command.ended())[0] == 0
        finally:
            os.close(keyboard)
            os.close(terminal)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """
    Somebody who is about to start the server of the first section.
    """
    return arrived(tmp_path_factory.mktemp("newcomer"))


@of_test
async def server(newcomer: Newcomer) -> AsyncIterator[Server]:
    """
    The server, ended with the test.
    """
    server = Server(newcomer)
    yield server
    await server.close()


async def open_tab(context: BrowserContext, address: str, path: str) -> Page:
    """
    Open a page, and wait until its socket is open.
    """
    page = await context.new_page()
    await page.goto(f"http://{address}{path}")
    await page.wait_for_function("socket.readyState === 1", timeout=MILLISECONDS_MAX)
    return page


async def log_in(browser: Browser, address: str, path: str) -> BrowserContext:
    """
    Ask for a page in a new context, and log in where that leads.
    """
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"http://{address}{path}")
    await page.get_by_label("Username").fill("ada")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url(f"**{path}")
    await page.close()
    return context


async def say(page: Page, text: str) -> None:
    """
    Type a message, and send it.
    """
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def sees(page: Page, text: str) -> None:
    """
    Wait until a page shows a message as its last.
    """
    await page.wait_for_function(
        "text => log.textContent.endsWith(text + '\\n')", arg=text, timeout=MILLISECONDS_MAX
    )


def test_counts(newcomer: Newcomer) -> None:
    """
    Two chatting tabs cost 3 commands, 3 files, 25 lines and no more than 8 packages.
    """
    counts = newcomer.counts()
    print(counts, newcomer.written, sorted(newcomer.packages))  # noqa: T201 - what it is there to say
    assert counts["commands"] <= 3
    assert counts["files"] <= 3
    assert counts["lines"] <= 25
    assert counts["services"] == 0
    assert "fairway" in newcomer.packages
    assert counts["packages"] <= 8


@with_browser
async def test_two_tabs(newcomer: Newcomer, server: Server, browser: Browser) -> None:
    """
    What the first section leads to: two browser contexts chat both ways.
    """
    command = await server.begin(FIRST)
    contexts = [await browser.new_context() for _ in range(2)]
    ada, grace = [await open_tab(context, newcomer.address, "/") for context in contexts]
    for sender, text in ((ada, "hello"), (grace, "grüß dich <b>")):
        await say(sender, text)
        for page in (ada, grace):
            await sees(page, text)
    await command.stop(signal.SIGINT)
    assert "Traceback" not in command.output


@with_browser
async def test_rooms(newcomer: Newcomer, server: Server, browser: Browser) -> None:
    """
    What the second section leads to: a message stays in its room.
    """
    newcomer.follow(sections()[ROOMS])
    command = await server.begin(FIRST)
    context = await browser.new_context()
    kitchen, lobby, also = [
        await open_tab(context, newcomer.address, f"/{room}/")
        for room in ("kitchen", "lobby", "lobby")
    ]
    await say(lobby, "hello")
    await sees(also, "hello")
    assert not await kitchen.evaluate("log.textContent")
    await command.stop(signal.SIGINT)


@with_browser
async def test_the_rest(newcomer: Newcomer, server: Server, browser: Browser) -> None:
    """
    What the other sections lead to: users, messages from signals and the shell, a test, production.
    """
    while_it_serves = []
    for heading in list(sections())[1:]:
        for step in sections()[heading]:
            if isinstance(step, CommandStep) and " shell " in step.line:
                while_it_serves.append(step.line)
            elif isinstance(step, CommandStep) and "createsuperuser" in step.line:
                await server.sign_up(step.line)
            else:
                newcomer.follow([step])
    assert "python manage.py test" in newcomer.typed
    command = await server.begin(LAST)
    context = await log_in(browser, newcomer.address, "/lobby/")
    ada = await open_tab(context, newcomer.address, "/lobby/")
    await log_in(browser, newcomer.address, "/lobby/")
    await sees(ada, "ada is here")
    for line in while_it_serves:
        await asyncio.to_thread(newcomer.type, line)
        await sees(ada, "Lunch!")
    await say(await open_tab(context, newcomer.address, "/lobby/"), "hello")
    await sees(ada, "ada: hello")
    assert (await command.stop(signal.SIGINT))[0] == 0
