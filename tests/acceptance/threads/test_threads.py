"""
Consumers' and pages' threads under the real server, with a database in a file.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.acceptance.project import Command, Project

CONSUMERS = '''
import asyncio, threading, time
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created
from django.utils import timezone, translation
import fairway
from fairway import metrics
from fairway.db import database_sync_to_async

OPEN = set()
PEAK = 0
LOCK = threading.Lock()
ENDED = []


def note_open(connection, **signal):
    """Count what is open, over all threads; close() of each takes it away again."""
    global PEAK
    with LOCK:
        OPEN.add(id(connection))
        PEAK = max(PEAK, len(OPEN))
    original = type(connection).close
    def close():
        original(connection)
        if connection.connection is None:
            with LOCK:
                OPEN.discard(id(connection))
    connection.close = close


connection_created.connect(note_open)


class Sleeper(fairway.WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        time.sleep(float(text_data))
        self.send("slept")

    def disconnect(self, code):
        ENDED.append(code)


class Stuck(fairway.WebsocketConsumer):
    where = ""

    def receive(self, text_data=None, bytes_data=None):
        self.where = text_data
        if text_data == "below":
            async_to_sync(self.below)()
        elif text_data == "everywhere":
            time.sleep(300)

    async def below(self):
        await sync_to_async(time.sleep)(300)

    def disconnect(self, code):
        ENDED.append(code)
        if self.where in {"end", "everywhere"}:
            time.sleep(300)


class Echo(fairway.AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data)


class Figures(fairway.AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        await self.send_json({
            "peak": PEAK, "open": len(OPEN), "ended": len(ENDED),
            "stuck": metrics.threads_stuck.value,
            "abandoned": metrics.transactions_abandoned.value,
        })


class Orm(fairway.AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        await User.objects.aexists()
        thread = await sync_to_async(slow_query)()
        await self.send_json(thread)


def slow_query():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    time.sleep(0.02)
    return threading.get_ident()


class Query(fairway.WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        slow_query()

    def disconnect(self, code):
        slow_query()
        ENDED.append(code)


class Rows(fairway.AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        seen = 0
        async for user in User.objects.order_by("pk").aiterator(chunk_size=100):
            seen += 1
            if seen % 500 == 0:
                await database_sync_to_async(User.objects.first)()
        await self.send_json(seen)


class Recipe(fairway.AsyncJsonWebsocketConsumer):
    async def receive_json(self, content):
        block = transaction.atomic()
        await sync_to_async(block.__enter__)()
        try:
            await User.objects.filter(username="u0").aupdate(first_name=str(content))
            await asyncio.sleep(0.01)
            await User.objects.aget(username="u0", first_name=str(content))
            if content == "drop":
                await self.send_json("open")
                await asyncio.sleep(60)
        except BaseException as error:
            if content != "drop":
                await sync_to_async(block.__exit__)(type(error), error, None)
            raise
        await sync_to_async(block.__exit__)(None, None, None)
        await self.send_json("done")


class Nested(fairway.WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        loop, thread, inner = async_to_sync(self.look)()
        own = threading.get_ident()
        self.send(str([loop == LOOP[0], thread != own, inner == own]))

    async def look(self):
        inner = await sync_to_async(threading.get_ident)()
        return id(asyncio.get_running_loop()), threading.get_ident(), inner


LOOP = []


class Who(fairway.AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        LOOP[:] = [id(asyncio.get_running_loop())]
        await self.send("loop")


class Speaker(fairway.JsonWebsocketConsumer):
    def receive_json(self, content):
        if "language" in content:
            translation.activate(content["language"])
            timezone.activate(content["zone"])
        self.send_json([translation.get_language(), timezone.get_current_timezone_name()])
'''

URLS = """
import time
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path
from django.utils import timezone, translation
from chat import consumers as c

def page(request):
    time.sleep(0.05)
    if "language" in request.GET:
        translation.activate(request.GET["language"])
        timezone.activate("Asia/Tokyo")
    seen = User.objects.count(), translation.get_language(), timezone.get_current_timezone_name()
    return HttpResponse("{} {} {}".format(*seen))

urlpatterns = [path("page/", page)] + [
    path(f"ws/{each.__name__.lower()}/", each.as_asgi())
    for each in (
        c.Sleeper, c.Stuck, c.Echo, c.Figures, c.Orm, c.Query, c.Rows, c.Recipe, c.Nested, c.Who,
        c.Speaker,
    )
]
"""

FILL = (
    "from django.contrib.auth.models import User;"
    "User.objects.bulk_create([User(username=f'u{n}') for n in range(5000)])"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """
    The project with its database, made once for all tests here.
    """
    project = Project(tmp_path_factory.mktemp("threads"))

    async def make() -> None:
        await project.create()
        (project.folder / "chat" / "consumers.py").write_text(CONSUMERS)
        (project.folder / "site_" / "urls.py").write_text(URLS)
        with project.settings.open("a") as file:
            # Writers wait for each other instead of failing.
            file.write(
                "\nimport os\n"
                "DATABASES['default']['OPTIONS'] = "
                "{'timeout': 15, 'transaction_mode': 'IMMEDIATE'}\n"
                "DATABASES['default']['CONN_MAX_AGE'] = int(os.environ.get('AGE', '0'))\n"
                "FAIRWAY = {'APPLICATION_CLOSE_TIMEOUT': 0.5, 'DRAIN': 1.0, 'PING_INTERVAL': 0.2}\n"
            )
        for arguments in (("migrate", "-v0"), ("shell", "-v0", "-c", FILL)):
            status, output = await (await project.manage(*arguments)).ended()
            assert status == 0, output

    asyncio.run(make())
    return project


class Site:
    """
    The running server and sockets to it.
    """

    def __init__(self, command: Command, address: str, stack: AsyncExitStack) -> None:
        self.command = command
        self.address = address
        self._stack = stack

    async def open(self, name: str) -> ClientConnection:
        """
        Open a socket to a consumer.
        """
        url = f"ws://{self.address}/ws/{name}/"
        return await self._stack.enter_async_context(connect(url, proxy=None, close_timeout=0.2))

    async def ask(self, socket: ClientConnection, content: Any = 0) -> Any:
        """
        Send JSON and give the answer.
        """
        await socket.send(json.dumps(content))
        return json.loads(await asyncio.wait_for(socket.recv(), 15))

    async def figures(self) -> dict[str, int]:
        """
        What the server has counted.
        """
        figures: dict[str, int] = await self.ask(await self.open("figures"))
        return figures

    async def reaches(self, **expected: int) -> dict[str, int]:
        """
        Wait until figures are as expected.
        """
        socket = await self.open("figures")
        async with asyncio.timeout(10):
            while True:
                figures = await self.ask(socket)
                if all(figures[name] == value for name, value in expected.items()):
                    return dict(figures)
                await asyncio.sleep(0.02)

    async def get(self, path: str) -> str:
        """
        Fetch a page.
        """
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        )
        answer = (await asyncio.wait_for(reader.read(), 15)).decode()
        writer.close()
        assert " 200 " in answer.splitlines()[0], answer
        return answer.rpartition("\r\n\r\n")[2]


@asynccontextmanager
async def running(project: Project, *flags: str) -> AsyncIterator[Site]:
    """
    Serve the project on a free port.
    """
    command = await project.manage("serve", "--port", "0", *flags)
    try:
        address = await command.ready()
        async with AsyncExitStack() as stack:
            yield Site(command, address, stack)
    finally:
        if command.process.returncode is None:
            await command.kill()


async def test_sleeping_handlers_delay_nobody_else(made: Project) -> None:
    """
    While five handlers sleep, a sixth connection has a thread, and asynchronous work needs none.
    """
    async with running(made, "--threads", "6") as site:
        sleepers = [await site.open("sleeper") for _ in range(5)]
        for each in sleepers:
            await each.send("3")
        began = monotonic()
        sixth = await site.open("sleeper")
        await sixth.send("0")
        assert await sixth.recv() == "slept"
        echo = await site.open("echo")
        await echo.send("a")
        assert await echo.recv() == "a"
        assert monotonic() - began < 2


async def test_a_full_pool_serves_in_order(made: Project) -> None:
    """
    With all four threads asleep asynchronous consumers go on, and the next thread that wakes
    serves who came first.
    """
    async with running(made) as site:
        sleepers = [await site.open("sleeper") for _ in range(5)]
        for each in sleepers:
            await each.send("1")
        began = monotonic()
        echo = await site.open("echo")
        await echo.send("a")
        assert await echo.recv() == "a"
        assert monotonic() - began < 0.8
        # The handshake of the sixth needs a thread: it gets the second that wakes.
        sixth = await site.open("sleeper")
        await sixth.send("0")
        assert await sixth.recv() == "slept"
        assert monotonic() - began < 1.9


@pytest.mark.parametrize("age", ["0", "60"])
async def test_the_orm_runs_in_parallel_within_the_bound(
    made: Project, monkeypatch: pytest.MonkeyPatch, age: str
) -> None:
    """
    A hundred consumers and pages use the database at once, on no more connections than threads.
    """
    monkeypatch.setenv("AGE", age)
    async with running(made, "--threads", "4", "--page-threads", "3") as site:
        sockets = [await site.open("orm") for _ in range(100)]
        began = monotonic()
        threads, pages = await asyncio.gather(
            asyncio.gather(*(site.ask(each) for each in sockets)),
            asyncio.gather(*(site.get("/page/") for _ in range(12))),
        )
        assert len(set(threads)) == 4
        # One thread would need two seconds for the pauses alone.
        assert monotonic() - began < 1.8
        assert {each.split()[0] for each in pages} == {"5000"}
        figures = await site.figures()
        assert 4 <= figures["peak"] <= 7
        if age == "0":
            await site.reaches(open=0)


@pytest.mark.slow(60, "20 sockets read 5,000 rows each")
async def test_iterating_loses_no_rows(made: Project) -> None:
    """
    Twenty consumers iterate over 5,000 rows in chunks, while connections are closed as soon as
    nobody uses them.
    """
    async with running(made) as site:
        sockets = [await site.open("rows") for _ in range(20)]
        assert await asyncio.gather(*(site.ask(each) for each in sockets)) == [5000] * 20
        await site.reaches(open=0)
        assert (await site.figures())["peak"] <= 4


async def test_a_transaction_over_several_hops_is_its_consumers_own(made: Project) -> None:
    """
    Entering and leaving atomic through sync_to_async works for many consumers at once.
    """
    async with running(made) as site:
        sockets = [await site.open("recipe") for _ in range(12)]
        answers = await asyncio.gather(*(site.ask(each, n) for n, each in enumerate(sockets)))
        assert answers == ["done"] * 12
        assert (await site.reaches(open=0))["abandoned"] == 0


async def test_an_abandoned_transaction_is_rolled_back(made: Project) -> None:
    """
    A transaction left open ends with its connection, is counted and logged, and its thread serves
    others again.
    """
    async with running(made, "--threads", "1") as site:
        socket = await site.open("recipe")
        assert await site.ask(socket, "drop") == "open"
        await socket.close()
        await site.reaches(abandoned=1, open=0)
        assert await site.ask(await site.open("recipe"), 1) == "done"
        await site.command.expect("A transaction on 'default' was left open")


async def test_nested_async_to_sync(made: Project) -> None:
    """
    A synchronous handler's async_to_sync comes back to the server's loop, and what that sends to
    a thread comes back to the handler's: on the only thread there is.
    """
    async with running(made, "--threads", "1") as site:
        who = await site.open("who")
        await who.send("")
        assert await who.recv() == "loop"
        sockets = [await site.open("nested") for _ in range(5)]
        for each in sockets:
            await each.send("x")
        assert [await asyncio.wait_for(each.recv(), 10) for each in sockets] == [
            "[True, True, True]"
        ] * 5


async def test_a_stuck_handler_still_gets_its_disconnect(made: Project) -> None:
    """
    A stuck thread is given up after the close time-out, replaced, and its stack logged once; it
    does not delay the end of the process.
    """
    async with running(made, "--threads", "1") as site:
        stuck = await site.open("sleeper")
        await stuck.send("300")
        await asyncio.sleep(0.1)
        await stuck.close()
        assert (await site.reaches(ended=1))["stuck"] == 1
        other = await site.open("sleeper")
        await other.send("0")
        assert await other.recv() == "slept"
        await other.close()
        await site.reaches(ended=2)
        status, output = await site.command.stop()
        assert status == 0
        assert output.count("is stuck since") == 1
        assert output.count("time.sleep(float(text_data))") == 1


async def test_threads_stuck_at_other_places(made: Project) -> None:
    """
    In what a handler called back by async_to_sync, in disconnect itself, and in both: each
    disconnect has run, each thread was given up once, and others are served.
    """
    async with running(made, "--threads", "3") as site:
        for where, ended, stuck in (("below", 1, 1), ("end", 2, 2), ("everywhere", 3, 4)):
            socket = await site.open("stuck")
            await socket.send(where)
            await asyncio.sleep(0.1)
            await socket.close()
            await site.reaches(ended=ended, stuck=stuck)
        other = await site.open("sleeper")
        await other.send("0")
        assert await other.recv() == "slept"
        status, output = await site.command.stop()
        assert status == 0
        assert output.count("it stands here: [fairway.R605]") == 4
        assert "Error" not in output


async def test_waiting_is_not_being_stuck(made: Project) -> None:
    """
    Work that waits longer than the close time-out for a busy thread, its clients gone, gives no
    thread up, and every handler's end has its turn on the one thread there is.
    """
    async with running(made, "--threads", "1") as site:
        sockets = [await site.open("query") for _ in range(50)]
        for socket in sockets:
            await socket.send("")
            socket.transport.abort()
        figures = await site.reaches(ended=50)
        assert figures["stuck"] == 0
        assert figures["peak"] == 1


async def test_more_stuck_threads_than_the_pool_has(made: Project) -> None:
    """
    Twice the pool is the limit: sockets without threads still work and the process still ends.
    """
    async with running(made, "--threads", "1") as site:
        for _ in range(2):
            stuck = await site.open("sleeper")
            await stuck.send("300")
            await asyncio.sleep(0.1)
            await stuck.close()
        await site.reaches(stuck=2)
        echo = await site.open("echo")
        await echo.send("a")
        assert await echo.recv() == "a"
        status, _ = await site.command.stop()
        assert status == 0


async def test_languages_and_time_zones_never_mix(made: Project) -> None:
    """
    On one thread each user keeps a language and a time zone, and who has none gets none.
    """
    async with running(made, "--threads", "1", "--page-threads", "1") as site:
        first, second, third = [await site.open("speaker") for _ in range(3)]
        german = {"language": "de", "zone": "Europe/Berlin"}
        french = {"language": "fr", "zone": "America/Lima"}
        assert await site.ask(first, german) == ["de", "Europe/Berlin"]
        assert await site.ask(third, {}) == ["en-us", "UTC"]
        assert await site.ask(second, french) == ["fr", "America/Lima"]
        for _ in range(3):
            assert await site.ask(first, {}) == ["de", "Europe/Berlin"]
            assert await site.ask(second, {}) == ["fr", "America/Lima"]
        assert (await site.get("/page/?language=ja")).split()[1:] == ["ja", "Asia/Tokyo"]
        assert (await site.get("/page/")).split()[1:] == ["en-us", "UTC"]
