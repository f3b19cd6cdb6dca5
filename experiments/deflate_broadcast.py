"""
Compress a message once for all who agreed to it, with a window of 4 KiB and nothing kept.

Decides: ``wire/deflate.py`` (``Deflate``), ``server/websocket.py`` (``accept``).
Run: ``python experiments/deflate_broadcast.py``
Result: A broadcast to 1,000 sockets takes 1.06 times a plain one with messages of 200 bytes (227
bytes as 142), the same with 1,000 (376) and 0.72 with 5,000 (1,444). To compress 1,000 bytes takes
11 us with a new compressor of 29 KiB, as much with a copy or one of 256 KiB, and a tenth less with
one that is kept and reset; that one would be held by the process, or by each socket.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import ROUNDS, Peer, compare, show
from fairway.options import ServerOptions
from fairway.server.outbox import Flusher, Outbox
from fairway.wire.deflate import Deflate
from fairway.wire.prepared import Format, Prepared
from fairway.wire.websocket import websocket_frame

MEMBERS = 1000
SIZES = (200, 1000, 5000)


def message(size: int, seed: int = 1) -> str:
    """
    Make JSON as a page of prices would get it, of about so many bytes.
    """
    numbers = random.Random(seed)
    rows: list[dict[str, object]] = []
    while len(text := json.dumps({"type": "prices", "rows": rows})) < size:
        rows.append(
            {
                "symbol": "".join(numbers.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=4)),
                "bid": round(numbers.uniform(1, 500), 2),
                "ask": round(numbers.uniform(1, 500), 2),
                "volume": numbers.randrange(100_000),
            }
        )
    return text


def main(count: int = 20_000) -> dict[str, float]:
    """
    Compress messages in several ways, then broadcast them, plain and compressed.
    """
    figures = show(compare_compressors(max(10, count // 10)))
    for size in SIZES:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures |= show(runner.run(broadcast(size, count)))
    return figures


def compare_compressors(count: int) -> dict[str, float]:
    """
    Time a message of 1,000 bytes with compressors of several sizes, made anew, copied or kept.
    """
    data = message(1000).encode()
    whole = zlib.compressobj(6, zlib.DEFLATED, -12, 5)

    def new(bits: int, memory: int, level: int = 6) -> Callable[[int], None]:
        def run(times: int) -> None:
            for _ in range(times):
                stream = zlib.compressobj(level, zlib.DEFLATED, -bits, memory)
                stream.compress(data)
                stream.flush(zlib.Z_SYNC_FLUSH)

        return run

    def copied(times: int) -> None:
        for _ in range(times):
            stream = whole.copy()
            stream.compress(data)
            stream.flush(zlib.Z_SYNC_FLUSH)

    kept_stream = zlib.compressobj(6, zlib.DEFLATED, -12, 5)

    def kept(times: int) -> None:
        for _ in range(times):
            kept_stream.compress(data)
            kept_stream.flush(zlib.Z_FULL_FLUSH)

    return compare(
        {
            "12 bits, memory 5, new": new(12, 5),
            "12 bits, memory 5, new, level 1": new(12, 5, 1),
            "12 bits, memory 5, copied": copied,
            "12 bits, memory 5, kept and reset": kept,
            "15 bits, memory 8, new": new(15, 8),
        },
        count,
    )


async def broadcast(size: int, count: int) -> dict[str, float]:
    """
    Time one delivery to each of many sockets, whose other ends are read in between.
    """
    loop = asyncio.get_running_loop()
    members = min(MEMBERS, count)
    flusher = Flusher(loop, ServerOptions())
    deflate = Deflate(12, 1, 65536)
    pairs = [socket.socketpair() for _ in range(members)]
    outboxes = []
    for near, far in pairs:
        near.setblocking(False)
        far.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        outbox = Outbox(flusher, ServerOptions(), Peer())
        outbox.open(transport, writable=True)
        outboxes.append(outbox)

    async def once(format: Format, text: str) -> int:  # noqa: A002 - the wire format
        for outbox in outboxes:
            outbox.format = format
        begin = time.process_time_ns()
        prepared = Prepared(text=text)
        for outbox in outboxes:
            outbox.offer(prepared)
        # One turn for each 512, and uvloop itself writes at the end of its turn.
        for _ in range(MEMBERS // 100):
            await asyncio.sleep(0)
        assert not flusher.dirty
        taken = time.process_time_ns() - begin
        for _, far in pairs:
            far.recv(1 << 20)
        return taken

    ways: dict[str, Format] = {"plain": websocket_frame, "compressed": deflate}
    best = dict.fromkeys(ways, float("inf"))
    rounds = max(1, count // MEMBERS)
    text = message(size)
    for _ in range(ROUNDS):
        for name, format_ in ways.items():
            taken = sum([await once(format_, text) for _ in range(rounds)])
            best[name] = min(best[name], taken / rounds / members)
    for near, far in pairs:
        near.close()
        far.close()
    lengths = {name: len(Prepared(text=text).encode(way)) for name, way in ways.items()}
    return {f"{size} bytes, {name}, {lengths[name]}": value for name, value in best.items()}


if __name__ == "__main__":
    main()
