"""
Somebody who does what the tutorial says, literally, with the package as it would be published.

The wheel is built from this checkout and installed by the tutorial's own command into a fresh
environment; nothing of the checkout can be imported there.
"""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.acceptance.docs.tutorial import CommandStep, FileStep, Step, lines_added, sections, texts
from tests.acceptance.project import Command, Project

ROOT = Path(__file__).parents[3]
MILLISECONDS_MAX = 10_000
PASSWORD = "swordfish-and-chips"

FIRST = "Two tabs that chat"
ROOMS = "Rooms"
LAST = "In production"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow(90, reason="installs the package from its wheel into a new environment"),
]


class Newcomer:
    """
    A person with an empty folder, a fresh virtual environment and the tutorial.

    Attributes:
        folder: The folder, empty at first.
        variables: The environment of what is typed.
        typed: Every command typed so far.
        packages: What is installed besides what the environment was made with.
        written: How many lines were written by hand, for each file.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "site"
        self.folder.mkdir()
        self.environment = root / "venv"
        self.typed: list[str] = []
        self.packages: set[str] = set()
        self.written: dict[str, int] = {}
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        left_out = ("COVERAGE_", "DJANGO_", "PYTHON", "PYTEST_")
        inherited = {key: os.environ[key] for key in os.environ if not key.startswith(left_out)}
        self.variables = inherited | {
            "PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}",
            # The tutorial's port may be in use by others.
            "PORT": self.address.partition(":")[2],
            # Its command installs the pinned versions, and of Fairway the wheel just built.
            "PIP_CONSTRAINT": str(root / "constraints.txt"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def prepare(self, wheel: Path) -> None:
        """
        Make the environment, in which ``pip install fairway`` finds the wheel.
        """
        run(uv(), "venv", "--quiet", "--seed", "--python", sys.executable, str(self.environment))
        pins = (ROOT / "constraints.txt").read_text()
        constraints = Path(self.variables["PIP_CONSTRAINT"])
        constraints.write_text(f"{pins}fairway @ {wheel.as_uri()}\n")

    def follow(self, steps: list[Step]) -> None:
        """
        Do the steps one by one, each command to its end; a server is not started yet.
        """
        for step in steps:
            if isinstance(step, FileStep):
                step.write(self.folder)
            elif not is_server(step):
                self.type(step.line)

    def type(self, line: str) -> str:
        """
        Type a command, and give what it prints until its end.
        """
        self.typed.append(line)
        return run("sh", "-c", line, cwd=self.folder, env=self.variables)

    def installed(self) -> set[str]:
        """
        Look which packages are in the environment.
        """
        found = self.environment.glob("lib/python*/site-packages/*.dist-info")
        return {folder.name.partition("-")[0] for folder in found}

    def arrive(self) -> None:
        """
        Follow the first section up to its server, and count.
        """
        steps = sections()[FIRST]
        before = self.installed()
        commands = [step for step in steps if isinstance(step, CommandStep)]
        self.follow([*commands])
        self.packages = self.installed() - before
        original = texts(self.folder)
        self.follow([step for step in steps if isinstance(step, FileStep)])
        self.written = lines_added(original, self.folder)


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


def is_server(step: CommandStep) -> bool:
    """
    Whether a command goes on until it is ended.
    """
    return " runserver" in step.line or " serve" in step.line


def uv() -> str:
    """
    Find uv where scripts/_lib puts it.
    """
    found = shutil.which("uv", path=f"{ROOT / '.tools' / 'bin'}:{os.environ['PATH']}")
    assert found, "uv is missing; scripts/bootstrap installs it"
    return found


def run(*command: str, **options: object) -> str:
    """
    Run a command to its end, and give what it printed.
    """
    done = subprocess.run(  # type: ignore[call-overload] # options are handed on as they are
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
        **options,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """
    Somebody who is about to start the server of the first section.
    """
    root = tmp_path_factory.mktemp("newcomer")
    given = ("--quiet", "--build-constraints", str(ROOT / "constraints.txt"))
    run(uv(), "build", "--wheel", *given, "--out-dir", str(root), str(ROOT))
    (wheel,) = root.glob("*.whl")
    newcomer = Newcomer(root)
    newcomer.prepare(wheel)
    newcomer.arrive()
    return newcomer


@pytest.fixture
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
    commands = [step.line for step in sections()[FIRST] if isinstance(step, CommandStep)]
    lines = sum(newcomer.written.values())
    for number, what, which in (
        (len(commands), "commands", commands),
        (len(newcomer.written), "files made or changed", [*newcomer.written]),
        (lines, "lines", newcomer.written),
        (len(newcomer.packages), "packages", sorted(newcomer.packages)),
    ):
        print(f"{number} {what}: {which}")  # noqa: T201 - what the test is there to say
    assert len(commands) <= 3
    assert len(newcomer.written) <= 3
    assert lines <= 25
    assert "fairway" in newcomer.packages
    assert len(newcomer.packages) <= 8


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
