"""
Named queues shared by the processes of one machine: each message is read once, by anybody.

A thread of its own does all that blocks, so nobody's loop ever waits for the disk. Calls
that write become jobs, what has come together is written in one transaction, and a message
is handed to its reader only after it has left the file. The thread and the file exist from
the first use to ``close``; while nobody waits for a message the thread sleeps, and while
somebody does it looks once per ``poll``, should no ``wake`` have come. What is in the file
is ``store``'s, who waits is ``readers``'.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from weakref import WeakSet

from fairway.exceptions import ChannelFull, ChannelLayerUnavailable
from fairway.layers.brokers.ipc import store
from fairway.layers.brokers.readers import Readers
from fairway.layers.notices import Notices

__all__ = ["SQLiteQueues"]

logger = logging.getLogger("fairway.layers")

BUSY_SECONDS = 2.0
"""
Time a write waits for another process that writes, before the queues count as unavailable.
"""

BUSY_PAUSE_SECONDS = 0.001
"""
The first pause between two attempts; doubles up to fifty times that.
"""

JOBS_PER_TRANSACTION = 64
PENDING_MAX = 10_000
PENDING_BYTES_MAX = 67_108_864
"""
Calls, and bytes in them, that may wait for the disk.
"""

Action = Callable[[sqlite3.Connection], None]
_Write = tuple["Future[None]", Action]
_Refusal = ChannelFull | ChannelLayerUnavailable


class _Job:
    """
    One call that writes, to be worked off in the thread.

    Attributes:
        action: What it writes.
        size: The bytes it carries.
        future: Where its result goes.
    """

    __slots__ = ("action", "future", "size")

    def __init__(self, action: Action, size: int = 0) -> None:
        self.action = action
        self.size = size
        self.future: Future[None] = Future()


class _Lane:
    """
    One thread with what it is to do, from a first use to a close or a fork.

    Attributes:
        jobs: Calls that write; a None among them only wakes the thread.
        looks: The queues whose readers are to be served, each once however often it is asked for.
        pending: Calls in ``jobs``.
        pending_bytes: Bytes in them.
        ending: Whether the thread is to end once there is nothing left to do.
        ended: Done when it has.
    """

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.looks: set[str] = set()
        self.pending = 0
        self.pending_bytes = 0
        self.ending = False
        self.ended: Future[None] = Future()
        self.ended.set_running_or_notify_cancel()  # Whoever waits for it may give up, it may not.


class SQLiteQueues:
    """
    Queues by name, in one file. May be used from any thread and any loop; usable after ``close``.
    """

    def __init__(self, path: Path, poll: float, *, busy: float = BUSY_SECONDS) -> None:
        """
        Name the file; nothing is opened yet.

        Args:
            path: The file, in a directory that only this user may enter.
            poll: Seconds after which queues somebody waits for are looked at without a ``wake``.
            busy: Seconds that a write waits for other processes' writes.
        """
        self._path = path
        self._poll = poll
        self._busy = busy
        self._notices = Notices(logger)
        self._lane: _Lane | None
        # Collecting what belongs to the parent's loops would wake them up in the child.
        self._inherited: list[object] = []
        self._begin_anew()
        _instances.add(self)

    def push(self, queue: str, payload: bytes, lifetime: float, capacity: int) -> Future[None]:
        """
        Add to the end of a queue. Does not wait; from any thread.

        Args:
            queue: Its name.
            payload: The bytes.
            lifetime: Seconds until it may be thrown away unread.
            capacity: Unread payloads the queue may hold, this one included.

        Returns:
            What is done once the message is in the file. It raises ChannelFull if there is no
            room for it, and ChannelLayerUnavailable if it could not be written in bounded time.

        Raises:
            ChannelLayerUnavailable: Too much waits for the disk already.
        """

        def action(connection: sqlite3.Connection) -> None:
            if not self._store.has_room(len(payload)):
                raise ChannelLayerUnavailable(
                    f"the queues in {self._path} take nothing more: less than "
                    f"{store.RESERVE_BYTES >> 20} MiB are free on their disk"
                )
            if not store.add(connection, queue, payload, lifetime, capacity):
                raise ChannelFull(queue)

        return self._enter(_Job(action, len(payload)), queue)

    async def pop(self, queue: str) -> bytes:
        """
        Wait for the oldest payload of a queue and take it, on whichever loop.

        Of several who wait here, the first gets the first. A cancelled call loses nothing: what
        it was about to get is put back in its place. While the file cannot be read the call
        waits on.

        Raises:
            ChannelLayerUnavailable: The queues were closed.
        """
        reader = self._readers.wait(queue)
        try:
            self._look(queue)
            return await reader.future
        except BaseException:
            if self._readers.give_up(reader):
                with suppress(ChannelLayerUnavailable):  # The next poll puts it back, then.
                    self._look(queue)
            raise

    def wake(self, queue: str) -> None:
        """
        Look at a queue because another process has pushed. Does not wait; from any thread.
        """
        if queue in self._readers:
            with suppress(ChannelLayerUnavailable):
                self._look(queue)

    def flush(self) -> Future[None]:
        """
        Throw away every message of every queue. Does not wait; from any thread.

        Returns:
            What is done once that has happened, or raises ChannelLayerUnavailable.
        """
        return self._enter(_Job(store.clear))

    async def close(self, timeout: float) -> None:
        """
        End the thread after what was pushed is written, in ``timeout`` seconds at most.

        Whoever waits for a message gets ChannelLayerUnavailable.
        """
        with self._lock:
            lane, self._lane = self._lane, None
        self._readers.dismiss(ChannelLayerUnavailable("the queues were closed"))
        if lane is not None:
            lane.ending = True
            lane.jobs.put(None)
            ended = asyncio.wrap_future(lane.ended)
            await asyncio.wait([ended], timeout=timeout)
            if not ended.done():
                ended.cancel()
                logger.warning("the queues in %s did not close within %g s", self._path, timeout)

    def forked(self) -> None:
        """
        Begin anew in a child process: its parent's readers and calls are not the child's.
        """
        self._inherited.append((self._lane, self._readers, self._store))
        self._begin_anew()

    # --- Jobs (any thread) -------------------------------------------------------------------

    def _begin_anew(self) -> None:
        """
        Have no thread, no file and nobody waiting.
        """
        # Entered a second time where it lets a reader be collected that nobody awaits any more.
        self._lock = threading.RLock()
        self._store = store.Store(self._path)
        self._at_work = threading.Lock()  # Held whenever the store is used.
        self._forking: int | None = None  # The thread that does.
        self._readers: Readers[store.Row] = Readers()
        self._lane = None

    def _enter(self, job: _Job, queue: str | None = None) -> Future[None]:
        """
        Have a call worked off, and the readers of a queue served with it.
        """
        with self._lock:
            lane = self._running()
            if lane.pending >= PENDING_MAX or lane.pending_bytes + job.size > PENDING_BYTES_MAX:
                raise ChannelLayerUnavailable(
                    f"{lane.pending} calls with {lane.pending_bytes} bytes wait for the queues "
                    f"in {self._path}, which stand still"
                )
            lane.pending += 1
            lane.pending_bytes += job.size
            if queue is not None:
                lane.looks.add(queue)
            lane.jobs.put(job)
        return job.future

    def _look(self, queue: str) -> None:
        """
        Have the readers of a queue served, and what they gave up put back.
        """
        with self._lock:
            lane = self._running()
            if queue not in lane.looks:
                lane.looks.add(queue)
                lane.jobs.put(None)

    def _running(self) -> _Lane:
        """
        Give the lane, starting its thread if it does not run. The lock is held.
        """
        if self._lane is None:
            self._lane = self._start()
        return self._lane

    def _start(self) -> _Lane:
        """
        Start a thread on a lane of its own. The lock is held.
        """
        lane = _Lane()
        thread = threading.Thread(
            target=self._run, args=(lane,), name="fairway-queues", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # The interpreter is ending, or no thread is to be had.
            raise ChannelLayerUnavailable(f"no thread for the queues: {error}") from error
        return lane

    # --- The thread --------------------------------------------------------------------------

    def _run(self, lane: _Lane) -> None:
        """
        Be the thread: work off jobs until the lane is closed, then what was put back.
        """
        poll_at = monotonic() + self._poll
        while not lane.ending or not lane.jobs.empty():
            jobs, queues = self._next(lane, poll_at)
            if monotonic() >= poll_at:
                poll_at = monotonic() + self._poll
                queues.update(self._readers.queues)
            self._work(lane, jobs, queues)
        self._work(lane, [], set())
        with self._at_work:
            self._store.close()
        lane.ended.set_result(None)

    def _next(self, lane: _Lane, poll_at: float) -> tuple[list[_Job], set[str]]:
        """
        Wait for something to do, for ever while nobody waits for a message.

        Returns:
            The calls that came together, and the queues to look at.
        """
        timeout = max(0.0, poll_at - monotonic()) if self._readers else None
        jobs: list[_Job] = []
        with suppress(Empty):
            job = lane.jobs.get(timeout=timeout)
            while True:
                if job is not None:
                    jobs.append(job)
                if len(jobs) >= JOBS_PER_TRANSACTION:
                    break
                job = lane.jobs.get_nowait()
        with self._lock:
            lane.pending -= len(jobs)
            lane.pending_bytes -= sum(job.size for job in jobs)
            looks, lane.looks = lane.looks, set()
        return jobs, looks

    def _work(self, lane: _Lane, jobs: list[_Job], queues: set[str]) -> None:
        """
        Write what the jobs ask for, take what is waited for, and tell everybody.
        """
        writes = [
            (job.future, job.action) for job in jobs if job.future.set_running_or_notify_cancel()
        ]
        try:
            results, taken = self._write(writes, queues)
        except (sqlite3.Error, OSError) as error:
            self._fail(writes, f"the queues in {self._path} cannot be used: {error}")
        except Exception as error:  # The thread must outlive what nobody thought of.
            logger.exception("the queues in %s failed", self._path)
            self._fail(writes, f"the queues in {self._path} failed: {error!r}")
        else:
            for (future, _), refusal in zip(writes, results, strict=True):
                if refusal is None:
                    future.set_result(None)
                else:
                    future.set_exception(refusal)
            for row in taken:
                if not self._readers.hand_out(row):
                    lane.jobs.put(None)  # Its reader is gone: put it back in the next turn.

    def _write(
        self, writes: list[_Write], queues: set[str]
    ) -> tuple[list[_Refusal | None], list[store.Row]]:
        """
        Do as ``_transact``, again while other processes write, and on a new file if need be.
        """
        until = monotonic() + self._busy
        pause = BUSY_PAUSE_SECONDS
        while True:
            try:
                with self._at_work:
                    return self._transact(writes, queues)
            except sqlite3.Error as error:
                if monotonic() >= until:
                    raise
                if store.is_broken(error):
                    with self._at_work:
                        self._store.set_aside()
                elif not isinstance(error, store.Busy):
                    raise
            sleep(pause)
            pause = min(pause * 2, BUSY_PAUSE_SECONDS * 50)

    def _transact(
        self, writes: list[_Write], queues: set[str]
    ) -> tuple[list[_Refusal | None], list[store.Row]]:
        """
        Write and take in one transaction, or find without one that there is nothing to do.

        Returns:
            For each write what it raises, if anything; and the messages that were taken.
        """
        returned = self._readers.returned()
        wanted = self._readers.wanted(queues)
        if not writes and not returned:
            wanted = {queue: count for queue, count in wanted.items() if self._store.holds(queue)}
            if not wanted:
                return [], []
        with self._store.transaction() as connection:
            for row in returned:
                store.put_back(connection, row)
            results = [_result(action, connection) for _, action in writes]
            taken = [
                row
                for queue, count in wanted.items()
                for row in store.take(connection, queue, count)
            ]
        self._readers.forget_returned(returned)
        return results, taken

    def _fail(self, writes: list[_Write], text: str) -> None:
        """
        Tell whoever wrote; those who read wait on, and one line says so.
        """
        for future, _ in writes:
            future.set_exception(ChannelLayerUnavailable(text))
        if not writes:
            self._notices.say("queues", "%s", text)

    # --- Forks -------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """
        Have no connection while the process is copied: SQLite cannot be carried through a fork.
        """
        if self._at_work.acquire(timeout=self._busy):
            self._forking = threading.get_ident()
            self._store.close()

    def after_fork(self) -> None:
        """
        Go on in the parent; the file is opened again when there is something to do.
        """
        if self._forking == threading.get_ident():
            self._forking = None
            self._at_work.release()


def _result(action: Action, connection: sqlite3.Connection) -> _Refusal | None:
    """
    Do what a call asks for, and give what it raises if that is the caller's to know.
    """
    try:
        action(connection)
    except (ChannelFull, ChannelLayerUnavailable) as error:
        return error
    return None


def _before_fork() -> None:
    """
    Run before every fork.
    """
    for queues in sorted(_instances, key=id):
        queues.before_fork()


def _after_fork_in_parent() -> None:
    """
    Run after every fork, in the parent.
    """
    for queues in _instances:
        queues.after_fork()


def _after_fork_in_child() -> None:
    """
    Run after every fork, in the child.
    """
    for queues in _instances:
        queues.forked()


_instances: WeakSet[SQLiteQueues] = WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
