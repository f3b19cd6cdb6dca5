"""
A project's own tests with consumers, the ORM and broadcasts, on a database that is a file.

In memory all threads share what a test sees; a file shows whose connection it is.
"""

from __future__ import annotations

from tests.acceptance.project import Project

SETTINGS = """
INSTALLED_APPS += ["chat"]
DATABASES["default"]["TEST"] = {"NAME": str(BASE_DIR / "tests.sqlite3")}
DATABASES["other"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(BASE_DIR / "other")}
"""

TESTS = """
import threading

from asgiref.sync import async_to_sync, sync_to_async
from django import db
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from fairway import AsyncHttpConsumer, AsyncWebsocketConsumer, WebsocketConsumer, broadcast
from fairway.db import database_sync_to_async
from fairway.testing import HttpCommunicator, WebsocketCommunicator, captured_broadcasts


@database_sync_to_async
def query():
    with db.connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1234")
        return cursor.fetchone()[0]


class Sync(WebsocketConsumer):
    def connect(self):
        assert Group.objects.filter(name="test").exists()
        super().connect()

    def receive(self, text_data=None, bytes_data=None):
        Group.objects.create(name=text_data)
        self.send(str(threading.get_ident()))


class Async(AsyncWebsocketConsumer):
    async def connect(self):
        assert await query() == 1234
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        await Group.objects.acreate(name=text_data)
        names = [group.name async for group in Group.objects.order_by("pk").aiterator(chunk_size=1)]
        await self.send(",".join(names))


class Http(AsyncHttpConsumer):
    async def handle(self, body):
        await Group.objects.acreate(name="http")
        await self.send_response(200, str(await query()).encode())


async def say(application, text):
    socket = WebsocketCommunicator(application, "/")
    assert (await socket.connect())[0]
    await socket.send_to(text_data=text)
    answer = await socket.receive_from()
    await socket.disconnect()
    return answer


class Consumers:
    async def test_asynchronous(self):
        await Group.objects.acreate(name="test")
        assert await say(Sync.as_asgi(), "sync") == str(await sync_to_async(threading.get_ident)())
        assert await say(Async.as_asgi(), "async") == "test,sync,async"
        answer = await HttpCommunicator(Http.as_asgi(), "GET", "/").get_response()
        assert answer["body"] == b"1234"
        assert await Group.objects.acount() == 4

    def test_synchronous(self):
        Group.objects.create(name="test")
        assert async_to_sync(say)(Sync.as_asgi(), "sync") == str(threading.get_ident())
        assert Group.objects.count() == 2


class InOneTransaction(Consumers, TestCase):
    pass


class InManyTransactions(Consumers, TransactionTestCase):
    pass


class RefusedError(Exception):
    pass


class Broadcasts(TestCase):
    databases = {"default", "other"}

    def test_the_blocks_of_the_test_itself_do_not_count(self):
        with captured_broadcasts() as sent:
            try:
                with transaction.atomic(using="other"):
                    broadcast("group", "rolled back")
                    raise RefusedError
            except RefusedError:
                pass
            with transaction.atomic(using="other"):
                broadcast("group", "kept")
            broadcast("group", "plain")
        assert [one.message for one in sent] == ["kept", "plain"]


class BroadcastsWithoutDefault(TestCase):
    databases = {"other"}

    def test_one_database(self):
        with captured_broadcasts() as sent:
            broadcast("group", "plain")
        assert [one.message for one in sent] == ["plain"]
"""


async def test_a_projects_own_tests(project: Project) -> None:
    """
    Sync and async consumers see what the test sees, in its thread and transaction; a broadcast
    waits for the project's own blocks, and not for those that TestCase opens.
    """
    (project.folder / "chat" / "tests.py").write_text(TESTS)
    with project.settings.open("a") as settings:
        settings.write(SETTINGS)
    status, output = await (await project.run("-Werror", "manage.py", "test")).ended()
    assert status == 0, output
    assert "Ran 6 tests" in output
