"""
Keep nothing with a connection at rest that can be made when it is asked for.

Decides: ``server/websocket.py`` (``SocketEnds``), ``server/inbox.py``, ``consumers/base.py``,
    ``wire/request.py`` (``_common``).
Run: ``python experiments/resting_connection.py``
Result: 2.1 KB for keep-alive, 5.2 KB for a WebSocket, 6.9 KB for a consumer with session and user;
    6.9 and 9.8 KB before. Of all this 1.3 KB is uvloop's transport; ARCHITECTURE.md has the rest.

The objects of some connections are counted by the collector's own lists, and all bytes by
tracemalloc, which knows uvloop's too. What is in no list (bytes, text, numbers, tables) is the
difference.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import gc
import os
import socket
import sys
import tracemalloc
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import measure_alone, run_measure

PATHS = {"keep-alive": "/", "asgi": "/", "visitor": "/visitor"}
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0"


def request(kind: str, port: int) -> bytes:
    """
    Make what a browser would send.
    """
    head = f"GET {PATHS[kind]} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: {AGENT}\r\n"
    if kind != "keep-alive":
        key = base64.b64encode(os.urandom(16)).decode()
        head += (
            f"Origin: http://127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        )
    return f"{head}\r\n".encode()


def census() -> tuple[collections.Counter[str], collections.Counter[str]]:
    """
    Count all objects that the collector knows, and their bytes, by type.
    """
    gc.collect()
    counts: collections.Counter[str] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    for thing in gc.get_objects():
        name = type(thing).__name__
        if name == "coroutine":
            name = f"coroutine {thing.__qualname__}"
        elif name in {"method", "builtin_function_or_method"}:
            name = f"{name} {getattr(thing, '__qualname__', '')}"
        counts[name] += 1
        sizes[name] += sys.getsizeof(thing)  # With the collector's own 16 bytes.
    return counts, sizes


async def fill(kind: str, port: int, sockets: list[socket.socket]) -> None:
    """
    Open connections, each of which gets its answer.
    """
    loop = asyncio.get_running_loop()
    for client in sockets:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request(kind, port))
        answer = await loop.sock_recv(client, 4096)
        if not answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
            raise RuntimeError(answer.decode())
    await asyncio.sleep(0.2)


async def measure(count: int) -> None:
    """
    Serve connections of each kind; of each, count the second lot.
    """
    from benchmarks.servers import asgi_app, django_site
    from fairway import threads
    from fairway.layers.owner import bind
    from fairway.options import ServerOptions
    from fairway.server.worker import Worker

    threads.Threads(lambda seat: None, consumers=4, pages=8, close_timeout=5).start()  # type: ignore[arg-type,return-value] # no work comes
    await bind(asyncio.get_running_loop())
    for kind in PATHS:
        site: Any = asgi_app.application
        if kind == "visitor":
            site = django_site.application.build()
        worker = Worker(ServerOptions(), site, {})
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        port = listening.getsockname()[1]
        await worker.serve(listening, None)
        first, second = ([socket.socket() for _ in range(count)] for _ in range(2))
        await fill(kind, port, first)
        tracemalloc.start()
        counts, sizes = census()
        before, _ = tracemalloc.get_traced_memory()
        await fill(kind, port, second)
        gc.collect()
        traced = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        counts_after, sizes_after = census()
        for name, size in (sizes_after - sizes).most_common():
            if counts_after[name] - counts[name] > count // 5:
                print(f"{kind}: {name:<60} {size / count:8.0f}")
        print(f"{kind}: {'in all':<60} {traced / count:8.0f}", flush=True)
        del first, second


def main(count: int = 1000) -> dict[str, float]:
    """
    Measure in a process of its own, since there may be but one set of settings in each.
    """
    found = measure_alone(__file__, count, BENCHMARK_AUTH="1")
    return {label: size for label, size in found.items() if label.endswith("in all")}


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        run_measure(measure)
