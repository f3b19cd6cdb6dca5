"""
The demo in real browsers: two real servers with Redis between them, or one and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
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

from tests.acceptance.demo.conftest import LogIn, OpenTab, Place, connected, until
from tests.acceptance.project import Project, descendants
from tests.integration.layers.redis_server import RedisServer, until as wait_for

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.slow(60, "servers and browser of all of them begin with whichever is first"),
]

ECHO = """
([size, binary]) => new Promise((resolve, reject) => {
  const socket = new WebSocket(`ws://${location.host}/chat/`);
  socket.binaryType = "arraybuffer";
  const sent = binary ? new Uint8Array(size).map((_, i) => i) : "x".repeat(size);
  socket.onopen = () => socket.send(sent);
  socket.onclose = (event) => reject(event.code);
  socket.onmessage = ({ data }) => {
    const came = binary ? new Uint8Array(data) : data;
    const same = binary ? came.every((b, i) => b === sent[i]) : came === sent;
    resolve(came.length === size && same ? socket.extensions || "plain" : "changed");
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


on_one_server = pytest.mark.parametrize("places", ["one_server"], indirect=True)
everywhere = pytest.mark.parametrize("places", ["one_server", "two_servers"], indirect=True)


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
    async def test_two_users_chat(self, log_in: LogIn, open_tab: OpenTab, room: str) -> None:
        """
        Two users in two browsers chat both ways, each under the name of the session.
        """
        ada = await open_tab(room, await log_in("ada"))
        grace = await open_tab(room, await log_in("grace"))
        for sender, name, text in ((ada, "ada", "hello"), (grace, "grace", "grüß dich <b>")):
            await say(sender, text)
            for page in (ada, grace):
                await sees(page, f"{name}{text}")

    async def test_history(self, log_in: LogIn, open_tab: OpenTab, room: str) -> None:
        """
        Who comes later, or reloads, finds what was said.
        """
        context = await log_in("ada")
        first = await open_tab(room, context)
        await say(first, "first")
        await sees(first, "adafirst")
        second = await open_tab(room, context)
        await sees(second, "adafirst")
        await first.reload()
        await connected(first)
        await say(second, "second")
        await sees(first, "adasecond")
        assert await first.locator("#log li").count() == 2

    async def test_strangers(self, browser: Browser, address: str, room: str) -> None:
        """
        Without a session there is neither a page nor a socket.
        """
        page = await browser.new_page()
        await page.goto(f"http://{address}{room}")
        assert page.url == f"http://{address}/login/?next={room}"
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"ws://{address}{room}")

    async def test_forged_author(self, log_in: LogIn, open_tab: OpenTab, room: str) -> None:
        """
        Whatever a page says of its author, the message is by the user of the session.
        """
        ada = await open_tab(room, await log_in("ada"))
        grace = await open_tab(room, await log_in("grace"))
        forged = {"text": "hello", "author": "grace", "user": "grace", "id": 7}
        await ada.evaluate(
            """(message) => {
                const socket = new WebSocket(location.href.replace("http", "ws"));
                socket.onopen = () => socket.send(message);
            }""",
            json.dumps(forged),
        )
        for page in (ada, grace):
            await sees(page, "adahello")

    async def test_live_before_history(self, log_in: LogIn, open_tab: OpenTab, room: str) -> None:
        """
        A message that overtakes the history stands behind it, once.
        """
        context = await log_in("ada")
        one, two, three = (
            {"id": number, "author": "ada", "text": str(number)} for number in (1, 2, 10)
        )

        def answer(route: WebSocketRoute) -> None:
            route.send(json.dumps({"message": three}))
            route.send(json.dumps({"history": [one, two, three]}))

        await context.route_web_socket(f"**{room}", answer)
        page = await open_tab(room, context)
        await sees(page, "ada10")
        await until(page, "document.querySelectorAll('#log li').length === 3")
        assert await page.locator("#log li").all_text_contents() == ["ada1", "ada2", "ada10"]

    async def test_name_too_long(self, log_in: LogIn, address: str, open_tab: OpenTab) -> None:
        """
        A room's name has at most 50 characters; above there is neither a page nor a socket.
        """
        context = await log_in("ada")
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
        200 clicks from 4 tabs leave 200 more on all of them.
        """
        tabs = [await open_tab("/counter/") for _ in range(4)]
        before = await number_on(tabs[0])

        async def click(page: Page) -> None:
            # The first one finds the button; for the others the mouse stays where it is.
            await page.get_by_role("button", name="Increment").click()
            for _ in range(49):
                await page.mouse.down()
                await page.mouse.up()

        await asyncio.gather(*map(click, tabs))
        await show(tabs, before + 200)


class TestTwoServers:
    """
    Pages on two servers, with Redis between them.
    """

    @pytest.mark.fault
    async def test_redis_restarts(self, open_tab: OpenTab, redis: RedisServer) -> None:
        """
        Sockets outlive a Redis that is killed and comes back, and hear each other as before.
        """
        tabs = [await open_tab("/counter/") for _ in range(2)]
        for tab in tabs:
            await tab.evaluate(WATCH)
        before = await number_on(tabs[0])
        for number, tab in enumerate(tabs, 1):
            await tab.get_by_role("button", name="Increment").click()
            await show(tabs, before + number)
        redis.kill()
        redis.start()
        await asyncio.to_thread(until_heard, redis, "counter", servers=2)
        await tabs[0].get_by_role("button", name="Increment").click()
        await show(tabs, before + 3)
        assert [await tab.evaluate("window.changes") for tab in tabs] == [0, 0]


async def number_on(page: Page) -> int:
    """
    Read the number that a page shows.
    """
    return int(await page.locator("#value").inner_text())


async def show(pages: list[Page], number: int) -> None:
    """
    Wait until each page shows the number.
    """
    for page in pages:
        condition = "text => document.getElementById('value').textContent === text"
        await until(page, condition, str(number))


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
        assert await page.evaluate(ECHO, [size, binary]) == "plain"

    @on_one_server
    async def test_compressed(self, open_tab: OpenTab) -> None:
        """
        Where the server compresses, so does the browser, and both understand each other.
        """
        page = await open_tab("/chat/")
        for size in (1, 600, 65_536, 1_048_576):
            for binary in (False, True):
                agreed = await page.evaluate(ECHO, [size, binary])
                assert agreed.startswith("permessage-deflate;"), (size, binary, agreed)

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

    async def test_tls(self, browser: Browser, copied: Project, tmp_path: Path) -> None:
        """
        A page that came over https opens its socket over wss.
        """
        certificate = trustme.CA().issue_cert("127.0.0.1")
        chain = tmp_path / "chain.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(chain)
        server = await copied.manage(
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

    async def test_restart(self, places: list[Place], open_tab: OpenTab) -> None:
        """
        After a restart of the server a page that stayed open is connected again.

        One of the other server has noticed nothing.
        """
        page, other = [await open_tab("/chat/") for _ in range(2)]
        await other.evaluate(WATCH)
        assert (await places[0].command.stop())[0] == 0
        await until(page, "document.getElementById('status').textContent === 'reconnecting'")
        await places[0].start()
        await connected(page)
        await page.get_by_label("Text").fill("back")
        await page.get_by_role("button", name="Send", exact=True).click()
        await sees(page, "back")
        assert await other.evaluate("window.changes") == 0

    async def test_killed_server(
        self, log_in: LogIn, places: list[Place], open_tab: OpenTab, room: str
    ) -> None:
        """
        After a server died without a word, a room shows what was said meanwhile.
        """
        context = await log_in("ada")
        await context.add_init_script(CLOSES)
        ada = await open_tab(room, context)
        grace = await open_tab(room, await log_in("grace"))
        await places[0].command.stop(signal.SIGKILL)
        await until(ada, "closes.length > 0")
        await say(grace, "missed")
        await sees(grace, "gracemissed")
        await places[0].start()
        await sees(ada, "gracemissed")
        assert await ada.evaluate("closes[0]") == 1006
        await say(ada, "back")
        await sees(grace, "adaback")

    @pytest.mark.fault
    @on_one_server
    async def test_killed_workers(
        self, browser: Browser, places: list[Place], open_tab: OpenTab
    ) -> None:
        """
        When all workers are killed others take their place, and the pages come back by themselves.
        """
        pages = await self.watch_counter(browser, open_tab)
        pids = descendants(places[0].command.process.pid)
        assert len(pids) == 2
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await self.come_back(pages, 1006)

    @on_one_server
    async def test_rolling_restart(
        self, browser: Browser, places: list[Place], open_tab: OpenTab
    ) -> None:
        """
        While all workers are replaced every page is told 1012, and comes back by itself.
        """
        pages = await self.watch_counter(browser, open_tab)
        places[0].command.process.send_signal(signal.SIGHUP)
        await places[0].command.expect("All workers are replaced")
        await self.come_back(pages, 1012)

    async def watch_counter(self, browser: Browser, open_tab: OpenTab) -> list[Page]:
        """
        Open the counter in several pages, which note how their sockets are closed.
        """
        context = await browser.new_context()
        await context.add_init_script(CLOSES)
        return [await open_tab("/counter/", context) for _ in range(4)]

    async def come_back(self, pages: list[Page], code: int) -> None:
        """
        Wait until all pages are connected again, and follow the counter.
        """
        for page in pages:
            await until(page, "closes.length > 0")
            await connected(page)
            assert await page.evaluate("closes[0]") == code
        before = await number_on(pages[0])
        await pages[0].get_by_role("button", name="Increment").click()
        await show(pages, before + 1)

    async def test_reload(self, browser: Browser, copied: Project) -> None:
        """
        Under runserver, changed code closes the sockets with 1012, and pages go on with the new.
        """
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = await copied.manage("runserver", f"127.0.0.1:{port}")
        address = await server.ready()
        page = await browser.new_page()
        await page.add_init_script(CLOSES)
        await page.goto(f"http://{address}/chat/")
        await connected(page)
        code = copied.folder / "echo" / "consumers.py"
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
