"""
Hand an event to the future that a consumer awaits; keep a queue only for what comes too early.

Decides: ``server/inbox.py`` (``Inbox``): one future for the peer and the channel layer, a deque
only while something waits. Channels has a queue for each, and a task for each that reads it.
Run: ``python experiments/one_future.py``
Result: 5.0 us per event through the inbox, 5.8 us through an ``asyncio.Queue``, 18 us with two
queues and their tasks. At rest an inbox is 140 bytes, a deque 770, a queue 3.3 KiB.
"""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import compare, show
from fairway.server.inbox import Inbox

EVENT = {"type": "websocket.receive", "text": "hello"}


def main(count: int = 10_000) -> dict[str, float]:
    """
    Pass events to somebody who waits, and look at what a queue takes at rest.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        async def by_inbox(times: int) -> None:
            inbox = Inbox(loop, 100, None)
            for _ in range(times):
                loop.call_soon(inbox.push, EVENT)
                await inbox.next_event()

        async def by_queue(times: int) -> None:
            queue: asyncio.Queue[Any] = asyncio.Queue()
            for _ in range(times):
                loop.call_soon(queue.put_nowait, EVENT)
                await queue.get()

        async def by_two_tasks(times: int) -> None:
            queues: list[asyncio.Queue[Any]] = [asyncio.Queue(), asyncio.Queue()]
            tasks = [asyncio.ensure_future(queue.get()) for queue in queues]
            for _ in range(times):
                loop.call_soon(queues[0].put_nowait, EVENT)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                tasks[0] = asyncio.ensure_future(queues[0].get())
            for task in tasks:
                task.cancel()

        def run(way: Any) -> Callable[[int], None]:
            return lambda times: runner.run(way(times))

        ways = {"inbox": by_inbox, "asyncio.Queue": by_queue, "two queues, tasks": by_two_tasks}
        figures = compare({name: run(way) for name, way in ways.items()}, count)
    memory = {
        "inbox at rest": size(lambda: Inbox(loop, 100, None)),
        "deque at rest": size(deque),
        "asyncio.Queue at rest": size(asyncio.Queue),
    }
    return show(figures) | show(memory, "bytes")


def size(make: Callable[[], object]) -> float:
    """
    Say what one of many takes.
    """
    tracemalloc.start()
    kept = [make() for _ in range(1000)]
    taken = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return taken


if __name__ == "__main__":
    main()
