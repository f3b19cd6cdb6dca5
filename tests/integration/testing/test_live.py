"""
The live server: the real one, in a thread of the test, with the test's data.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import websockets
from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings
from websockets.sync.client import connect

import fairway
from fairway.exceptions import ConfigurationError
from fairway.testing import LiveServer, live, pytest_fixtures

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS_MAX = 5


def page(request: HttpRequest) -> HttpResponse:
    """
    Say who asks and what groups there are, and add one.
    """
    with transaction.atomic():
        names = sorted(Group.objects.values_list("name", flat=True))
        Group.objects.create(name=f"page {len(names)}")
    return HttpResponse(f"{request.user} {names} {threading.current_thread().name}")


async def async_page(request: HttpRequest) -> HttpResponse:
    """
    Count the groups on the loop.
    """
    return HttpResponse(str(await Group.objects.acount()))


class Chat(fairway.AsyncJsonWebsocketConsumer):
    """
    Says who is there, keeps what it hears and passes it on.
    """

    groups: Sequence[str] | None = ("chat",)

    async def connect(self) -> None:
        """
        Say who and how many.
        """
        await self.accept()
        await self.send_json([str(self.scope["user"]), await Group.objects.acount()])

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Keep it, and tell everybody.
        """
        await Group.objects.acreate(name=content)
        await fairway.abroadcast("chat", content)


class SyncChat(fairway.JsonWebsocketConsumer):
    """
    The same in threads, with a transaction that spans handlers' own ones.
    """

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Keep it, and answer with all there is.
        """
        with transaction.atomic():
            Group.objects.create(name=content)
        self.send_json(sorted(Group.objects.values_list("name", flat=True)))

    def disconnect(self, code: int) -> None:
        """
        Keep the code.
        """
        Group.objects.create(name=f"left with {code}")


class Urls:
    """
    A project with pages and sockets.
    """

    urlpatterns = [  # noqa: RUF012 - as a module has it
        path("page/", page),
        path("async/", async_page),
        path("chat/", Chat.as_asgi()),
        path("sync/", SyncChat.as_asgi()),
    ]


@pytest.fixture(autouse=True)
def project(settings: Settings, tmp_path: Path) -> None:
    """
    A project with sessions, users and files of both kinds.
    """
    settings.ROOT_URLCONF = Urls
    settings.INSTALLED_APPS = [*django_settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    for kind in ("static", "media"):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "file.txt").write_text(kind)
    settings.STATIC_URL, settings.STATICFILES_DIRS = "static/", [tmp_path / "static"]
    settings.MEDIA_URL, settings.MEDIA_ROOT = "media/", tmp_path / "media"


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """
    No thread of a server outlives the test, and its connection is the test's own again.
    """
    yield
    names = {thread.name for thread in threading.enumerate()}
    assert not {name for name in names if name.startswith("fairway") and name != "fairway-io"}
    assert not connection.allow_thread_sharing


def get(url: str) -> str:
    """
    Read a page.
    """
    with urlopen(url, timeout=SECONDS_MAX) as response:
        text: str = response.read().decode()
    return text


def cookie_of(client: Client) -> dict[str, str]:
    """
    The header by which a browser says who it is.
    """
    return {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}


class TestServes:
    """
    What a browser would find there.
    """

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_the_data_is_the_tests(self, loop: str, client: Client) -> None:
        """
        Pages and sockets see what the test wrote, in a database in memory, and the reverse.
        """
        assert connection.settings_dict["NAME"].startswith("file:memorydb")
        client.force_login(User.objects.create(username="ann"))
        Group.objects.create(name="test")
        with LiveServer(loop=loop) as server:
            assert get(server.url + "/page/").startswith("AnonymousUser ['test'] fairway-consumer")
            assert get(server.url + "/async/") == "2"
            headers = cookie_of(client)
            with connect(f"{server.ws_url}/chat/", additional_headers=headers) as ws:
                assert json.loads(ws.recv(SECONDS_MAX)) == ["ann", 2]
                ws.send('"hello"')
                assert ws.recv(SECONDS_MAX) == "hello"
                assert Group.objects.filter(name="hello").exists()
                fairway.broadcast("chat", "from the test")
                assert ws.recv(SECONDS_MAX) == "from the test"
            with connect(f"{server.ws_url}/sync/") as ws:
                ws.send('"sync"')
                assert json.loads(ws.recv(SECONDS_MAX)) == ["hello", "page 1", "sync", "test"]
        assert Group.objects.filter(name="left with 1000").exists()

    def test_transactions_of_the_test_are_its_own(self) -> None:
        """
        What the test has open while the server works is neither closed nor rolled back by it.
        """
        with LiveServer() as server, transaction.atomic():
            Group.objects.create(name="open")
            with connect(f"{server.ws_url}/chat/") as ws:
                assert json.loads(ws.recv(SECONDS_MAX))[1] == 1
            assert get(server.url + "/async/") == "1"
        assert Group.objects.get().name == "open"

    def test_files(self) -> None:
        """
        Static and media files are served although DEBUG is off, unless they are not wanted.
        """
        with LiveServer() as server:
            assert get(server + "/static/file.txt") == "static"
            assert get(server + "/media/file.txt") == "media"
            with pytest.raises(HTTPError) as missing:
                get(f"{server}/media/none.txt")
            missing.value.close()
        with LiveServer(static=False) as server:
            for url in ("/static/file.txt", "/media/file.txt"):
                with pytest.raises(HTTPError) as found:
                    get(server.url + url)
                assert found.value.code == HTTPStatus.NOT_FOUND
                found.value.close()

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_other_applications(self, wrapped: bool) -> None:
        """
        An application, a consumer class or a name may be served, and files by something else.
        """
        seen = []

        def wrapper(application: Any) -> Any:
            seen.append(application)
            return application

        static = wrapper if wrapped else False
        for application in (Chat.as_asgi(), Chat, "fairway.asgi:application"):
            with LiveServer(application, static=static) as server:
                url = f"{server.ws_url}/{'chat/' if isinstance(application, str) else ''}"
                with LiveServer(static=False) as other:
                    assert other.port != server.port
                if isinstance(application, str):
                    with connect(url) as ws:
                        assert json.loads(ws.recv(SECONDS_MAX)) == ["AnonymousUser", 0]
        assert len(seen) == (3 if wrapped else 0)

    def test_hosts(self) -> None:
        """
        Its host is allowed while it runs, and the origin that a page of it has.
        """
        before = list(django_settings.ALLOWED_HOSTS)
        with LiveServer(host="127.0.0.2") as server:
            assert server.url.startswith("http://127.0.0.2:")
            assert "127.0.0.2" in django_settings.ALLOWED_HOSTS
            with connect(f"{server.ws_url}/chat/", origin=websockets.Origin(server.url)) as ws:
                ws.recv(SECONDS_MAX)
        assert before == django_settings.ALLOWED_HOSTS


class TestLife:
    """
    From start to stop.
    """

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    async def test_the_end_closes_sockets(self, loop: str) -> None:
        """
        A socket that is open at the end is told 1012, and its consumer ends before the server.
        """
        async with LiveServer(loop=loop) as server:
            ws = await websockets.connect(f"{server.ws_url}/sync/")
            port = server.port
        await ws.wait_closed()
        assert ws.close_code == 1012
        exists = await sync_to_async(Group.objects.filter(name="left with 1012").exists)()
        assert exists
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), SECONDS_MAX)

    def test_who_does_not_read_is_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A client that does not answer holds nothing up for long.
        """
        monkeypatch.setattr(live, "DRAIN_SECONDS", 0.1)
        with LiveServer() as server:
            silent = socket.create_connection(("127.0.0.1", server.port), SECONDS_MAX)
            silent.sendall(
                b"GET /chat/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert silent.recv(12) == b"HTTP/1.1 101"
        silent.close()

    def test_starts_again(self) -> None:
        """
        The same object may be used once more, but not twice at a time; stopping twice is no fault.
        """
        server = LiveServer()
        for _ in range(2):
            with server:
                assert get(f"{server}/async/") == "0"
                with pytest.raises(RuntimeError, match="runs already, at http://localhost:"):
                    server.start()
            server.stop()
            assert server.port == 0

    def test_the_process_stays_the_tests(self) -> None:
        """
        Neither the garbage collector nor logging is set up anew.
        """
        before = gc.get_threshold(), gc.get_freeze_count()
        with LiveServer():
            assert (gc.get_threshold(), gc.get_freeze_count()) == before

    def test_without_django(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        An application of ASGI needs no project.
        """

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"plain"})

        monkeypatch.setattr(apps, "ready", False)
        with LiveServer(application, lifespan="off") as server:
            assert get(server.url) == "plain"


class TestFailures:
    """
    What goes wrong reaches the test.
    """

    def test_a_start_that_fails(self) -> None:
        """
        The test gets the exception itself, and nothing is left changed.
        """
        before = list(django_settings.ALLOWED_HOSTS)
        with pytest.raises(ConfigurationError, match="there is no module 'nowhere'"):
            LiveServer("nowhere:application", host="127.0.0.3").start()
        assert before == django_settings.ALLOWED_HOSTS
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            pytest.raises(ConfigurationError, match="is in use"),
        ):
            LiveServer(port=taken.getsockname()[1]).start()
        with pytest.raises(ConfigurationError, match="threads"):
            LiveServer(threads=0).start()

    async def test_a_start_that_fails_in_a_task(self) -> None:
        """
        The same on a loop.
        """
        with pytest.raises(ConfigurationError, match="there is no module 'nowhere'"):
            async with LiveServer("nowhere:application"):
                pass

    def test_a_start_that_takes_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        There is a limit to waiting, and the thread is ended then.
        """
        monkeypatch.setattr(live, "START_SECONDS", 0.05)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0.2)
            assert scope["type"] == "lifespan"
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})

        with pytest.raises(TimeoutError, match=r"did not start within 0\.05 s"):
            LiveServer(application).start()

    def test_an_end_that_fails(self) -> None:
        """
        A server that broke while it ran says so when it is stopped.
        """
        server = LiveServer()
        server.start()
        thread = server._thread
        assert thread is not None
        stop: Callable[..., None] = server._server._loop.stop  # type: ignore[union-attr] # it runs
        server._server._loop.call_soon_threadsafe(stop)  # type: ignore[union-attr] # as above
        thread.join(SECONDS_MAX)
        with pytest.raises(RuntimeError):
            server.stop()

    def test_an_end_that_takes_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        There is a limit to that, too.
        """
        monkeypatch.setattr(live, "STOP_SECONDS", 0.05)
        go = threading.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            for kind in ("startup", "shutdown"):
                await receive()
                if kind == "shutdown":
                    await asyncio.to_thread(go.wait, SECONDS_MAX)
                await send({"type": f"lifespan.{kind}.complete"})

        server = LiveServer(application)
        server.start()
        thread = server._thread
        assert thread is not None
        with pytest.raises(RuntimeError, match=r"did not end within 0\.05 s"):
            server.stop()
        go.set()
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()


def test_layers_are_left_to_a_server_that_runs() -> None:
    """
    Between two tests layers are emptied, except for those whose sockets a server still has.
    """
    layer = fairway.get_channel_layer()
    with LiveServer() as server, connect(f"{server.ws_url}/chat/") as ws:
        ws.recv(SECONDS_MAX)
        pytest_fixtures.forget_members([layer])
        assert list(layer.groups) == ["chat"]
    async_to_sync(layer.group_add)("chat", async_to_sync(layer.new_channel)())
    pytest_fixtures.forget_members([layer, object()])
    assert not layer.groups


async def test_the_fixture_meets_the_queries_of_a_coroutine(
    live_fairway_server: LiveServer,
) -> None:
    """
    Server and coroutine use one connection, so neither finds a table that the other has locked.
    """
    async with websockets.connect(f"{live_fairway_server.ws_url}/chat/") as ws:
        await ws.recv()
        for number in range(50):
            await ws.send(f'"server {number}"')
            await Group.objects.acreate(name=f"test {number}")
        for number in range(50):
            assert await ws.recv() == f"server {number}"
    assert await Group.objects.acount() == 100
