"""
The attributes of ChannelsLiveServerTestCase, and the fixtures of the pytest plugin, in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from urllib.request import urlopen

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import path
from pytest_django import Settings

import fairway
from fairway.exceptions import ConfigurationError
from fairway.testing import ChannelsLiveServerTestCase, LiveServer, WebsocketCommunicator

SECONDS_MAX = 5


async def application(scope: Any, receive: Any, send: Any) -> None:
    """
    Answer with where it is mounted.
    """
    if scope["type"] == "http":
        text = f"under {scope['root_path']}"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": text.encode()})


class Greeter(fairway.AsyncWebsocketConsumer):
    """
    Says who is there.
    """

    async def connect(self) -> None:
        """
        Say it.
        """
        await self.accept()
        await self.send(str(self.scope["user"]))


class Urls:
    """
    A socket.
    """

    urlpatterns = [path("ws/", Greeter.as_asgi())]  # noqa: RUF012 - as a module has it


class TestAttributes(ChannelsLiveServerTestCase):
    """
    All of them, on one class.
    """

    host = "127.0.0.1"
    allowed_host = "browser.example"
    application = application
    server_options: ClassVar[dict[str, Any]] = {"root_path": "/root"}
    wrapped: ClassVar[list[Any]] = []

    def static_wrapper(application: Any) -> Any:  # noqa: N805 - a function that is an attribute
        """
        Note what is wrapped.
        """
        TestAttributes.wrapped.append(application)
        return application

    def test_attributes(self) -> None:
        """
        The application is wrapped once and served with the options, where its address says.
        """
        url = self.live_server_url
        assert url == TestAttributes.live_server_url
        assert self.live_server_ws_url == url.replace("http://127.0.0.1:", "ws://127.0.0.1:")
        with urlopen(f"{url}/a/", timeout=SECONDS_MAX) as response:
            assert response.read() == b"under /root"
        assert self.wrapped == [application]
        assert {"127.0.0.1", "browser.example"} <= set(django_settings.ALLOWED_HOSTS)


class TestNoFiles(ChannelsLiveServerTestCase):
    """
    Without files.
    """

    serve_static = False
    application = application
    static_wrapper = None

    def test_serves(self) -> None:
        """
        The application is served as it is.
        """
        with urlopen(self.live_server_url, timeout=SECONDS_MAX) as response:
            assert response.read() == b"under "


@pytest.mark.django_db(transaction=True)
def test_a_start_that_fails() -> None:
    """
    A class whose server cannot start fails with the reason, and changes no settings.
    """

    class Broken(ChannelsLiveServerTestCase):
        application = "nowhere:application"
        host = "127.0.0.4"

    with pytest.raises(ConfigurationError, match="there is no module 'nowhere'"):
        Broken.setUpClass()
    Broken.doClassCleanups()
    assert "127.0.0.4" not in django_settings.ALLOWED_HOSTS


@pytest.fixture
def project(settings: Settings) -> None:
    """
    A project with a socket.
    """
    settings.ROOT_URLCONF = Urls


@pytest.mark.django_db(transaction=True)
def test_fixtures(
    project: None,
    client: Client,
    live_fairway_server: LiveServer,
    ws_client: Callable[..., WebsocketCommunicator],
    captured_broadcasts: Any,
) -> None:
    """
    The fixtures give a server, sockets for the user of the client, and what is broadcast.
    """
    client.force_login(User.objects.create(username="ann"))

    async def greeting(**identity: Any) -> str:
        async with ws_client("/ws/", **identity) as ws:
            text: str = await ws.receive_from()
        return text

    assert async_to_sync(greeting)() == "ann"
    assert async_to_sync(greeting)(user="bob") == "bob"
    assert live_fairway_server.url.startswith("http://localhost:")
    with captured_broadcasts() as sent:
        fairway.broadcast("group", "text")
    assert [one.message for one in sent] == ["text"]
