"""
What readers who stand still cost the others, and how much they hold.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from fairway.server.overflow import POLICIES
from fairway.types import Receive, Scope, Send
from fairway.wire.prepared import Prepared
from tests.protocol.harness import Puppet, Serve, Served

READERS = 1000
CYCLES = 9
MESSAGES = 3
LIMIT = 1048576


class Crowd:
    """
    Readers who take everything at once, and note when.
    """

    def __init__(self) -> None:
        self.outboxes: list[Any] = []
        self.latencies: list[float] = []
        self._published = 0.0
        self._all = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Accept, and leave the outbox to the test.
        """
        ends = scope["extensions"]["fairway"]
        if scope["path"] != "/":
            ends["configure"](overflow=scope["path"].strip("/"))
        await receive()
        await send({"type": "websocket.accept"})
        self.outboxes.append(ends["outbox"])
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def join(self, served: Served, count: int = 1, path: str = "/") -> list[Any]:
        """
        Connect some that read nothing yet; gives their outboxes.
        """
        before, size = len(self.outboxes), 0 if path == "/" else 4096
        opening = (served.websocket(path, receive_buffer=size) for _ in range(count))
        peers = await asyncio.gather(*opening)
        for peer in peers:
            assert (await peer.response()).status == 101
        return self.outboxes[before:]

    def read(self, sock: Any) -> None:
        """
        Have one read whenever there is something.
        """

        def take() -> None:
            sock.recv(65536)
            self.latencies.append(perf_counter() - self._published)
            if len(self.latencies) == READERS:
                self._all.set()

        asyncio.get_running_loop().add_reader(sock, take)

    async def publish(self, outboxes: list[Any]) -> float:
        """
        Offer one message to all, and give the 99th percentile of how long it takes to be read.
        """
        self.latencies.clear()
        self._all.clear()
        prepared = Prepared(text="x" * 200)
        self._published = perf_counter()
        for outbox in outboxes:
            outbox.offer(prepared)
        await self._all.wait()
        return sorted(self.latencies)[READERS * 99 // 100]


@pytest.mark.one_loop
async def test_the_others(serve: Serve) -> None:
    """
    One that stands still among a thousand moves the p99 of the others by less than half.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    crowd = Crowd()
    served = await serve(crowd)
    readers = await crowd.join(served, READERS)
    for peer in served.peers:
        crowd.read(peer.sock)
    stalled = {policy: [await stall(crowd, served, policy)] for policy in POLICIES}
    stalled["nobody"] = []

    rounds: dict[str, list[float]] = {name: [] for name in ("nobody", *POLICIES)}
    gc.disable()
    try:
        for _ in range(CYCLES):
            for name, found in rounds.items():
                # In the middle, where whoever costs time costs it to half of the others.
                members = readers[:500] + stalled[name] + readers[500:]
                found.append(min([await crowd.publish(members) for _ in range(MESSAGES)]))
    finally:
        gc.enable()
    middle = {name: statistics.median(found) for name, found in rounds.items()}
    assert all(middle[policy] < 1.5 * middle["nobody"] for policy in POLICIES), middle
    assert all(stalled[policy][0].pending_bytes for policy in POLICIES)
    for peer in served.peers[:READERS]:
        asyncio.get_running_loop().remove_reader(peer.sock)


async def stall(crowd: Crowd, served: Served, policy: str) -> Any:
    """
    Connect one that reads nothing, and let wait for it as much as may; gives its outbox.
    """
    (outbox,) = await crowd.join(served, path=f"/{policy}")
    while outbox.pending_bytes < LIMIT - 65536 and not (policy == "latest" and not outbox.writable):
        outbox.offer(Prepared(text="x" * 10_000))
        await asyncio.sleep(0)
    for _ in range(20 if policy != "close" else 0):
        outbox.offer(Prepared(text="x" * 10_000))
        await asyncio.sleep(0)
    return outbox


@pytest.mark.one_loop
@pytest.mark.parametrize("policy", [*POLICIES])
@pytest.mark.parametrize("size", [20, 5_000])
async def test_memory(app: Puppet, serve: Serve, policy: str, size: int) -> None:
    """
    Ten that stand still cost at most 32 MiB in all, whatever is sent, though they share nothing.
    """
    served = await serve(app, overflow=policy, close_timeout=60.0)
    calls = []
    for _ in range(10):
        await served.websocket(receive_buffer=4096)
        calls.append(await app.call())
        await calls[-1].connect()
    outboxes: list[Any] = [call.extension["outbox"] for call in calls]
    before = resident()
    for number in range(min(20_000, 3 * LIMIT // size)):
        for outbox in outboxes:
            outbox.offer(Prepared(data=b"%d" % (number % 10) * size))
        if not number % 16 or size > 1000:
            await asyncio.sleep(0)
    assert sum(outbox.pending_bytes for outbox in outboxes) <= 10 * (LIMIT + size + 4096)
    gc.collect()
    assert resident() - before <= 32 * 1024 * 1024


def resident() -> int:
    """
    Bytes of this process in memory.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
