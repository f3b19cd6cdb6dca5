"""
One connection's jobs in their order, and which threads keep something open for it.

A lane is told what becomes of it; which thread it gets is for ``pool`` to say. What a thread
looks after between two jobs is described by ``Ledger`` alone: no database here.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fairway.threads.jobs import Job
    from fairway.threads.pool import Pool
    from fairway.threads.seats import Seat

__all__ = ["Grip", "Lane", "Ledger", "Use", "in_use"]


class Use:
    """
    One handler's use of connections that stayed open in threads.

    Attributes:
        over: Whether the handler has ended.
        cursors: Its cursors that may have rows left, a set that forgets the dead; or None.
        seats: The threads in question.
    """

    __slots__ = ("cursors", "over", "seats")

    def __init__(self) -> None:
        self.over = False
        self.cursors: Any = None
        self.seats: set[Seat] = set()

    def lasts(self) -> bool:
        """
        Whether connections must stay open for it. May be called from any thread.
        """
        return not self.over or bool(self.cursors)


class Ledger(Protocol):
    """
    What one thread keeps between jobs. Called in that thread, except where it says otherwise.

    Attributes:
        due_at: When something is to be tidied up, in seconds of ``time.monotonic()``; read by
            every thread.
    """

    due_at: float

    def begin(self, lane: Lane) -> None:
        """
        Prepare for a job.
        """

    def end(self, lane: Lane) -> bool:
        """
        Look at what a job left.

        Returns:
            Whether the thread must run nothing but the lane's jobs until told otherwise.
        """

    def tidy(self) -> None:
        """
        Close what nobody uses and is too old.
        """

    def roll_back(self) -> None:
        """
        Undo what a lane left that is over.
        """

    def close(self) -> None:
        """
        Close everything: the thread ends.
        """


class Lane:
    """
    One connection's jobs, run one after another. Made with its first.

    Guarded by the pool's lock, except for what says otherwise.

    Attributes:
        jobs: Those to come.
        placed: Whether a thread has it or it waits for one.
        seat: The thread of its last or present job.
        job: The present one.
        holds: Whether that thread runs nothing else.
        use: The present handler's use of connections. Its thread's and the loop's, in turn.
        cursors: As of ``use``; not over with the handler.
    """

    __slots__ = ("cursors", "holds", "job", "jobs", "placed", "pool", "seat", "use")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.jobs: deque[Job] = deque()
        self.placed = False
        self.seat: Seat | None = None
        self.job: Job | None = None
        self.holds = False
        self.use: Use | None = None
        self.cursors: Any = None

    def rest(self) -> None:
        """
        Say that the handler has ended. May be called from any thread and waits for nothing.
        """
        in_use.discard(self)
        use, self.use = self.use, None
        if use is None:
            return
        use.over = True
        now = monotonic()
        for seat in list(use.seats):
            if seat.ledger.due_at <= now:
                seat.inbox.put(seat.ledger.tidy)

    def end(self) -> None:
        """
        Say that the connection is over. May be called from any thread and waits for nothing.
        """
        self.rest()
        seat = self.seat
        if self.holds and seat is not None:
            seat.inbox.put(partial(seat.release, self))


class Grip:
    """
    Ends a lane when nothing can give it work any more.
    """

    __slots__ = ("lane",)

    def __init__(self, lane: Lane) -> None:
        self.lane = lane

    def __del__(self) -> None:
        self.lane.end()


in_use: set[Lane] = set()
"""
Lanes whose present handler used connections that are still open; ``rest()`` has to be called
after a handler only while there are any.
"""
