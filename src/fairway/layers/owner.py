"""
Which loop a hub belongs to, and the one door through which everybody else enters.

The owning loop is the server's while one runs in this process, else that of the
thread ``fairway-io``. A hub moves when a server starts or stops, and when its
loop has ended without a word; calls made meanwhile wait for the new loop. Fork
and the end of the process are dealt with here too. What moves is in ``hub``.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from fairway.exceptions import (
    ChannelLayerMisconfigured,
    ChannelLayerUnavailable,
    ConfigurationError,
)
from fairway.faults import Fault
from fairway.layers import children, resolving
from fairway.layers.iothread import IOThread

__all__ = ["Owner", "Resident", "bind", "has_server", "release"]

logger = logging.getLogger("fairway.layers")

CALLS_MAX = 65536
"""
Calls of other threads that may wait for the owning loop.
"""

CALLS_PER_TURN = 256
"""
Calls worked off in one loop turn, so that a flood of them does not delay the sockets.
"""

PARTING_SECONDS = 2.0
"""
Time for a hub to leave its old loop, and for everything to leave at the end of the process.
"""


class Resident(Protocol):
    """
    What an owner moves from loop to loop.
    """

    @property
    def wanted(self) -> bool:
        """
        Whether it must live on some loop although nobody calls at present.
        """

    async def arrive(self) -> None:
        """
        Begin on the running loop.
        """

    async def depart(self) -> None:
        """
        End on the running loop, after what was published has left.
        """

    def forked(self) -> None:
        """
        Begin anew in a child process.
        """


class _Call(NamedTuple):
    """
    Something to be called on the owning loop, and where the result goes.
    """

    future: Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]


class Owner:
    """
    The place of one hub: a loop, or none yet, or none while it moves.

    Attributes:
        loop: The owning loop; None before the first call and during a move.
    """

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        self._calls: deque[_Call] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._moving: Future[None] | None = None
        self._destination: asyncio.AbstractEventLoop | None = None
        self._woken = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self._begin_anew()
        _owners.add(self)

    @property
    def lives(self) -> bool:
        """
        Whether the hub is on some loop, or on its way to one.
        """
        return self.loop is not None or self._moving is not None

    def here(self) -> bool:
        """
        Whether the caller runs on the owning loop.
        """
        loop = self.loop
        if loop is None:
            return False
        try:
            return loop is asyncio.get_running_loop()
        except RuntimeError:
            return False

    def enter(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """
        Have a function called on the owning loop, in the order of entering. From any thread.

        Args:
            function: What to call; if it returns an awaitable, that is awaited in a task.
            args: Its arguments.

        Returns:
            Where the result will be. Cancelling it keeps a call that has not begun from it.

        Raises:
            ChannelLayerUnavailable: Too many calls wait already.
        """
        future: Future[Any] = Future()
        with self._lock:
            if len(self._calls) >= CALLS_MAX:
                raise ChannelLayerUnavailable(
                    f"{CALLS_MAX} calls wait for the channel layer's event loop, which stands still"
                )
            self._calls.append(_Call(future, function, args))
            if self._woken and not self._stranded():
                return future
            self._woken = True
        self._wake()
        if _is_parting:
            self._await_at_exit(future)
        return future

    def run_or_enter(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """
        Call a function at once if this is the owning loop, else enter. From any thread.

        Returns:
            Where the result is, or will be.
        """
        if not self.here():
            return self.enter(function, *args)
        call = _Call(Future(), function, args)
        self._run(call, at_once=True)
        return call.future

    def spawn(self, awaitable: Awaitable[Any], future: Future[Any] | None = None) -> None:
        """
        Await something in a task of the owning loop, which must be running.

        Args:
            awaitable: What to await.
            future: Where the result goes; without one, a failure is logged.
        """
        task = asyncio.ensure_future(_follow(awaitable, future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Take the hub over to the running loop.
        """
        async with self._move() as previous:
            if previous is loop:
                self._end_move(loop)
                return
            self._destination = loop
            if previous is not None:
                await self._part_from(previous)
            await self._settle(loop)

    async def move_away(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Give the hub up, if it is on the running loop; it finds another one when it needs one.
        """
        async with self._move() as previous:
            if previous is loop:
                await self._part()
                self._end_move(None)
            else:
                self._end_move(previous)
        if self.loop is None and self._resident.wanted:
            self.enter(_nothing)

    async def retire(self) -> None:
        """
        Give up whichever loop it is on; the next call finds one again. From any loop.
        """
        async with self._move() as previous:
            if previous is asyncio.get_running_loop():
                await self._part()
            elif previous is not None:
                await self._part_from(previous)
            self._end_move(None)

    def retire_soon(self) -> None:
        """
        Do as ``retire`` without waiting, from any thread.
        """
        loop = self.loop
        if loop is None:
            return
        with suppress(RuntimeError):
            _start_on(loop, self.retire)

    def finish(self, until: float) -> int:
        """
        Wait at the end of the process for what was entered; count what did not make it.
        """
        loop = self.loop or self._destination
        if loop is None or not loop.is_running() or self.here():
            return len(self._calls)
        parting = self.enter(self._part)
        self._await_blocking(parting, until)
        unfinished = sum(not task.done() for task in self._tasks)
        return len(self._calls) + unfinished - (not parting.done())

    def forked(self) -> None:
        """
        Begin anew in a child process, which has neither the loop nor the callers.
        """
        self._begin_anew()
        self._resident.forked()

    def _begin_anew(self) -> None:
        """
        Be on no loop, with nobody waiting.
        """
        self._lock = threading.Lock()
        self._calls = deque()
        self._tasks = set()
        self._woken = False
        self._moving = None
        self._destination = None
        self.loop = None

    def _wake(self) -> None:
        """
        Have the calls worked off, by the loop there is or by one to be found.
        """
        loop = self.loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._work)
            except RuntimeError:
                logger.warning("the loop that owned a channel layer ended without releasing it")
            else:
                return
        with self._lock:
            if self._moving is not None:
                if not self._stranded():
                    return  # The move works them off when it is done.
                self._destination = None
            elif self.loop is loop:
                self.loop = None
                self._moving = Future()
        if self.loop is None:
            self._find_home()
        else:
            self._wake()

    def _stranded(self) -> bool:
        """
        Whether the loop that was woken, or is being moved to, has ended. The lock is held.
        """
        loop = self.loop or self._destination
        return loop is not None and loop.is_closed()

    def _find_home(self) -> None:
        """
        Settle on the server's loop, or on that of ``fairway-io``. The move has begun.
        """
        try:
            loop = self._destination = _home()
            _start_on(loop, self._settle_first, loop)
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody may wait for ever
            self._abandon_move(ChannelLayerUnavailable(f"no event loop to send from: {error}"))

    @asynccontextmanager
    async def _move(self) -> AsyncIterator[asyncio.AbstractEventLoop | None]:
        """
        Let calls wait while the hub moves from the loop that is given, if any.

        What is done meanwhile ends the move; if it fails, the hub is on no loop.
        """
        previous = await self._begin_move()
        try:
            yield previous
        except BaseException as error:
            self._abandon_move(error)
            raise
        if self._calls:
            self._wake()

    async def _begin_move(self) -> asyncio.AbstractEventLoop | None:
        """
        Wait for a move that is going on, begin the next, and give the loop that was left.
        """
        while True:
            with self._lock:
                moving = self._moving
                if moving is None or self._stranded():
                    self._moving = moving or Future()
                    self._destination = None
                    previous, self.loop = self.loop, None
                    return previous
            # Looked at again now and then: the loop it moves to may end without a word, too.
            await asyncio.wait([asyncio.wrap_future(moving)], timeout=PARTING_SECONDS)

    def _end_move(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """
        Be on a loop, or on none until the next call.
        """
        with self._lock:
            moved, self._moving = self._moving, None
            self.loop = loop
            self._destination = None
        if moved is not None:
            moved.set_result(None)

    def _abandon_move(self, error: BaseException) -> None:
        """
        Be on no loop after a move that failed: those who wait get the error.

        After one that was cancelled, as an ending loop does, they wait for the next loop.
        """
        self._end_move(None)
        if isinstance(error, Exception):
            self._fail(error)
        elif self._calls:
            self._wake()

    async def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Begin on the running loop and work off what was called meanwhile.
        """
        await self._resident.arrive()
        self._end_move(loop)
        self._work()

    async def _settle_first(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Do as ``_settle`` in a task that nobody looks at.
        """
        try:
            await self._settle(loop)
        except BaseException as error:
            self._abandon_move(error)
            raise

    async def _part_from(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        End on another loop, which may have ended itself.
        """
        late = False

        async def part() -> None:
            if not late:  # Else it would end what has begun on another loop meanwhile.
                await self._part()

        try:
            parted = asyncio.wrap_future(_start_on(loop, part))
            await asyncio.wait_for(parted, PARTING_SECONDS)
        except (RuntimeError, ChannelLayerUnavailable):
            return  # It has ended, and what was on it with it.
        except TimeoutError:
            late = True
            logger.warning("the loop that owned a channel layer stands still; taken over from it")

    async def _part(self) -> None:
        """
        End on the running loop, with what was begun on it.
        """
        try:
            await self._resident.depart()
        except Exception:
            logger.exception("a channel layer's broker did not close cleanly")
        begun = self._tasks - {asyncio.current_task()}
        if begun:
            await asyncio.wait(begun, timeout=PARTING_SECONDS)

    def _work(self) -> None:
        """
        Run what was entered, in order. Does nothing on a loop that is the owner no more.
        """
        for _ in range(CALLS_PER_TURN):
            with self._lock:
                if not self._calls:
                    self._woken = False
                    return
                if not self.here():
                    return
                call = self._calls.popleft()
            self._run(call)
        asyncio.get_running_loop().call_soon(self._work)

    def _run(self, call: _Call, *, at_once: bool = False) -> None:
        """
        Call one function, unless its caller has given up.
        """
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            result = call.function(*call.args)
        except Exception as error:  # noqa: BLE001 - it is the caller's
            call.future.set_exception(error)
            return
        if isinstance(result, Awaitable):
            self.spawn(result, call.future)
        elif at_once:
            call.future.set_result(result)
        else:
            # Brokers write at the end of the loop turn, and whoever is told may end the process.
            asyncio.get_running_loop().call_soon(call.future.set_result, result)

    def _fail(self, error: BaseException) -> None:
        """
        Give an error to everybody who waits: the one that all who send are prepared for.
        """
        if isinstance(error, ConfigurationError):
            error = ChannelLayerMisconfigured(str(error), fault=error.fault)
        with self._lock:
            calls = list(self._calls)
            self._calls.clear()
            self._woken = False
        for call in calls:
            if call.future.set_running_or_notify_cancel():
                call.future.set_exception(error)

    def _await_at_exit(self, future: Future[Any]) -> None:
        """
        Block the ending main thread until a call is done: nothing flushes it any more.

        Handlers of ``atexit`` that run after this module's own get here.
        """
        if threading.current_thread() is threading.main_thread():
            self._await_blocking(future, monotonic() + PARTING_SECONDS)

    @staticmethod
    def _await_blocking(future: Future[Any], until: float) -> None:
        """
        Block until something is done or the time is over.
        """
        try:
            future.result(max(0.0, until - monotonic()))
        except TimeoutError:
            future.cancel()


async def _follow(awaitable: Awaitable[Any], future: Future[Any] | None) -> None:
    """
    Await something and tell a future of another thread.
    """
    try:
        result = await awaitable
    except asyncio.CancelledError:
        if future is not None:
            future.set_exception(ChannelLayerUnavailable("the channel layer's event loop ended"))
        raise
    except Exception as error:
        if future is None:
            logger.exception("a call of the channel layer failed, and nobody waited for it")
        else:
            future.set_exception(error)
    else:
        if future is not None:
            future.set_result(result)


def _start_on(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Awaitable[Any]], *args: Any
) -> Future[Any]:
    """
    Have a coroutine function run in a task of another loop, or this one.

    The coroutine is made there, so that a loop which ends before leaves none behind.

    Raises:
        RuntimeError: The loop has ended.
    """
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # Nobody can call it off any more.

    def start() -> None:
        task = loop.create_task(_follow(function(*args), future))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    loop.call_soon_threadsafe(start)
    return future


async def bind(loop: asyncio.AbstractEventLoop) -> None:
    """
    Give the hubs of this process to a server's loop, which is the running one.

    Those that live nowhere yet, and those to come, begin there at their first call.
    """
    if loop not in _servers:
        _servers.append(loop)
        resolving.take_over(loop)
    await asyncio.gather(*(owner.move_to(loop) for owner in list(_owners) if owner.lives))


async def release(loop: asyncio.AbstractEventLoop) -> None:
    """
    Take the hubs from a server's loop that is about to end, and is the running one.
    """
    if loop in _servers:
        _servers.remove(loop)
    await asyncio.gather(*(owner.move_away(loop) for owner in list(_owners)))


def has_server() -> bool:
    """
    Whether a server of this process has the hubs at present. From any thread.
    """
    return bool(_servers)


def _nothing() -> None:
    """
    Be called, so that a hub is on some loop.
    """


def _home() -> asyncio.AbstractEventLoop:
    """
    Give the loop a hub belongs on at present.
    """
    for loop in reversed(_servers):
        if not loop.is_closed():
            return loop
    children.at_end(_at_exit)
    return _io.loop()


def _at_fork() -> None:
    """
    Run in a forked child.
    """
    _servers.clear()
    children.forked()
    _io.forked()
    resolving.forked()
    for owner in list(_owners):
        owner.forked()


def _at_exit() -> None:
    """
    Let what was sent leave, for a bounded time, and say what did not.
    """
    global _is_parting  # noqa: PLW0603 - there is one end
    until = monotonic() + PARTING_SECONDS
    lost = sum(owner.finish(until) for owner in list(_owners))
    if lost:
        logger.error(
            "%d calls of the channel layer were lost at the end of the process [%s]",
            lost,
            Fault.LOST_AT_EXIT,
        )
    _io.stop(max(0.0, until - monotonic()))
    _is_parting = True


_owners: WeakSet[Owner] = WeakSet()
_servers: list[asyncio.AbstractEventLoop] = []
_tasks: set[asyncio.Task[None]] = set()
_io = IOThread()
# A module that is first imported while the process ends registers its handler too late.
_is_parting = not threading.main_thread().is_alive()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_at_fork)
atexit.register(_at_exit)
