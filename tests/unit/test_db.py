"""
Connections are cleaned up in the thread that holds them, and only when there is something to do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.db.utils import ConnectionHandler

from fairway import db, thread_connections
from fairway.db import aclose_old_connections, cleanup_due, database_sync_to_async


class Databases:
    """
    One SQLite file, reached by connections of its own in each thread; counts the clean-ups.
    """

    def __init__(self, path: Path, max_age: float | None) -> None:
        self.handler = ConnectionHandler(
            {
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": str(path),
                    "CONN_MAX_AGE": max_age,
                }
            }
        )
        self.cleaned: list[int] = []

    def clean(self, **signal: Any) -> None:
        """
        Stand in for django.db.close_old_connections, with these connections.
        """
        self.cleaned.append(threading.get_ident())
        for one in self.handler.all(initialized_only=True):
            one.close_if_unusable_or_obsolete()

    def query(self) -> int:
        """
        Use the database in the calling thread.
        """
        with self.handler["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
            return int(cursor.fetchone()[0])

    def is_open(self) -> bool:
        """
        Whether the calling thread holds a connection.
        """
        return self.handler["default"].connection is not None


@pytest.fixture
def max_age() -> float | None:
    """
    CONN_MAX_AGE, unless a test says otherwise: Django's default, no connection outlives a use.
    """
    return 0


@pytest.fixture
async def databases(
    tmp_path: Path,
    max_age: float | None,
    monkeypatch: pytest.MonkeyPatch,
    unblocked: None,
) -> AsyncIterator[Databases]:
    """
    A database of this test's own that the module takes for the project's.
    """
    databases = Databases(tmp_path / "db.sqlite3", max_age)
    monkeypatch.setattr(thread_connections, "connections", databases.handler)
    monkeypatch.setattr(db, "close_old_connections", databases.clean)
    monkeypatch.setattr(db.watch, "opened", set())
    monkeypatch.setattr(db.watch, "recheck", 0.0)
    yield databases
    await sync_to_async(databases.handler.close_all)()


@pytest.fixture
def unblocked(django_db_blocker: Any) -> Iterator[None]:
    """
    Let connections open: they are not those of the project.
    """
    with django_db_blocker.unblock():
        yield


async def handle_message() -> None:
    """
    What a consumer does before each message.
    """
    if cleanup_due():
        await aclose_old_connections()


async def test_cleans_up_before_and_after(databases: Databases) -> None:
    """
    Code that uses the database runs between two clean-ups in its own thread.
    """
    thread, number = await database_sync_to_async(
        lambda: (threading.get_ident(), databases.query())
    )()
    assert number == 1
    assert databases.cleaned == [thread, thread]
    assert thread != threading.get_ident()


async def test_cleans_up_after_an_exception(databases: Databases) -> None:
    """
    An exception passes through, and the clean-up after it happens.
    """

    @database_sync_to_async
    def fail() -> None:
        databases.query()
        raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert len(databases.cleaned) == 2
    assert not await sync_to_async(databases.is_open)()


async def test_decorates_methods(databases: Databases) -> None:
    """
    A decorated method gets its instance and its arguments.
    """

    class Shelf:
        @database_sync_to_async
        def find(self, title: str, *, exact: bool) -> tuple[Any, str, bool]:
            return self, title, exact

    shelf = Shelf()
    assert await shelf.find("Emma", exact=True) == (shelf, "Emma", True)


async def test_clean_up_can_be_replaced() -> None:
    """
    Whoever patches the name in this module replaces it everywhere.
    """
    with mock.patch("fairway.db.close_old_connections") as patched:
        await database_sync_to_async(int)()
        await aclose_old_connections()
    assert patched.call_count == 3


async def test_nothing_is_due_without_a_database(databases: Databases) -> None:
    """
    Messages of consumers that use no database cost no hop to a thread.
    """
    for _ in range(100):
        await handle_message()
    assert databases.cleaned == []


async def test_an_opened_connection_is_cleaned_up_once(databases: Databases) -> None:
    """
    One hop follows a connection, closes it in its thread, and leaves nothing to be done.
    """
    await sync_to_async(databases.query)()
    assert cleanup_due()
    for _ in range(100):
        await handle_message()
    assert len(databases.cleaned) == 1
    assert not await sync_to_async(databases.is_open)()


async def test_many_consumers_share_one_hop(databases: Databases) -> None:
    """
    A message for all that finds a connection open sends one of them to the thread.
    """
    await sync_to_async(databases.query)()
    await asyncio.gather(*(handle_message() for _ in range(100)))
    assert len(databases.cleaned) == 1


async def test_what_sync_code_closed_again_is_not_due(databases: Databases) -> None:
    """
    A connection that database_sync_to_async saw open and close is no reason for a hop.
    """
    await database_sync_to_async(databases.query)()
    assert not cleanup_due()


async def test_a_connection_elsewhere_costs_one_hop_at_most(databases: Databases) -> None:
    """
    A page's connection, in a thread that Django looks after, is not looked for twice.
    """
    with ThreadPoolExecutor(1) as page:
        page.submit(databases.query).result()
        for _ in range(100):
            await handle_message()
        page.submit(databases.handler.close_all).result()
    assert len(databases.cleaned) == 1


@pytest.mark.parametrize("max_age", [None, 600])
async def test_a_persistent_connection_is_looked_at_once_a_second(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A connection that stays open is found broken or too old within a second, for one hop each.
    """
    clock = 0.0
    monkeypatch.setattr(db, "monotonic", lambda: clock)
    await sync_to_async(databases.query)()
    for now in (1000.0, 1000.5, 1000.999, 1001.0, 1001.5, 1002.0):
        clock = now
        for _ in range(10):
            await handle_message()
    assert len(databases.cleaned) == 3
    assert await sync_to_async(databases.is_open)()


@pytest.mark.parametrize("max_age", [600])
async def test_an_old_connection_ends_the_looking(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Once a persistent connection has grown too old and was closed, no hop is due any more.
    """
    clock = 1000.0
    monkeypatch.setattr(db, "monotonic", lambda: clock)
    await sync_to_async(databases.query)()
    await handle_message()

    def age() -> None:
        databases.handler["default"].close_at = 0

    await sync_to_async(age)()
    clock = 1001.0
    await handle_message()
    assert not await sync_to_async(databases.is_open)()
    clock = 5000.0
    assert not cleanup_due()
