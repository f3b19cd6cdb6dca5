"""
Databases in memory, shared between a test and the threads of its live server.

Such a database ends with its connection, so the server's threads use the test's own, as those
of Django's ``LiveServerThread`` do. Databases that live elsewhere are no business of this module.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

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

    def unshare(self) -> None:
        """
        Keep other threads from them again.
        """
        for each in self.connections.values():
            each.dec_thread_sharing()

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
