"""
Whether consumers that say nothing of it want a login.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.middleware import LoginRequiredMiddleware
from pytest_django import Settings

from fairway import AsyncHttpConsumer, AsyncWebsocketConsumer, WebsocketConsumer, threads
from fairway.consumers.login import DJANGOS
from fairway.testing import WebsocketCommunicator


class Stricter(LoginRequiredMiddleware):
    """
    A project's own, made from Django's.
    """


def not_a_class(get_response: Any) -> Any:
    """
    Stand in for middleware that is a function.
    """


class Open(AsyncWebsocketConsumer):
    """
    Lets everybody in.
    """

    login_required = False


class Members(AsyncWebsocketConsumer):
    """
    Lets members in.
    """

    login_required = True


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ([], False),
        (["django.contrib.auth.middleware.AuthenticationMiddleware"], False),
        ([DJANGOS], True),
        ((DJANGOS,), True),
        ([f"{__name__}.Stricter"], True),
        ([f"{__name__}.not_a_class", "no.such.middleware"], False),
    ],
)
def test_the_default_is_what_holds_for_views(
    settings: Settings, middleware: Any, expected: bool
) -> None:
    """
    A class that says nothing follows MIDDLEWARE, as it is now; one that says something does not.
    """
    settings.MIDDLEWARE = middleware
    for each in (AsyncWebsocketConsumer, WebsocketConsumer, AsyncHttpConsumer):
        assert each.login_required is expected
        assert each().login_required is expected
        subclass: Any = type("Sub", (each,), {})
        assert subclass.login_required is expected
    assert (Open.login_required, Open().login_required) == (False, False)
    assert (Members.login_required, Members().login_required) == (True, True)
    settings.MIDDLEWARE = []
    assert AsyncWebsocketConsumer.login_required is False


async def test_a_connection_that_is_refused_gives_its_thread_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Looking at the user may have taken it to a thread, with a transaction left open there.
    """
    lane: Any = object()
    left: list[Any] = []
    monkeypatch.setattr(threads, "enter", lambda: lane)
    monkeypatch.setattr(threads, "leave", left.append)
    scope = {"type": "websocket", "path": "/", "user": SimpleNamespace(is_authenticated=False)}
    communicator = WebsocketCommunicator(Members.as_asgi(), "/")
    communicator.scope.update(scope)
    assert (await communicator.connect())[0] is False
    assert left == [lane]
