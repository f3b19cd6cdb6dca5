"""
Applications of every age come to be called in one way.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import path

from fairway import AsyncWebsocketConsumer
from fairway.auth import AuthMiddleware
from fairway.callables import single_callable
from fairway.middleware import BaseMiddleware
from fairway.routing import URLRouter
from fairway.security.websocket import OriginValidator
from fairway.sessions import CookieMiddleware, SessionMiddleware
from fairway.types import Message, Receive, Scope, Send


async def receive() -> Message:
    """
    Give nothing of interest.
    """
    return {}


async def send(message: Message) -> None:
    """
    Take everything.
    """


class Present:
    """
    An application of today, which notes its scopes.
    """

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Note the scope.
        """
        self.scopes.append(scope)


class Old:
    """
    Middleware of ASGI 2: called with the scope, gives what its inner application gives.
    """

    def __init__(self, inner: Any, name: str = "old") -> None:
        self.inner = inner
        self.name = name

    def __call__(self, scope: Scope) -> Any:
        """
        Add a name to the scope.
        """
        return self.inner({**scope, self.name: True})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_middleware_around_present_applications() -> None:
    """Middleware of ASGI 2 works around each other, around present ones, and inside those."""
    present = Present()
    application = single_callable(Old(Old(BaseMiddleware(Old(present, "c")), "b"), "a"), "here")
    await application({"type": "websocket"}, receive, send)
    (scope,) = present.scopes
    assert scope == {"type": "websocket", "a": True, "b": True, "c": True}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_middleware_around_a_router() -> None:
    """A router behind middleware of ASGI 2 is found there, so that its route is a prefix."""
    present = Present()
    inner = URLRouter([path("room/<slug:name>/", present)])  # type: ignore[arg-type] # no view
    outer = URLRouter([path("app/<int:number>/", Old(inner))])
    await outer({"type": "websocket", "path": "/app/7/room/lobby/"}, receive, send)
    (scope,) = present.scopes
    assert scope["url_route"]["kwargs"] == {"number": 7, "name": "lobby"}
    assert scope["old"]


@pytest.mark.parametrize(
    "middleware",
    [
        BaseMiddleware,
        CookieMiddleware,
        SessionMiddleware,
        AuthMiddleware,
        lambda inner: OriginValidator(inner, ["*"]),
    ],
)
def test_middleware_takes_classes_and_names_them(middleware: Any) -> None:
    """All middleware of ours takes a class without .as_asgi() and an application of ASGI 2."""

    class Consumer(AsyncWebsocketConsumer):
        """
        Some consumer.
        """

    with pytest.warns(DeprecationWarning, match=r"write Consumer\.as_asgi\(\)"):
        middleware(Consumer)
    with pytest.warns(DeprecationWarning, match="Old is an ASGI 2 application"):
        middleware(Old(Present()))
    middleware(Present())


async def test_scopes_may_be_changed_as_in_channels_2() -> None:
    """populate_scope() and the coroutine resolve_scope() of middleware change the copy alone."""

    class Changing(BaseMiddleware):
        """
        Middleware of Channels 2.
        """

        def populate_scope(self, scope: Scope) -> None:
            """
            Begin.
            """
            scope["seen"] = ["populated"]

        async def resolve_scope(self, scope: Scope) -> None:
            """
            Finish.
            """
            scope["seen"].append("resolved")

    present = Present()
    scope: Scope = {"type": "websocket"}
    await Changing(present)(scope, receive, send)
    assert present.scopes == [{"type": "websocket", "seen": ["populated", "resolved"]}]
    assert scope == {"type": "websocket"}
