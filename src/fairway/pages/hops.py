"""
One way to a thread and back: a function that runs there and tells the loop things as it goes.

asgiref's ``sync_to_async`` does the same for one result. Here a page tells its answer before it
cleans up, and a stream its parts one by one; a task that waits is woken by each, and there is
no future of a thread besides. Under a Fairway server a hop is a job of the request's lane;
elsewhere asgiref says which thread it is, so that a test's pages stay where its data is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asgiref.sync
from asgiref.sync import sync_to_async

from fairway.threads.jobs import Job
from fairway.threads.mapping import LaneContext, present

if TYPE_CHECKING:
    from contextvars import Context

__all__ = ["Hop", "carry_over"]

# Tells asgiref's async_to_sync, in the thread, which loop it came from and whom to cancel.
_bridge: Any = sync_to_async(id)
_NO_ERROR = (None, None, None)


def _copy_values(context: Context) -> None:
    """
    Set the values of another context's variables in the present one.
    """
    for variable, value in context.items():
        variable.set(value)


carry_over: Callable[[Context], None] = getattr(asgiref.sync, "_restore_context", _copy_values)
"""
Make what a context holds the calling thread's own: asgiref's ``Local`` hides what another thread
has set. The name is asgiref's private one; versions without it have no need of it.
"""


class Hop(Job):
    """
    A function's run in a thread, for the task that made it.

    Event-loop thread only, except for ``tell`` and ``deserted``, which are for the function.

    Attributes:
        begun: Whether the function was called, or would have been, had nobody deserted it.
        told: What the function has told, and nobody taken yet.
        ended: Whether it has returned.
        error: What it raised, if it did.
        deserted: Whether the task waits no more; what it still tells goes to ``orphaned``.
        orphaned: Called on the loop with what was told too late.
    """

    __slots__ = (
        "_cancelled",
        "_context",
        "_loop",
        "_nested",
        "_waiter",
        "begun",
        "deserted",
        "ended",
        "error",
        "on_deserted",
        "orphaned",
        "told",
    )

    def __init__(self, context: Context, function: Callable[[Hop], None]) -> None:
        """
        Prepare a call of the function with this hop, in the given context. ``start`` begins it.
        """
        self.function = function  # type: ignore[assignment] # called by this class alone
        self.started = 0.0
        self.told: list[Any] = []
        self.ended = False
        self.error: BaseException | None = None
        self.deserted = False
        self.on_deserted: Callable[[], None] | None = None
        self.orphaned: Callable[[Any], None] | None = None
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._nested: list[asyncio.Task[Any]] = []
        self._waiter: asyncio.Future[None] | None = None
        self.begun = False
        self._cancelled = False

    @property
    def result(self) -> Any:  # type: ignore[override] # one object is job and result
        """
        See ``Job``: what its pool asks of a result, this object knows.
        """
        return self

    def start(self) -> None:
        """
        Have the function called, after what the same request sent to a thread before.
        """
        context = present.get(None)
        if isinstance(context, LaneContext):
            lane = context.lane()
            lane.pool.enqueue(lane, self)
        else:
            task = asyncio.ensure_future(sync_to_async(self._run_here)())
            # The loop holds tasks weakly; a cancelled one cannot take its thread along.
            _elsewhere.add(task)
            task.add_done_callback(_elsewhere.discard)

    async def wait(self) -> None:
        """
        Wait until something was told, or the function has returned.

        Cancelled, it deserts the function: one that runs is run to its end, one that waits for a
        thread never.
        """
        while not (self.told or self.ended):
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self._desert()
                raise

    async def wait_ended(self) -> None:
        """
        Wait until the function has returned.

        Raises:
            BaseException: Whatever it raised.
        """
        while not self.ended:
            await self.wait()
            self.told.clear()
        self.raise_error()

    def raise_error(self) -> None:
        """
        Raise what the function raised, if it did.
        """
        if self.error is not None:
            error, self.error = self.error, None
            try:
                raise error
            finally:
                # It refers to this frame.
                del error

    def tell(self, thing: Any) -> None:
        """
        Hand something to the task that waits. From the function's thread; waits for nothing.
        """
        # The loop is gone where a process ends before its pages do.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take, thing)

    # -- what a pool asks of a job and its result

    def done(self) -> bool:
        """
        Whether the function has returned. From any thread.
        """
        return self.ended

    def set_running_or_notify_cancel(self) -> bool:
        """
        Whether the function is still to be called. From its thread.
        """
        self.begun = True
        return not self._cancelled

    def run(self) -> Callable[[], None]:
        """
        Call the function; give what tells its end. From its thread.
        """
        try:
            _bridge.thread_handler(
                self._loop, _NO_ERROR, self._nested, self._context.run, self._call
            )
        except BaseException as error:  # noqa: BLE001 - all of them belong to the task
            self.error = error
        return self._tell_end

    def _run_here(self) -> None:
        """
        Call the function in a thread that asgiref chose.
        """
        if self.set_running_or_notify_cancel():
            self.run()()

    def _call(self) -> None:
        carry_over(self._context)
        self.function(self)  # type: ignore[call-arg] # see __init__

    def _tell_end(self) -> None:
        # It refers to this job.
        self.on_deserted = None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

    # -- back on the loop

    def _take(self, thing: Any) -> None:
        if self.deserted:
            if self.orphaned is not None:
                self.orphaned(thing)
            return
        self.told.append(thing)
        self._wake()

    def _end(self) -> None:
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _desert(self) -> None:
        """
        Wait no more: drop the function if it has not begun, else look after its thread later.
        """
        self.deserted = self._cancelled = True
        for task in self._nested:
            task.cancel()
        if self.begun and self.on_deserted is not None:
            self.on_deserted()


_elsewhere: set[asyncio.Future[None]] = set()
