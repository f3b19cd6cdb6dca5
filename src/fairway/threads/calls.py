"""
What connections and handlers say: they begin, they end, they wait no longer.

The whole of what ``asgi``, ``routing`` and ``consumers`` need; each does nothing where no
server runs. Event-loop thread only, except where it says otherwise.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from fairway.threads.mapping import LaneContext, Root, leave_thread, present

if TYPE_CHECKING:
    from fairway.threads.lanes import Lane

__all__ = ["enter", "give_up", "leave", "own_context", "rest"]


def enter(*, page: bool = False) -> LaneContext | None:
    """
    Give the calling task's connection a lane, under a Fairway server.

    Hot path: once per connection and per request.

    Args:
        page: Whether its work is for the threads of pages.

    Returns:
        What to ``leave`` at its end; None where there is nothing to do, or it has one already.
    """
    root = present.get(None)
    if type(root) is not Root:
        return None
    threads = root.threads
    context = LaneContext(threads, threads.pages if page else threads.consumers)
    present.set(context)
    return context


def own_context() -> Context:
    """
    Give a context for work that belongs to no connection: empty but for a lane of its own.

    The lane is of the threads for consumers, and there only under a Fairway server.
    """
    context = Context()
    root = present.get(None)
    if isinstance(root, Root):
        threads = root.threads
        context.run(present.set, LaneContext(threads, threads.consumers))
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
    Abandon a thread that has long been running what the calling task was cancelled to wait for.

    One that has just begun, after a wait in the queue say, is not stuck: ``Pool.watch`` sees to it.
    """
    lane = _present_lane()
    if lane is None:
        return
    leave_thread()
    # The cancellation is on its way to the job by a callback.
    await asyncio.sleep(0)
    pool, seat, job = lane.pool, lane.seat, lane.job
    if seat is None or job is None:
        return
    if monotonic() - job.started >= pool.close_timeout:
        pool.abandon(seat, job)


def watch(task: asyncio.Task[Any]) -> None:
    """
    Abandon the calling task's thread if a job of ``task``, its own or a part, gets stuck there.

    For what nobody cancels any more: a ``disconnect`` that runs in any case. Each job has its
    time from when it begins; with its thread given up, the task is cancelled.
    """
    lane = _present_lane()
    if lane is None:
        return
    loop, pool = asyncio.get_running_loop(), lane.pool

    def look() -> None:
        if task.done():
            return
        seat, job = lane.seat, lane.job
        if seat is None or job is None or monotonic() - job.started < pool.close_timeout:
            loop.call_later(pool.close_timeout, look)
            return
        pool.abandon(seat, job)
        task.cancel()

    loop.call_later(pool.close_timeout, look)


def _present_lane() -> Lane | None:
    """
    Give the calling task's lane, if it has used one.
    """
    context = present.get(None)
    if isinstance(context, LaneContext) and context.grip is not None:
        return context.grip.lane
    return None
