"""
Database work next to an event loop: the hop to a thread, and connections that do not go stale.

Django opens a connection per thread and closes old ones at the ends of HTTP requests. A
consumer knows no requests, so this module closes them around its handlers instead: in the
threads of a Fairway server as ``thread_connections`` says, elsewhere by a hop when
``ConnectionWatch`` says so. Nothing here knows about consumers; ``close_old_connections`` is
looked up in this module at each call, because tests replace it here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import close_old_connections
from django.db.backends.signals import connection_created

from fairway import threads
from fairway.thread_connections import all_open, looked_after

__all__ = [
    "DatabaseSyncToAsync",
    "aclose_old_connections",
    "cleanup_due",
    "close_old_connections",
    "database_sync_to_async",
]

P = ParamSpec("P")
R = TypeVar("R")

RECHECK_SECONDS = 1.0
"""
How often connections that stay open (``CONN_MAX_AGE``) are looked at, in seconds.
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
        ledger = looked_after()
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
        self.recheck = monotonic() + RECHECK_SECONDS if all_open() else 0.0


watch = ConnectionWatch()
connection_created.connect(watch.hear, weak=False, dispatch_uid="fairway.db")


def cleanup_due() -> bool:
    """
    Whether ``aclose_old_connections()`` would have something to do, as far as one can tell here.

    Hot path: once per message of an asynchronous consumer.
    """
    return bool(watch.opened or (watch.recheck and monotonic() >= watch.recheck))


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
            if get_ident() in watch.opened and not all_open():
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
    if looked_after() is None:
        watch.settle()


_clean_up_in_thread = sync_to_async(_clean_up)
