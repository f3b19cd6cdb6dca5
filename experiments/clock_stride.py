"""
Look at the clock once every 32 writes, to see whether a loop turn has taken long enough.

Decides: ``server/outbox.py`` (``CLOCK_STRIDE``).
Run: ``python experiments/clock_stride.py``
Result: a look costs 50 ns, 3 % of a write to a socket pair; every 32nd write it costs nothing.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import compare, show

FRAME = bytes(204)


def main(count: int = 100_000) -> dict[str, float]:
    """
    Write to a socket, look at the clock, and do both.
    """
    near, far = socket.socketpair()
    with near, far:

        def write(times: int) -> None:
            for number in range(times):
                near.send(FRAME)
                if number % 32 == 31:
                    far.recv(65_536)

        def look(times: int) -> None:
            for _ in range(times):
                monotonic()

        def look_rarely(times: int) -> None:
            for start in range(0, times, 32):
                for _ in range(start, min(start + 32, times)):
                    pass
                monotonic()

        return show(compare({"write": write, "look": look, "look every 32": look_rarely}, count))


if __name__ == "__main__":
    main()
