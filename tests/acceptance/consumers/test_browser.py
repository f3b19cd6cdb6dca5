"""
Event streams in a real browser: EventSource by itself, and htmx on top of it.

One server and one browser are those of all tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from tests.acceptance.conftest import of_module
from tests.acceptance.project import Project

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

SCRIPTS = Path(__file__).parents[3] / ".tools" / "npm" / "node_modules"
MILLISECONDS_MAX = 10_000

URLS = '''
from pathlib import Path

import fairway
from django.http import FileResponse, HttpResponse, JsonResponse
from django.urls import path

SCRIPTS = Path("{scripts}")
SEEN = {{}}


class Counting(fairway.EventStreamConsumer):
    """Two events to a connection, ten in all, then no more."""

    retry = 0.05

    async def connect(self):
        SEEN.setdefault(self.url_kwargs["name"], []).append(self.last_event_id)
        number = int(self.last_event_id or 0)
        if number >= 6:
            await self.close()
            return
        await self.accept()
        await self.send_event({{"n": number + 1}}, id=str(number + 1))
        await self.send_event({{"n": number + 2}}, event="even", id=str(number + 2))
        await self.close()


class Feed(fairway.EventStreamConsumer):
    groups = ["feed"]


def say(request):
    fairway.broadcast("feed", request.GET["text"], event=request.GET.get("event"), id="1")
    return HttpResponse("said")


def page(request, name):
    return HttpResponse(PAGES[name])


def script(request, name):
    return FileResponse((SCRIPTS / name).open("rb"), content_type="text/javascript")


COUNTING = """<!doctype html><p id=seen></p><script>
const seen = [];
const source = new EventSource("/counting/plain/");
const note = (event) => {{ seen.push(event.type + event.lastEventId + event.data); }};
source.onmessage = note;
source.addEventListener("even", note);
source.onerror = () => {{
  if (source.readyState === EventSource.CLOSED)
    document.getElementById("seen").textContent = seen.join(" ");
}};
</script>"""

FEED = """<!doctype html><p id=state></p><p id=seen></p><script>
const source = new EventSource("/feed/");
source.onopen = () => {{ document.getElementById("state").textContent = "open"; }};
source.onmessage = (event) => {{ document.getElementById("seen").textContent += event.data; }};
</script>"""

HTMX2 = """<!doctype html><script src="/script/htmx.org/dist/htmx.min.js"></script>
<script src="/script/htmx-ext-sse/dist/sse.min.js"></script>
<p id=state></p>
<div hx-ext="sse" sse-connect="/feed/" sse-close="done">
  <div id=seen sse-swap="message"></div><div id=named sse-swap="news"></div>
</div>
<script>
document.body.addEventListener("htmx:sseOpen", () => {{
  document.getElementById("state").textContent = "open"; }});
document.body.addEventListener("htmx:sseClose", () => {{
  document.getElementById("state").textContent = "closed"; }});
</script>"""

HTMX4 = """<!doctype html><script src="/script/htmx4/dist/htmx.min.js"></script>
<script src="/script/htmx4/dist/ext/hx-sse.min.js"></script>
<p id=state></p><p id=named></p><p id=counted></p>
<div id=seen hx-sse:connect="/feed/" hx-sse:close="done"></div>
<div id=counting hx-sse:connect="/counting/htmx4/"></div>
<script>
const show = (name, text) => {{ document.getElementById(name).textContent = text; }};
const seen = document.getElementById("seen");
seen.addEventListener("htmx:sse:after:connection", () => show("state", "open"));
seen.addEventListener("htmx:sse:close", () => show("state", "closed"));
seen.addEventListener("news", (event) => show("named", event.detail.data));
document.getElementById("counting").addEventListener("even", (event) =>
  show("counted", event.detail.id));
</script>"""

PAGES = {{"counting": COUNTING, "feed": FEED, "htmx2": HTMX2, "htmx4": HTMX4}}

urlpatterns = [
    path("page/<slug:name>/", page),
    path("script/<path:name>", script),
    path("say/", say),
    path("seen/", lambda request: JsonResponse(SEEN)),
    path("counting/<slug:name>/", Counting.as_asgi()),
    path("feed/", Feed.as_asgi()),
]
'''


@of_module
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Project]:
    """
    The project whose server all tests have.
    """
    project = Project(tmp_path_factory.mktemp("streams"))
    try:
        await project.create()
        (project.folder / "site_" / "urls.py").write_text(URLS.format(scripts=SCRIPTS))
        yield project
    finally:
        await project.close()


@of_module
async def address(served: Project) -> str:
    """
    Where the project serves.
    """
    return await (await served.manage("serve", "--port", "0")).ready()


async def shows(page: Page, name: str, text: str) -> None:
    """
    Wait until an element of a page has a text.
    """
    await page.wait_for_function(
        "([name, text]) => document.getElementById(name).textContent === text",
        arg=[name, text],
        timeout=MILLISECONDS_MAX,
    )


async def test_event_source_comes_back(address: str, browser: Browser) -> None:
    """
    A page gets every event once over several connections, names and ids too, until 204 ends it.
    """
    page = await browser.new_page()
    await page.goto(f"http://{address}/page/counting/")
    expected = [
        f"{'message' if n % 2 else 'even'}{n}" + '{"n":' + str(n) + "}" for n in range(1, 7)
    ]
    await shows(page, "seen", " ".join(expected))
    response = await page.goto(f"http://{address}/seen/")
    assert response is not None
    assert (await response.json())["plain"] == [None, "2", "4", "6"]


async def test_event_source_survives_a_restart(
    address: str, browser: Browser, served: Project
) -> None:
    """
    When the server restarts, the page comes back by itself and misses nothing that is sent then.
    """
    page = await browser.new_page()
    await page.goto(f"http://{address}/page/feed/")
    await shows(page, "state", "open")
    other = await browser.new_page()
    await other.goto(f"http://{address}/say/?text=one")
    await shows(page, "seen", "one")
    await other.close()
    await page.evaluate("document.getElementById('state').textContent = 'left'")
    first = served.commands[-1]
    assert (await first.stop())[0] == 0
    again = await served.manage("serve", "--port", address.rpartition(":")[2])
    await again.ready()
    await shows(page, "state", "open")
    other = await browser.new_page()
    await other.goto(f"http://{address}/say/?text=two")
    await shows(page, "seen", "onetwo")


async def test_htmx(address: str, browser: Browser) -> None:
    """
    The sse extension of htmx 2 swaps messages and named events in, and closes when told.
    """
    assert (SCRIPTS / "htmx.org").is_dir(), "htmx is missing; scripts/test installs it"
    page = await browser.new_page()
    await page.goto(f"http://{address}/page/htmx2/")
    await shows(page, "state", "open")
    other = await browser.new_page()
    await other.goto(f"http://{address}/say/?text=<b>bold</b>")
    await shows(page, "seen", "bold")
    await other.goto(f"http://{address}/say/?text=<i>named</i>&event=news")
    await shows(page, "named", "named")
    await other.goto(f"http://{address}/say/?text=bye&event=done")
    await shows(page, "state", "closed")


async def test_htmx_4(address: str, browser: Browser) -> None:
    """
    Streams work in htmx 4, which reads them by fetch: messages, names, ids, coming back, closing.
    """
    page = await browser.new_page()
    await page.goto(f"http://{address}/page/htmx4/")
    await shows(page, "state", "open")
    await shows(page, "counted", "6")
    other = await browser.new_page()
    await other.goto(f"http://{address}/say/?text=<b>bold</b>")
    await shows(page, "seen", "bold")
    await other.goto(f"http://{address}/say/?text=named&event=news")
    await shows(page, "named", "named")
    await other.goto(f"http://{address}/say/?text=bye&event=done")
    await shows(page, "state", "closed")
    response = await other.goto(f"http://{address}/seen/")
    assert response is not None
    assert (await response.json())["htmx4"][:3] == [None, "2", "4"]
