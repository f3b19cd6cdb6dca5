"""
Write the access log's lines of a loop turn together, instead of a record of ``logging`` for each.

Decides: ``server/access.py`` (``AccessLines``), ``logs.py`` (``StderrHandler.write_lines``).
Run: ``python experiments/access_lines.py``
Result: 9.5 us for a record each, 0.5 us where 40 lines are of one turn, 8 us (3 of which are the
turn) where each turn has one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import compare, show
from fairway.logs import StderrHandler
from fairway.server.access import AccessLines

TURN = 40
"""
Requests of a turn on a busy server; an idle one has one.
"""


def main(count: int = 20_000) -> dict[str, float]:
    """
    Write lines to a file, one for each request.
    """
    logger = logging.getLogger("experiment.access")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = StderrHandler()
    logger.addHandler(handler)
    with asyncio.Runner() as runner, open(os.devnull, "w") as nothing:  # noqa: PTH123 - a device
        lines = AccessLines(runner.get_loop(), logger)

        def records(times: int) -> None:
            for _ in range(times):
                logger.info("%s %s %d", "127.0.0.1", "GET /", 200, extra={"status_code": 200})

        async def turns(times: int, size: int) -> None:
            for start in range(0, times, size):
                for _ in range(start, min(start + size, times)):
                    lines.add("127.0.0.1", "GET /", 200)
                await asyncio.sleep(0)

        def together(size: int) -> Callable[[int], None]:
            return lambda times: runner.run(turns(times, size))

        with contextlib.redirect_stderr(nothing):
            ways = {
                "a record each": records,
                f"{TURN} in a turn": together(TURN),
                "1 in a turn": together(1),
            }
            figures = compare(ways, count)
            runner.run(asyncio.sleep(0))
    logger.removeHandler(handler)
    return show(figures)


if __name__ == "__main__":
    main()
