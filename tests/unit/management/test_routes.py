"""
`manage.py fairway routes`: what it finds, and how it shows it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.core.asgi import get_asgi_application
from django.core.management import CommandError, call_command
from django.http import HttpRequest, HttpResponse
from django.urls import clear_url_caches, include, path, re_path
from pytest_django import Settings

from fairway import (
    AsyncConsumer,
    AsyncHttpConsumer,
    AsyncWebsocketConsumer,
    EventStreamConsumer,
)
from fairway.asgi import application
from fairway.auth import AuthMiddlewareStack
from fairway.cli import main
from fairway.management import subcommands
from fairway.management.subcommands import routes
from fairway.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from fairway.security import AllowedHostsOriginValidator

HERE = __name__

# A class without .as_asgi() is shown as well.
pytestmark = pytest.mark.filterwarnings("ignore:.*write Chat.as_asgi:DeprecationWarning")


class Chat(AsyncWebsocketConsumer):
    """
    A socket for users.
    """

    login_required = True


class News(EventStreamConsumer):
    """
    A stream of events.
    """


class Both(AsyncWebsocketConsumer, AsyncHttpConsumer):  # type: ignore[misc] # what is not done
    """
    Both at one path.
    """


class Task(AsyncConsumer):
    """
    Work for a worker.
    """


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """
    An application that is no consumer.
    """


def page(request: HttpRequest) -> HttpResponse:
    """
    A page, which is not shown.
    """
    raise AssertionError


chat: Any = Chat.as_asgi()
both: Any = Both.as_asgi()
news: Any = News.as_asgi()


class Inner:
    """
    What is included.
    """

    app_name = "chat"
    urlpatterns = [  # noqa: RUF012 - as a module has it
        path("<slug:room>/", chat, name="room"),
        path("", page),
    ]


class Urls:
    """
    A project's URL configuration.
    """

    urlpatterns = [  # noqa: RUF012 - as a module has it
        path("", page, name="index"),
        path("ws/", include((Inner.urlpatterns, "chat"), namespace="main")),
        re_path(r"^news/(?P<year>[0-9]{4})/$", news, name="news"),
        *i18n_patterns(path("both/", both), prefix_default_language=False),
        path("bare/", Chat),  # type: ignore[arg-type] # on purpose
    ]


class Other:
    """
    That of another host.
    """

    urlpatterns = [path("other/", chat)]  # noqa: RUF012 - as a module has it


router = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(
                URLRouter(
                    [
                        path("ws/", AuthMiddlewareStack(URLRouter([path("<room>/", chat)]))),
                        re_path(r"^plain/$", plain, name="plain"),  # type: ignore[arg-type] # an application
                    ]
                )
            )
        ),
        "channel": ChannelNameRouter({"thumbnails": Task.as_asgi()}),
    }
)


class Wrapped:
    """
    Middleware as it is written elsewhere.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """
        Not called.
        """
        raise AssertionError


wrapped = Wrapped(chat)


@pytest.fixture(autouse=True)
def project(settings: Settings) -> Iterator[None]:
    """
    A project with all of that.
    """
    settings.ROOT_URLCONF = Urls
    settings.MIDDLEWARE = []
    yield
    clear_url_caches()


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """
    Run the command and give its lines.
    """
    call_command("fairway", "routes", *arguments)
    return capsys.readouterr().out.splitlines()


def test_the_routes_of_urls(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Consumers alone, each with its whole path, its name with namespaces, and where it is written.
    """
    heading, *lines = shown(capsys)
    assert heading.split() == ["PATH", "KIND", "CONSUMER", "NAME", "LOGIN", "WHERE"]
    # Columns are aligned.
    column = heading.index("CONSUMER")
    assert {line[column:].split(".")[0] for line in lines} == {"tests"}
    where = f"{HERE}.Urls"
    assert [line.split() for line in lines] == [
        ["/ws/<slug:room>/", "websocket", f"{HERE}.Chat", "main:room", "yes", where],
        ["/news/(?P<year>[0-9]{4})/", "http", f"{HERE}.News", "news", "-", where],
        ["/[<language>/]both/", "http,", "websocket", f"{HERE}.Both", "-", "-", where],
        ["/bare/", "websocket", f"{HERE}.Chat", "-", "yes", where],
    ]


def test_the_routes_of_an_application(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """
    Routers and middleware are looked through, workers' channels too.
    """
    settings.ASGI_APPLICATION = f"{HERE}.router"
    _, *lines = shown(capsys)
    where = f"{HERE}.router"
    assert [line.split() for line in lines] == [
        ["/ws/<room>/", "websocket", f"{HERE}.Chat", "-", "yes", where],
        ["/plain/", "websocket", f"{HERE}.plain", "plain", "-", where],
        ["thumbnails", "channel", f"{HERE}.Task", "-", "-", where],
    ]
    # So is middleware of others.
    _, line = shown(capsys, f"{HERE}:wrapped")
    assert line.split()[:3] == ["*", "websocket", f"{HERE}.Chat"]
    # The one named on the command line wins.
    _, line = shown(capsys, f"{HERE}:chat")
    assert line.split() == ["*", "websocket", f"{HERE}.Chat", "-", "yes", f"{HERE}:chat"]


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """
    For programs.
    """
    first, *_ = json.loads("\n".join(shown(capsys, "--json")))
    assert first == {
        "path": "/ws/<slug:room>/",
        "kind": "websocket",
        "consumer": f"{HERE}.Chat",
        "name": "main:room",
        "login_required": True,
        "where": f"{HERE}.Urls",
    }


def test_what_cannot_be_seen_is_said(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """
    A function that chooses routes, and an application of one's own, hide routes.
    """
    settings.FAIRWAY = {"URLCONF": lambda scope: Other}
    assert shown(capsys)[-1].startswith("! FAIRWAY['URLCONF'] chooses a URL configuration")
    settings.FAIRWAY = {}
    assert shown(capsys, f"{HERE}:plain") == [
        "No route leads to a consumer.",
        f"! {HERE}.plain is no router of Fairway's, and is not looked into.",
    ]


def test_another_urlconf(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    """
    That in FAIRWAY["URLCONF"] is shown, and any that is asked for.
    """
    name = "tests.integration.routing.hosted_urls"
    settings.FAIRWAY = {"URLCONF": name}
    for arguments in ((), ("--urlconf", name)):
        _, line = shown(capsys, *arguments)
        assert line.split()[0] == "/hosted/<room>/"
        assert line.split()[-1] == name


def test_outside_of_a_project(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    `fairway routes` needs settings or an application, and says so.
    """
    monkeypatch.setattr(subcommands, "configure_logging", lambda: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    assert main(["routes", f"{HERE}:chat"]) == 0
    assert f"{HERE}.Chat" in capsys.readouterr().out
    monkeypatch.setattr(routes, "settings", SimpleNamespace(configured=False))
    assert main(["routes"]) == 2
    assert "fairway routes module:app" in capsys.readouterr().err


def test_what_cannot_be_loaded_is_said(settings: Settings) -> None:
    """
    In one line, with status 2.
    """
    settings.ASGI_APPLICATION = "no.such.application"
    with pytest.raises(CommandError, match="there is no module 'no'") as caught:
        call_command("fairway", "routes")
    assert caught.value.returncode == 2


def test_broken_urls_are_said(settings: Settings) -> None:
    """
    As ``serve`` says it: in one line, with status 2; ``--traceback`` shows the rest.
    """
    settings.ROOT_URLCONF = "no_such_urls"
    with pytest.raises(CommandError) as caught:
        call_command("fairway", "routes")
    assert str(caught.value) == (
        "the project cannot be loaded: ModuleNotFoundError: No module named 'no_such_urls' "
        "[fairway.R110]"
    )
    assert caught.value.returncode == 2


def test_the_project_behind_a_router_is_shown_once(
    capsys: pytest.CaptureFixture[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    As a project has it that adds nothing but channels; what the router leads nowhere is left out.
    """
    settings.ROOT_URLCONF = Other
    settings.ASGI_APPLICATION = f"{HERE}.added"
    added = ProtocolTypeRouter({"http": application, "websocket": application})
    monkeypatch.setattr(sys.modules[HERE], "added", added, raising=False)
    call_command("fairway", "routes")
    assert capsys.readouterr().out.count(f"{HERE}.Chat") == 1
    del added.application_mapping["websocket"]
    call_command("fairway", "routes")
    assert f"{HERE}.Chat" not in capsys.readouterr().out
