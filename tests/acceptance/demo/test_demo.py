"""
The demo in real browsers, with the real server and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from playwright.async_api import Browser, Error, Page, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.acceptance.demo.conftest import DEMO, OpenTab, connected, log_in, until
from tests.acceptance.project import Project
from tests.integration.layers.redis_server import RedisServer, until as wait_for

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

# Keeps the close code of every socket of a page.
CLOSES = """
window.closes = [];
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener("close", ({ code }) => window.closes.push(code));
  }
};
"""


everywhere = pytest.mark.parametrize(
    "addresses", [1, 2], indirect=True, ids=["one server", "two servers and Redis"]
)


# Counts how often the page has changed what it says of its socket.
WATCH = """
window.changes = 0;
new MutationObserver(() => { window.changes += 1; }).observe(
  document.getElementById("status"), { childList: true, characterData: true, subtree: true },
);
"""


async def say(page: Page, text: str) -> None:
    """
    Type a message and send it.
    """
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Send", exact=True).click()


async def sees(page: Page, text: str) -> None:
    """
    Wait until a page's log ends with a text.
    """
    await until(
        page, "text => document.querySelector('#log li:last-child')?.textContent === text", text
    )


class TestRooms:
    """
    Chat between users who are logged in.
    """

    @everywhere
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

    async def test_strangers(self, browser: Browser, address: str) -> None:
        """
        Without a session there is neither a page nor a socket.
        """
        page = await browser.new_page()
        await page.goto(f"http://{address}/rooms/lobby/")
        assert page.url == f"http://{address}/login/?next=/rooms/lobby/"
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"ws://{address}/rooms/lobby/")

    async def test_forged_author(self, browser: Browser, address: str, open_tab: OpenTab) -> None:
        """
        Whatever a page says of its author, the message is by the user of the session.
        """
        ada = await open_tab("/rooms/lobby/", await log_in(browser, address, "ada"))
        forged = {"text": "hello", "author": "grace", "user": "grace", "id": 7}
        await ada.evaluate(
            """(message) => {
                const socket = new WebSocket(location.href.replace("http", "ws"));
                socket.onopen = () => socket.send(message);
            }""",
            json.dumps(forged),
        )
        await sees(ada, "adahello")

    async def test_live_before_history(
        self, browser: Browser, address: str, open_tab: OpenTab
    ) -> None:
        """
        A message that overtakes the history stands behind it, once.
        """
        context = await log_in(browser, address, "ada")
        one, two, three = (
            {"id": number, "author": "ada", "text": str(number)} for number in (1, 2, 10)
        )

        def answer(route: WebSocketRoute) -> None:
            route.send(json.dumps({"message": three}))
            route.send(json.dumps({"history": [one, two, three]}))

        await context.route_web_socket("**/rooms/lobby/", answer)
        page = await open_tab("/rooms/lobby/", context)
        await sees(page, "ada10")
        await until(page, "document.querySelectorAll('#log li').length === 3")
        assert await page.locator("#log li").all_text_contents() == ["ada1", "ada2", "ada10"]

    async def test_name_too_long(self, browser: Browser, address: str, open_tab: OpenTab) -> None:
        """
        A room's name has at most 50 characters; above there is neither a page nor a socket.
        """
        context = await log_in(browser, address, "ada")
        await open_tab(f"/rooms/{'a' * 50}/", context)
        page = await context.new_page()
        answer = await page.goto(f"http://{address}/rooms/{'a' * 51}/")
        assert answer is not None
        assert answer.status == 404
        with pytest.raises(InvalidStatus, match="404"):
            await connect(f"ws://{address}/rooms/{'a' * 51}/")


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
            await until(page, "document.getElementById('value').textContent === '200'")


class TestTwoServers:
    """
    Pages on two servers, with Redis between them.
    """

    @pytest.mark.parametrize("addresses", [2], indirect=True)
    async def test_redis_restarts(self, open_tab: OpenTab, redis: RedisServer) -> None:
        """
        Sockets outlive a Redis that is killed and comes back, and hear each other as before.
        """
        tabs = [await open_tab("/counter/") for _ in range(2)]
        for tab in tabs:
            await tab.evaluate(WATCH)
        for number, tab in enumerate(tabs, 1):
            await tab.get_by_role("button", name="Increment").click()
            await shows(tabs, number)
        redis.kill()
        redis.start()
        await asyncio.to_thread(until_heard, redis, "counter", servers=2)
        await tabs[0].get_by_role("button", name="Increment").click()
        await shows(tabs, 3)
        assert [await tab.evaluate("window.changes") for tab in tabs] == [0, 0]


async def shows(tabs: list[Page], number: int) -> None:
    """
    Wait until each page shows the number.
    """
    for tab in tabs:
        condition = "text => document.getElementById('value').textContent === text"
        await until(tab, condition, str(number))


def until_heard(redis: RedisServer, group: str, *, servers: int) -> None:
    """
    Wait until so many servers hear a group.
    """
    wait_for(
        lambda: any(
            channel.endswith(group.encode()) and redis.listeners(channel.decode()) == servers
            for channel in redis.channels()
        )
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
        await page.get_by_role("button", name="Send", exact=True).click()
        await sees(page, text)

    async def test_file(self, open_tab: OpenTab) -> None:
        """
        A file of 1 MiB comes back, also a second time; a larger one is refused by the page.
        """
        page = await open_tab("/chat/")
        file = page.get_by_label("Send a file")
        for size, said in (
            (1_048_576, "1048576 bytes came back"),
            (1_048_576, "1048576 bytes came back"),
            (1_048_577, "A message may have 1 MiB"),
        ):
            before = await page.locator("#log li").count()
            await file.set_input_files(
                {"name": "file", "mimeType": "application/octet-stream", "buffer": bytes(size)}
            )
            await until(
                page, "count => document.querySelectorAll('#log li').length > count", before
            )
            await sees(page, said)

    async def test_keyboard(self, open_tab: OpenTab) -> None:
        """
        Everything there is to use is reached by keyboard.
        """
        page = await open_tab("/chat/")
        await page.get_by_label("Text").focus()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "file"

    async def test_tls(self, browser: Browser, demo: Project, tmp_path: Path) -> None:
        """
        A page that came over https opens its socket over wss.
        """
        certificate = trustme.CA().issue_cert("127.0.0.1")
        chain = tmp_path / "chain.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(chain)
        server = await demo.manage(
            "serve", "--port", "0", "--certfile", str(chain), "--keyfile", str(chain)
        )
        address = await server.ready()
        page = await browser.new_page(ignore_https_errors=True)
        async with page.expect_event("websocket") as opened:
            await page.goto(f"https://{address}/chat/")
        await connected(page)
        assert (await opened.value).url == f"wss://{address}/chat/"

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
        await until(page, "document.getElementById('status').textContent === 'reconnecting'")
        again = await demo.manage("serve", "--port", address.rpartition(":")[2])
        await again.ready()
        await connected(page)
        await page.get_by_label("Text").fill("back")
        await page.get_by_role("button", name="Send", exact=True).click()
        await sees(page, "back")

    async def test_killed_server(self, browser: Browser, demo: Project) -> None:
        """
        After a server died without a word, a room shows what was said meanwhile.
        """
        server = await demo.manage("serve", "--port", "0")
        address = await server.ready()
        page = await (await log_in(browser, address, "ada")).new_page()
        await page.add_init_script(CLOSES)
        await page.goto(f"http://{address}/rooms/lobby/")
        await connected(page)
        await server.stop(signal.SIGKILL)
        await until(page, "closes.length > 0")
        missed = await demo.manage(
            "shell",
            "-c",
            "from chat.models import *; from django.contrib.auth.models import User;"
            "author = User.objects.get(username='grace');"
            "Message.objects.create(room='lobby', author=author, text='missed')",
        )
        assert (await missed.ended())[0] == 0
        again = await demo.manage("serve", "--port", address.rpartition(":")[2])
        await again.ready()
        await sees(page, "gracemissed")
        assert await page.evaluate("closes[0]") == 1006

    @pytest.mark.fault
    async def test_killed_workers(self, browser: Browser, demo: Project) -> None:
        """
        When all workers are killed others take their place, and the pages come back by themselves.
        """
        server = await demo.manage("serve", "--port", "0", "--workers", "2")
        address = await server.ready()
        pids = (await server.expect(r"pids (\d+), (\d+)")).groups()
        pages = await self.watch_counter(browser, address)
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        await self.come_back(pages, 1006)

    async def test_rolling_restart(self, browser: Browser, demo: Project) -> None:
        """
        While all workers are replaced every page is told 1012, and comes back by itself.
        """
        server = await demo.manage("serve", "--port", "0", "--workers", "2")
        pages = await self.watch_counter(browser, await server.ready())
        server.process.send_signal(signal.SIGHUP)
        await server.expect("All workers are replaced")
        await self.come_back(pages, 1012)

    async def watch_counter(self, browser: Browser, address: str) -> list[Page]:
        """
        Open the counter in several pages, which note how their sockets are closed.
        """
        pages = [await browser.new_page() for _ in range(4)]
        for page in pages:
            await page.add_init_script(CLOSES)
            await page.goto(f"http://{address}/counter/")
            await connected(page)
        return pages

    async def come_back(self, pages: list[Page], code: int) -> None:
        """
        Wait until all pages are connected again, and follow the counter.
        """
        for page in pages:
            await until(page, "closes.length > 0")
            await connected(page)
            assert await page.evaluate("closes[0]") == code
        await pages[0].get_by_role("button", name="Increment").click()
        for page in pages:
            await until(page, "document.getElementById('value').textContent === '1'")

    async def test_reload(self, browser: Browser, demo: Project, tmp_path: Path) -> None:
        """
        Under runserver, changed code closes the sockets with 1012, and pages go on with the new.
        """
        demo.folder = shutil.copytree(
            DEMO, tmp_path / "demo", ignore=shutil.ignore_patterns("data")
        )
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = await demo.manage("runserver", f"127.0.0.1:{port}")
        address = await server.ready()
        page = await browser.new_page()
        await page.add_init_script(CLOSES)
        await page.goto(f"http://{address}/chat/")
        await connected(page)
        code = demo.folder / "echo" / "consumers.py"
        changed = code.read_text().replace("text_data=text_data", "text_data=f'new {text_data}'")
        # The reloader may not have looked at the file yet, so change it until it has.
        while not await page.evaluate("closes.length"):
            changed += "# changed\n"
            code.write_text(changed)
            with suppress(Error):
                await page.wait_for_function("closes.length > 0", timeout=1_000)
        assert await page.evaluate("closes[0]") == 1012
        await server.ready()
        await connected(page)
        await page.get_by_label("Text").fill("code")
        await page.get_by_role("button", name="Send", exact=True).click()
        await sees(page, "new code")

    async def test_backoff(self, browser: Browser, address: str) -> None:
        """
        A socket that fails as soon as it is open is tried again later each time.
        """
        routes: asyncio.Queue[WebSocketRoute] = asyncio.Queue()
        times = []
        page = await browser.new_page()
        await page.add_init_script("Math.random = () => 1")
        await page.route_web_socket("**/chat/", routes.put_nowait)
        await page.goto(f"http://{address}/chat/")
        for _ in range(4):
            route = await routes.get()
            times.append(time.monotonic())
            await connected(page)
            await route.close(code=1011)
        # A timer may be late and never early: 250, 500 and 1000 ms.
        assert times[3] - times[0] >= 1.7

    @pytest.mark.parametrize("code", [4401, 4403, 4404])
    async def test_closed_for_good(self, browser: Browser, address: str, code: int) -> None:
        """
        A page that is told why it has no socket says so, which ends its trying.
        """
        page = await browser.new_page()
        await page.route_web_socket("**/chat/", lambda route: route.close(code=code))
        await page.goto(f"http://{address}/chat/")
        await until(page, "document.getElementById('status').textContent === 'closed'")
