"""
More pages than threads: who waits, who is refused, and that sockets notice nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from time import monotonic
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path

from fairway import AsyncWebsocketConsumer, WebsocketConsumer, metrics
from fairway.pages import busy
from tests.integration.pages.conftest import Serve, Site
from tests.protocol import harness
from tests.protocol.harness import Peer, until


class Slow:
    """
    A view that answers when it is told, and counts who is in it.
    """

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.running = 0

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """
        Wait for the word.
        """
        self.running += 1
        self.go_on.wait(10)
        return HttpResponse("at last")


class Echo(AsyncWebsocketConsumer):
    """
    Sends back what comes.
    """

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send it back.
        """
        await self.send(text_data=text_data)


class SyncEcho(WebsocketConsumer):
    """
    Sends back what comes, from a thread.
    """

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send it back.
        """
        self.send(text_data=text_data)


@pytest.fixture(autouse=True)
def fresh_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let each test be the first to refuse anything.
    """
    monkeypatch.setattr(busy.notices, "_kinds", {})


async def fill(site: Site, slow: Slow, threads: int, queue: int) -> list[Peer]:
    """
    Have all threads run the slow view, and as many pages wait.
    """
    peers = []
    for count in range(threads + queue):
        peers.append(await site.peer())
        await peers[-1].send(harness.request("/slow/"))
        await until(lambda count=count: slow.running == min(count + 1, threads))  # type: ignore[misc] # nothing to infer
    await until(lambda: len(site.threads.pages._queue) == queue)
    return peers


async def test_a_full_queue_refuses(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """With PAGE_QUEUE pages waiting the next gets 503 at once, counted and told in one line."""
    slow = Slow()

    async def quick(request: HttpRequest) -> HttpResponse:
        return HttpResponse("quick")

    views: dict[str, Any] = {"slow/": slow, "quick/": quick}
    site = await serve(views, page_threads=2, page_queue=3)
    peers = await fill(site, slow, 2, 3)
    before = metrics.refusals.values.get("page_queue", 0)
    for route in ("/slow/", "/quick/"):
        answer = await site.get(route)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert metrics.refusals.values["page_queue"] == before + 2
    lines = [each for each in caplog.records if each.name == "fairway.pages"]
    assert len(lines) == 1
    assert lines[0].levelno == logging.WARNING
    assert lines[0].getMessage().endswith("[fairway.R601]")
    slow.go_on.set()
    assert [(await peer.response()).status for peer in peers] == [200] * 5
    assert (await site.get("/quick/")).status == 200


async def test_a_refusal_does_not_wait_for_a_body(serve: Serve) -> None:
    """An upload is refused before it is read, and one that was read while others came is too."""
    slow = Slow()
    site = await serve({"slow/": slow}, page_threads=1, page_queue=1)
    early = await site.peer()
    await early.send(b"POST /slow/ HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf ")
    connections = site.served.worker.connections
    await until(lambda: any(each.exchange for each in connections))
    peers = await fill(site, slow, 1, 1)
    late = await site.peer()
    await late.send(b"POST /slow/ HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
    assert (await late.response()).status == 503
    await early.send(b"whole")
    assert (await early.response()).status == 503
    slow.go_on.set()
    assert [(await peer.response()).status for peer in peers] == [200, 200]


async def test_slow_pages_delay_no_socket(serve: Serve) -> None:
    """With all threads of pages taken, consumers of both kinds answer, and new ones connect."""
    slow = Slow()
    routes = [
        path("slow/", slow),
        path("echo/", Echo.as_asgi()),
        path("sync/", SyncEcho.as_asgi()),
    ]
    site = await serve(routes, page_threads=2)
    sockets = [await site.served.websocket(f"/{name}/") for name in ("echo", "sync")]
    for each in sockets:
        assert (await each.response()).status == 101
    peers = await fill(site, slow, 2, 4)
    sockets += [await site.served.websocket(f"/{name}/") for name in ("echo", "sync")]
    for each in sockets[2:]:
        assert (await each.response()).status == 101
    began = monotonic()
    for _ in range(50):
        for each in sockets:
            await each.text("hello")
            assert (await each.frame()).payload == b"hello"
    assert monotonic() - began < 2
    slow.go_on.set()
    assert [(await peer.response()).status for peer in peers] == [200] * 6


async def test_pages_wait_in_order(serve: Serve) -> None:
    """Who came first has the next thread."""
    order: list[str] = []
    go_on = threading.Event()

    def view(request: HttpRequest) -> HttpResponse:
        order.append(request.GET["n"])
        go_on.wait(10)
        return HttpResponse("ok")

    site = await serve({"": view}, page_threads=1)
    peers = []
    for number in range(5):
        peers.append(await site.peer())
        await peers[-1].send(harness.request(f"/?n={number}"))
        await until(lambda number=number: order and len(site.threads.pages._queue) == number)  # type: ignore[misc] # nothing to infer
    go_on.set()
    await asyncio.gather(*(peer.response() for peer in peers))
    assert order == ["0", "1", "2", "3", "4"]
