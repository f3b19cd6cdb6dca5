"""
Who is next: a bounded number of threads, given to lanes in the order in which these came.

Decides and counts; what happens in a thread is in ``seats``, and asgiref's part in ``mapping``.

No more threads work at a time than something is gained by: while the interpreter is in full use, as
``gauge`` finds, and one thread gets on with short jobs, that one serves the queue and others rest.
A queue that does not get on so is looked at again after ``LOOK_SECONDS``.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from fairway import metrics
from fairway.threads.gauge import Gauge
from fairway.threads.jobs import Job
from fairway.threads.seats import Seat, log_stack

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fairway.threads.jobs import Result
    from fairway.threads.lanes import Lane, Ledger

__all__ = ["Pool"]

LOOK_SECONDS = 0.005
"""
A job that takes longer is no short one, and those behind it wait no longer for others' sake.
"""


class Pool:
    """
    Threads that serve lanes: a lane at a time each, in the order in which the lanes came.

    May be called from any thread; its lock is held for moments.
    """

    def __init__(
        self,
        name: str,
        size: int,
        make_ledger: Callable[[Seat], Ledger],
        close_timeout: float,
        queue_max: float = inf,
    ) -> None:
        """
        Prepare.

        Args:
            name: Of what it serves, for people.
            size: Threads.
            make_ledger: Makes what looks after a thread's connections.
            close_timeout: When a thread nobody waits for is given up, in seconds.
            queue_max: Lanes waiting for a thread at which it says that it is crowded.
        """
        self.name = name
        self.size = size
        self.make_ledger = make_ledger
        self.close_timeout = close_timeout
        self.queue_max = queue_max
        self.lock = threading.RLock()
        self.closing = False
        self.seats: set[Seat] = set()
        self.lost: set[Seat] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gauge: Gauge | None = None
        self._looking = False
        self._idle: dict[Seat, None] = {}
        self._queue: deque[tuple[int, Lane]] = deque()
        self._tickets = count(1)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Spare threads from now on; the loop looks after a queue that waits meanwhile.
        """
        self._loop = loop
        self._gauge = Gauge()

    def submit(self, lane: Lane, function: Callable[[], Any]) -> Result:
        """
        Have a function called when it is the lane's turn.

        Raises:
            RuntimeError: There is no thread, and none can be started.
        """
        job = Job(function)
        self.enqueue(lane, job)
        return job.result

    def enqueue(self, lane: Lane, job: Job) -> None:
        """
        Have a job run when it is the lane's turn.

        Raises:
            RuntimeError: There is no thread, and none can be started.
        """
        with self.lock:
            lane.jobs.append(job)
            if lane.placed:
                return
            self._place(lane)
            if not (self.seats or self.lost):
                # Nobody would ever come back for it.
                self._queue.pop()
                lane.jobs.pop()
                lane.placed = False
                raise RuntimeError(f"the system gives no thread for {self.name}s")

    def is_crowded(self) -> bool:
        """
        Whether as many lanes wait for any thread as may before further work is refused.

        Hot path: once per page. Nothing here refuses; who has begun has its turn.
        """
        spared = self.size - len(self.seats) + len(self._idle)
        return len(self._queue) - spared >= self.queue_max

    def settle(self, seat: Seat, lane: Lane, job: Job, *, held: bool) -> None:
        """
        Note that a job is over, and give the thread its next.
        """
        with self.lock:
            seat.lane = None
            if seat.lost:
                # Its lane went on without it long ago.
                seat.inbox.put(None)
                return
            lane.job = None
            lane.placed = False
            seat.held = lane.holds = held
            if lane.jobs:
                self._place(lane)
            if seat.lane is None:
                self.advance(seat)

    def advance(self, seat: Seat) -> None:
        """
        Give a free thread what has waited longest, or let it rest. With the lock held.
        """
        if seat.held:
            return
        if self._queue and not seat.waiting and self._is_served(besides=seat):
            self._idle[seat] = None
            self._look_soon()
            return
        queues = [queue for queue in (seat.waiting, self._queue) if queue]
        if queues:
            _, lane = min(queues, key=lambda queue: queue[0][0]).popleft()
            self._give(seat, lane)
        elif self.closing:
            self.seats.discard(seat)
            self._idle.pop(seat, None)
            seat.inbox.put(None)
        else:
            self._idle[seat] = None

    def watch(self, seat: Seat, job: Job) -> None:
        """
        Look again at a job that nobody waits for any more, once it has had its time.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        loop.call_later(self.close_timeout, self.abandon, seat, job)

    def abandon(self, seat: Seat, job: Job) -> None:
        """
        Give a thread up that still runs a job, and go on without it.
        """
        with self.lock:
            lane = seat.lane
            if seat.lost or lane is None or lane.job is not job or job.result.done():
                return
            seat.lost = True
            seat.held = False
            self.seats.discard(seat)
            self.lost.add(seat)
            lane.job = lane.seat = lane.cursors = None
            lane.placed = lane.holds = False
            lanes = [each for _, each in seat.waiting]
            seat.waiting.clear()
            for each in [lane, *lanes] if lane.jobs else lanes:
                each.seat = None
                self._place(each)
            self._refill()
        metrics.threads_stuck.value += 1
        log_stack(seat, job)

    def close(self) -> list[Future[None]]:
        """
        Let every thread end once it has nothing to do.

        Returns:
            What is done when those without work have ended.
        """
        with self.lock:
            self.closing = True
            if self._gauge is not None:
                self._gauge.work_together()
            idle = list(self._idle)
            for seat in idle:
                self.advance(seat)
        return [seat.ended for seat in idle]

    def forget(self, seat: Seat) -> None:
        """
        Let go of a thread that has ended.
        """
        with self.lock:
            self.seats.discard(seat)
            self.lost.discard(seat)
            self._refill()

    def _place(self, lane: Lane) -> None:
        """
        Find a thread for a lane with jobs, or the queue in which to wait for one.
        """
        lane.placed = True
        seat = lane.seat
        if seat is not None and (lane.holds or lane.cursors):
            if seat in self._idle or (lane.holds and seat.lane is None):
                self._give(seat, lane)
            else:
                seat.waiting.append((next(self._tickets), lane))
        elif self._is_served():
            self._queue.append((next(self._tickets), lane))
            self._look_soon()
        elif seat is not None and seat in self._idle:
            self._give(seat, lane)
        elif (free := self._find()) is not None:
            self._give(free, lane)
        else:
            self._queue.append((next(self._tickets), lane))

    def _is_served(self, besides: Seat | None = None) -> bool:
        """
        Whether one more thread at work would gain nothing.
        """
        if self._gauge is None or self.closing or not self._gauge.is_full():
            return False
        lately = monotonic() - LOOK_SECONDS
        working = [seat for seat in self.seats if seat.lane is not None and seat is not besides]
        if not any(seat.given_at > lately for seat in working):
            return False
        if len(working) == 1:
            self._gauge.work_alone()
        return True

    def _look_soon(self) -> None:
        """
        Have the queue looked at again, unless nobody is left to be called.
        """
        if self._looking or self._loop is None or not (self._idle or self._has_room()):
            return
        self._looking = True
        # The loop is gone where a process ends before its threads do.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_later, LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """
        Call on threads that rest, where those at work do not get on.
        """
        with self.lock:
            self._looking = False
            while self._queue and not self._is_served() and (free := self._find()) is not None:
                self._give(free, self._queue.popleft()[1])
            if self._queue:
                self._look_soon()

    def _give(self, seat: Seat, lane: Lane) -> None:
        """
        Have a thread run a lane's next job.
        """
        if self._gauge is not None and (seat in self._idle or not seat.given_at):
            # It rested or is new, so it is one more.
            self._gauge.work_together()
        self._idle.pop(seat, None)
        seat.lane = lane
        seat.given_at = monotonic()
        seat.inbox.put(lane)

    def _refill(self) -> None:
        """
        Start threads in the place of those that were lost, for what waits.
        """
        while self._queue and (fresh := self._start()) is not None:
            self._give(fresh, self._queue.popleft()[1])

    def _find(self) -> Seat | None:
        """
        Give a thread that rests, or a new one; None where there is neither.
        """
        return next(reversed(self._idle)) if self._idle else self._start()

    def _has_room(self) -> bool:
        """
        Whether another thread may be started.
        """
        return len(self.seats) < self.size and len(self.seats) + len(self.lost) < 2 * self.size

    def _start(self) -> Seat | None:
        """
        Start a thread; None where there are enough, or the system gives no more.
        """
        if not self._has_room():
            return None
        seat = Seat(self, f"fairway-{self.name}")
        try:
            seat.thread.start()
        except RuntimeError:
            return None
        self.seats.add(seat)
        return seat
