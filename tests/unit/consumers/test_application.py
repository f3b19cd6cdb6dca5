"""
The two faces of as_asgi(): an ASGI application, and a Django view that asks for an upgrade.
"""

from __future__ import annotations

import functools
import inspect
import logging
from typing import Any

import pytest
from asgiref.compatibility import is_double_callable
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import URLResolver, include, path, re_path, reverse
from django.urls.resolvers import RegexPattern

from fairway.consumers import (
    AsyncConsumer,
    AsyncWebsocketConsumer,
    SyncConsumer,
    WebsocketConsumer,
)
from fairway.consumers.application import application_of, shortcut
from fairway.routing import single_callable
from tests.unit.consumers.ends import FakeServer


class Greeter(AsyncWebsocketConsumer):
    """
    Greets by a word that as_asgi() was given.
    """

    def __init__(self, word: str = "hello") -> None:
        super().__init__()
        self.word = word

    async def connect(self) -> None:
        """
        Accept and greet.
        """
        await self.accept()
        await self.send(self.word)


application = Greeter.as_asgi(word="welcome")
COMPLAINT = (
    "wants a WebSocket and got a plain GET: does a proxy drop the Upgrade header? [fairway.R202]"
)
urlpatterns: list[Any] = [
    path("ws/<slug:receive>/", application, name="greeter"),
    path("in/", include(([re_path(r"^(\d+)/$", application, name="number")], "inner"))),
]


def test_carries_what_channels_and_django_look_for() -> None:
    """
    The callable tells its class, is named like it, and needs neither token, login nor transaction.
    """
    view: Any = application
    assert view.consumer_class is Greeter
    assert view.consumer_initkwargs == {"word": "welcome"}
    assert (view.__name__, view.__doc__, view.__module__) == ("Greeter", Greeter.__doc__, __name__)
    assert view.csrf_exempt is True
    assert view.login_required is False
    assert "default" in view._non_atomic_requests
    assert "any other" in view._non_atomic_requests


def test_a_shortcut_leaves_no_wrapper_out() -> None:
    """
    Only the application itself is passed by, and not what was made to look like it.
    """

    @functools.wraps(application)
    async def wrapper(scope: Any, receive: Any, send: Any) -> None:
        await application(scope, receive, send)

    assert shortcut(application) is not application
    assert shortcut(wrapper) is wrapper
    assert shortcut(Greeter) is Greeter


def test_is_an_application_to_servers() -> None:
    """
    Servers that guess the protocol by the callable see ASGI 3.
    """
    for one in (application, AsyncConsumer.as_asgi(), SyncConsumer.as_asgi()):
        assert inspect.iscoroutinefunction(one)
        assert not is_double_callable(one)  # type: ignore[no-untyped-call] # asgiref's
        assert single_callable(one, "here") is one


async def test_makes_a_consumer_for_each_scope(layer: object) -> None:
    """
    Each scope gets an instance of its own, made with the same arguments.
    """
    first, second = FakeServer(), FakeServer()
    for server in (first, second):
        await server.start(application)
        assert server.texts == ["welcome"]
    await first.end()
    await second.end()


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "url"),
    [
        ("greeter", (), {"receive": "x"}, "/ws/x/"),
        ("inner:number", (7,), {}, "/in/7/"),
    ],
)
def test_is_reversed_and_resolved_like_a_view(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], url: str
) -> None:
    """
    Names, namespaces and converters of urls.py hold for consumers.
    """
    assert reverse(name, urlconf=__name__, args=args, kwargs=kwargs) == url
    match = URLResolver(RegexPattern(r"^/"), urlpatterns).resolve(url)
    assert match.func is application


async def ask(**meta: Any) -> HttpResponse:
    """
    Make a plain request, with the arguments a route may have.
    """
    request = RequestFactory().get("/ws/lobby/", **meta)
    response: HttpResponse = await application(request, "positional", receive="lobby", scope="any")
    return response


async def test_answers_a_plain_request_with_426() -> None:
    """
    The answer names the upgrade, and a proxy as the usual reason for its absence.
    """
    response = await ask()
    assert response.status_code == 426
    assert response["Upgrade"] == "websocket"
    assert response["Connection"] == "Upgrade"
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert "a proxy on the way is the usual cause" in response.content.decode()


async def test_logs_a_plain_request_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """
    The log has one line of ours, and Django is told that it needs none of its own.
    """
    with caplog.at_level(logging.DEBUG):
        response = await ask()
    assert [(one.name, one.levelname, one.getMessage()) for one in caplog.records] == [
        (
            "fairway.consumers",
            "WARNING",
            f"/ws/lobby/ {COMPLAINT}",
        )
    ]
    assert response._has_been_logged  # type: ignore[attr-defined] # Django's


async def test_spares_the_standard_librarys_server() -> None:
    """
    A server that dies of hop-by-hop headers gets none, and the answer all the same.
    """
    response = await ask(SERVER_SOFTWARE="WSGIServer/0.2")
    assert response.status_code == 426
    assert "Upgrade" not in response
    assert "Connection" not in response


async def test_accepts_the_constructors_of_channels_2(layer: object) -> None:
    """
    A constructor that takes the scope gets it, with a warning where as_asgi() was called.
    """

    class Old(AsyncWebsocketConsumer):
        def __init__(self, scope: Any) -> None:
            super().__init__(scope)
            self.path = scope["path"]

        async def connect(self) -> None:
            await self.accept()
            await self.send(self.path)

    with pytest.warns(DeprecationWarning, match=r"Old\.__init__\(\) takes the scope") as caught:
        old = Old.as_asgi()
    assert caught[0].filename == __file__
    server = FakeServer(path="/old/")
    await server.start(old)
    assert server.texts == ["/old/"]
    await server.end()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("base", [AsyncConsumer, AsyncWebsocketConsumer])
@pytest.mark.parametrize("named", [True, False])
async def test_the_scope_is_there_in_a_constructor(base: Any, named: bool, layer: object) -> None:
    """
    A constructor finds self.scope, as in Channels 2, whether or not it names the argument.
    """

    class Named(base):  # type: ignore[misc] # made for each base
        def __init__(self, scope: Any) -> None:
            super().__init__(scope)
            self.path = self.scope["path"]

        async def websocket_connect(self, message: Any) -> None:
            await self.base_send({"type": "websocket.accept"})
            await self.base_send({"type": "websocket.send", "text": self.path})

    class Passing(Named):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            base.__init__(self, *args, **kwargs)
            self.path = self.scope["path"]

    server = FakeServer(path="/old/")
    await server.start((Named if named else Passing).as_asgi())
    assert server.texts == ["/old/"]
    await server.end()


async def test_a_wrong_argument_is_the_callers_mistake() -> None:
    """
    What the constructor does not take, Python itself says.
    """
    wrong = application_of(Greeter, {"phrase": "hello"})
    server = FakeServer()
    await server.start(wrong)
    with pytest.raises(TypeError, match="phrase"):
        await server.end()


@pytest.mark.parametrize("consumer", [WebsocketConsumer, SyncConsumer])
async def test_every_consumer_is_a_view(consumer: Any) -> None:
    """
    Sync consumers answer a plain request too, and so does a class without a method of its own.
    """
    request: HttpRequest = RequestFactory().get("/")
    assert (await consumer.as_asgi()(request)).status_code == 426
