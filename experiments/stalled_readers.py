"""
Let a reader who stands still keep a backlog of its own: what it costs the others, by policy.

Decides: ``server/overflow.py`` (``Backlog``), ``server/outbox.py`` (``Outbox.offer``).
Run: ``python experiments/stalled_readers.py``
Result: on two busy cores 99 of 100 readers had each message within 28 to 38 ms, and ten who stood
still moved that by 0.88 to 1.09 times, no policy more than another. Sharing no message, the ten
held 9 MiB in messages of 5,000 bytes and 17 MiB in those of 60.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import statistics
import sys
from pathlib import Path
from time import perf_counter

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import Peer, show
from fairway.options import ServerOptions
from fairway.server.outbox import Flusher, Outbox
from fairway.server.overflow import POLICIES
from fairway.wire.prepared import Prepared

CYCLES = 15
BACKLOGS = {"close": 800, "drop_oldest": 1_000, "latest": 1_000}
"""
Messages of 1,200 bytes sent to each reader who stands still: as many as may wait, or more.
"""


def main(count: int = 1_000) -> dict[str, float]:
    """
    Give the 99th percentile of when each of so many readers has a message that all are sent.

    Beside nobody who stands still stand ten of a policy, spread among the others: ten times what
    one would cost, so that it shows. The policies take turns; the median of the rounds counts.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(compare(count))
    return show(figures, "us")


async def compare(count: int) -> dict[str, float]:
    """
    Publish to all in rounds.
    """
    loop = asyncio.get_running_loop()
    flusher = Flusher(loop, ServerOptions())
    others = Readers(flusher, count)
    still = {policy: [behind(flusher, policy) for _ in range(10)] for policy in POLICIES}
    ways: dict[str, list[Outbox]] = {"nobody stands still": []}
    ways |= {f"ten stand still, {policy}": found for policy, found in still.items()}
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    gc.disable()
    try:
        for _ in range(CYCLES):
            for name, stalled in ways.items():
                rounds[name].append(min([await others.publish(stalled) for _ in range(3)]))
    finally:
        gc.enable()
        others.close()
    return {name: statistics.median(found) * 1e6 for name, found in rounds.items()}


class Readers:
    """
    Readers who take everything at once, each over a pair of sockets.
    """

    def __init__(self, flusher: Flusher, count: int) -> None:
        self._pairs = [socket.socketpair() for _ in range(count)]
        self._outboxes = []
        self._latencies: list[float] = []
        self._published = 0.0
        self._done = asyncio.Event()
        for near, far in self._pairs:
            near.setblocking(False)
            far.setblocking(False)
            outbox = Outbox(flusher, ServerOptions(), Peer())
            outbox.open(Peer(write=near.sendall), writable=True)
            self._outboxes.append(outbox)
            flusher.loop.add_reader(far, self._take, far)

    async def publish(self, stalled: list[Outbox]) -> float:
        """
        Send one message to all and to some who stand still.
        """
        step = len(self._outboxes) // (len(stalled) + 1)
        members: list[Outbox] = []
        for number, outbox in enumerate([*stalled, None]):
            members += self._outboxes[number * step : (number + 1) * step if outbox else None]
            members += [] if outbox is None else [outbox]
        self._latencies.clear()
        self._done.clear()
        prepared = Prepared(text="x" * 1200)
        self._published = perf_counter()
        for member in members:
            member.offer(prepared)
        await self._done.wait()
        return sorted(self._latencies)[len(self._latencies) * 99 // 100]

    def close(self) -> None:
        """
        Close all sockets.
        """
        loop = asyncio.get_running_loop()
        for near, far in self._pairs:
            loop.remove_reader(far)
            near.close()
            far.close()

    def _take(self, sock: socket.socket) -> None:
        sock.recv(65536)
        self._latencies.append(perf_counter() - self._published)
        if len(self._latencies) == len(self._pairs):
            self._done.set()


def behind(flusher: Flusher, policy: str) -> Outbox:
    """
    Make the outbox of a reader who takes nothing.
    """
    outbox = POLICIES[policy](flusher, ServerOptions(), Peer())
    outbox.open(Peer(65536), writable=False)
    for _ in range(BACKLOGS[policy]):
        outbox.offer(Prepared(text="x" * 1200))
    return outbox


if __name__ == "__main__":
    main()
