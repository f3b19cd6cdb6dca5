"""
Workers in this process: what an application is given, when, and what a worker outlives.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fairway import AsyncConsumer, SyncConsumer
from fairway.exceptions import ChannelLayerUnavailable, ConfigurationError, StopConsumer
from fairway.layers import InMemoryChannelLayer
from fairway.layers.registry import channel_layers
from fairway.routing import ChannelNameRouter, ProtocolTypeRouter
from fairway.types import Message, Receive, Scope, Send
from fairway.worker import Worker, reading
from fairway.worker.instance import logger

SECONDS_MAX = 5


@pytest.fixture
def layer() -> Any:
    """
    A layer of this process, which consumers find too.
    """
    layer = InMemoryChannelLayer()
    before = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", before)


class Recorder:
    """
    An application that notes what it is given; a message may say what it does then.
    """

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.seen: list[tuple[str, Any]] = []
        self.changed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Read until a message says otherwise.
        """
        self.scopes.append(scope)
        while True:
            message = await receive()
            self.seen.append((scope["channel"], message.get("n")))
            self.changed.set()
            if message["type"] == "hold":
                await self.go_on.wait()
            elif message["type"] == "fail":
                raise RuntimeError("no")
            elif message["type"] == "leave":
                return
            elif message["type"] == "answer":
                await send({"type": "http.response.start"})

    async def until(self, count: int) -> None:
        """
        Wait until so many messages were seen.
        """
        await until(lambda: len(self.seen) >= count, self.changed)


async def until(holds: Callable[[], bool], changed: asyncio.Event | None = None) -> None:
    """
    Wait until something holds, looking again whenever an event is set, or the loop has turned.
    """
    async with asyncio.timeout(SECONDS_MAX):
        while not holds():
            if changed is None:
                await asyncio.sleep(0.005)
            else:
                changed.clear()
                await changed.wait()


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[Worker]:
    """
    Have a worker read, and end it.
    """
    task = asyncio.create_task(worker.handle())
    try:
        yield worker
    finally:
        worker.stop(drain=0.05)
        async with asyncio.timeout(SECONDS_MAX):
            await task


async def test_one_application_per_channel(layer: Any) -> None:
    """Each channel has one application, made by its first message, with its name in the scope."""
    recorder = Recorder()
    async with running(Worker(recorder, ["a", "b", "a"], layer)) as worker:
        await asyncio.sleep(0)
        assert not worker.application_instances
        for n in range(2):
            for channel in ("a", "b"):
                await layer.send(channel, {"type": "x", "n": n})
        await recorder.until(4)
    assert sorted(recorder.seen) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert sorted(one["channel"] for one in recorder.scopes) == ["a", "b"]
    assert {one["type"] for one in recorder.scopes} == {"channel"}


async def test_next_message_stays_in_the_layer_until_it_is_wanted(layer: Any) -> None:
    """While a message is handled the others wait in the layer; another channel goes on."""
    recorder = Recorder()
    async with running(Worker(recorder, ["busy", "quiet"], layer)):
        for n in range(3):
            await layer.send("busy", {"type": "hold", "n": n})
        await recorder.until(1)
        await layer.send("quiet", {"type": "x", "n": 7})
        await recorder.until(2)
        assert recorder.seen == [("busy", 0), ("quiet", 7)]
        assert layer.channels["busy"].qsize() == 2
        recorder.go_on.set()
        await recorder.until(4)


async def test_stop_finishes_what_runs_and_leaves_the_rest(layer: Any) -> None:
    """A worker told to stop ends the message at hand, and takes no other."""
    recorder = Recorder()
    worker = Worker(recorder, ["a", "b"], layer)
    task = asyncio.create_task(worker.handle())
    await layer.send("a", {"type": "hold", "n": 1})
    await layer.send("a", {"type": "x", "n": 2})
    await recorder.until(1)
    worker.stop()
    await asyncio.sleep(0.01)
    assert not task.done()
    recorder.go_on.set()
    async with asyncio.timeout(SECONDS_MAX):
        await task
    assert recorder.seen == [("a", 1)]
    assert layer.channels["a"].qsize() == 1
    assert not worker.application_instances


async def test_stop_has_a_deadline(layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that does not return in time is cancelled, which is said."""
    recorder = Recorder()
    async with running(Worker(recorder, ["a"], layer)):
        await layer.send("a", {"type": "hold"})
        await recorder.until(1)
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert record.getMessage().startswith("the applications of 'a' did not end within 0.05 s")
    assert record.getMessage().endswith("[fairway.R708]")


@pytest.mark.one_loop
async def test_a_hurry_says_what_it_costs(
    layer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to end at once, a worker names what it cancels, and not what has nothing to do."""
    monkeypatch.setattr(reading, "end_soon", lambda: None)
    recorder = Recorder()
    worker = Worker(recorder, ["a", "b"], layer)
    task = worker._handling = asyncio.create_task(worker.handle())
    await layer.send("a", {"type": "x"})
    await recorder.until(1)
    await layer.send("b", {"type": "hold"})
    await recorder.until(2)
    worker.hurry()
    with pytest.raises(asyncio.CancelledError):
        await task
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert record.getMessage().startswith("the applications of 'b' did not end at once")


async def test_failed_application_is_replaced(layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An exception is logged with its id and traceback, and the next message gets a new one."""
    recorder = Recorder()
    async with running(Worker(recorder, ["a"], layer)):
        await layer.send("a", {"type": "fail", "n": 1})
        await layer.send("a", {"type": "x", "n": 2})
        await recorder.until(2)
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "'a': the application raised RuntimeError" in record.getMessage()
    assert record.getMessage().endswith("[fairway.R705]")
    assert record.exc_info
    assert len(recorder.scopes) == 2


async def test_application_that_returns_is_replaced(layer: Any) -> None:
    """An application that has returned is made anew by the next message."""
    recorder = Recorder()
    async with running(Worker(recorder, ["a"], layer)):
        await layer.send("a", {"type": "leave", "n": 1})
        await layer.send("a", {"type": "x", "n": 2})
        await recorder.until(2)
    assert len(recorder.scopes) == 2


async def test_application_that_reads_nothing(layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A message that no application looked at is lost with a line, and not tried for ever."""

    async def returns(scope: Scope, receive: Receive, send: Send) -> None:
        """
        Leave at once.
        """

    async with running(Worker(returns, ["a"], layer)):
        await layer.send("a", {"type": "x"})
        await until(lambda: "had not read" in caplog.text)


async def test_message_without_type(layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A message without a type is a ValueError of the listener, which the worker outlives."""
    recorder = Recorder()
    worker = Worker(recorder, ["a"], layer)
    await layer.send("a", {"n": 1})
    with pytest.raises(ValueError, match="no type"):
        await worker.listener("a")
    async with running(worker):
        await layer.send("a", {"n": 2})
        await layer.send("a", {"type": "x", "n": 3})
        await recorder.until(1)
    assert recorder.seen == [("a", 3)]
    assert "[fairway.R706]" in caplog.text


async def test_layer_that_is_away(layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """While the layer cannot be read the worker waits, with one line when it begins and ends."""
    caplog.set_level(logging.INFO, "fairway")
    recorder = Recorder()
    receive = layer.receive
    failures = iter([ChannelLayerUnavailable("gone"), OSError("gone"), ChannelLayerUnavailable()])

    async def unreliable(channel: str) -> Any:
        for failure in failures:
            raise failure
        return await receive(channel)

    layer.receive = unreliable
    worker = Worker(recorder, ["a"], layer)
    worker.retry_seconds = 0.001
    async with running(worker):
        await layer.send("a", {"type": "x"})
        await recorder.until(1)
    assert caplog.text.count("[fairway.R707]") == 1
    assert caplog.text.count("can be read again") == 1


async def test_applications_are_bounded(layer: Any) -> None:
    """With room for one application, the one that has nothing to do makes way for the next."""
    recorder = Recorder()
    alive = 0
    most = 0

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        try:
            await recorder(scope, receive, send)
        finally:
            alive -= 1

    async with running(Worker(counted, ["a", "b", "c"], layer, max_applications=1)):
        for n in range(3):
            for channel in "abc":
                await layer.send(channel, {"type": "x", "n": n})
        await recorder.until(9)
    assert most == 1
    with pytest.raises(ConfigurationError):
        Worker(recorder, ["a"], layer, max_applications=0)


async def test_sending_to_nobody(layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What an application sends is an error that names the ways there are."""
    recorder = Recorder()
    async with running(Worker(recorder, ["a"], layer)):
        await layer.send("a", {"type": "answer"})
        await until(lambda: "a worker has no client" in caplog.text)


class Counting(AsyncConsumer):
    """
    Counts, and joins a group when it is told to.
    """

    seen: list[str] = []  # noqa: RUF012 - all instances'

    async def count_up(self, message: Message) -> None:
        """
        Note a message.
        """
        self.seen.append(f"{message['n']} on {self.scope['channel']}")

    async def join(self, message: Message) -> None:
        """
        Join a group.
        """
        await self.group_add("workers")
        self.seen.append("joined")

    async def stop_here(self, message: Message) -> None:
        """
        End this consumer.
        """
        raise StopConsumer


class Blocking(SyncConsumer):
    """
    Notes which thread it runs in.
    """

    seen: list[int] = []  # noqa: RUF012 - all instances'

    def count_up(self, message: Message) -> None:
        """
        Note the thread.
        """
        self.seen.append(threading.get_ident())


@pytest.mark.django_db
async def test_consumers(layer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Consumers work behind ChannelNameRouter: handlers, groups, threads, unknown types."""
    Counting.seen.clear()
    Blocking.seen.clear()
    names = ChannelNameRouter({"a": Counting.as_asgi(), "b": Blocking.as_asgi()})
    async with running(Worker(ProtocolTypeRouter({"channel": names}), ["a", "b"], layer)):
        await layer.send("a", {"type": "count.up", "n": 1})
        await layer.send("a", {"type": "join"})
        await until(lambda: len(Counting.seen) == 2)
        await layer.group_send("workers", {"type": "count.up", "n": 2})
        await until(lambda: len(Counting.seen) == 3)
        await layer.send("a", {"type": "stop.here"})
        await layer.send("a", {"type": "mistyped"})
        await layer.send("a", {"type": "count.up", "n": 3})
        await layer.send("b", {"type": "count.up"})
        await until(lambda: len(Counting.seen) == 4 and len(Blocking.seen) == 1)
    assert Counting.seen == ["1 on a", "joined", "2 on a", "3 on a"]
    assert Blocking.seen != [threading.get_ident()]
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "No handler for message type mistyped" in record.getMessage()
    assert not record.exc_info
    assert not layer.groups


@pytest.mark.one_loop
async def test_run_in_a_thread(layer: Any) -> None:
    """A worker may run in a thread beside other work, with threads of its own for handlers."""
    Blocking.seen.clear()
    worker = Worker(Blocking.as_asgi(), ["b"], layer)
    thread = threading.Thread(target=worker.run)
    thread.start()
    for _ in range(2):
        await layer.send("b", {"type": "count.up"})
    await until(lambda: len(Blocking.seen) == 2)
    worker.stop()
    await asyncio.to_thread(thread.join, SECONDS_MAX)
    assert not thread.is_alive()
    assert thread.ident not in Blocking.seen
    assert len(set(Blocking.seen)) == 1
    assert not layer.hub.mailboxes


async def test_errors_may_go_elsewhere(layer: Any) -> None:
    """A subclass may take what applications raise, and run something around a listener."""
    taken: list[tuple[str, Any]] = []

    class Reporting(Worker):
        """
        Reports errors its own way.
        """

        def application_exception(self, exception: BaseException, details: dict[str, Any]) -> None:
            """
            Keep it.
            """
            taken.append((str(exception), details["scope"]["channel"]))

    recorder = Recorder()
    async with running(Reporting(recorder, ["a"], layer)):
        await layer.send("a", {"type": "fail"})
        await until(lambda: bool(taken))
    assert taken == [("no", "a")]


def test_lines_go_to_the_logger_of_channels_where_it_is_set_up() -> None:
    """A project that configures Channels' logger for workers finds the lines there."""
    theirs = logging.getLogger("django.channels.worker")
    assert logger().name == "fairway.worker"
    theirs.setLevel(logging.INFO)
    try:
        assert logger() is theirs
    finally:
        theirs.setLevel(logging.NOTSET)
