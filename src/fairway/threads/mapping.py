"""
asgiref's way to the threads: which context is mapped, and whose lane work goes to.

Nothing is mapped outside of a server, so a test's work stays in the test's thread. The context
variable is asgiref's own; contexts are set here, and never entered or left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Token
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext

from fairway.threads.lanes import Grip, Lane
from fairway.threads.pool import Pool

if TYPE_CHECKING:
    from fairway.threads.lanes import Ledger
    from fairway.threads.seats import Seat

__all__ = ["LaneContext", "Root", "Threads", "leave_thread", "present"]

END_SECONDS = 1.0
"""
Time that idle threads get to close what they hold when the server stops.
"""

present = SyncToAsync.thread_sensitive_context
"""
The variable that says which of these contexts is the calling task's.
"""


def leave_thread() -> None:
    """
    Have the calling task's work go to its lane again, and not to a thread it no longer waits for.

    A thread that is stuck inside ``async_to_sync`` left its own executor in the task's context.
    """
    AsyncToSync.executors.current = None


class Root(ThreadSensitiveContext):
    """
    What a server's contexts begin with: asgiref's key to its executor, but no connection's yet.

    All of one server's contexts are equal, and so share one entry. The base's constructor is
    left out: such a context is set, never entered.
    """

    __slots__ = ("threads",)

    # What the base's constructor sets.
    _exited = False
    _executor: Executor | None = None
    token: Token[ThreadSensitiveContext] | None = None

    def __init__(self, threads: Threads) -> None:
        self.threads = threads

    def __hash__(self) -> int:
        return id(self.threads)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Root) and other.threads is self.threads


class LaneContext(Root):
    """
    One connection's. All that a connection costs which sends nothing to a thread.
    """

    __slots__ = ("grip", "pool")

    def __init__(self, threads: Threads, pool: Pool) -> None:
        super().__init__(threads)
        self.pool = pool
        self.grip: Grip | None = None

    def lane(self) -> Lane:
        """
        Give the lane, which is made on first use.
        """
        if self.grip is None:
            self.grip = Grip(Lane(self.pool))
        return self.grip.lane


class Facade(Executor):
    """
    The executor that asgiref sees: hands work to the lane of whoever sends it.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """
        Have a function called in a thread, after what the same connection sent before.
        """
        context = present.get()
        if not isinstance(context, LaneContext):
            # An application that is none of ours: its task is its connection.
            threads: Threads = context.threads  # type: ignore[attr-defined] # a Root
            context = LaneContext(threads, threads.pages)
            present.set(context)
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
        page_queue: float = inf,
    ) -> None:
        """
        Prepare; no thread is started before there is work.

        Args:
            make_ledger: Makes what looks after a thread's connections.
            consumers: Threads for consumers.
            pages: Threads for pages.
            close_timeout: Seconds after which a thread nobody waits for is given up.
            page_queue: Pages that may wait for a thread.
        """
        self.consumers = Pool("consumer", consumers, make_ledger, close_timeout)
        self.pages = Pool("page", pages, make_ledger, close_timeout, page_queue)
        # Kept for as long as any of its contexts: asgiref holds its keys weakly.
        self._root = Root(self)

    def start(self) -> None:
        """
        Map the calling task's context, and thereby each that is copied from it, to these threads.
        """
        self.pages.start(asyncio.get_running_loop())
        SyncToAsync.context_to_thread_executor[self._root] = Facade()
        present.set(self._root)

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
