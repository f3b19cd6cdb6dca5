"""
Publishing from anywhere: the real programs beside one server, and the sockets that hear them.

Every message goes through processes that have never heard of that server, as in production.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, TypeVar

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.acceptance.project import Command, Project

T = TypeVar("T")

WAYS = ("broadcast", "strict", "abroadcast", "group_send", "signal")
"""
The ways to publish in synchronous code, as ``chat/saying.py`` knows them.
"""

SAYING = '''
"""Every way to say something to a room."""
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import receiver

import fairway


def say(room, way):
    group = f"chat.{room}"
    if way == "broadcast":
        fairway.broadcast(group, {"text": way})
    elif way == "strict":
        fairway.broadcast(group, {"text": way}, strict=True)
    elif way == "abroadcast":
        async_to_sync(fairway.abroadcast)(group, {"text": way})
    elif way == "group_send":
        message = {"type": "chat.message", "text": way}
        async_to_sync(fairway.get_channel_layer().group_send)(group, message)
    elif way == "signal":
        Group.objects.filter(name=room).delete()
        with transaction.atomic():
            with transaction.atomic():
                Group.objects.create(name=room)
                transaction.set_rollback(True)
            Group.objects.create(name=room)
    elif way == "disconnect":
        fairway.disconnect(user=User.objects.get(username=room))
    else:
        raise LookupError(way)


@receiver(post_save, sender=Group)
def tell(instance, **signal):
    fairway.broadcast(f"chat.{instance.name}", {"text": "signal"})


async def asay(room, way):
    group = f"chat.{room}"
    if way == "abroadcast":
        await fairway.abroadcast(group, {"text": way})
    elif way == "group_send":
        message = {"type": "chat.message", "text": way}
        await fairway.get_channel_layer().group_send(group, message)
    elif way == "broadcast":
        fairway.broadcast(group, {"text": way})
    elif way == "disconnect":
        await fairway.adisconnect(group=group)
    else:
        raise LookupError(way)
'''

CONSUMERS = """
import fairway
from chat.saying import asay, say


class ChatConsumer(fairway.AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.room = self.url_kwargs["room"]
        await self.group_add(f"chat.{self.room}")
        await self.accept()

    async def receive_json(self, content):
        await asay(self.room, content)

    async def chat_message(self, event):
        await self.send_json({"text": event["text"]})


class SyncConsumer(fairway.JsonWebsocketConsumer):
    def receive_json(self, content):
        say(self.url_kwargs["room"], content)
"""

URLS = """
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpResponse
from django.urls import path

import fairway
from chat.consumers import ChatConsumer, SyncConsumer
from chat.saying import asay, say
from chat.tasks import say_task

fairway.broadcast("chat.loading", {"text": "loaded"})  # A preloading master sends before it forks.


def enter(request, room):
    login(request, User.objects.get_or_create(username=room)[0])
    return HttpResponse("entered")


def page(request, room, way):
    if way == "task":
        for each in request.GET["ways"].split(","):
            say_task.delay(room, each)
    else:
        say(room, way)
    if "fail" in request.GET:
        raise RuntimeError("the view failed")
    return HttpResponse("said")


@transaction.non_atomic_requests  # Django refuses it for coroutines.
async def async_page(request, room, way):
    await asay(room, way)
    return HttpResponse("said")


urlpatterns = [
    path("enter/<slug:room>/", enter),
    path("say/<slug:room>/<slug:way>/", page),
    path("asay/<slug:room>/<slug:way>/", async_page),
    path("ws/chat/<slug:room>/", ChatConsumer.as_asgi()),
    path("ws/sync/<slug:room>/", SyncConsumer.as_asgi()),
]
"""

TASKS = """
from celery import shared_task

from chat.saying import say


@shared_task(ignore_result=True)
def say_task(room, way):
    say(room, way)
"""

CELERY = """
from celery import Celery

app = Celery("site_")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""

SETTINGS = """
import os

INSTALLED_APPS += ["chat"]
DATABASES["default"]["ATOMIC_REQUESTS"] = True
DATABASES["default"]["OPTIONS"] = {"timeout": 15, "transaction_mode": "IMMEDIATE"}
LOGGING = {"version": 1, "disable_existing_loggers": False}
os.makedirs(BASE_DIR / "queue", exist_ok=True)
CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": str(BASE_DIR / "queue"),
    "data_folder_out": str(BASE_DIR / "queue"),
    "control_folder": str(BASE_DIR / "control"),
    "polling_interval": 0.05,
}
"""

CHILDREN = '''
"""One script in which everything publishes that has a loop, a thread or a process."""
import asyncio
import multiprocessing
import os
import re
import signal
import sys
import threading

import django

WAYS = ("broadcast", "strict", "abroadcast", "group_send", "signal")
ASYNC_WAYS = ("broadcast", "abroadcast", "group_send")


def all_ways(room):
    django.setup()
    from chat.saying import say

    for way in WAYS:
        say(room, way)
    say(f"{room}-gone", "disconnect")


def in_a_loop(room):
    asyncio.run(every_coroutine(room))


async def every_coroutine(room):
    from chat.saying import asay

    for way in ASYNC_WAYS:
        await asay(room, way)
    await asay(f"{room}-gone", "disconnect")


def together(*works):
    for work in works:
        work.start()
    for work in works:
        work.join()
    return works


if __name__ == "__main__":
    all_ways("script")
    together(threading.Thread(target=all_ways, args=("thread",)))
    in_a_loop("loop-one")
    in_a_loop("loop-two")
    barrier = threading.Barrier(2)

    def at_once(room):
        barrier.wait()
        in_a_loop(room)

    together(*(threading.Thread(target=at_once, args=(f"beside-{n}",)) for n in "ab"))
    for method in ("fork", "spawn"):
        child = multiprocessing.get_context(method).Process(target=all_ways, args=(method,))
        together(child)
        assert child.exitcode == 0, (method, child.exitcode)
    child = os.fork()
    if child == 0:
        in_a_loop("os-fork")
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    # The parent goes on as if nothing had been.
    all_ways("after")
'''


class Site:
    """
    The project with its running server. Tests run on the loop that holds both.
    """

    def __init__(self, project: Project, runner: asyncio.Runner) -> None:
        self.project = project
        self.address = ""
        self._run = runner.run
        self._names = count(1)
        self._stack = AsyncExitStack()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """
        Run a test. Each wait in it has its own limit.
        """
        return self._run(coroutine)

    async def begin(self) -> None:
        """
        Make the project and start its server.
        """
        project = self.project
        await project.create()
        chat = project.folder / "chat"
        (chat / "saying.py").write_text(SAYING)
        (chat / "tasks.py").write_text(TASKS)
        (chat / "consumers.py").write_text(CONSUMERS)
        (project.folder / "site_" / "urls.py").write_text(URLS)
        (project.folder / "site_" / "celery.py").write_text(CELERY)
        (project.folder / "site_" / "__init__.py").write_text("from site_.celery import app\n")
        (project.folder / "children.py").write_text(CHILDREN)
        with project.settings.open("a") as settings:
            settings.write(SETTINGS)
        status, output = await (await project.manage("migrate", "-v0")).ended()
        assert status == 0, output
        self.address = await (await project.manage("serve", "--port", "0")).ready()

    async def end(self) -> None:
        """
        End everything.
        """
        await self._stack.aclose()
        await self.project.close()

    async def listen(self, room: str, kind: str = "chat") -> Ear:
        """
        Open a socket to a room, as a user whose name is the room's.
        """
        _, head = await get(self.address, f"/enter/{room}/")
        found = re.search(rb"sessionid=\w+", head)
        assert found, head
        opening = connect(
            f"ws://{self.address}/ws/{kind}/{room}/",
            additional_headers={"Cookie": found[0].decode()},
            proxy=None,
            close_timeout=0.2,
        )
        return Ear(await self._stack.enter_async_context(opening))

    def room(self) -> str:
        """
        Name a room that nobody has been in.
        """
        return f"room{next(self._names)}"


class Ear:
    """
    A socket in a room.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def hears(self, *texts: str) -> None:
        """
        Show that these messages come next, in this order.
        """
        assert await self.next(len(texts)) == list(texts)

    async def next(self, number: int) -> list[str]:
        """
        Give the next messages.
        """
        heard = [json.loads(await asyncio.wait_for(self.socket.recv(), 15)) for _ in range(number)]
        return [each["text"] for each in heard]

    async def is_closed(self) -> None:
        """
        Show that nothing comes any more but the end, as of a login that was taken back.
        """
        await asyncio.wait_for(self.socket.wait_closed(), 15)
        assert self.socket.close_code == 4401
        with pytest.raises(ConnectionClosed):
            await self.socket.recv()


async def get(address: str, path: str) -> tuple[int, bytes]:
    """
    Fetch a page; give its status, and all that came.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 15)
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


async def status_of(address: str, path: str) -> int:
    """
    Fetch a page and give its status.
    """
    return (await get(address, path))[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """
    The one server that everybody here publishes to.
    """
    with asyncio.Runner() as runner:
        site = Site(Project(tmp_path_factory.mktemp("publishing")), runner)
        try:
            site.run(site.begin())
            yield site
        finally:
            site.run(site.end())


async def gunicorn(site: Site, *flags: str) -> tuple[Command, str]:
    """
    Start gunicorn on a free port; give it with its address.
    """
    program = [sys.executable, "-m", "gunicorn", "site_.wsgi", "--bind", "127.0.0.1:0"]
    command = await site.project.start(*program, "--no-control-socket", *flags)
    address = (await command.expect(r"Listening at: http://([\d.:]+) "))[1]
    return command, address


@pytest.mark.parametrize("flags", [("--threads", "3"), ("--preload", "--workers", "2")])
def test_views_under_gunicorn(site: Site, flags: tuple[str, ...]) -> None:
    """
    Threads of a worker, and workers whose master published before it forked them: in every way,
    from a post_save signal too. ATOMIC_REQUESTS holds: a view that fails has said nothing.
    """

    async def check() -> None:
        loading, room = await site.listen("loading"), site.room()
        ear = await site.listen(room)
        command, address = await gunicorn(site, *flags)
        assert await status_of(address, f"/say/{room}/disconnect/?fail") == 500
        for way in WAYS:
            assert await status_of(address, f"/say/{room}/{way}/?fail") == 500
            assert await status_of(address, f"/say/{room}/{way}/") == 200
        await loading.hears("loaded")
        # What is sent at once is sent, whatever becomes of the view: that is Channels' way.
        await ear.hears("broadcast", "strict", "abroadcast", "abroadcast")
        await ear.hears("group_send", "group_send", "signal")
        await asyncio.gather(*(status_of(address, f"/say/{room}/broadcast/") for _ in range(20)))
        await ear.hears(*["broadcast"] * 20)
        assert await status_of(address, f"/say/{room}/disconnect/") == 200
        await ear.is_closed()
        status, output = await command.stop()
        assert status == 0, output
        assert "calls of the channel layer were lost" not in output

    site.run(check())


@pytest.mark.slow(60, "Celery's worker starts, forks a child per task and ends")
def test_tasks_of_celery(site: Site) -> None:
    """
    Prefork children, each of which ends after its task: all that they say last has left.
    """

    async def check() -> None:
        room = site.room()
        ear = await site.listen(room)
        program = [sys.executable, "-m", "celery", "-A", "site_", "worker", "--pool", "prefork"]
        quick = ["--without-mingle", "--without-gossip", "--without-heartbeat"]
        flags = ["--concurrency", "1", "--max-tasks-per-child", "1", "--loglevel", "info", *quick]
        worker = await site.project.start(*program, *flags, environment=privileged())
        await worker.expect(r"celery@\S+ ready")
        assert await status_of(site.address, f"/say/{room}/task/?ways={','.join(WAYS)}") == 200
        # This broker of Celery's knows no order within a millisecond.
        assert sorted(await ear.next(len(WAYS))) == sorted(WAYS)
        assert await status_of(site.address, f"/say/{room}/task/?ways=disconnect") == 200
        await ear.is_closed()
        _, output = await worker.stop(signal.SIGQUIT)  # A warm end takes Celery seconds.
        assert "Traceback" not in output

    site.run(check())


def privileged() -> dict[str, str]:
    """
    Let Celery run for the user who runs the tests.
    """
    return {"C_FORCE_ROOT": "1"} if os.getuid() == 0 else {}


def test_scripts_threads_loops_and_children(site: Site) -> None:
    """
    One process publishes from its main thread, another thread, one loop after another, two at a
    time, and children by fork and spawn; each of its rooms hears everything once and in order.
    """
    synchronous = ("script", "thread", "fork", "spawn", "after")
    asynchronous = ("loop-one", "loop-two", "beside-a", "beside-b", "os-fork")

    async def check() -> None:
        rooms = synchronous + asynchronous
        ears = {room: await site.listen(room) for room in rooms}
        # Others, since who is disconnected does not wait for what a handler has not sent yet.
        gone = [await site.listen(f"{room}-gone") for room in rooms]
        script = await site.project.run("-Wignore::DeprecationWarning", "children.py")
        assert await script.ended() == (0, "")
        for room in synchronous:
            await ears[room].hears(*WAYS)
        for room in asynchronous:
            await ears[room].hears("broadcast", "abroadcast", "group_send")
        for ear in gone:
            await ear.is_closed()

    site.run(check())


def test_the_shell(site: Site) -> None:
    """
    ``manage.py shell -c``, in every way, with nobody who waits for the last one.
    """

    async def check() -> None:
        room = site.room()
        ear, gone = await site.listen(room), await site.listen(f"{room}-gone")
        line = (
            f"from chat.saying import say; [say('{room}', way) for way in {WAYS[::-1]}]; "
            f"say('{room}-gone', 'disconnect')"
        )
        shell = await site.project.manage("shell", "-v0", "-c", line)
        assert await shell.ended() == (0, "")
        await ear.hears(*WAYS[::-1])
        await gone.is_closed()

    site.run(check())


@pytest.mark.parametrize("begin", ["", "import uvloop; uvloop.install(); "])
def test_one_line(site: Site, begin: str) -> None:
    """
    ``python -c`` with nothing but the settings' name, on asyncio and on uvloop.
    """

    async def check() -> None:
        room = site.room()
        ear = await site.listen(room)
        line = f"{begin}import fairway; fairway.broadcast('chat.{room}', {{'text': 'one line'}})"
        command = await site.project.run("-Wignore::DeprecationWarning", "-c", line)
        assert await command.ended() == (0, "")
        await ear.hears("one line")

    site.run(check())


def test_handlers_and_views_of_the_server_itself(site: Site) -> None:
    """
    Asynchronous handlers and views, and synchronous ones in their threads.
    """

    async def check() -> None:
        room = site.room()
        ear, sync = await site.listen(room), await site.listen(room, "sync")
        others = [await site.listen(f"{room}-{number}") for number in range(4)]
        for way in ("broadcast", "abroadcast", "group_send"):
            await ear.socket.send(json.dumps(way))
            await ear.hears(way)
            assert await status_of(site.address, f"/asay/{room}/{way}/") == 200
            await ear.hears(way)
        for way in WAYS:
            await sync.socket.send(json.dumps(way))
            await ear.hears(way)
            assert await status_of(site.address, f"/say/{room}/{way}/") == 200
            await ear.hears(way)

        await others[0].socket.send(json.dumps("disconnect"))
        await others[0].is_closed()
        assert await status_of(site.address, f"/asay/{room}-1/disconnect/") == 200
        await others[1].is_closed()
        assert await status_of(site.address, f"/say/{room}-2/disconnect/") == 200
        await others[2].is_closed()
        # All that is this user's, the socket included whose handler says so.
        await sync.socket.send(json.dumps("disconnect"))
        await ear.is_closed()
        await sync.is_closed()
        await others[3].socket.send(json.dumps("broadcast"))
        await others[3].hears("broadcast")

    site.run(check())
