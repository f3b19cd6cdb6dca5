"""
Freeze what start-up made, and look for cycles every 10,000 new objects instead of every 700.

Decides: ``server/run.py`` (``_relieve_collector``).
Run: ``python experiments/collector.py``
Result: 8.1 us per request with Python's default of 700, 6.5 us this way, beside 5,000 idle
sockets.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import compare, show

SOCKETS = 5000


async def request(future: asyncio.Future[None]) -> None:
    """
    Make and drop about what a request does, a task and a future among it.
    """
    scope = {"headers": [(b"host", b"example.org")] * 8, "state": {}}
    messages = [{"type": "http.response.start", "headers": scope["headers"]} for _ in range(10)]
    await future
    messages.clear()


def main(count: int = 10_000) -> dict[str, float]:
    """
    Run requests beside what idle sockets hold, in batches that are open at once.
    """
    idle = [[{"type": "http"}, {}, [object()]] for _ in range(SOCKETS)]
    before = gc.get_threshold()
    with asyncio.Runner() as runner:
        runner.get_loop()

        async def requests(times: int) -> None:
            loop = asyncio.get_running_loop()
            for _ in range(0, times, 100):
                future = loop.create_future()
                tasks = [loop.create_task(request(future)) for _ in range(100)]
                await asyncio.sleep(0)
                future.set_result(None)
                await asyncio.wait(tasks)

        def as_python_does(times: int) -> None:
            gc.set_threshold(700, 10, 10)
            runner.run(requests(times))

        def rarely(times: int) -> None:
            gc.freeze()
            gc.set_threshold(10_000, 10, 10)
            runner.run(requests(times))
            gc.unfreeze()

        try:
            figures = compare({"every 700": as_python_does, "every 10,000": rarely}, count)
        finally:
            gc.set_threshold(*before)
    idle.clear()
    return show(figures)


if __name__ == "__main__":
    main()
