"""
A server worker: what its connections share, and the life of all of them.

Accepting, counting and draining are here; what happens on one connection is in
``connection``. The worker runs on one event loop and in one thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import socket
from typing import TYPE_CHECKING, Any

from fairway.server import log
from fairway.server.clock import DateHeader
from fairway.server.connection import Connection
from fairway.server.outbox import Flusher
from fairway.server.timers import TimingWheel
from fairway.server.websocket import WebSocketExchange
from fairway.wire import codes

if TYPE_CHECKING:
    import ssl

    from fairway.options import ServerOptions
    from fairway.server.exchange import Exchange
    from fairway.types import ASGIApplication

__all__ = ["Worker"]

PACE_SECONDS = 0.05
PACE_CONNECTIONS_MIN = 100


class Worker:
    """
    Serves one application on one loop.

    Event-loop thread only.

    Attributes:
        connections: Those whose transport is open.
        late: Exchanges that are over for their peer, while their application still runs.
        application_is_async: Whether calling it only makes a coroutine.
        context: What each exchange's context is copied from.
        state: The lifespan state that scopes get a copy of, None without lifespan.
        stopping: Whether the end has begun.
    """

    def __init__(
        self, options: ServerOptions, application: ASGIApplication, state: dict[str, Any] | None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.options = options
        self.application = application
        self.application_is_async = _is_async(application)
        self.state = state
        self.context = contextvars.copy_context()
        self.connections: set[Connection] = set()
        self.late: set[Exchange] = set()
        self.timers = TimingWheel(self.loop)
        self.flusher = Flusher(self.loop, options)
        self.date = DateHeader()
        self.access_log = options.access_log
        self.access_logger = logging.getLogger(options.access_logger)
        self.stopping = False
        self._server: asyncio.Server | None = None
        self._empty = asyncio.Event()

    async def serve(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """
        Begin to accept connections.
        """
        if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Accepted sockets inherit it. Without, the kernel swallows megabytes per dead reader.
            sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self.options.unsent_bytes_max
            )
        handshake = self.options.head_timeout if tls is not None else None
        self._server = await self.loop.create_server(
            lambda: Connection(self),
            sock=sock,
            ssl=tls,
            ssl_handshake_timeout=handshake,
            backlog=2048,
        )

    def check_empty(self) -> None:
        """
        Wake the drain when nothing is left to wait for.
        """
        if self.stopping and not self.connections and not self.late:
            self._empty.set()

    def cancel_late(self, exchange: Exchange) -> None:
        """
        Cancel an application that has outlived its peer for too long.
        """
        if exchange.task is not None:
            log.application_fault(
                exchange.scope,
                "did not end within %g s of the disconnect and was cancelled",
                self.options.application_close_timeout,
            )
            exchange.task.cancel()

    async def drain(self, seconds: float) -> None:
        """
        Stop accepting and end everything, at most ``seconds`` long.

        WebSockets are closed with 1012 in small batches over half of the time, so that
        their clients do not all come back at once; requests may finish.
        """
        self.stopping = True
        if self._server is not None:
            self._server.close()
        until = self.loop.time() + seconds
        sockets = []
        for connection in list(self.connections):
            if isinstance(connection.exchange, WebSocketExchange):
                sockets.append(connection.exchange)
            elif not connection.answering:
                connection.transport.close()
            else:
                connection.sink.keep_alive = False
        await self._restart_websockets(sockets, seconds / 2)
        self.check_empty()
        try:
            await asyncio.wait_for(self._empty.wait(), max(0.0, until - self.loop.time()))
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """
        End everything now.
        """
        if self.connections or self.late:
            log.logger.warning(
                "%d connections and %d applications were still there and were cut off",
                len(self.connections),
                len(self.late),
            )
        running = [connection.exchange for connection in self.connections]
        for connection in list(self.connections):
            connection.transport.abort()
        for exchange in (*running, *self.late):
            if exchange is not None and exchange.task is not None:
                exchange.task.cancel()

    def close(self) -> None:
        """
        Let go of the listening socket, without which uvloop's loop may not close, and the timers.
        """
        if self._server is not None:
            self._server.close()
        self.timers.close()

    async def _restart_websockets(self, sockets: list[WebSocketExchange], seconds: float) -> None:
        """
        Tell every WebSocket that the server restarts, spread over at most ``seconds``.
        """
        turns = max(1, int(seconds / PACE_SECONDS))
        size = max(PACE_CONNECTIONS_MIN, -(-len(sockets) // turns))
        for start in range(0, len(sockets), size):
            if start:
                await asyncio.sleep(PACE_SECONDS)
            for exchange in sockets[start : start + size]:
                exchange.end(codes.RESTART, "the server restarts")


def _is_async(application: ASGIApplication) -> bool:
    """
    Whether an application is an async function, or an object whose call is one.
    """
    return any(map(inspect.iscoroutinefunction, (application, type(application).__call__)))
