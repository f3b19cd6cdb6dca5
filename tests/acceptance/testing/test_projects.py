"""
A project's own tests, run as its developers run them: with ``manage.py test`` and with pytest.

Each runner is one process, whose tests are below as text; what they assert is what is shown.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.postgres import postgres

SECONDS_MAX = 60

SETTINGS = """
SECRET_KEY = "s"
ROOT_URLCONF = "urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
STATICFILES_DIRS = ["files"]
USE_TZ = True
INSTALLED_APPS = [
    "fairway",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
"""

URLS = """
import fairway
from django.contrib.auth.models import Group
from django.http import HttpResponse
from django.urls import path


class Chat(fairway.AsyncJsonWebsocketConsumer):
    groups = ["chat"]

    async def connect(self):
        await self.accept()
        await self.send_json([str(self.scope["user"]), await Group.objects.acount()])

    async def receive_json(self, content):
        await Group.objects.acreate(name=content)
        await fairway.abroadcast("chat", content)


def page(request):
    fairway.broadcast("chat", "page")
    return HttpResponse(f"{request.user} {Group.objects.count()}")


urlpatterns = [path("", page), path("ws/", Chat.as_asgi())]
"""

UNITTESTS = """
import json
from unittest import skip
from urllib.request import urlopen

import fairway
from django.contrib.auth.models import Group, User
from django.test import TestCase
from fairway.testing import (
    ChannelsLiveServerTestCase, HttpCommunicator, WebsocketCommunicator, captured_broadcasts
)
from urls import Chat
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


class Live(ChannelsLiveServerTestCase):
    serve_static = True

    def test_page(self):
        Group.objects.create(name="a")
        with urlopen(self.live_server_url) as page:
            self.assertEqual(page.read(), b"AnonymousUser 1")
        with urlopen(self.live_server_url + "/static/a.txt") as page:
            self.assertEqual(page.read(), b"static")

    def test_socket(self):
        self.client.force_login(User.objects.create(username="ann"))
        cookie = {"Cookie": "sessionid=" + self.client.cookies["sessionid"].value}
        with connect(self.live_server_ws_url + "/ws/", additional_headers=cookie) as ws:
            self.assertEqual(json.loads(ws.recv(5)), ["ann", 0])
            fairway.broadcast("chat", "from the test")
            self.assertEqual(ws.recv(5), "from the test")
            ws.send('"kept"')
            self.assertEqual(ws.recv(5), "kept")
            self.client.logout()
            with self.assertRaises(ConnectionClosed) as closed:
                ws.recv(5)
        self.assertEqual(closed.exception.rcvd.code, 4401)
        self.assertEqual(Group.objects.get().name, "kept")

    async def test_asynchronous(self):
        await Group.objects.acreate(name="a")
        with connect(self.live_server_ws_url + "/ws/") as ws:
            self.assertEqual(json.loads(ws.recv(5)), ["AnonymousUser", 1])


class Other(Live):
    host = "127.0.0.1"


class OldProcess(ChannelsLiveServerTestCase):
    ProtocolServerProcess = object
    serve_static = False

    @classmethod
    def setUpClass(cls):
        with cls("test").assertWarnsRegex(DeprecationWarning, "ProtocolServerProcess is ignored"):
            super().setUpClass()

    def test(self):
        self.assertRegex(self.live_server_url, "^http://localhost:[0-9]+$")


class Unit(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.user = User.objects.create(username="bob")

    async def test_socket(self):
        communicator = WebsocketCommunicator(Chat.as_asgi(), "/ws/", user=self.user)
        self.assertEqual(await communicator.connect(), (True, None))
        self.assertEqual(await communicator.receive_json_from(), ["bob", 0])
        await communicator.send_json_to("kept")
        self.assertEqual(await communicator.receive_from(), "kept")
        await communicator.disconnect()
        self.assertEqual(await Group.objects.acount(), 1)

    async def test_page(self):
        from fairway.asgi import application

        await self.client.aforce_login(self.user)
        page = HttpCommunicator(application, "GET", "/", client=self.client)
        self.assertEqual((await page.get_response())["body"], b"bob 0")

    def test_broadcast(self):
        with captured_broadcasts() as sent:
            self.client.get("/")
        self.assertEqual([one.message for one in sent], ["page"])
"""

PYTESTS = """
import json
import threading
from urllib.request import urlopen

import fairway
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from fairway.layers import get_channel_layer
from websockets.sync.client import connect


def test_live(live_fairway_server, client, django_user_model):
    client.force_login(django_user_model.objects.create(username="ann"))
    Group.objects.create(name="a")
    with urlopen(live_fairway_server.url) as page:
        assert page.read() == b"AnonymousUser 1"
    with urlopen(live_fairway_server + "/static/a.txt") as page:
        assert page.read() == b"static"
    cookie = {"Cookie": "sessionid=" + client.cookies["sessionid"].value}
    with connect(live_fairway_server.ws_url + "/ws/", additional_headers=cookie) as ws:
        assert json.loads(ws.recv(5)) == ["ann", 1]
        fairway.broadcast("chat", "from the test")
        assert ws.recv(5) == "from the test"


def test_live_again(live_fairway_server, django_user_model):
    assert not django_user_model.objects.exists()
    assert not get_channel_layer().groups
    assert "fairway-live" in {thread.name for thread in threading.enumerate()}


@pytest.mark.django_db
def test_client(ws_client, client, django_user_model):
    client.force_login(django_user_model.objects.create(username="ann"))

    @async_to_sync
    async def run():
        async with ws_client("/ws/") as ws:
            assert (await ws.receive_json_from())[0] == "ann"
        async with ws_client("/ws/", user="bob") as ws:
            assert (await ws.receive_json_from())[0] == "bob"

    run()


@pytest.mark.django_db
def test_captured(captured_broadcasts, client):
    with captured_broadcasts() as sent:
        client.get("/")
    assert [one.message for one in sent] == ["page"]


def test_leaves_members_and_messages():
    layer = get_channel_layer()
    async_to_sync(layer.group_add)("group", async_to_sync(layer.new_channel)())
    async_to_sync(layer.send)("queue", {"type": "old"})
    assert layer.groups


def test_meets_neither():
    layer = get_channel_layer()
    assert not layer.groups
    async_to_sync(layer.send)("queue", {"type": "new"})
    assert async_to_sync(layer.receive)("queue") == {"type": "new"}
    assert "fairway-live" not in {thread.name for thread in threading.enumerate()}
"""

ASYNC_PYTESTS = """
import json

import fairway
import pytest
from django.contrib.auth.models import Group
from websockets.asyncio.client import connect

{mark}

async def test_live(live_fairway_server):
    await Group.objects.acreate(name="a")
    async with connect(live_fairway_server.ws_url + "/ws/") as ws:
        assert json.loads(await ws.recv()) == ["AnonymousUser", 1]
        await ws.send('"kept"')
        assert await ws.recv() == "kept"
        assert await Group.objects.acount() == 2
        await fairway.abroadcast("chat", "from the test")
        assert await ws.recv() == "from the test"


@pytest.mark.django_db(transaction=True)
async def test_client(ws_client, client, django_user_model):
    await client.aforce_login(await django_user_model.objects.acreate(username="ann"))
    async with ws_client("/ws/") as ws:
        assert (await ws.receive_json_from())[0] == "ann"
"""

PLAIN_PYTESTS = """
import sys

import pytest


def test_nothing_is_there(request):
    assert request.config.pluginmanager.hasplugin("fairway")
    ours = {name for name in sys.modules if name.startswith("fairway.")}
    assert ours == {"fairway.lazy", "fairway.testing", "fairway.testing.pytest_plugin"}
    assert not {name for name in sys.modules if name.partition(".")[0] == "django"}
    for name in ("live_fairway_server", "ws_client", "captured_broadcasts"):
        with pytest.raises(pytest.FixtureLookupError):
            request.getfixturevalue(name)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    A project with a page, a socket and a static file.
    """
    (tmp_path / "settings.py").write_text(SETTINGS)
    (tmp_path / "urls.py").write_text(URLS)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("static")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


async def run(folder: Path, *arguments: str, **tests: str) -> str:
    """
    Write test modules, run a command over them and give what it printed; it must succeed.
    """
    for name, text in tests.items():
        (folder / f"{name}.py").write_text(text)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *arguments,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output
    return output


async def run_pytest(folder: Path, *arguments: str, **tests: str) -> str:
    """
    Run pytest with these plugins and options alone.
    """
    others = ["xdist", "cacheprovider", "timeout", "playwright"]
    given = [word for name in others for word in ("-p", f"no:{name}")]
    return await run(folder, "-m", "pytest", "-q", *given, *arguments, **tests)


@pytest.mark.parametrize(
    ("processes", "database"), [(1, "memory"), (2, "memory"), (2, "file"), (1, "postgresql")]
)
async def test_manage_py_test(folder: Path, processes: int, database: str) -> None:
    """
    Django's own runner: live server and communicators, in one process and in parallel.
    """
    with ExitStack() as stack, (folder / "settings.py").open("a") as settings:
        if database == "file":
            settings.write('DATABASES["default"]["TEST"] = {"NAME": "test.sqlite3"}\n')
        elif database == "postgresql":
            at = stack.enter_context(postgres())
            default = {"HOST": at["host"], "USER": at["user"], "NAME": at["dbname"]}
            default |= {"ENGINE": "django.db.backends.postgresql"}
            settings.write(f"DATABASES = {{'default': {default}}}\n")
        settings.flush()
        output = await run(
            folder,
            "-m",
            "django",
            "test",
            "--settings=settings",
            f"--parallel={processes}",
            tests=UNITTESTS,
        )
    assert "Ran 10 tests" in output
    assert output.rstrip().endswith("'default'...")
    assert "\nOK\n" in output


async def test_pytest_django_alone(folder: Path) -> None:
    """
    The fixtures need pytest-django and nothing else.
    """
    output = await run_pytest(folder, "--ds=settings", "-p", "no:asyncio", test_sync=PYTESTS)
    assert "6 passed" in output


@pytest.mark.parametrize("mode", ["auto", "strict"])
async def test_with_pytest_asyncio(folder: Path, mode: str) -> None:
    """
    The same fixtures serve coroutines, in either mode of pytest-asyncio.
    """
    mark = "pytestmark = pytest.mark.asyncio\n" if mode == "strict" else ""
    output = await run_pytest(
        folder,
        "--ds=settings",
        "-o",
        f"asyncio_mode={mode}",
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        test_async=ASYNC_PYTESTS.format(mark=mark),
        test_sync=PYTESTS,
    )
    assert "8 passed" in output


async def test_without_pytest_django(folder: Path) -> None:
    """
    Where nobody tests a Django project the plugin does nothing and loads nothing.
    """
    await run_pytest(folder, "-p", "no:django", "-p", "no:asyncio", test_plain=PLAIN_PYTESTS)
