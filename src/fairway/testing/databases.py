"""
Databases in memory, shared between a test and the threads of its live server.

Such a database ends with its connection, so the server's threads use the test's own, as those
of Django's ``LiveServerThread`` do. Databases that live elsewhere are no business of this module.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.sqlite3.base import SQLiteCursorWrapper

from fairway.threads import Lane, Seat

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SharedDatabases", "SharedLedger"]


class SharedDatabases:
    """
    The databases in memory that the calling thread is connected to, by alias.

    Attributes:
        connections: Those connections; empty if all databases live elsewhere.
    """

    def __init__(self) -> None:
        self.connections: Mapping[str, Any] = {
            each.alias: each
            for each in connections.all()
            if each.vendor == "sqlite" and each.is_in_memory_db()  # type: ignore[attr-defined] # SQLite's
        }
        self._closed = [each for each in self.connections.values() if each.connection is None]

    def share(self) -> None:
        """
        Let other threads use them, until ``unshare``.
        """
        for each in self.connections.values():
            each.inc_thread_sharing()
            # A server around this one may have done so already.
            vars(each).setdefault("create_cursor", partial(_make_cursor, each, Lock()))

    def unshare(self) -> None:
        """
        Keep other threads from them again.
        """
        for each in self.connections.values():
            each.dec_thread_sharing()
            if not each.allow_thread_sharing:
                vars(each).pop("create_cursor", None)

    def use_here(self) -> None:
        """
        Have the calling thread use them in the place of its own.
        """
        for alias, each in self.connections.items():
            connections[alias] = each

    def leave_here(self) -> None:
        """
        Close what the calling thread has opened of its own.
        """
        for alias in self.connections:
            # A thread that had nothing to do has not begun to use them.
            with suppress(AttributeError):
                del connections[alias]
        connections.close_all()

    def close_opened(self) -> None:
        """
        Close what was not open before it was shared. For the last thread that used them.

        Django's wrapper keeps a database in memory open for good, since it would end with its
        last connection; this is another than the one it was made with.
        """
        for each in self._closed:
            if not each.in_atomic_block:
                BaseDatabaseWrapper.close(each)


class SharedLedger:
    """
    Gives a thread of the server the shared databases, and leaves all else to Django.

    See ``threads.Ledger``. Nothing is closed or rolled back for a handler that has ended: in a
    shared connection that could be the test's own transaction.
    """

    due_at = inf

    def __init__(self, databases: SharedDatabases) -> None:
        self._databases = databases
        self._begun = False

    def begin(self, lane: Lane) -> None:
        """
        See ``threads.Ledger``: the thread's first job finds the test's databases.
        """
        if not self._begun:
            self._begun = True
            self._databases.use_here()

    def end(self, lane: Lane) -> bool:
        """
        See ``threads.Ledger``: there is one thread only, for everybody.
        """
        return False

    def tidy(self) -> None:
        """
        See ``threads.Ledger``.
        """

    def roll_back(self) -> None:
        """
        See ``threads.Ledger``.
        """

    def close(self) -> None:
        """
        See ``threads.Ledger``: what is shared is the test's to close.
        """
        self._databases.leave_here()

    @classmethod
    def maker(cls, databases: SharedDatabases) -> Any:
        """
        Give what makes the ledger of a thread.
        """

        def make(seat: Seat) -> SharedLedger:
            return cls(databases)

        return make


def _in_turn(method: Callable[..., Any]) -> Callable[..., Any]:
    """
    Have a cursor's method wait until no other cursor of its connection is at work.
    """

    @wraps(method)
    def call(cursor: SharedCursor, *args: Any, **kwargs: Any) -> Any:
        with cursor.turn:
            return method(cursor, *args, **kwargs)

    return call


class SharedCursor(SQLiteCursorWrapper):
    """
    A cursor on a connection that several threads use at the same time.

    Python keeps the prepared statements of a connection, and gives one that has just come to its
    end to the next thread while the first still has to let go of it. Equal queries of two threads
    then meet in one statement, and fail or take each other's rows.

    Attributes:
        turn: Held by whoever is at work; one for each connection.
    """

    turn: Lock

    execute = _in_turn(SQLiteCursorWrapper.execute)
    executemany = _in_turn(SQLiteCursorWrapper.executemany)
    fetchone = _in_turn(SQLiteCursorWrapper.fetchone)
    fetchmany = _in_turn(SQLiteCursorWrapper.fetchmany)
    fetchall = _in_turn(SQLiteCursorWrapper.fetchall)
    close = _in_turn(SQLiteCursorWrapper.close)
    __next__ = _in_turn(SQLiteCursorWrapper.__next__)


def _make_cursor(connection: Any, turn: Lock, name: str | None = None) -> SharedCursor:
    """
    Do as ``create_cursor()`` of the connection.
    """
    cursor: SharedCursor = connection.connection.cursor(factory=SharedCursor)
    cursor.turn = turn
    return cursor
