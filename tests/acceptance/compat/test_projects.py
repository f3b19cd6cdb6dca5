"""
Channels' tutorial and a project of Channels 2.4, with nothing changed but their imports.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import pytest
from playwright.async_api import Browser, Page
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.acceptance.browser import chromium
from tests.acceptance.compat import projects
from tests.acceptance.project import Command, Project

SECONDS_MAX = 5

WARNINGS = (
    "route 'ws/chat/(?P<room_name>\\\\w+)/$': write ChatConsumer.as_asgi()",
    "route 'ws/echo/': write EchoConsumer.as_asgi()",
    "RestMiddleware: write ScopedConsumer.as_asgi()",
    "ScopedConsumer.__init__() takes the scope, as in Channels 2.",
    "route 'ws/scoped/': QueryAuthMiddleware is an ASGI 2 application",
    "OriginValidator: TokenAuthMiddleware is an ASGI 2 application",
)


async def get(address: str, path: str) -> str:
    """
    Fetch a page.
    """

    def fetch() -> str:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=SECONDS_MAX) as answer:
            return str(answer.read(), "utf-8")

    return await asyncio.to_thread(fetch)


def enter(address: str, path: str) -> Any:
    """
    Open a WebSocket as a page of the site does.
    """
    return connect(f"ws://{address}{path}", origin=f"http://{address}")  # type: ignore[arg-type] # a NewType


async def heard(socket: ClientConnection) -> Any:
    """
    The next thing that a socket is told.
    """
    async with asyncio.timeout(SECONDS_MAX):
        return json.loads(await socket.recv())


async def chats(address: str) -> str:
    """
    Have two sockets of one room talk, and give which consumer told them.
    """
    async with enter(address, "/ws/chat/lobby/") as one, enter(address, "/ws/chat/lobby/") as two:
        await one.send(json.dumps({"message": "hello"}))
        told = await heard(one)
        assert told["message"] == "hello"
        assert told == await heard(two)
    return str(told.get("by"))


async def say(page: Page, text: str) -> None:
    """
    Say something in a room's page.
    """
    await page.locator("#chat-message-input").fill(text)
    await page.locator("#chat-message-submit").click()


async def chat_in(browser: Browser, address: str) -> None:
    """
    Have two windows of one room talk.
    """
    pages = []
    for _ in range(2):
        page = await (await browser.new_context()).new_page()
        await page.goto(f"http://{address}/chat/")
        await page.locator("#room-name-input").fill("lobby")
        await page.locator("#room-name-submit").click()
        await page.wait_for_function("document.title === 'connected'", timeout=10_000)
        pages.append(page)
    for page, text in zip(pages, ("hello", "you too"), strict=True):
        await say(page, text)
        for other in pages:
            await other.wait_for_function(
                "text => document.querySelector('#chat-log').value.includes(text)",
                arg=text,
                timeout=10_000,
            )


async def develop(project: Project, files: projects.Files) -> tuple[Command, str]:
    """
    Write the files of a step and start the development server.
    """
    projects.write(project.folder, files)
    running = await project.manage("runserver", "127.0.0.1:0", "--noreload")
    return running, await running.ready()


@pytest.mark.slow(60, "four servers, a test run and a browser")
async def test_tutorial(project: Project) -> None:
    """Each step of the tutorial works in development, its tests pass, and so it does served."""
    folder = project.folder
    projects.change(folder, "site_.asgi.application")
    assert await (await project.manage("migrate", "-v", "0")).ended() == (0, "")
    running, address = await develop(project, projects.PAGES)
    assert "room-name-input" in await get(address, "/chat/")
    await running.kill()
    running, address = await develop(project, projects.SYNC)
    assert '"lobby"' in await get(address, "/chat/lobby/")
    assert await chats(address) == "sync"
    await running.kill()
    running, address = await develop(project, projects.ASYNC)
    assert await chats(address) == "async"
    await running.kill()

    projects.write(folder, projects.TESTS)
    status, output = await (await project.manage("test")).ended()
    assert status == 0, output
    assert "Ran 3 tests" in output

    serving = await project.manage("serve", "--port", "0", "--workers", "2")
    address = await serving.ready()
    async with chromium() as browser:
        await chat_in(browser, address)


@pytest.fixture
async def old(project: Project) -> Project:
    """
    A project in the style of Channels 2.4.
    """
    projects.write(project.folder, projects.OLD)
    projects.change(project.folder, "site_.routing.application")
    assert await (await project.manage("migrate", "-v", "0")).ended() == (0, "")
    return project


async def talks(address: str) -> None:
    """
    Hold everything against a running project of Channels 2.4.
    """
    assert "Django administration" in await get(address, "/admin/login/")
    assert await chats(address) == "None"
    async with enter(address, "/ws/scoped/?token=secret") as socket:
        told = await heard(socket)
    assert told == ["/ws/scoped/", "AnonymousUser", 0, "secret", "asked", "resolved"]
    async with enter(address, "/ws/echo/") as socket:
        await socket.send('"hello"')
        assert await heard(socket) == "hello"
    with pytest.raises(InvalidStatus, match="403"):
        await connect(f"ws://{address}/ws/echo/", origin="http://elsewhere.example")  # type: ignore[arg-type] # a NewType


@pytest.mark.slow(40, "three servers and a test run")
async def test_project_of_channels_2(old: Project) -> None:
    """A project of Channels 2.4 is served by each command, and told what to change."""
    serving = await old.manage("serve", "--port", "0", PYTHONWARNINGS="default::DeprecationWarning")
    found = await serving.expect(r"(?s)(.*)Serving on http://([^/\s]+)/")
    assert [line for line in WARNINGS if line not in found[1]] == []
    await talks(found[2])
    await serving.kill()
    testing = await old.manage("test")
    developed = await old.manage("runserver", "127.0.0.1:0", "--noreload")
    named = await old.run("-m", "fairway", "site_.asgi:application", "--port", "0")
    for command in (developed, named):
        await talks(await command.ready())
    status, output = await testing.ended()
    assert status == 0, output
    assert "Ran 2 tests" in output
