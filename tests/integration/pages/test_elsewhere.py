"""
Pages where no Fairway server runs: under other ASGI servers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import Context
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import clear_url_caches, path
from pytest_django import Settings

from fairway.asgi import Pages
from fairway.testing import HttpCommunicator

# asgiref's own thread may have a connection open since an earlier test.
pytestmark = [pytest.mark.one_loop, pytest.mark.django_db(transaction=True)]

closed: list[str] = []
began = threading.Event()
go_on = threading.Event()


def plain(request: HttpRequest) -> HttpResponse:
    """
    Say where it runs.
    """
    return HttpResponse(threading.current_thread().name)


def slow_page(request: HttpRequest) -> HttpResponse:
    """
    Wait for the word.
    """
    began.set()
    go_on.wait(5)
    return HttpResponse("at last")


def iterator(request: HttpRequest) -> StreamingHttpResponse:
    """
    Three parts.
    """

    def parts() -> Iterator[str]:
        yield from ("a", "b", "c")
        closed.append("iterator")

    return StreamingHttpResponse(parts())


async def aiterator(request: HttpRequest) -> StreamingHttpResponse:
    """
    A part, and then none for long.
    """

    async def parts() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.sleep(10)
        finally:
            closed.append("aiterator")

    return StreamingHttpResponse(parts())


def crossed(request: HttpRequest) -> Any:
    """
    The same of a synchronous view.
    """
    return asyncio.run(aiterator(request))


class Urls:
    """
    A page of each kind.
    """

    urlpatterns = [  # noqa: RUF012 - as a module has it
        path("", plain),
        path("slow/", slow_page),
        path("iterator/", iterator),
        path("aiterator/", aiterator),
        path("crossed/", crossed),
    ]


@pytest.fixture
def pages(settings: Settings) -> Iterator[Pages]:
    """
    Pages that nobody has given threads.
    """
    settings.ROOT_URLCONF = Urls
    settings.MIDDLEWARE = []
    clear_url_caches()
    closed.clear()
    began.clear()
    go_on.clear()
    yield Pages()
    clear_url_caches()


class Elsewhere(HttpCommunicator):
    """
    Another server: unlike a communicator it does not keep what it serves in the test's thread.
    """

    def _context(self) -> Context:
        return Context()


def ask(pages: Pages, route: str) -> HttpCommunicator:
    """
    Make a request.
    """
    return Elsewhere(pages, "GET", route, headers=[(b"host", b"testserver")])


async def test_a_page(pages: Pages) -> None:
    """A view runs in a thread of asgiref's."""
    communicator = ask(pages, "/")
    response = await communicator.get_response()
    assert response["status"] == 200
    assert b"MainThread" not in response["body"]
    await communicator.wait()


async def test_pages_side_by_side(pages: Pages) -> None:
    """Under another server too a slow page keeps no other one waiting."""
    slow, quick = ask(pages, "/slow/"), ask(pages, "/")
    await slow.send_input({"type": "http.request", "body": b""})
    await asyncio.to_thread(began.wait, 5)
    try:
        assert (await quick.get_response())["status"] == 200
    finally:
        go_on.set()
    assert (await slow.receive_output())["status"] == 200
    await slow.wait()
    await quick.wait()


async def test_an_iterator(pages: Pages) -> None:
    """A stream arrives whole and is closed."""
    communicator = ask(pages, "/iterator/")
    assert (await communicator.get_response())["body"] == b"abc"
    await communicator.wait()
    assert closed == ["iterator"]


@pytest.mark.parametrize("route", ["/aiterator/", "/crossed/"])
async def test_a_client_that_leaves(pages: Pages, route: str) -> None:
    """An asynchronous iterator ends with its client."""
    communicator = ask(pages, route)
    await communicator.send_input({"type": "http.request", "body": b""})
    assert (await communicator.receive_output())["status"] == 200
    assert (await communicator.receive_output())["body"] == b"a"
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait()
    assert closed == ["aiterator"]


async def test_what_is_no_request(pages: Pages) -> None:
    """A WebSocket is refused by name."""
    with pytest.raises(ValueError, match="'websocket'"):
        await pages({"type": "websocket"}, None, None)  # type: ignore[arg-type] # not looked at
