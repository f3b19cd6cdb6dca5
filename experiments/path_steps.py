"""
Look for time where it goes: say what each step of the hot paths costs.

Decides: ``asgi.py``, ``consumers/base.py``, ``wire/request.py``, ``wire/response.py``,
    ``security/handshake.py``: what is remembered there, and what has no coroutine of its own.
Run: ``python experiments/path_steps.py``
Result: the tables of ARCHITECTURE.md, "What each step costs".

Each step is a function of the path, timed from its beginning to its end with all that it calls,
over a transport that does nothing. None of them waits. Given is the tenth percentile of many
calls, less what timing itself costs: what a step costs where nothing disturbs it.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import os
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import measure_alone, run_measure

if TYPE_CHECKING:
    from fairway.server.connection import Connection
    from fairway.server.worker import Worker

COUNT = 200
BROWSER = (
    b"Host: 127.0.0.1:8000\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0\r\n"
    b"Accept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate\r\n"
)
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"

taken: defaultdict[str, list[int]] = defaultdict(list)


class Nowhere(asyncio.Transport):
    """
    A transport that takes everything.
    """

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """
        Take some bytes.
        """

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """
        Need none.
        """

    def get_write_buffer_size(self) -> int:
        """
        Hold nothing.
        """
        return 0

    def is_closing(self) -> bool:
        """
        Say whether it was closed.
        """
        return self.closing

    def close(self) -> None:
        """
        Be closed.
        """
        self.closing = True


def time_step(owner: Any, name: str, label: str) -> None:
    """
    Have a function of a module or class note how long each of its calls took.
    """
    function = getattr(owner, name)
    calls = taken[label]

    @wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        begin = perf_counter_ns()
        try:
            return function(*args, **kwargs)
        finally:
            calls.append(perf_counter_ns() - begin)

    @wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        begin = perf_counter_ns()
        try:
            return await function(*args, **kwargs)
        finally:
            calls.append(perf_counter_ns() - begin)

    setattr(owner, name, awaited if inspect.iscoroutinefunction(function) else plain)


def show(path: str) -> None:
    """
    Print the steps of a path, in microseconds, and begin anew.
    """
    empty = []
    for _ in range(2000):
        begin = perf_counter_ns()
        empty.append(perf_counter_ns() - begin)
    own = sorted(empty)[len(empty) // 2]
    for label, calls in taken.items():
        if calls:
            least = sorted(calls)[len(calls) // 10]
            print(f"{path}: {label:<60} {max(0, least - own) / 1000:6.1f}", flush=True)
    forget()


def forget() -> None:
    """
    Begin anew.
    """
    for calls in taken.values():
        calls.clear()


async def turns(count: int = 8) -> None:
    """
    Let everything that is ready run.
    """
    for _ in range(count):
        await asyncio.sleep(0)


def watch() -> None:
    """
    Name the steps.
    """
    from fairway import asgi, revocation
    from fairway.consumers import http
    from fairway.consumers.base import AsyncConsumer
    from fairway.layers import hub
    from fairway.routing import urlconf
    from fairway.server import connection, exchange, outbox, websocket, worker
    from fairway.wire import http1

    time_step(connection.Connection, "connection_made", "connection_made: sink, decoder, deadline")
    time_step(worker.Worker, "scopes", "scopes: client, server, who is trusted")
    time_step(http1, "parse_head", "parse_head")
    time_step(connection, "check_upgrade", "check_upgrade: key and version")
    time_step(connection, "HttpExchange", "HttpExchange")
    time_step(connection, "WebSocketExchange", "WebSocketExchange: inbox, outbox, extensions")
    time_step(exchange.Exchange, "start_application", "start_application: the task")
    time_step(asgi, "admit", "admit: Host and Origin")
    time_step(asgi, "enter_route", "enter_route: surroundings and route")
    time_step(asgi, "identify", "identify: cookies, session, user")
    time_step(asgi, "admit_request", "admit_request: Host and Origin")
    time_step(asgi, "enter_place", "enter_place: surroundings")
    time_step(urlconf.UrlTree, "find_http", "find_http: the route, remembered")
    time_step(asgi, "OwnSession", "OwnSession: the session, to be saved")
    time_step(http.HandlerSource, "run", "run: the task of handle()")
    time_step(http.AsyncHttpConsumer, "send_response", "send_response: start and body")
    time_step(AsyncConsumer, "_AsyncConsumer__leave_groups", "leave all groups and the hub")
    time_step(AsyncConsumer, "_AsyncConsumer__begin", "begin: limits, channel, inbox to the hub")
    time_step(revocation, "enter", "enter the roll")
    time_step(AsyncConsumer, "dispatch", "dispatch: connect() with accept(), disconnect()")
    time_step(
        websocket.WebSocketExchange, "receive_data", "receive_data: the close frame, answered"
    )
    time_step(connection.Connection, "connection_lost", "connection_lost")
    time_step(exchange.Exchange, "send", "send: one message")
    time_step(exchange.Exchange, "_application_done", "application_done")
    time_step(connection.Connection, "data_received", "data_received: all from bytes to the task")
    time_step(hub, "hand_out", f"hand_out to {COUNT} members")
    time_step(outbox.Flusher, "_run", f"flush {COUNT} outboxes")


def connect(worker: Worker, make: Callable[[], bytes]) -> list[Connection]:
    """
    Make connections, each of which sends a head.
    """
    from fairway.server.connection import Connection

    made = [Connection(worker, ("127.0.0.1", 40000 + number)) for number in range(COUNT)]
    for connection in made:
        connection.connection_made(Nowhere())
        connection.data_received(make())
    return made


def handshake(path: bytes) -> bytes:
    """
    Make the head of a handshake, with a key of its own.
    """
    return (
        b"GET %b HTTP/1.1\r\n%bOrigin: http://127.0.0.1:8000\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
        % (path, BROWSER, base64.b64encode(os.urandom(16)))
    )


async def get(worker: Worker, rounds: int, field: bytes, path: bytes = b"/a") -> None:
    """
    Ask for a page again and again.
    """
    head = b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, BROWSER, field)
    connections = connect(worker, lambda: head)
    await turns()
    forget()
    for _ in range(rounds):
        for connection in connections:
            connection.data_received(head)
        await turns()


async def open_and_close(worker: Worker, rounds: int) -> None:
    """
    Open and close sockets again and again.
    """
    for _ in range(rounds):
        connections = connect(worker, lambda: handshake(b"/idle"))
        await turns()
        for connection in connections:
            connection.data_received(CLOSE)
        await turns()
        for connection in connections:
            connection.connection_lost(None)
        await turns()


async def measure(rounds: int) -> None:
    """
    Go each path often.
    """
    from benchmarks.servers import asgi_app, django_site
    from fairway import abroadcast, threads
    from fairway.layers.owner import bind
    from fairway.options import ServerOptions
    from fairway.server.worker import Worker

    threads.Threads(lambda seat: None, consumers=4, pages=8, close_timeout=5).start()  # type: ignore[arg-type,return-value] # no work comes
    await bind(asyncio.get_running_loop())
    django_site.application.build()
    watch()
    plain: Any = asgi_app.application
    pages = Worker(ServerOptions(), plain, None)
    await get(pages, rounds, b"")
    show("get")
    await get(pages, rounds, b"Authorization: Bearer 0123456789\r\n")
    show("get, not remembered")
    sockets = Worker(ServerOptions(), django_site.application, None)
    await get(sockets, rounds, b"", b"/http")
    show("get, consumer")
    await open_and_close(sockets, rounds)
    show("connect")
    connect(sockets, lambda: handshake(b"/broadcast"))
    await turns(30)
    forget()
    for _ in range(rounds):
        await abroadcast("bench", "x" * 100)
        await turns()
    show("broadcast")


def main(count: int = 4000) -> dict[str, float]:
    """
    Measure in a process of its own, since the functions of the paths are replaced there.
    """
    return measure_alone(__file__, max(1, count // COUNT))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        run_measure(measure)
