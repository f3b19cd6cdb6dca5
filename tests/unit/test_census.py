"""
How many WebSocket routes a start says there are.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from django.http import HttpResponse
from django.urls import clear_url_caches, include, path
from pytest_django import Settings

from fairway.asgi import Application, Pages, describe_routes
from fairway.consumers.http import AsyncHttpConsumer
from fairway.consumers.websocket import AsyncWebsocketConsumer
from fairway.routing import ProtocolTypeRouter, URLRouter

SOCKET: Any = AsyncWebsocketConsumer.as_asgi()


class Middleware:
    """
    Middleware as projects write it.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, *arguments: Any) -> None:
        """
        Pass everything on.
        """
        await self.inner(*arguments)


AROUND: Any = Middleware


def test_routes_in_urls(settings: Settings) -> None:
    """
    Consumers of WebSockets count, wherever they are included; pages and HTTP consumers do not.
    """
    urls: Any = ModuleType("urls")
    urls.urlpatterns = [
        path("", lambda request: HttpResponse()),
        path("a/", SOCKET),
        path("in/", include([path("b/", SOCKET), path("c/", AsyncHttpConsumer.as_asgi())])),
    ]
    settings.ROOT_URLCONF = urls
    clear_url_caches()
    (line,) = describe_routes(Application(Pages()))
    assert line.startswith("2 WebSocket routes in ")
    assert line.endswith(", served by Fairway")


@pytest.mark.parametrize(
    ("sockets", "lines"),
    [
        (URLRouter([path("a/", SOCKET)]), ["1 WebSocket route, served by Fairway"]),
        (
            AROUND(URLRouter([path("a/", SOCKET), path("b/", AROUND(URLRouter([])))])),
            ["1 WebSocket route, served by Fairway"],
        ),
        (
            URLRouter([path("a/", URLRouter([path("b/", SOCKET), path("c/", SOCKET)]))]),
            ["2 WebSocket routes, served by Fairway"],
        ),
        (SOCKET, []),
    ],
    ids=["router", "middleware", "nested", "none"],
)
def test_routes_in_a_router(sockets: Any, lines: list[str]) -> None:
    """
    Routers are looked into, through middleware too; where there is none, nothing is said.
    """
    assert describe_routes(ProtocolTypeRouter({"websocket": sockets})) == lines
