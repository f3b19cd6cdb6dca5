"""
The demo in real browsers, with the real server and nothing else.
"""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Browser, Page
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.acceptance.demo.conftest import OpenTab, connected, log_in
from tests.acceptance.project import Project

pytestmark = pytest.mark.browser

ECHO = """
([size, binary]) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`ws://${location.host}/chat/`);
  socket.binaryType = "arraybuffer";
  const sent = binary ? new Uint8Array(size).map((_, i) => i) : "x".repeat(size);
  socket.onopen = () => socket.send(sent);
  socket.onclose = (event) => reject(event.code);
  socket.onmessage = ({ data }) => {
    const came = binary ? new Uint8Array(data) : data;
    resolve(came.length === size && (binary ? came.every((b, i) => b === sent[i]) : came === sent));
    socket.onclose = null;
    socket.close();
  };
})
"""


async def say(page: Page, text: str) -> None:
    """
    Type a message and send it.
    """
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def sees(page: Page, text: str) -> None:
    """
    Wait until a page's log ends with a text.
    """
    await page.wait_for_function(
        "text => document.querySelector('#log li:last-child')?.textContent === text", arg=text
    )


class TestRooms:
    """
    Chat between users who are logged in.
    """

    async def test_two_users_chat(self, browser: Browser, address: str, open_tab: OpenTab) -> None:
        """
        Two users in two browsers chat both ways, each under the name of the session.
        """
        ada = await open_tab("/rooms/lobby/", await log_in(browser, address, "ada"))
        grace = await open_tab("/rooms/lobby/", await log_in(browser, address, "grace"))
        for sender, name, text in ((ada, "ada", "hello"), (grace, "grace", "grüß dich <b>")):
            await say(sender, text)
            for page in (ada, grace):
                await sees(page, f"{name}{text}")

    async def test_history(self, browser: Browser, address: str, open_tab: OpenTab) -> None:
        """
        Who comes later, or reloads, finds what was said.
        """
        context = await log_in(browser, address, "ada")
        first = await open_tab("/rooms/lobby/", context)
        await say(first, "first")
        await sees(first, "adafirst")
        second = await open_tab("/rooms/lobby/", context)
        await sees(second, "adafirst")
        await first.reload()
        await connected(first)
        await say(second, "second")
        await sees(first, "adasecond")
        assert await first.locator("#log li").count() == 2

    async def test_strangers(self, address: str) -> None:
        """
        Without a session there is neither a page nor a socket.
        """
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"ws://{address}/rooms/lobby/")


class TestCounter:
    """
    One number on every page.
    """

    async def test_two_hundred_clicks(self, open_tab: OpenTab) -> None:
        """
        200 clicks from 4 tabs leave 200 on all of them.
        """
        tabs = [await open_tab("/counter/") for _ in range(4)]

        async def click(page: Page) -> None:
            button = page.get_by_role("button", name="Increment")
            for _ in range(50):
                await button.click()

        await asyncio.gather(*map(click, tabs))
        for page in tabs:
            await page.wait_for_function(
                "document.getElementById('value').textContent === '200'", timeout=15_000
            )


class TestEcho:
    """
    What is sent comes back.
    """

    @pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
    @pytest.mark.parametrize("size", [1, 65_536, 1_048_576])
    async def test_sizes(self, open_tab: OpenTab, size: int, binary: bool) -> None:
        """
        Messages of a byte, of 64 KiB and of 1 MiB come back as they were.
        """
        page = await open_tab("/chat/")
        assert await page.evaluate(ECHO, [size, binary])

    async def test_unicode(self, open_tab: OpenTab) -> None:
        """
        Text of many scripts comes back.
        """
        page = await open_tab("/chat/")
        text = "naïve 日本語 🛟 \u202eright to left"
        await page.get_by_label("Text").fill(text)
        await page.get_by_role("button", name="Send").click()
        await sees(page, text)

    async def test_unknown_path(self, address: str) -> None:
        """
        A path without a consumer is refused.
        """
        with pytest.raises(InvalidStatus, match="404"):
            await connect(f"ws://{address}/chat/nowhere/")


class TestReconnect:
    """
    Sockets come back.
    """

    async def test_restart(self, browser: Browser, demo: Project) -> None:
        """
        After a restart of the server a page that stayed open is connected again.
        """
        server = await demo.manage("serve", "--port", "0")
        address = await server.ready()
        page = await browser.new_page()
        await page.goto(f"http://{address}/chat/")
        await connected(page)
        assert (await server.stop())[0] == 0
        await page.wait_for_function(
            "document.getElementById('status').textContent === 'reconnecting'"
        )
        again = await demo.manage("serve", "--port", address.rpartition(":")[2])
        await again.ready()
        await connected(page)
        await page.get_by_label("Text").fill("back")
        await page.get_by_role("button", name="Send").click()
        await sees(page, "back")
