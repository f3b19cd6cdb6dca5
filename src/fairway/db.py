"""
Database work next to an event loop: the hop to a thread, and connections that do not go stale.

Django opens a connection per thread and closes old ones at the ends of HTTP requests. A
consumer knows no requests, so this module closes them around its handlers instead: in the
threads that a Fairway server maps connections to (``threads``) by each thread's
``ThreadConnections``, elsewhere by a hop when ``ConnectionWatch`` says so. Nothing here knows
about consumers; ``close_old_connections`` is looked up in this module at each call, because
tests replace it here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakSet

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import close_old_connections, connections
from django.db.backends.signals import connection_created

from fairway import metrics, threads
from fairway.threads import Lane, Seat, Use

__all__ = [
    "DatabaseSyncToAsync",
    "ThreadConnections",
    "aclose_old_connections",
    "cleanup_due",
    "close_old_connections",
    "database_sync_to_async",
]

logger = logging.getLogger("fairway.db")

P = ParamSpec("P")
R = TypeVar("R")

RECHECK_SECONDS = 1.0
"""
How often connections that stay open (``CONN_MAX_AGE``) are looked at, in seconds.
"""


_here = threading.local()
"""
Holds the ``ThreadConnections`` of a thread that has them, as ``ledger``.
"""


class ConnectionWatch:
    """
    Knows, without leaving the event loop, whether a look at a thread's connections is due.

    Channels hops to the thread before each message, database or not, which is half the cost
    of its fan-out. Here a hop happens only

    - once after a connection was opened, which Django says by a signal, and
    - at most once a second while a connection is known to have stayed open, since only a look
      tells whether it has grown too old or was cut off.

    A connection opened in a thread that the hop does not reach (a page's, say, which Django
    itself cleans up) costs one hop in vain: ``claim`` forgets what it heard until then.

    Attributes:
        opened: Threads in which a connection was opened since the last claim.
        recheck: When to look again, in seconds of ``time.monotonic()``; 0.0 for never.
    """

    __slots__ = ("opened", "recheck")

    def __init__(self) -> None:
        self.opened: set[int] = set()
        self.recheck = 0.0

    def hear(self, *, connection: Any, **signal: Any) -> None:
        """
        Note that the calling thread opened a connection: a ``connection_created`` receiver.
        """
        ledger = getattr(_here, "ledger", None)
        if ledger is None:
            self.opened.add(get_ident())
        else:
            ledger.adopt(connection)

    def claim(self) -> None:
        """
        Say that the caller is about to look, so that nobody else does at the same time.

        A thousand consumers woken by one message make one hop between them.
        """
        self.opened.clear()
        if self.recheck:
            self.recheck = monotonic() + RECHECK_SECONDS

    def settle(self) -> None:
        """
        Note what is left open in the calling thread, after a clean-up there.
        """
        self.recheck = monotonic() + RECHECK_SECONDS if _any_open() else 0.0


watch = ConnectionWatch()
connection_created.connect(watch.hear, weak=False, dispatch_uid="fairway.db")


def cleanup_due() -> bool:
    """
    Whether ``aclose_old_connections()`` would have something to do, as far as one can tell here.

    Hot path: once per message of an asynchronous consumer.
    """
    return bool(watch.opened or (watch.recheck and monotonic() >= watch.recheck))


class ThreadConnections:
    """
    Looks after the connections of one thread that serves many consumers or requests in turn.

    Whoever asks Django to close old connections, its own signals included, closes here only
    what no handler or request still uses: each connection's ``close_if_unusable_or_obsolete``
    is made to look first. Broken connections are closed whoever used them.

    See ``threads.Ledger``. Used in its own thread, except for ``due_at``.
    """

    def __init__(self, seat: Seat) -> None:
        self.due_at = inf
        self._seat = seat
        self._lane: Lane | None = None
        self._open = False
        self._touched = False
        self._held = False
        self._users: set[Use] = set()
        # Cursors that the present job executed something with, as long as somebody has them.
        self._cursors: WeakSet[Any] = WeakSet()

    def begin(self, lane: Lane) -> None:
        """
        See ``threads.Ledger``: a new job meets no worn-out connection.
        """
        _here.ledger = self
        self._touched = False
        if self._open and self._is_due(first=lane.use is None):
            self.tidy()
        self._lane = lane

    def end(self, lane: Lane) -> bool:
        """
        See ``threads.Ledger``: a transaction left open keeps the thread for its lane.
        """
        self._lane = None
        if not self._open:
            return False
        self._note_state()
        if self._open and (self._touched or self._held):
            self._note_use(lane)
        if self._cursors:
            self._cursors = WeakSet()
        return self._held

    def tidy(self) -> None:
        """
        See ``threads.Ledger``.
        """
        self._users = {use for use in self._users if use.lasts()}
        close_old_connections()
        self._note_state()

    def roll_back(self) -> None:
        """
        See ``threads.Ledger``: whoever began these transactions is over and will not end them.
        """
        for one in _all_open():
            if not _in_transaction(one):
                continue
            metrics.transactions_abandoned.value += 1
            logger.warning(
                "A transaction on %r was left open at the end of its connection and was rolled "
                "back. Hint: end it in disconnect(), or open and end it in one function.",
                one.alias,
            )
            _force_close(one)
        self._note_state()

    def close(self) -> None:
        """
        See ``threads.Ledger``.
        """
        if self._open:
            for one in _all_open():
                _force_close(one)

    def adopt(self, connection: Any) -> None:
        """
        Take a connection in that was just opened in this thread, maybe not for the first time.
        """
        self._open = self._touched = True
        if self._note_execution not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._note_execution)
            close = connection.close_if_unusable_or_obsolete
            connection.close_if_unusable_or_obsolete = partial(
                self._close_unless_used, connection, close
            )

    def _note_execution(
        self, execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        """
        Note each query: Django calls it around them.
        """
        self._touched = True
        self._cursors.add(context["cursor"])
        return execute(sql, params, many, context)

    def _close_unless_used(self, connection: Any, close: Callable[[], None]) -> None:
        """
        Do what Django's ``close_if_unusable_or_obsolete()`` does, unless somebody minds.

        The present job's own handler may close what it used, save for its cursors' sake.
        """
        if self._held:
            return
        own = self._lane.use if self._lane is not None else None
        used = any(use.cursors if use is own else use.lasts() for use in self._users)
        if not used:
            close()
        else:
            at, connection.close_at = connection.close_at, None
            try:
                close()
            finally:
                if connection.connection is not None:
                    connection.close_at = at

    def _is_due(self, *, first: bool) -> bool:
        """
        Whether ``tidy()`` might do something; ``first`` for the first job of a handler.
        """
        return monotonic() >= self.due_at or any(
            one.errors_occurred or (first and one.health_check_enabled) for one in _all_open()
        )

    def _note_state(self) -> None:
        """
        Note what is open, until when, and whether in a transaction.
        """
        opened = _all_open()
        self._open = bool(opened)
        self._held = any(_in_transaction(one) for one in opened)
        self.due_at = min((one.close_at for one in opened if one.close_at is not None), default=inf)
        if not opened:
            self._users.clear()

    def _note_use(self, lane: Lane) -> None:
        """
        Note that the lane's handler uses connections here.
        """
        use = lane.use
        if use is None:
            use = lane.use = Use()
            threads.in_use.add(lane)
        self._users.add(use)
        use.seats.add(self._seat)
        if self._cursors:
            if lane.cursors:
                lane.cursors.update(self._cursors)
            else:
                lane.cursors = self._cursors
            use.cursors = lane.cursors


class DatabaseSyncToAsync(SyncToAsync[P, R]):
    """
    ``sync_to_async`` for code that uses the database: cleans up before and after, in the thread.
    """

    def thread_handler(self, loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> Any:
        """
        Run the function in the thread it was sent to, between two clean-ups.
        """
        close_old_connections()
        try:
            return super().thread_handler(loop, *args, **kwargs)  # type: ignore[no-untyped-call] # asgiref's
        finally:
            close_old_connections()
            # What was opened and closed again in here need not send anyone else looking.
            if get_ident() in watch.opened and not _any_open():
                watch.opened.discard(get_ident())

    if TYPE_CHECKING:
        # asgiref's says that a decorated method takes its instance once more.
        def __get__(self, parent: Any, objtype: Any) -> Callable[..., Coroutine[Any, Any, R]]: ...


database_sync_to_async = DatabaseSyncToAsync


async def aclose_old_connections() -> None:
    """
    Close this context's database connections that are too old or broken, in their thread.

    Consumers do it by themselves around each handler; an endless loop inside one handler may
    want to. Cancelled while it waits, the clean-up still happens.
    """
    watch.claim()
    if threads.in_use:
        threads.rest()
    await _clean_up_in_thread()


def _clean_up() -> None:
    """
    Clean up in the calling thread and note what is left.
    """
    close_old_connections()
    if getattr(_here, "ledger", None) is None:
        watch.settle()


_clean_up_in_thread = sync_to_async(_clean_up)


def _any_open() -> bool:
    """
    Whether the calling thread holds an open database connection.
    """
    return bool(_all_open())


def _all_open() -> list[Any]:
    """
    Give the open database connections of the calling thread.
    """
    return [one for one in connections.all(initialized_only=True) if one.connection is not None]


def _force_close(connection: Any) -> None:
    """
    Close a connection as if no block were open; else Django waits for the end of the block.
    """
    connection.in_atomic_block = connection.closed_in_transaction = False
    connection.close()


def _in_transaction(connection: Any) -> bool:
    """
    Whether a transaction was opened that is not ended by itself.
    """
    return bool(
        connection.in_atomic_block
        or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]
    )
