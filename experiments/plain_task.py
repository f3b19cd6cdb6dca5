"""
Make the application's own coroutine the task, without a wrapper around it.

Decides: ``server/exchange.py`` (``Exchange.start_application``; errors are judged in the task's
done callback).
Run: ``python experiments/plain_task.py``
Result: a wrapper costs a tenth of a task's life and 150 bytes (a fifth) for as long as it waits.
"""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import compare, show

Life = Coroutine[Any, Any, None]


async def application(future: asyncio.Future[None]) -> None:
    """
    Wait, as a socket at rest does.
    """
    await future


async def wrapped(coroutine: Life) -> None:
    """
    Judge what a coroutine raised, as a server would.
    """
    try:
        await coroutine
    except ValueError:
        return


def main(count: int = 10_000) -> dict[str, float]:
    """
    Begin and end tasks, and look at what one that waits takes.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        done: asyncio.Future[None] = loop.create_future()
        done.set_result(None)

        def plain(future: asyncio.Future[None]) -> asyncio.Task[None]:
            return asyncio.Task(application(future), loop=loop, name="fairway")

        def around(future: asyncio.Future[None]) -> asyncio.Task[None]:
            return asyncio.Task(wrapped(application(future)), loop=loop, name="fairway")

        def repeat(way: Any) -> Any:
            async def run(times: int) -> None:
                for _ in range(times):
                    await way(done)

            return lambda times: runner.run(run(times))

        async def held(way: Any) -> float:
            waits = loop.create_future()
            tracemalloc.start()
            tasks = [way(waits) for _ in range(1000)]
            await asyncio.sleep(0)
            size = tracemalloc.get_traced_memory()[0] / len(tasks)
            tracemalloc.stop()
            waits.set_result(None)
            await asyncio.wait(tasks)
            return size

        ways = {"plain": plain, "in a wrapper": around}
        figures = compare({name: repeat(way) for name, way in ways.items()}, count)
        memory = {f"{name}, waiting": runner.run(held(way)) for name, way in ways.items()}
    return show(figures) | show(memory, "bytes")


if __name__ == "__main__":
    main()
