"""
Which requests are taken for an asynchronous view's, before any middleware has run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpRequest, HttpResponse
from django.urls import clear_url_caches, include, path, re_path
from django.utils.translation import gettext_lazy
from pytest_django import Settings

from fairway import AsyncHttpConsumer, AsyncWebsocketConsumer
from fairway.pages.choice import AsyncViews, PageHandler


def view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """
    A synchronous view.
    """
    return HttpResponse()


async def aview(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """
    An asynchronous one.
    """
    return HttpResponse()


class Socket(AsyncWebsocketConsumer):
    """
    A consumer whose only page is a refusal.
    """


class Poll(AsyncHttpConsumer):
    """
    A consumer of requests.
    """


class Urls:
    """
    Routes of many kinds.
    """

    urlpatterns: list[Any] = [  # noqa: RUF012 - as a module has it
        path("a/", aview),
        path("s/", view),
        path("first/<str:name>/", view),
        path("first/<slug:name>/", aview),
        path("in/", include([path("<int:n>/", aview), path("s/", view)])),
        path("none/", include([path("s/", view)])),
        re_path(r"^re/(?P<n>\d+)/$", aview),
        path("socket/", Socket.as_asgi()),
        path("poll/", Poll.as_asgi()),
        path(gettext_lazy("translated/"), aview),
    ]


class Localized:
    """
    The same behind languages.
    """

    urlpatterns = [*i18n_patterns(*Urls.urlpatterns), path("api/", aview)]  # noqa: RUF012 - as above


@pytest.fixture(autouse=True)
def urls(settings: Settings) -> Iterator[None]:
    """
    The routes above.
    """
    settings.ROOT_URLCONF = Urls
    clear_url_caches()
    yield
    clear_url_caches()


async def lead(route: str, root_path: str = "") -> bool:
    """
    Ask about a path.
    """
    return await AsyncViews().lead({"type": "http", "path": route, "root_path": root_path})


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("/a/", True),
        ("/s/", False),
        ("/first/x/", False),
        ("/in/1/", True),
        ("/in/s/", False),
        ("/none/s/", False),
        ("/re/7/", True),
        ("/re/x/", False),
        ("/socket/", False),
        ("/poll/", True),
        ("/translated/", False),
        ("/nowhere/", False),
        ("/", False),
        ("", False),
    ],
)
async def test_paths(route: str, expected: bool) -> None:
    """The first view that fits decides; what is not there, or depends on a language, is sync."""
    assert await lead(route) is expected
    assert await lead(f"/app{route}", "/app") is expected


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("/en/a/", True),
        ("/de/a/", True),
        ("/pt-br/in/1/", True),
        ("/de/s/", False),
        ("/xx/a/", False),
        ("/api/", True),
    ],
)
async def test_paths_with_a_language(settings: Settings, route: str, expected: bool) -> None:
    """The language in a path is taken off, whichever is active."""
    settings.ROOT_URLCONF = Localized
    clear_url_caches()
    assert await lead(route) is expected


async def test_no_asynchronous_view(settings: Settings) -> None:
    """A project without any has nothing to ask, and one whose URLs are broken neither."""

    class Plain:
        urlpatterns = [path("s/", view), path("socket/", Socket.as_asgi())]  # noqa: RUF012 - as above

    assert AsyncViews().exist()
    for urlconf in (Plain, "no.such.module"):
        settings.ROOT_URLCONF = urlconf
        clear_url_caches()
        assert not AsyncViews().exist()
        assert not await lead("/s/")


def test_broken_middleware_is_reported_by_django(settings: Settings) -> None:
    """A name that cannot be imported is an ImportError, as under Django."""
    settings.MIDDLEWARE = ["no.such.Middleware"]
    with pytest.raises(ImportError, match=r"no"):
        PageHandler()
