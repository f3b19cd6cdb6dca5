"""
A project with sockets of every kind under Fairway's server, and browsers that log in by its pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth import views
from django.contrib.auth.models import User
from django.contrib.sessions.backends.file import SessionStore
from django.core.cache import caches
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import clear_url_caches, path
from pytest_django import Settings
from websockets.asyncio.client import ClientConnection, connect

import fairway
from fairway import auth
from fairway.asgi import Application, Pages
from fairway.layers.layer import InMemoryChannelLayer
from fairway.layers.registry import bind, channel_layers, release
from fairway.revocation import rolls
from tests.protocol import harness

SECONDS_MAX = 5
"""
Time that anything awaited here may take; what is promised is a second.
"""


class Echo(fairway.AsyncWebsocketConsumer):
    """
    Answers what it is sent, and does with its login as it is told.
    """

    async def connect(self) -> None:
        """
        Join a group and accept.
        """
        await self.group_add("room")
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Follow a command, and say who is there afterwards.
        """
        session = self.scope["session"]
        if text_data == "logout":
            await auth.logout(self.scope)
        elif text_data and text_data.startswith("login "):
            await auth.login(self.scope, await User.objects.aget(username=text_data[6:]))
            await session.asave()
        elif text_data == "fresh":
            self.scope["user"] = await auth.get_user(self.scope)
        elif text_data and "=" in text_data:
            await session.aset(*text_data.split("="))
            await session.asave()
        await self.send(text_data=f"{self.scope['user']}: {text_data}")


class SyncEcho(fairway.WebsocketConsumer):
    """
    The same for one command, in a thread.
    """

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Follow a command, and say who is there afterwards.
        """
        if text_data == "logout":
            with transaction.atomic():
                async_to_sync(auth.logout)(self.scope)
        elif text_data and text_data.startswith("login "):
            user = User.objects.get(username=text_data[6:])
            async_to_sync(auth.login)(self.scope, user)
            self.scope["session"].save()
        self.send(text_data=f"{self.scope['user']}: {text_data}")


class Busy(fairway.AsyncWebsocketConsumer):
    """
    Is in a handler for as long as its socket lives.
    """

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Never end.
        """
        await self.send(text_data="busy")
        await asyncio.Event().wait()


class Stream(fairway.EventStreamConsumer):
    """
    An event stream that says nothing.
    """

    groups: Sequence[str] | None = ("room",)


class Poll(fairway.LongPollConsumer):
    """
    A poll without news.
    """

    groups: Sequence[str] | None = ("room",)


def change(request: HttpRequest) -> HttpResponse:
    """
    Set a key of the session.
    """
    request.session[request.GET["key"]] = request.GET["value"]
    return HttpResponse()


def cycle(request: HttpRequest) -> HttpResponse:
    """
    Give the session a new key.
    """
    request.session.cycle_key()
    return HttpResponse(request.session.session_key)


class Urls:
    """
    The project's addresses.
    """

    urlpatterns = [  # noqa: RUF012 - as a module has it
        path("logout/", views.LogoutView.as_view(next_page="/")),
        path("password/", views.PasswordChangeView.as_view(success_url="/")),
        path("change/", change),
        path("cycle/", cycle),
        path("ws/", Echo.as_asgi()),
        path("sync/", SyncEcho.as_asgi()),
        path("busy/", Busy.as_asgi()),
        path("stream/", Stream.as_asgi()),
        path("poll/", Poll.as_asgi()),
    ]


@pytest.fixture(autouse=True)
def project(settings: Settings) -> Iterator[None]:
    """
    Settings as ``startproject`` makes them.
    """
    settings.ROOT_URLCONF = Urls
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
    clear_url_caches()
    yield
    clear_url_caches()
    assert rolls._rolls == (), "a connection was left on the roll"


@pytest.fixture(autouse=True)
def session_files(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """
    A folder for sessions in files, which the engine would else remember from an earlier test.
    """
    settings.SESSION_FILE_PATH = str(tmp_path)
    monkeypatch.setattr(SessionStore, "_storage_path", str(tmp_path), raising=False)
    yield tmp_path
    caches["default"].clear()


@pytest.fixture
async def layer() -> AsyncIterator[InMemoryChannelLayer]:
    """
    The default channel layer, on the loop of the server.
    """
    layer = InMemoryChannelLayer()
    previous = channel_layers.set("default", layer)
    loop = asyncio.get_running_loop()
    await bind(loop)
    yield layer
    await release(loop)
    channel_layers.set("default", previous)


class Site:
    """
    The project, served, with the sockets that were opened to it.
    """

    def __init__(self, served: harness.Served) -> None:
        self.served = served
        self.sockets: list[ClientConnection] = []

    async def open(self, browser: Client | None = None, where: str = "ws/") -> ClientConnection:
        """
        Open a socket with a browser's cookies.
        """
        port = self.served.sock.getsockname()[1]
        headers = cookie_of(browser)
        socket = await connect(
            f"ws://127.0.0.1:{port}/{where}", additional_headers=headers, proxy=None
        )
        self.sockets.append(socket)
        return socket

    async def get(self, browser: Client, where: str) -> harness.Peer:
        """
        Send a request with a browser's cookies, and wait for nothing.
        """
        peer = await self.served.connect()
        fields = [f"{name}: {value}" for name, value in cookie_of(browser).items()]
        request = harness.request(f"/{where}", *fields)
        await peer.send(request.replace(b"host: a", b"host: testserver"))
        return peer


@pytest.fixture
async def site(layer: InMemoryChannelLayer) -> AsyncIterator[Site]:
    """
    The default application under Fairway's server.
    """
    site = Site(await harness.serve(Application(Pages())))
    yield site
    begun = rolls._rolls
    await asyncio.gather(*(socket.close() for socket in site.sockets))
    await site.served.close()
    # A question to the database that is under way would keep its tables from being emptied.
    await harness.until(lambda: not rolls._rolls and not any(roll._tasks for roll in begun))


def cookie_of(browser: Client | None) -> dict[str, str]:
    """
    Give the Cookie header of a browser.
    """
    cookie = browser.cookies.get("sessionid") if browser else None
    return {"cookie": f"sessionid={cookie.value}"} if cookie else {}


def make_user(name: str = "bob") -> Any:
    """
    Make a user with a password.
    """
    return User.objects.create_user(name, password="secret")


def log_in(user: Any) -> Client:
    """
    Give a browser in which a user is logged in.
    """
    browser = Client()
    browser.force_login(user)
    return browser


make_user_soon = sync_to_async(make_user)
log_in_soon = sync_to_async(log_in)


async def closed(socket: ClientConnection) -> int | None:
    """
    Wait until a socket is closed and give the code.
    """
    async with asyncio.timeout(SECONDS_MAX):
        await socket.wait_closed()
    return socket.close_code


async def ask(socket: ClientConnection, text: str = "hello") -> str:
    """
    Send a socket something and give the answer.
    """
    async with asyncio.timeout(SECONDS_MAX):
        await socket.send(text)
        return str(await socket.recv())
