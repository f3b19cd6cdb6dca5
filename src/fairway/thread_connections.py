"""
The database connections of one thread that serves many consumers and requests in turn.

Says when they may be closed, and undoes what was left open in them. When a handler begins and
ends, and which thread it gets, lives in ``threads``; what consumers call lives in ``db``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import Any
from weakref import WeakSet

from django.db import close_old_connections, connections

from fairway import metrics, threads
from fairway.faults import Fault
from fairway.threads import Lane, Seat, Use

__all__ = ["ThreadConnections", "all_open", "looked_after"]

logger = logging.getLogger("fairway.db")

_here = threading.local()
"""
Holds the ``ThreadConnections`` of a thread that has them, as ``ledger``.
"""


def looked_after() -> ThreadConnections | None:
    """
    Give what looks after the calling thread's connections, if anything does.
    """
    ledger: ThreadConnections | None = getattr(_here, "ledger", None)
    return ledger


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
        for one in all_open():
            if not _in_transaction(one):
                continue
            metrics.transactions_abandoned.value += 1
            logger.warning(
                "A transaction on %r was left open at the end of its connection and was rolled "
                "back. Hint: end it in disconnect(), or open and end it in one function. [%s]",
                one.alias,
                Fault.TRANSACTION_ABANDONED,
            )
            _force_close(one)
        self._note_state()

    def close(self) -> None:
        """
        See ``threads.Ledger``.
        """
        if self._open:
            for one in all_open():
                _force_close(one)

    def adopt(self, connection: Any) -> None:
        """
        Take a connection in that was just opened in this thread, maybe not for the first time.
        """
        self._open = self._touched = True
        if self._note_execution not in connection.execute_wrappers:
            # First, since Django takes a block's own wrapper away from the end of the list.
            connection.execute_wrappers.insert(0, self._note_execution)
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
            one.errors_occurred or (first and one.health_check_enabled) for one in all_open()
        )

    def _note_state(self) -> None:
        """
        Note what is open, until when, and whether in a transaction.
        """
        opened = all_open()
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


def all_open() -> list[Any]:
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
