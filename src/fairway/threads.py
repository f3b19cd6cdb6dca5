"""
Which thread runs the synchronous work of a connection: a few threads shared by all of them.

asgiref sends thread-sensitive work to the executor of the current ``ThreadSensitiveContext``.
Under a Fairway server each connection has one of these, and all are mapped to one executor
that serves every connection's work in order, on any free thread of a bounded pool. Nothing is
mapped anywhere else, so a test's work stays in the test's thread. What a thread has to look
after between two jobs is its ``Ledger``, which knows databases; nothing here does, and no
setting is read.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Context, Token
from functools import partial
from itertools import count
from queue import SimpleQueue
from time import monotonic
from typing import Any, Protocol

from asgiref.sync import SyncToAsync, ThreadSensitiveContext

from fairway import metrics

__all__ = ["Lane", "Ledger", "Threads", "Use", "enter", "give_up", "in_use", "leave", "rest"]

logger = logging.getLogger("fairway.threads")

END_SECONDS = 1.0
"""
Time that idle threads get to close what they hold when the server stops.
"""

_context = SyncToAsync.thread_sensitive_context


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


class Result(Future[Any]):
    """
    The result of a job, which notes when nobody waits for it any more.
    """

    deserted = False
    on_deserted: Callable[[], None] | None = None

    def cancel(self) -> bool:
        """
        Cancel the job, or note that it was too late for that.
        """
        if super().cancel():
            return True
        if self.running() and not self.deserted:
            self.deserted = True
            if self.on_deserted is not None:
                self.on_deserted()
        return False


class Job:
    """
    A function to call in a thread.
    """

    __slots__ = ("function", "result", "started")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.result = Result()
        self.started = 0.0

    def run(self) -> Callable[[], None]:
        """
        Call it, and give what tells the result to whoever waits.

        In an empty context, so that nothing it sets meets the thread's next job.
        """
        try:
            value = Context().run(self.function)
        except BaseException as error:  # noqa: BLE001 - all of them belong to the caller
            return partial(self.result.set_exception, error)
        return partial(self.result.set_result, value)


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


class Mapped(ThreadSensitiveContext):
    """
    asgiref's key to an executor: all of one server's are equal, and so share one entry.

    ``ThreadSensitiveContext.__init__`` is left out: such a context is set, never entered.
    """

    __slots__ = ()

    # What the base's constructor sets.
    _exited = False
    _executor: Executor | None = None
    token: Token[ThreadSensitiveContext] | None = None

    @property
    def threads(self) -> Threads:
        """
        The threads it is mapped to.
        """
        raise NotImplementedError

    def __hash__(self) -> int:
        return id(self.threads)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapped) and other.threads is self.threads


class Root(Mapped):
    """
    What a server's contexts begin with: mapped, but no connection's yet.
    """

    __slots__ = ("_threads",)

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    @property
    def threads(self) -> Threads:
        """
        See ``Mapped``.
        """
        return self._threads


class LaneContext(Mapped):
    """
    One connection's. All that a connection costs which sends nothing to a thread.
    """

    __slots__ = ("grip", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.grip: Grip | None = None

    @property
    def threads(self) -> Threads:
        """
        See ``Mapped``.
        """
        return self.pool.threads

    def lane(self) -> Lane:
        """
        Give the lane, which is made on first use.
        """
        if self.grip is None:
            self.grip = Grip(Lane(self.pool))
        return self.grip.lane


class Seat:
    """
    One thread of a pool, and what waits for it alone.

    Attributes:
        inbox: Lanes whose turn it is, functions to call in between, and None for the end.
        lane: Whose job it runs.
        held: Whether it runs nothing but one lane's jobs.
        lost: Whether it was given up as stuck.
        waiting: Lanes whose open cursor is here, each with its ticket.
        ended: Set when the thread ends.
    """

    __slots__ = ("ended", "held", "inbox", "lane", "ledger", "lost", "pool", "thread", "waiting")

    def __init__(self, pool: Pool, name: str) -> None:
        self.pool = pool
        self.inbox: SimpleQueue[Lane | Callable[[], None] | None] = SimpleQueue()
        self.lane: Lane | None = None
        self.held = False
        self.lost = False
        self.waiting: deque[tuple[int, Lane]] = deque()
        self.ended: Future[None] = Future()
        self.ledger: Ledger = pool.threads.make_ledger(self)
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
            if job.result.set_running_or_notify_cancel():
                job.result.on_deserted = partial(self.pool.watch, self, job)
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


class Pool:
    """
    Threads that serve lanes: a lane at a time each, in the order in which the lanes came.

    May be called from any thread; its lock is held for moments.
    """

    def __init__(self, threads: Threads, name: str, size: int) -> None:
        self.threads = threads
        self.name = name
        self.size = size
        self.lock = threading.RLock()
        self.closing = False
        self.seats: set[Seat] = set()
        self.lost: set[Seat] = set()
        self._idle: dict[Seat, None] = {}
        self._queue: deque[tuple[int, Lane]] = deque()
        self._tickets = count(1)

    def submit(self, lane: Lane, function: Callable[[], Any]) -> Result:
        """
        Have a function called when it is the lane's turn.
        """
        job = Job(function)
        with self.lock:
            lane.jobs.append(job)
            if not lane.placed:
                self._place(lane)
        return job.result

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
        queues = [queue for queue in (seat.waiting, self._queue) if queue]
        if queues:
            _, lane = min(queues, key=lambda queue: queue[0][0]).popleft()
            self._give(seat, lane)
        elif self.closing or len(self.seats) > self.size:
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
        loop.call_later(self.threads.close_timeout, self.abandon, seat, job)

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
        _log_stack(seat, job)

    def hurry(self, lane: Lane) -> None:
        """
        Start a thread more than usual for a lane that has waited too long, within twice the pool.
        """
        with self.lock:
            for entry in self._queue:
                if entry[1] is lane and len(self.seats) + len(self.lost) < 2 * self.size:
                    self._queue.remove(entry)
                    self._give(self._start(), lane)
                    return

    def close(self) -> list[Future[None]]:
        """
        Let every thread end once it has nothing to do.

        Returns:
            What is done when those without work have ended.
        """
        with self.lock:
            self.closing = True
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
        elif seat is not None and seat in self._idle:
            self._give(seat, lane)
        elif self._idle:
            self._give(next(reversed(self._idle)), lane)
        elif self._may_start():
            self._give(self._start(), lane)
        else:
            self._queue.append((next(self._tickets), lane))

    def _give(self, seat: Seat, lane: Lane) -> None:
        """
        Have a thread run a lane's next job.
        """
        self._idle.pop(seat, None)
        seat.lane = lane
        seat.inbox.put(lane)

    def _refill(self) -> None:
        """
        Start threads in the place of those that were lost, for what waits.
        """
        while self._queue and self._may_start():
            self._give(self._start(), self._queue.popleft()[1])

    def _may_start(self) -> bool:
        return len(self.seats) < self.size and len(self.seats) + len(self.lost) < 2 * self.size

    def _start(self) -> Seat:
        seat = Seat(self, f"fairway-{self.name}")
        self.seats.add(seat)
        seat.thread.start()
        return seat


class Facade(Executor):
    """
    The executor that asgiref sees: hands work to the lane of whoever sends it.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """
        Have a function called in a thread, after what the same connection sent before.
        """
        context = _context.get(None)
        if not isinstance(context, LaneContext):
            # An application that is none of ours: its task is its connection.
            context = LaneContext(self._threads.pages)
            _context.set(context)
        lane = context.lane()
        return lane.pool.submit(lane, partial(fn, *args, **kwargs) if args or kwargs else fn)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        Do nothing: tasks that outlive their connection still have work for threads.
        """


class Threads:
    """
    The threads of one server, and asgiref's way to them.
    """

    def __init__(
        self,
        make_ledger: Callable[[Seat], Ledger],
        *,
        consumers: int,
        pages: int,
        close_timeout: float,
    ) -> None:
        """
        Prepare; no thread is started before there is work.

        Args:
            make_ledger: Makes what looks after a thread's connections.
            consumers: Threads for consumers.
            pages: Threads for pages.
            close_timeout: Seconds after which a thread nobody waits for is given up.
        """
        self.make_ledger = make_ledger
        self.close_timeout = close_timeout
        self.consumers = Pool(self, "consumer", consumers)
        self.pages = Pool(self, "page", pages)

    def start(self) -> None:
        """
        Map the calling task's context, and thereby each that is copied from it, to these threads.
        """
        root = Root(self)
        SyncToAsync.context_to_thread_executor[root] = Facade(self)
        _context.set(root)

    async def stop(self) -> None:
        """
        End the threads that rest, and each other one once it rests. Waits a second at most.

        The mapping stays for the tasks that are still to be cancelled.
        """
        ended = [
            asyncio.wrap_future(each) for each in (*self.consumers.close(), *self.pages.close())
        ]
        if ended:
            await asyncio.wait(ended, timeout=END_SECONDS)


in_use: set[Lane] = set()
"""
Lanes whose present handler used connections that are still open; ``rest()`` has to be called
after a handler only while there are any.
"""


def enter(*, page: bool = False) -> LaneContext | None:
    """
    Give the calling task's connection a lane, under a Fairway server. Event-loop thread only.

    Hot path: once per connection and per request.

    Args:
        page: Whether its work is for the threads of pages.

    Returns:
        What to ``leave`` at its end; None where there is nothing to do, or it has one already.
    """
    root = _context.get(None)
    if type(root) is not Root:
        return None
    threads = root.threads
    context = LaneContext(threads.pages if page else threads.consumers)
    _context.set(context)
    return context


def leave(context: LaneContext | None) -> None:
    """
    Say that a connection is over. Tasks that outlive it keep its lane.
    """
    if context is not None and context.grip is not None:
        context.grip.lane.end()


def rest() -> None:
    """
    Say that the calling task's handler has ended.
    """
    lane = _present_lane()
    if lane is not None:
        lane.rest()


async def give_up() -> None:
    """
    Abandon a thread that still runs what the calling task has been cancelled to wait for.
    """
    lane = _present_lane()
    if lane is None:
        return
    # The cancellation is on its way to the job by a callback.
    await asyncio.sleep(0)
    pool, seat, job = lane.pool, lane.seat, lane.job
    if seat is None or job is None:
        return
    if job.result.deserted or monotonic() - job.started >= pool.threads.close_timeout:
        pool.abandon(seat, job)


def hurry() -> None:
    """
    See that the calling task's work is not left waiting for threads that others have taken.
    """
    lane = _present_lane()
    if lane is not None:
        lane.pool.hurry(lane)


def _present_lane() -> Lane | None:
    """
    Give the calling task's lane, if it has used one.
    """
    context = _context.get(None)
    if isinstance(context, LaneContext) and context.grip is not None:
        return context.grip.lane
    return None


def _log_stack(seat: Seat, job: Job) -> None:
    """
    Say where a thread is stuck.
    """
    frame = sys._current_frames().get(seat.thread.ident or 0)  # noqa: SLF001 - documented
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "(it has just ended)\n"
    logger.error(
        "A thread of %d for %ss is stuck since %.1f s and was given up; it stands here:\n%s",
        seat.pool.size,
        seat.pool.name,
        monotonic() - job.started,
        stack.rstrip(),
    )
