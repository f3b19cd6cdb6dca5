"""
Have threads that compute hand the interpreter over after 1 ms instead of 5, or work one at a time.

Decides: ``server/run.py`` (``_favour_loop``), ``threads/gauge.py`` (``ALONE_SECONDS``).
Run: ``python experiments/switch_interval.py``
Result: beside eight threads the loop wakes 25 to 74 ms late with Python's 5 ms, 7 to 10 ms with
1 ms, for which they get up to a third less done; beside a single one with 3 ms, 3.5 ms late.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import show
from fairway.threads.gauge import ALONE_SECONDS

THREADS = 8
PAUSE = 0.002
"""
Between what a socket sends, say.
"""


def main(count: int = 30) -> dict[str, float]:
    """
    See how late a loop wakes while pages compute, and how much these get done.
    """
    before = sys.getswitchinterval()
    late: dict[str, float] = {}
    done: dict[str, float] = {}
    try:
        for seconds, number in ((before, THREADS), (0.001, THREADS), (ALONE_SECONDS, 1)):
            sys.setswitchinterval(seconds)
            name = f"{seconds * 1000:g} ms, {number} at work"
            late[name], done[name] = asyncio.run(wakes(count, number))
    finally:
        sys.setswitchinterval(before)
    print("the loop wakes late by, at the median; rounds that pages compute in a second:")
    return show(late, "us") | {f"{name}, rounds": value for name, value in show(done, "").items()}


async def wakes(count: int, number: int) -> tuple[float, float]:
    """
    Sleep shortly and often beside threads that compute.
    """
    over = threading.Event()
    rounds = [0] * number

    def compute(at: int) -> None:
        while not over.is_set():
            sum(range(200))
            rounds[at] += 1

    threads = [threading.Thread(target=compute, args=(at,)) for at in range(number)]
    for thread in threads:
        thread.start()
    found = []
    start = time.perf_counter()
    for _ in range(count):
        begin = time.perf_counter()
        await asyncio.sleep(PAUSE)
        found.append((time.perf_counter() - begin - PAUSE) * 1e6)
    seconds = time.perf_counter() - start
    over.set()
    for thread in threads:
        thread.join()
    return statistics.median(found), sum(rounds) / seconds


if __name__ == "__main__":
    main()
