"""
One thread of a pool: its life, and a job's course through it.

It takes what its pool puts into its inbox, and asks nothing of other threads; the choice of
the next lane lives in ``pool``.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from fairway.faults import Fault
from fairway.threads.lanes import Lane

if TYPE_CHECKING:
    from fairway.threads.jobs import Job
    from fairway.threads.lanes import Ledger
    from fairway.threads.pool import Pool

__all__ = ["Seat", "log_stack"]

logger = logging.getLogger("fairway.threads")


class Seat:
    """
    One thread of a pool, and what waits for it alone.

    Attributes:
        inbox: Lanes whose turn it is, functions to call in between, and None for the end.
        lane: Whose job it runs.
        given_at: Since when, in seconds of ``time.monotonic()``; 0 before its first.
        held: Whether it runs nothing but one lane's jobs.
        lost: Whether it was given up as stuck.
        waiting: Lanes whose open cursor is here, each with its ticket.
        ended: Set when the thread ends.
    """

    __slots__ = (
        "ended",
        "given_at",
        "held",
        "inbox",
        "lane",
        "ledger",
        "lost",
        "pool",
        "thread",
        "waiting",
    )

    def __init__(self, pool: Pool, name: str) -> None:
        self.pool = pool
        self.inbox: SimpleQueue[Lane | Callable[[], None] | None] = SimpleQueue()
        self.lane: Lane | None = None
        self.given_at = 0.0
        self.held = False
        self.lost = False
        self.waiting: deque[tuple[int, Lane]] = deque()
        self.ended: Future[None] = Future()
        self.ledger: Ledger = pool.make_ledger(self)
        # A daemon: nobody waits for a stuck one when the process ends.
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def release(self, lane: Lane) -> None:
        """
        Undo what a lane left in this thread, and serve the others again.
        """
        with self.pool.lock:
            if not self.held or not lane.holds or lane.seat is not self:
                return
        self.ledger.roll_back()
        with self.pool.lock:
            self.held = lane.holds = False
            if self.lane is None:
                self.pool.advance(self)

    def _run(self) -> None:
        """
        Live: one thing after another, until told to end.
        """
        while (item := self.inbox.get()) is not None:
            try:
                if isinstance(item, Lane):
                    self._take_turn(item)
                else:
                    item()
            except Exception:
                logger.exception("A thread failed between two jobs and goes on")
            # The next thing may be long in coming, and this one is to die when it can.
            del item
        try:
            self.ledger.close()
        except Exception:
            logger.exception("A thread could not close its connections")
        self.ended.set_result(None)
        self.pool.forget(self)

    def _take_turn(self, lane: Lane) -> None:
        """
        Run a lane's next job, and settle who is next before anybody learns of the result.
        """
        with self.pool.lock:
            job = lane.jobs.popleft()
            lane.job, lane.seat = job, self
            job.started = monotonic()
        tell: Callable[[], None] | None = None
        held = lane.holds
        try:
            # Set first: the result may be deserted as soon as it runs.
            job.result.on_deserted = partial(self.pool.watch, self, job)
            if job.result.set_running_or_notify_cancel():
                self.ledger.begin(lane)
                try:
                    tell = job.run()
                finally:
                    # Given up meanwhile: the lane went on in another thread.
                    held = not self.lost and self.ledger.end(lane)
        finally:
            self.pool.settle(self, lane, job, held=held)
            if tell is not None:
                tell()


def log_stack(seat: Seat, job: Job) -> None:
    """
    Say where a thread is stuck.
    """
    frame = sys._current_frames().get(seat.thread.ident or 0)  # noqa: SLF001 - documented
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "(it has just ended)\n"
    logger.error(
        "A thread of %d for %ss is stuck since %.1f s and was given up; it stands here: [%s]\n%s",
        seat.pool.size,
        seat.pool.name,
        monotonic() - job.started,
        Fault.THREAD_STUCK,
        stack.rstrip(),
    )
