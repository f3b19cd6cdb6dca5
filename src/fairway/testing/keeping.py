"""
Database connections that stay open while a test's communicators run.

Django closes old ones around requests, and Fairway around handlers. Under a communicator both
happen in the test's own thread, to a connection that holds the test's transaction.
"""

from __future__ import annotations

import asyncio
from typing import Any

from django import db as django_db
from django.core.signals import request_finished, request_started
from django.db.backends.base.base import BaseDatabaseWrapper

from fairway import db

__all__ = ["keep_connections_open"]

REQUEST_SIGNALS = (request_started, request_finished)

_running = 0


def keep_connections_open(task: asyncio.Task[None]) -> None:
    """
    Turn the closing of old connections off until a task and all others like it have ended.

    Consumers do it by ``fairway.db``, pages by Django's signals, where ``django.test.Client`` turns
    it off too, since it would take the test's own transaction with it. That client turns it on
    again, so each task turns it off anew. Counted, since communicators run at the same time, and
    putting back what each one found would leave it off for good. Not only while one waits: what
    has sent its answer is cleaned up behind while the test goes on. What a task leaves in a thread
    when it is cancelled cleans up even later, so a test's transaction is spared from now on.
    """
    global _running, _close  # noqa: PLW0603 - one process, one function to replace
    BaseDatabaseWrapper.close_if_unusable_or_obsolete = _close_unless_of_a_test  # type: ignore[assignment, method-assign]
    if not _running:
        _close, db.close_old_connections = db.close_old_connections, _nothing
    for signal in REQUEST_SIGNALS:
        signal.disconnect(django_db.close_old_connections)
    _running += 1
    task.add_done_callback(_put_back)


def _put_back(task: asyncio.Task[None]) -> None:
    """
    Turn the clean-up on again after the last task.
    """
    global _running  # noqa: PLW0603 - as above
    _running -= 1
    if not _running:
        db.close_old_connections = _close
        for signal in REQUEST_SIGNALS:
            signal.connect(django_db.close_old_connections)


_close = db.close_old_connections
_close_if_old = BaseDatabaseWrapper.close_if_unusable_or_obsolete


def _close_unless_of_a_test(connection: BaseDatabaseWrapper) -> None:
    """
    Do as Django's ``close_if_unusable_or_obsolete()``, except in a transaction around a test.
    """
    blocks = connection.atomic_blocks
    if not (blocks and getattr(blocks[0], "_from_testcase", False)):
        _close_if_old(connection)


def _nothing(**signal: Any) -> None:
    """
    Stand in for ``close_old_connections``.
    """
