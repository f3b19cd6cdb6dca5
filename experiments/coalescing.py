"""
Write at the end of a loop turn what the turn queued for a socket, joined: one system call.

Decides: ``server/outbox.py`` (``Flusher``), ``layers/brokers/redis/link.py`` (``Link.write``).
Run: ``python experiments/coalescing.py``
Result: a turn that writes 4 frames of 200 bytes costs 9.5 us one by one, though uvloop gathers
them itself, and 4.5 us joined or with ``writelines()``. Copying is nothing beside a call of a
transport.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import compare, show

FRAMES = [b"\x81\x7e\x00\xc8" + bytes(200)] * 4


def main(count: int = 20_000) -> dict[str, float]:
    """
    Write four frames to a socket in three ways.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            connected = runner.get_loop().create_connection(asyncio.Protocol, sock=near)
            transport, _ = runner.run(connected)

            def one_by_one(frames: Sequence[bytes]) -> None:
                for frame in frames:
                    transport.write(frame)

            def joined(frames: Sequence[bytes]) -> None:
                transport.write(b"".join(frames))

            def repeat(write: Callable[[Sequence[bytes]], None]) -> Callable[[int], None]:
                async def turns(times: int) -> None:
                    for _ in range(times):
                        write(FRAMES)
                        # uvloop itself writes at the end of its turn.
                        await asyncio.sleep(0)
                        far.recv(65_536)

                return lambda times: runner.run(turns(times))

            ways = {"one by one": one_by_one, "writelines": transport.writelines, "joined": joined}
            figures = compare({name: repeat(way) for name, way in ways.items()}, count)
            transport.abort()
            runner.run(asyncio.sleep(0))
    return show(figures)


if __name__ == "__main__":
    main()
