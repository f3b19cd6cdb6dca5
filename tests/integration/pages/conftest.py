"""
Pages under Fairway's own server, on the loop of the test, with the threads that a server has.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from django.core import signals
from django.db.backends.signals import connection_created
from django.urls import clear_url_caches, path
from pytest_django import Settings

from fairway.asgi import Application, Pages
from fairway.thread_connections import ThreadConnections
from fairway.threads import Threads
from tests.protocol import harness
from tests.protocol.harness import Peer, Response, Served, until

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
"""
As ``startproject`` writes them.
"""


class Finished:
    """
    Notes each ``request_started`` and ``request_finished``, with sender and thread.
    """

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.finished: list[Any] = []
        self.threads: list[str] = []

    def on_start(self, sender: Any, **kwargs: Any) -> None:
        """
        Receive ``request_started``.
        """
        self.started.append((sender, kwargs.get("scope")))

    def on_finish(self, sender: Any, **kwargs: Any) -> None:
        """
        Receive ``request_finished``.
        """
        self.finished.append(sender)
        self.threads.append(threading.current_thread().name)

    async def count(self, expected: int) -> None:
        """
        Wait until so many requests have finished, and see that no more do.
        """
        await until(lambda: len(self.finished) >= expected)
        assert len(self.finished) == len(self.started) == expected


class Site:
    """
    A project that is served.
    """

    def __init__(
        self, application: Any, served: Served, threads: Threads, finished: Finished
    ) -> None:
        self.application = application
        self.served = served
        self.threads = threads
        self.finished = finished

    async def peer(self) -> Peer:
        """
        Open a connection.
        """
        return await self.served.connect()

    async def get(self, path: str = "/", *fields: str, method: str = "GET") -> Response:
        """
        Make one request on a connection of its own.
        """
        peer = await self.peer()
        response = await peer.get(path, *fields, method=method)
        peer.close()
        return response

    async def post(self, path: str, body: bytes, *fields: str) -> Response:
        """
        Send a body.
        """
        peer = await self.peer()
        await peer.send(harness.request(path, *fields, method="POST", body=body))
        response = await peer.response()
        peer.close()
        return response


def close_like_others(connection: Any, **kwargs: Any) -> None:
    """
    Have a page's connection closed as one to any database, though this one is in memory.
    """
    if "fairway-page" in threading.current_thread().name:
        connection.is_in_memory_db = lambda: False


Serve = Callable[..., Awaitable[Site]]


@pytest.fixture
async def serve(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """
    Serve views until the test ends, as in ``start({"": view}, PAGES="sync")``, and give the site.

    Upper-case arguments are settings, PAGES one of Fairway's; the others are the server's options.
    """
    sites: list[Site] = []
    settings.ALLOWED_HOSTS = ["a"]
    settings.MIDDLEWARE = []
    finished = Finished()
    connection_created.connect(close_like_others)
    signals.request_started.connect(finished.on_start)
    signals.request_finished.connect(finished.on_finish)

    async def start(
        views: dict[str, Any] | Sequence[Any],
        *,
        page_threads: int = 2,
        page_queue: int = 100,
        raw: bool = False,
        **values: Any,
    ) -> Site:
        routes = (
            [path(route, view) for route, view in views.items()]
            if isinstance(views, dict)
            else views
        )

        class Urls:
            urlpatterns = routes

        settings.ROOT_URLCONF = Urls
        settings.FAIRWAY = {"PAGES": values.pop("PAGES", "auto")}
        for name in [name for name in values if name.isupper()]:
            setattr(settings, name, values.pop(name))
        clear_url_caches()
        threads = Threads(
            ThreadConnections,
            consumers=1,
            pages=page_threads,
            close_timeout=0.3,
            page_queue=page_queue,
        )
        application = (Pages() if raw else Application(Pages())).build()

        async def begin() -> Served:
            threads.start()
            return await harness.serve(application, **values)

        # The mapping is for what the server starts, and not for the test.
        served = await asyncio.create_task(begin(), context=contextvars.copy_context())
        sites.append(Site(application, served, threads, finished))
        return sites[-1]

    yield start
    for site in sites:
        await site.served.close()
        late = site.served.worker.late
        await until(lambda late=late: not late)  # type: ignore[misc] # nothing to infer
        await site.threads.stop()
    connection_created.disconnect(close_like_others)
    signals.request_started.disconnect(finished.on_start)
    signals.request_finished.disconnect(finished.on_finish)
    clear_url_caches()
