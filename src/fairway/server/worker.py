"""
A server worker: what its connections share, and the life of all of them.

Beginning, counting and draining are here; when to accept is in ``accept``, what happens on
one connection in ``connection``. The worker runs on one event loop and in one thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from fairway import metrics
from fairway.server import log
from fairway.server.accept import BACKLOG, Acceptor, raise_descriptor_limit
from fairway.server.access import AccessLines
from fairway.server.board import SAMPLES_BYTES_MAX
from fairway.server.clock import DateHeader
from fairway.server.connection import Connection
from fairway.server.outbox import Flusher
from fairway.server.overflow import POLICIES, limit_unsent
from fairway.server.probes import Probes
from fairway.server.proxies import Proxies
from fairway.server.scope import (
    Address,
    ForwardedScopeFactory,
    ScopeFactory,
    local_address,
    peer_address,
)
from fairway.server.timers import TimingWheel
from fairway.wire import codes

if TYPE_CHECKING:
    import ssl

    from fairway.options import ServerOptions
    from fairway.server.board import Seat
    from fairway.server.exchange import Exchange
    from fairway.types import ASGIApplication

__all__ = ["Worker"]

SAMPLES_SECONDS = 1.0
ARRIVAL_SECONDS = 0.5
"""
Time that a draining worker gives connections to send their first request.
"""

ARRIVAL_LOOK_SECONDS = 0.01
CUT_OFF_SECONDS = 0.1
"""
Time that applications get to end with their connections, before they are cancelled.
"""

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
        outbox_class: What the outboxes of exchanges are unless they say otherwise.
        context: What each exchange's context is copied from.
        state: The lifespan state that scopes get a copy of, None without lifespan.
        stopping: Whether the end has begun.
        admitting: Whether a WebSocket may begin.
        seat: Its place among the workers of one server, None on its own.
        ready: Whether new work is welcome; set by whoever runs the worker.
        worn_at: The count of requests at which the worker is worn.
        on_worn: Called once when it is.
    """

    def __init__(
        self,
        options: ServerOptions,
        application: ASGIApplication,
        state: dict[str, Any] | None,
        seat: Seat | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.options = options
        self.application = application
        self.application_is_async = _is_async(application)
        self.state = state
        self.context = contextvars.copy_context()
        self.connections: dict[Connection, None] = {}
        self.late: set[Exchange] = set()
        self.timers = TimingWheel(self.loop)
        self.flusher = Flusher(self.loop, options)
        self.outbox_class = POLICIES[options.overflow]
        self.date = DateHeader()
        self.access_log = options.access_log
        self.access_lines = AccessLines(self.loop, logging.getLogger(options.access_logger))
        self.stopping = False
        self.admitting = True
        self.seat = seat
        self.ready = False
        self.worn_at = sys.maxsize
        self._requests_before = 0
        self.on_worn: Callable[[], None] | None = None
        self.proxies = Proxies(options.trusted_proxies)
        self.probes = Probes(options, lambda: self.ready, self._collect)
        self._unix = False
        self._secure = False
        self._address: Address = None
        self._samples_timer: asyncio.TimerHandle | None = None
        self._acceptor: Acceptor | None = None
        self._server: asyncio.Server | None = None
        self._empty = asyncio.Event()

    async def serve(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """
        Begin to accept connections.
        """
        self._unix = sock.family == getattr(socket, "AF_UNIX", None)
        self._secure = tls is not None
        self._address = _fixed_address(sock)
        limit_unsent(sock, self.options.unsent_bytes_max)
        raise_descriptor_limit()
        handshake = self.options.head_timeout if tls is not None else None
        acceptor = Acceptor(
            self.loop,
            sock,
            self._connection,
            tls=tls,
            handshake_timeout=handshake,
            connections_max=self.options.connections_max,
            seat=self.seat,
        )
        try:
            acceptor.start()
        except NotImplementedError:
            # Windows' own loop cannot watch a socket: there is no limit on connections then.
            self._server = await self.loop.create_server(
                lambda: self._connection(None),
                sock=sock,
                ssl=tls,
                ssl_handshake_timeout=handshake,
                backlog=BACKLOG,
            )
        else:
            self._acceptor = acceptor
        if self.seat is not None:
            metrics.share(self._pages)
            self._show_samples()

    def _connection(self, address: Any) -> Connection:
        """
        Make the protocol of a connection from an address.
        """
        return Connection(self, address)

    def scopes(self, transport: asyncio.Transport, peer: Any) -> ScopeFactory:
        """
        Make what builds the scopes of one connection's requests.

        Args:
            transport: Of the connection.
            peer: Where it comes from, as sockets have it; None if nobody has asked the socket.
        """
        client = peer_address(transport.get_extra_info("peername") if peer is None else peer)
        # A socket that listens on all addresses does not know which one a client reached.
        server = self._address or local_address(transport.get_extra_info("sockname"))
        make: Callable[..., ScopeFactory] = ScopeFactory
        if self._unix if client is None else self.proxies.trusts(client):
            make = partial(ForwardedScopeFactory, self.proxies)
        return make(
            client=client,
            server=server,
            secure=self._secure,
            root_path=self.options.root_path,
            state=self.state,
        )

    def leave(self, connection: Connection) -> None:
        """
        Forget a connection that has ended.
        """
        self.connections.pop(connection, None)
        if self._acceptor is not None:
            self._acceptor.left()

    @property
    def requests_max(self) -> int:
        """
        Requests after which the worker is worn, from the moment this is set; 0 for never.
        """
        return 0 if self.worn_at == sys.maxsize else self.worn_at - self._requests_before

    @requests_max.setter
    def requests_max(self, count: int) -> None:
        self._requests_before = metrics.requests.value
        self.worn_at = self._requests_before + count if count else sys.maxsize

    def wear_out(self) -> None:
        """
        Say once that the worker is worn.
        """
        self.worn_at = sys.maxsize
        if self.on_worn is not None:
            self.on_worn()

    # -- figures

    def _collect(self) -> bytes:
        """
        Give the figures of all workers, this one's as they are now.
        """
        self._write_samples()
        return metrics.exposition()

    def _show_samples(self) -> None:
        """
        Let the other workers know this one's figures, from now on every second.
        """
        self._write_samples()
        self._samples_timer = self.loop.call_later(SAMPLES_SECONDS, self._show_samples)

    def _write_samples(self) -> None:
        """
        Write this worker's figures where the others can read them.
        """
        if self.seat is not None:
            lines = metrics.lines()
            if len(lines) > SAMPLES_BYTES_MAX:
                # Whole lines only.
                lines = lines[: lines.rindex(b"\n", 0, SAMPLES_BYTES_MAX) + 1]
            self.seat.write_samples(lines)

    def _pages(self) -> dict[str, bytes]:
        """
        Read the figures of all workers. From any thread.
        """
        assert self.seat is not None  # noqa: S101 - see serve()
        board, own = self.seat.board, self.seat.number
        return {
            str(seat.number): metrics.lines() if seat.number == own else page
            for seat in board.seats()
            if seat.number == own or (page := board.read_samples(seat.number))
        }

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
            self.loop.call_later(
                self.options.application_close_timeout, self._cancel_again, exchange.task
            )

    def _cancel_again(self, task: asyncio.Task[None]) -> None:
        """
        Cancel an application once more that has neither ended nor taken note of the first time.

        Where a thread waits for the loop, asgiref passes a cancellation on to what it waits for,
        and then waits for the thread whatever becomes of it.
        """
        if not task.done() and task.cancelling():
            task.cancel()
            self.loop.call_later(self.options.application_close_timeout, self._cancel_again, task)

    async def drain(self, seconds: float) -> None:
        """
        Stop accepting and end everything, at most ``seconds`` long.

        WebSockets are closed with 1012 and event streams ended in batches, over half of the time
        at most, so that their clients do not all come back at once; requests may finish. Who has
        just been accepted is served first: for a client that was let in, the end of its
        connection is a failure, where another process would have answered.
        """
        self.stopping = True
        self.ready = False
        self._stop_accepting()
        until = self.loop.time() + seconds
        self._end_requests(spare_arriving=True)
        await self._wait_arrived(min(ARRIVAL_SECONDS, seconds / 4))
        self.admitting = False
        self._end_requests()
        await self._restart(seconds / 2)
        self.check_empty()
        try:
            await asyncio.wait_for(self._empty.wait(), max(0.0, until - self.loop.time()))
        except TimeoutError:
            await self.cut_off()

    def _end_requests(self, *, spare_arriving: bool = False) -> None:
        """
        End connections between requests now, and others after their response.
        """
        for connection in list(self.connections):
            if connection.exchange is not None and connection.exchange.lasting:
                continue
            if connection.answering:
                connection.sink.keep_alive = False
            elif not (spare_arriving and connection.arriving):
                connection.close()

    async def _wait_arrived(self, seconds: float) -> None:
        """
        Wait, so long at most, until every connection has got an answer to its first request.
        """
        until = self.loop.time() + seconds
        while self.loop.time() < until and (  # noqa: ASYNC110 - see below
            any(connection.arriving for connection in self.connections)
            or (self._acceptor is not None and self._acceptor.open > len(self.connections))
        ):
            # Each of those connections would have to know whom to tell; they are few, and rare.
            await asyncio.sleep(ARRIVAL_LOOK_SECONDS)

    async def cut_off(self) -> None:
        """
        End everything now: connections first, then applications that do not end with theirs.
        """
        if not self.connections and not self.late:
            return
        log.logger.warning(
            "%d connections and %d applications were still there and were cut off",
            len(self.connections),
            len(self.late),
        )
        for connection in list(self.connections):
            connection.transport.abort()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), CUT_OFF_SECONDS)
        for exchange in list(self.late):
            if exchange.task is not None:
                exchange.task.cancel()

    def close(self) -> None:
        """
        Let go of the listening socket, without which uvloop's loop may not close, and the timers.

        What the access log still has to say is written.
        """
        self._stop_accepting()
        if self._acceptor is not None:
            self._acceptor.close()
        if self._samples_timer is not None:
            self._samples_timer.cancel()
            metrics.share(None)
        self.timers.close()
        self.access_lines.write()

    def _stop_accepting(self) -> None:
        """
        Let go of the listening socket.
        """
        if self._acceptor is not None:
            self._acceptor.stop()
        if self._server is not None:
            self._server.close()

    async def _restart(self, seconds: float) -> None:
        """
        Tell WebSockets and event streams that the server restarts, spread over so many seconds.
        """
        found = (connection.exchange for connection in self.connections)
        exchanges = [exchange for exchange in found if exchange is not None and exchange.lasting]
        turns = max(1, int(seconds / PACE_SECONDS))
        size = max(PACE_CONNECTIONS_MIN, -(-len(exchanges) // turns))
        for start in range(0, len(exchanges), size):
            if start:
                await asyncio.sleep(PACE_SECONDS)
            for exchange in exchanges[start : start + size]:
                exchange.end(codes.RESTART, "the server restarts")


def _is_async(application: ASGIApplication) -> bool:
    """
    Whether an application is an async function, or an object whose call is one.
    """
    return any(map(inspect.iscoroutinefunction, (application, type(application).__call__)))


def _fixed_address(sock: socket.socket) -> Address:
    """
    Give the address that every client of a listening socket reached; None if it has several.
    """
    address = local_address(sock.getsockname())
    if address is None or address[1] is None:
        return address
    return None if address[0] in ("0.0.0.0", "::") else address  # noqa: S104 - nothing is bound
