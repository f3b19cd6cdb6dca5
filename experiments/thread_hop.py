"""
Bring a page's result back from its thread by one call to the loop, without futures in between.

Decides: ``pages/hops.py`` (``Hop``), ``threads/pool.py``.
Run: ``python experiments/thread_hop.py``
Result: 18 us with one call, 31 us with ``run_in_executor``, 48 us with asgiref's
``sync_to_async``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import uvloop
from asgiref.sync import sync_to_async

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import compare, show


def work() -> int:
    """
    Do what a page does, in no time.
    """
    return 17


def main(count: int = 1500) -> dict[str, float]:
    """
    Call a function in a thread in three ways.
    """
    jobs: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[int]] | None] = SimpleQueue()

    def serve() -> None:
        while (job := jobs.get()) is not None:
            loop, future = job
            loop.call_soon_threadsafe(future.set_result, work())

    thread = threading.Thread(target=serve)
    thread.start()
    through_asgiref = sync_to_async(work, thread_sensitive=True)

    async def by_asgiref(times: int) -> None:
        for _ in range(times):
            await through_asgiref()

    async def by_executor(times: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(times):
            await loop.run_in_executor(None, work)

    async def by_one_call(times: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(times):
            future = loop.create_future()
            jobs.put((loop, future))
            await future

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        def run(way: Any) -> Callable[[int], None]:
            return lambda times: runner.run(way(times))

        ways = {"one call": by_one_call, "run_in_executor": by_executor, "asgiref": by_asgiref}
        figures = compare({name: run(way) for name, way in ways.items()}, count)
    jobs.put(None)
    thread.join()
    return show(figures)


if __name__ == "__main__":
    main()
