"""
Bound what the kernel takes ahead of the network (``TCP_NOTSENT_LOWAT``).

Decides: ``server/worker.py`` (``Worker.serve``), option ``unsent_bytes_max``.
Run: ``python experiments/unsent_bytes.py``
Result: a peer that reads nothing has the kernel take 2.9 MB, and 0.2 MB with the bound of 128
KiB.
"""

from __future__ import annotations

import selectors
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import show

FRAME = bytes(16_384)


def main(count: int = 131_072) -> dict[str, float]:
    """
    Write to somebody who reads nothing, for as long as the socket says that it takes more.
    """
    return show({"as the kernel likes": swallowed(0), "bounded": swallowed(count)}, "bytes")


def swallowed(limit: int) -> float:
    """
    Count what goes into a socket whose peer stands still, as a loop writes: while it is writable.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as server,
        selectors.DefaultSelector() as selector,
    ):
        if limit:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)
        server.setblocking(False)
        selector.register(server, selectors.EVENT_WRITE)
        total = 0
        while selector.select(0.1):
            try:
                total += server.send(FRAME)
            except BlockingIOError:
                break
        return total


if __name__ == "__main__":
    main()
