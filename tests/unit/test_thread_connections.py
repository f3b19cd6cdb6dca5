"""
Connections of threads that many consumers share are closed when nobody uses them, and not before.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.utils import ConnectionHandler

from fairway import db, metrics, thread_connections, threads
from fairway.db import (
    aclose_old_connections,
    cleanup_due,
    database_sync_to_async,
)
from fairway.thread_connections import ThreadConnections
from fairway.threads import Threads
from tests.unit.counting_backend import base as backend


class Site:
    """
    A database in a file, threads for consumers, and tasks that stand for consumers.
    """

    def __init__(self, path: Path, max_age: float | None, size: int) -> None:
        self.handler = ConnectionHandler(
            {
                "default": {
                    "ENGINE": "tests.unit.counting_backend",
                    "NAME": str(path),
                    "CONN_MAX_AGE": max_age,
                    "OPTIONS": {"timeout": 10},
                }
            }
        )
        self.threads = Threads(ThreadConnections, consumers=size, pages=1, close_timeout=5)
        self.threads.start()
        self._context = contextvars.copy_context()

    def consumer(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """
        Do something as a consumer's handler does.
        """

        async def live() -> Any:
            entered = threads.enter()
            try:
                return await work()
            finally:
                threads.rest()
                threads.leave(entered)

        return asyncio.create_task(live(), context=self._context.copy())

    def close_old(self, **signal: Any) -> None:
        """
        Stand in for django.db.close_old_connections, with these connections.
        """
        for one in self.handler.all(initialized_only=True):
            one.close_if_unusable_or_obsolete()

    def query(self, sql: str = "SELECT 1") -> Any:
        """
        Use the database in the calling thread.
        """
        with self.handler["default"].cursor() as cursor:
            return cursor.execute(sql).fetchone()

    def is_open(self) -> bool:
        """
        Whether the calling thread holds a connection.
        """
        return self.handler["default"].connection is not None


@pytest.fixture
def max_age() -> float | None:
    """
    CONN_MAX_AGE, unless a test says otherwise.
    """
    return 0


@pytest.fixture
def size() -> int:
    """
    Threads, unless a test says otherwise.
    """
    return 1


@pytest.fixture
async def site(
    tmp_path: Path,
    max_age: float | None,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
    unblocked: None,
) -> AsyncIterator[Site]:
    """
    A database of this test's own that the module takes for the project's.
    """
    site = Site(tmp_path / "db.sqlite3", max_age, size)
    monkeypatch.setattr(thread_connections, "connections", site.handler)
    monkeypatch.setattr(thread_connections, "close_old_connections", site.close_old)
    monkeypatch.setattr(transaction, "connections", site.handler)
    monkeypatch.setattr(db, "close_old_connections", site.close_old)
    monkeypatch.setattr(db.watch, "opened", set())
    monkeypatch.setattr(db.watch, "recheck", 0.0)
    monkeypatch.setattr(backend, "opened", 0)
    monkeypatch.setattr(backend, "peak", 0)
    yield site
    await site.threads.stop()
    assert backend.opened == 0
    assert not threads.in_use


@pytest.fixture
def unblocked(django_db_blocker: Any) -> Iterator[None]:
    """
    Let connections open: they are not those of the project.
    """
    with django_db_blocker.unblock():
        yield


async def until(condition: Callable[[], object]) -> None:
    """
    Wait for a condition.
    """
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def test_a_handlers_connection_is_closed_at_its_end(site: Site) -> None:
    """
    What plain asynchronous work opened is closed behind the handler, without a hop of it.
    """

    async def work() -> bool:
        await sync_to_async(site.query)()
        return bool(await sync_to_async(site.is_open)())

    assert await site.consumer(work)
    await until(lambda: backend.opened == 0)
    assert not cleanup_due()


async def test_another_handler_does_not_close_it(site: Site) -> None:
    """
    While a handler that used a connection runs, other consumers' clean-ups leave it open.
    """
    used, go = asyncio.Event(), asyncio.Event()

    async def keep() -> Any:
        await sync_to_async(site.query)("CREATE TEMP TABLE mine (a)")
        used.set()
        await go.wait()
        return await sync_to_async(site.query)("SELECT count(*) FROM mine")

    task = site.consumer(keep)
    await used.wait()
    for _ in range(3):
        await site.consumer(lambda: database_sync_to_async(site.query)())  # noqa: PLW0108 - a coroutine each
    await site.consumer(aclose_old_connections)
    go.set()
    assert await task == (0,)
    await until(lambda: backend.opened == 0)
    assert backend.peak == 1


async def test_database_sync_to_async_closes_behind_itself(site: Site) -> None:
    """
    As in Channels the connection is closed when the call returns, if nobody else uses it.
    """

    async def work() -> bool:
        await database_sync_to_async(site.query)()
        return bool(await sync_to_async(site.is_open)())

    assert not await site.consumer(work)


async def test_an_open_cursor_survives_clean_ups(site: Site) -> None:
    """
    Rows that are still to come are not lost to any clean-up, the consumer's own included.
    """

    async def work() -> int:
        await sync_to_async(site.query)("CREATE TABLE numbers AS SELECT 1 AS a UNION SELECT 2")
        cursor = await sync_to_async(lambda: site.handler["default"].cursor())()  # noqa: PLW0108 - the thread's own
        await sync_to_async(cursor.execute)("SELECT a FROM numbers")
        await sync_to_async(cursor.fetchone)()
        await database_sync_to_async(site.query)()
        await aclose_old_connections()
        threads.rest()  # As if this were a task, and the handler over.
        await site.consumer(lambda: database_sync_to_async(site.query)())  # noqa: PLW0108 - a coroutine each
        return int((await sync_to_async(cursor.fetchone)())[0])

    assert await site.consumer(work) == 2


async def test_autocommit_off_is_a_transaction(site: Site) -> None:
    """
    What is written with autocommit off is the consumer's own until it commits, whatever cleans up.
    """

    async def work() -> Any:
        await sync_to_async(site.query)("CREATE TABLE numbers (a)")
        await sync_to_async(transaction.set_autocommit)(False)
        await sync_to_async(site.query)("INSERT INTO numbers VALUES (1)")
        await database_sync_to_async(site.query)("INSERT INTO numbers VALUES (2)")
        other = site.consumer(
            lambda: database_sync_to_async(site.query)("SELECT count(*) FROM numbers")
        )
        await asyncio.sleep(0.01)
        assert not other.done()
        await sync_to_async(transaction.commit)()
        await sync_to_async(transaction.set_autocommit)(True)
        return await other

    assert await site.consumer(work) == (2,)


async def test_a_block_left_open_is_rolled_back(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A consumer that is over leaves no transaction: undone, counted and logged.
    """
    before = metrics.transactions_abandoned.value

    async def work() -> None:
        await sync_to_async(site.query)("CREATE TABLE numbers (a)")
        await sync_to_async(transaction.atomic().__enter__)()
        await sync_to_async(site.query)("INSERT INTO numbers VALUES (1)")

    await site.consumer(work)
    count = await site.consumer(
        lambda: database_sync_to_async(site.query)("SELECT count(*) FROM numbers")
    )
    assert count == (0,)
    assert metrics.transactions_abandoned.value == before + 1
    assert caplog.text.count("was left open") == 1


@pytest.mark.parametrize("max_age", [None, 0, 60])
@pytest.mark.parametrize("size", [3])
async def test_connections_never_exceed_the_threads(site: Site, size: int) -> None:
    """
    A hundred consumers that use the database in all ways open no more than one per thread.
    """

    async def work() -> None:
        await sync_to_async(site.query)()
        await asyncio.sleep(0)
        await database_sync_to_async(site.query)()
        block = transaction.atomic()
        await sync_to_async(block.__enter__)()
        await sync_to_async(site.query)()
        await sync_to_async(block.__exit__)(None, None, None)

    await asyncio.gather(*(site.consumer(work) for _ in range(100)))
    assert 1 <= backend.peak <= size


@pytest.mark.parametrize("max_age", [None])
async def test_persistent_connections_stay(site: Site) -> None:
    """
    With CONN_MAX_AGE=None one connection serves them all.
    """
    for _ in range(5):
        await site.consumer(lambda: sync_to_async(site.query)())  # noqa: PLW0108 - a coroutine each
        await site.consumer(lambda: database_sync_to_async(site.query)())  # noqa: PLW0108 - a coroutine each
    assert (backend.opened, backend.peak) == (1, 1)


@pytest.mark.parametrize("max_age", [None])
async def test_a_broken_connection_is_replaced_whoever_used_it(site: Site) -> None:
    """
    A connection that the server cut off does not wait for the end of a long handler.
    """

    def break_off() -> None:
        site.handler["default"].connection.close()
        with pytest.raises(Exception, match="closed"):
            site.query()

    async def work() -> Any:
        await sync_to_async(site.query)()
        await sync_to_async(break_off)()
        return await sync_to_async(site.query)()

    assert await site.consumer(work) == (1,)


async def test_a_block_takes_its_own_wrapper_away(site: Site) -> None:
    """
    A connection that is opened within execute_wrapper() keeps nothing of that block.
    """
    seen: list[str] = []

    def note(execute: Any, sql: Any, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    def look() -> None:
        with site.handler["default"].execute_wrapper(note):
            site.query("SELECT 1")
        site.query("SELECT 2")

    await site.consumer(lambda: sync_to_async(look)())  # noqa: PLW0108 - a coroutine each
    assert seen == ["SELECT 1"]
