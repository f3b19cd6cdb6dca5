"""
Speak to Redis on redis-py's transport: commands of a loop turn in one write, replies in order.

Decides: ``layers/brokers/redis/link.py`` (``Link``). redis-py's own client has a pool, a lock,
a task's turn and a write for each command.
Run: ``python experiments/redis_publish.py`` (starts a ``redis-server`` of its own)
Result: 1.3 us per message in a turn of twenty, 54 us through redis-py's client.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness.redis_server import running_redis
from experiments.timing import compare, show
from fairway.layers.brokers.redis.link import pack

TURN = 20
"""
Messages of a turn on a busy server.
"""


class Lane(asyncio.Protocol):
    """
    The heart of a link: writes what it is given, and counts replies.
    """

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()

    def data_received(self, data: bytes) -> None:
        """
        Hand replies on; each of these is one line.
        """
        for _ in range(data.count(b"\n")):
            self.waiting.popleft().set_result(None)


def main(count: int = 4000) -> dict[str, float]:
    """
    Publish messages that nobody hears, some at once in each turn.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        running_redis(folder, min(os.sched_getaffinity(0))) as url,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        client = redis.asyncio.Redis.from_url(url)
        loop = runner.get_loop()
        port = urlsplit(url).port or 6379
        transport, lane = runner.run(loop.create_connection(Lane, "127.0.0.1", port))

        async def by_client(times: int) -> None:
            for _ in range(0, times, TURN):
                await asyncio.gather(*(client.publish("group", b"x" * 200) for _ in range(TURN)))

        async def by_lane(times: int) -> None:
            for _ in range(0, times, TURN):
                futures = [loop.create_future() for _ in range(TURN)]
                lane.waiting.extend(futures)
                commands = (pack(("PUBLISH", "group", b"x" * 200)) for _ in futures)
                transport.write(b"".join(commands))
                for future in futures:
                    await future

        def run(way: Any) -> Any:
            return lambda times: runner.run(way(times))

        figures = compare({"one write": run(by_lane), "redis-py": run(by_client)}, count)
        transport.abort()
        runner.run(client.aclose())
    return show(figures)


if __name__ == "__main__":
    main()
