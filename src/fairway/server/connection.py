"""
One transport connection: hot path 1, from bytes to the application's task.

Top to bottom: ``data_received`` feeds the request decoder, ``_begin`` checks and
builds the scope, ``_begin_http`` or ``_begin_websocket`` starts the application
in a task. From there a WebSocket's bytes go straight to its exchange. Here too:
what belongs to the transport, which is flow control, the deadline and the end.
The rules of HTTP are in ``wire``, those of ASGI in ``asgi_state``.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, cast

from fairway import metrics
from fairway.exceptions import RemoteProtocolError
from fairway.faults import Fault
from fairway.server import log
from fairway.server.asgi_state import State
from fairway.server.exchange import HttpExchange
from fairway.server.overflow import has_read, measure_unread
from fairway.server.sink import Http1Sink
from fairway.server.streaming import HttpEnds
from fairway.server.websocket import WebSocketExchange
from fairway.wire import codes
from fairway.wire.handshake import check_upgrade
from fairway.wire.http1 import END, Request, RequestDecoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fairway.server.exchange import Exchange
    from fairway.server.scope import ScopeFactory
    from fairway.server.worker import Worker
    from fairway.types import Scope

__all__ = ["Connection"]

_received = metrics.bytes_received

HALF_CLOSED_SECONDS = 1.0
"""
Time for an answer to begin after its client stopped sending, where the application asks after it.
"""

STALL_LOOKS = 8
"""
How often one looks whether a reader takes anything, in the time that somebody waits for it.
"""

PIPELINE_BYTES = 65536
"""
Bytes of further requests kept while one is being answered; then reading pauses.
"""


class Connection(asyncio.Protocol):
    """
    A connection of one peer, speaking HTTP/1.1 until a WebSocket takes it over.

    Event-loop thread only. At rest it has no task.

    Attributes:
        worker: Whom it belongs to.
        transport: Of asyncio or uvloop.
        sink: How responses are written.
        exchange: The newest request or the WebSocket, until its application has ended.
        answering: Whether that request's response is not complete.
        deadline: See ``timers.Watched``.
        slot: See ``timers.Watched``.
        alive: Whether a byte has come since this was last set to False.
        forgiven_at: See ``abuse.is_flood``.
        unread: See ``overflow.Reader``; looked at while somebody waits for the peer, or its end.
    """

    __slots__ = (
        "_decoder",
        "_half_closed",
        "_held",
        "_lingering",
        "_lost",
        "_peer",
        "_reading_paused",
        "_room",
        "_scopes",
        "_stalled_at",
        "_websocket",
        "alive",
        "answering",
        "deadline",
        "exchange",
        "forgiven_at",
        "sink",
        "slot",
        "transport",
        "unread",
        "worker",
    )

    def __init__(self, worker: Worker, peer: Any = None) -> None:
        """
        Begin without a transport.

        Args:
            worker: Whom it belongs to.
            peer: Where it comes from, as sockets have it; None to ask the transport.
        """
        self.worker = worker
        self.transport: asyncio.Transport
        self.sink: Http1Sink
        self.exchange: Exchange | None = None
        self.answering = False
        self.deadline = inf
        self.slot = 0
        self.alive = True
        self.forgiven_at = 0.0
        self._decoder: RequestDecoder | None = None
        self._scopes: ScopeFactory | None = None
        self._websocket: WebSocketExchange | None = None
        self._half_closed = False
        self._held = b""
        self._lingering = False
        self._lost = False
        self._peer = peer
        self._reading_paused = False
        self._room: list[asyncio.Future[None]] | None = None
        self._stalled_at = inf
        self.unread: int | None = None

    # -- hot path 1: from bytes to the application's task

    @property
    def arriving(self) -> bool:
        """
        Whether its first request, or the answer to its handshake, is still to come.
        """
        if self._websocket is not None:
            return self._websocket.state is State.CONNECTING
        return self._scopes is None and not self._lingering

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Take a new transport.
        """
        worker, options = self.worker, self.worker.options
        # uvloop's transports have the methods of asyncio.Transport without being one.
        self.transport = transport = cast("asyncio.Transport", transport)
        self.sink = Http1Sink(transport, worker.date)
        # With the lowest high-water mark, pause_writing says exactly "the kernel is full". TLS
        # transports pause at the mark and not above it: 0 would pause them for good.
        transport.set_write_buffer_limits(
            high=0 if transport.get_extra_info("sslcontext") is None else 1, low=0
        )
        self._decoder = RequestDecoder(
            head_bytes_max=options.head_bytes_max, head_fields_max=options.head_fields_max
        )
        metrics.connections.value += 1
        worker.connections[self] = None
        self.deadline = worker.loop.time() + options.head_timeout
        worker.timers.watch(self)

    def data_received(self, data: bytes) -> None:
        """
        Hot path: once per read of the socket.
        """
        self.alive = True
        _received.value += len(data)
        websocket = self._websocket
        if websocket is not None:
            websocket.receive_data(data)
        elif self._lingering:
            return
        elif self._held or (self.answering and not self._body_expected()):
            # Also between two requests, before _next_request() has its turn.
            self._hold(data)
        else:
            self._receive_http(data)

    def _receive_http(self, data: bytes) -> None:
        """
        Decode, and act on what became complete: at most one request per call.
        """
        decoder = self._decoder
        if decoder is None:
            return
        for event in decoder.receive_data(data):
            if type(event) is Request:
                self._begin(event)
            elif type(event) is bytes:
                self._body(event, more=True)
            elif event is END:
                self._body(b"", more=False)
            elif isinstance(event, RemoteProtocolError):
                self._refuse(event)
        if not self.answering and not self._lingering:
            if self._half_closed:
                # What is left is no request and will not become one.
                self.linger()
            elif decoder.head_started:
                self._expect_head()

    def _begin(self, request: Request) -> None:
        """
        Start an exchange for a request whose head is complete.
        """
        worker = self.worker
        metrics.requests.value = count = metrics.requests.value + 1
        if count >= worker.worn_at:
            worker.wear_out()
        if self._scopes is None:
            self._scopes = worker.scopes(self.transport, self._peer)
        self.sink.begin(request)
        if worker.stopping:
            self.sink.keep_alive = False
        if request.upgrade:
            self._begin_websocket(request, self._scopes)
        else:
            self._begin_http(request, self._scopes)

    def _begin_http(self, request: Request, scopes: ScopeFactory) -> None:
        """
        Run the application for an HTTP request, in a fresh context.
        """
        worker = self.worker
        if 0 < worker.options.body_bytes_max < (request.content_length or 0):
            self._refuse(RemoteProtocolError("the body is too large", status=413))
            return
        scope = scopes.http(request)
        if scope["path"] in worker.probes.paths and self._answer_probe(request, scope, scopes):
            return
        if self.exchange is not None:
            # Its response is complete, its application is not.
            worker.late.add(self.exchange)
        exchange = self.exchange = HttpExchange(self, scope, request)
        self.answering = True
        receive = exchange.receive
        scope["extensions"] = {"fairway": HttpEnds(exchange, receive)}
        exchange.start_application(worker.application, receive, worker.context.copy())

    def _answer_probe(self, request: Request, scope: Scope, scopes: ScopeFactory) -> bool:
        """
        Answer without the application, unless the request is for it after all.
        """
        answer = self.worker.probes.answer(scope, scopes.client)
        if answer is None:
            return False
        if not request.complete:
            self.sink.keep_alive = False
        self.answer(answer.status, answer.headers, answer.body)
        return True

    def _begin_websocket(self, request: Request, scopes: ScopeFactory) -> None:
        """
        Check the handshake, then run the application in the connection's one context.
        """
        try:
            upgrade = check_upgrade(request)
        except RemoteProtocolError as error:
            self._refuse(error)
            return
        if not self.worker.admitting:
            self._refuse(RemoteProtocolError("the server restarts", status=503))
            return
        assert self._decoder is not None  # noqa: S101 - it gave the request
        early = self._decoder.take_rest()
        # Nothing of HTTP is needed any more; a connection at rest should be small.
        self._decoder = None
        scope = scopes.websocket(request, upgrade.subprotocols)
        self._scopes = None
        if self.exchange is not None:
            # As in _begin_http.
            self.worker.late.add(self.exchange)
        exchange = WebSocketExchange(self, scope, upgrade)
        self.exchange = self._websocket = exchange
        self.answering = True
        worker = self.worker
        metrics.websockets.value += 1
        # How long the application takes to accept is its own business.
        self.deadline = inf
        exchange.start_application(worker.application, exchange.receive, worker.context.copy())
        if early:
            exchange.receive_data(early)

    # -- request bodies and pipelining

    def _body_expected(self) -> bool:
        """
        Whether the request being answered has more body to come.
        """
        return type(self.exchange) is HttpExchange and self.exchange.unread_body

    def _body(self, data: bytes, *, more: bool) -> None:
        """
        Hand a part of a body to its exchange, if that still exists.
        """
        if self.answering and type(self.exchange) is HttpExchange:
            self.exchange.feed(data, more=more)

    def _hold(self, data: bytes) -> None:
        """
        Keep the bytes of further requests until the present one is answered.
        """
        self._held += data
        if self._is_ahead():
            self.pause_reading()

    def _is_ahead(self) -> bool:
        """
        Whether so much of further requests is here that no more is wanted.
        """
        decoder = self._decoder
        pending = 0 if decoder is None else decoder.pending_bytes
        return pending + len(self._held) > PIPELINE_BYTES

    def response_complete(self) -> None:
        """
        Go on to the next request, or end, after a complete response.
        """
        exchange = self.exchange
        if not self.sink.keep_alive or (type(exchange) is HttpExchange and exchange.unread_body):
            self.linger()
            return
        self.answering = False
        worker = self.worker
        self.deadline = worker.loop.time() + worker.options.keep_alive
        if self.sink.writable:
            self._go_on()
        else:
            # Another response would pile up behind this one: resume_writing() goes on.
            self.pause_reading()

    def _go_on(self) -> None:
        """
        Turn to the next request, or rest until it comes.
        """
        decoder = self._decoder
        if self._held or (decoder is not None and decoder.has_pending):
            if self._is_ahead():
                self.pause_reading()
            # Not from within the application's send(): the next one starts in its own turn.
            self.worker.loop.call_soon(self._next_request)
        elif self._half_closed:
            self.linger()
        elif self._reading_paused:
            self.resume_reading()

    def _next_request(self) -> None:
        """
        Begin the request that was held, if the connection still stands.
        """
        if self.answering or self._lingering or self.transport.is_closing():
            return
        if not self._is_ahead():
            # Else each answer would let another read in, of a thousand requests.
            self.resume_reading()
        held, self._held = self._held, b""
        self._receive_http(held)
        exchange = self.exchange
        if type(exchange) is HttpExchange and exchange.unread_body:
            # What was pending was mostly its body.
            exchange.message_read()
        if self._cut_short():
            self.reset()

    def _cut_short(self) -> bool:
        """
        Whether the peer has stopped sending amidst the body of the request being answered.
        """
        return self._half_closed and self.answering and self._body_expected()

    # -- refusals and the end

    def _refuse(self, error: RemoteProtocolError) -> None:
        """
        Answer a request that breaks the protocol, and close.
        """
        metrics.refusals.add(str(error.status))
        # It refers to frames, and those to this connection.
        error.__traceback__ = None
        words, fault = log.printable(error.reason), Fault.REQUEST_MALFORMED
        log.logger.info("request refused with %d: %s [%s]", error.status, words, fault)
        if self.answering:
            # Its head was fine and it is being answered: there is nothing to say but goodbye.
            self.reset()
            return
        self.sink.begin_refusal()
        self.answer_plainly(error.status, getattr(error, "headers", ()))

    def answer_plainly(self, status: int, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """
        Send the words of a status, complete and final.
        """
        text = b"%d %s\n" % (status, log.phrase(status))
        self.answer(status, [(b"content-type", b"text/plain; charset=utf-8"), *headers], text)

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """
        Send a response of the server's own, complete and final.
        """
        if self.exchange is not None and getattr(self.exchange, "unread_body", False):
            self.sink.keep_alive = False
        self.sink.head(status, list(headers), body, length=len(body), end=True)
        self.response_complete()

    def close(self) -> None:
        """
        End a connection at rest. Over TLS a peer that does not read would keep it; not for long.
        """
        if not self.transport.is_closing():
            self.transport.close()
            self._expect_end()

    def linger(self) -> None:
        """
        End after what is written, reading on meanwhile.

        Closing with unread input would reset the connection and could destroy the
        response on its way (RFC 9112 section 9.6), so input is discarded until the
        peer closes or ``close_timeout`` has passed.
        """
        if self._lingering:
            return
        self._lingering = True
        self._websocket = None
        self._held = b""
        if self.transport.is_closing():
            return
        if self._half_closed or not self.transport.can_write_eof():
            self.transport.close()
        else:
            try:
                self.transport.write_eof()
            except OSError:
                # Reset by the peer, which asyncio has yet to find out.
                self.transport.abort()
                return
            self.resume_reading()
        self._expect_end()

    def reset(self) -> None:
        """
        Give the response up: the peer sees that it is not complete.
        """
        self.sink.reset()
        self._expect_end()

    def eof_received(self) -> bool:
        """
        Keep the connection of a client that only half-closed, while it is owed answers.
        """
        if self._websocket is not None or self._lingering or not self.transport.can_write_eof():
            return False
        decoder = self._decoder
        pending = self._held or (decoder is not None and decoder.has_pending)
        self._half_closed = bool(self.answering or pending) and not self._body_expected()
        if self.answering and type(self.exchange) is HttpExchange and self.exchange.gone_at_eof:
            self._half_closed = False
            # The transport closes, if need be after what the peer has yet to read.
            self.sink.write_all()
            self._expect_end()
        elif self._half_closed:
            self.worker.loop.call_later(HALF_CLOSED_SECONDS, self._end_half_closed, self.exchange)
        return self._half_closed

    def _end_half_closed(self, exchange: Exchange | None) -> None:
        """
        Take a client that stopped sending a while ago for gone, where somebody waits to learn it.

        Whoever closes fully sends no more than that, and an answer that has not begun finds out
        nothing. Those that only half-close, as scripts do, ask for what is answered at once.
        """
        if (
            self.exchange is exchange
            and type(exchange) is HttpExchange
            and exchange.waits_for_disconnect
            and not self.transport.is_closing()
        ):
            self._half_closed = False
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """
        Let go of everything; an application still running is told and given its time.
        """
        metrics.connections_closed.value += 1
        self.worker.leave(self)
        self._lingering = True
        self._held = b""
        self._decoder = None
        self.sink.waiting = None
        self._release_room()
        self._expect_nothing()
        self._lost = True
        exchange = self.exchange
        if exchange is not None:
            exchange.peer_gone()
        if exchange is None or exchange.task is None:
            self._forget()
            self.worker.check_empty()
        else:
            self.worker.late.add(exchange)
            # What an application does after a complete response concerns its peer no more.
            if exchange.state is not State.COMPLETE:
                timeout = self.worker.options.application_close_timeout
                self.expect_by(self.worker.loop.time() + timeout)

    def application_done(self, exchange: Exchange) -> None:
        """
        Note that an exchange's application has ended.
        """
        if exchange is not self.exchange or self._lost:
            self.worker.late.discard(exchange)
            self.worker.check_empty()
        if exchange is not self.exchange:
            return
        if self._lost:
            self._expect_nothing()
            self._forget()
        elif not self.answering:
            self.exchange = None

    def _forget(self) -> None:
        """
        Cut the references to the exchange, so that memory is free without a collector.
        """
        if type(self.exchange) is WebSocketExchange:
            self.exchange.release()
        self.exchange = self._websocket = None

    # -- flow control

    def pause_reading(self) -> None:
        """
        Let the kernel hold back the peer.
        """
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """
        Read again.
        """
        if self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()

    @property
    def reading_paused(self) -> bool:
        """
        Whether the kernel holds the peer back.
        """
        return self._reading_paused

    def pause_writing(self) -> None:
        """
        Note that the kernel takes no more.
        """
        self.sink.writable = False
        if self.exchange is not None:
            self.exchange.pause_writing()

    def resume_writing(self) -> None:
        """
        Note that the transport is empty.
        """
        self.sink.writable = True
        self._stalled_at = inf
        if self.sink.waiting is not None:
            self._flush_body()
        if self.exchange is not None and self.sink.writable:
            self.exchange.resume_writing()
        self._release_room()
        if not self.answering and not self._lingering:
            self._go_on()

    def wait_for_reader(self) -> Any:
        """
        Give something to await while more than half the limit is pending, else None.
        """
        if self.sink.writable:
            # After a failed write too, which the loop has yet to tell: whoever sends without end
            # has to let it.
            return asyncio.sleep(0) if self.transport.is_closing() else None
        waiting = self.sink.waiting
        if waiting is not None and len(waiting) == 1:
            # The first, for which the kernel may have had room. Others wait for that one.
            self._flush_body()
        return self._wait_for_reader() if self._crowded() else None

    async def _wait_for_reader(self) -> None:
        """
        Wait until half the limit is free again, or the peer has gone.
        """
        while not self._lost and self._crowded():
            await self.wait_for_room()

    def _crowded(self) -> bool:
        """
        Whether more than half the limit is pending of a body.
        """
        return self.sink.pending_bytes * 2 > self.worker.options.outbox_bytes_max

    def _flush_body(self) -> None:
        """
        Write what waits of a body, as far as the kernel takes it.
        """
        self.sink.flush(self.worker.options.outbox_bytes_max)

    def wait_for_room(self) -> asyncio.Future[None]:
        """
        Make a future that is done when the transport is empty, or the peer gone.

        A peer that takes nothing for ``outbox_stall_timeout`` meanwhile is cut off.
        """
        future = self.worker.loop.create_future()
        if self._room is None:
            self._room = []
        self._room.append(future)
        if self._stalled_at == inf:
            self.unread = measure_unread(self.transport)
            now, timeout = self.worker.loop.time(), self.worker.options.outbox_stall_timeout
            self._stalled_at = now + timeout
            self.expect_by(now + timeout / STALL_LOOKS)
        return future

    def _release_room(self) -> None:
        """
        Wake whoever waits for the reader.
        """
        room, self._room = self._room, None
        for future in room or ():
            if not future.done():
                future.set_result(None)

    # -- the deadline

    def expect_by(self, deadline: float) -> None:
        """
        Have ``on_deadline`` called at a time that may be earlier than the present deadline.
        """
        self.deadline = min(deadline, self.deadline)
        self.worker.timers.watch(self)

    def _expect_end(self) -> None:
        """
        Give the peer its time to let the connection end.
        """
        # Only where the peer has yet to take something: most connections end with nothing left.
        pending = self.transport.get_write_buffer_size()
        self.unread = measure_unread(self.transport) if pending else None
        self.deadline = self.worker.loop.time() + self.worker.options.close_timeout
        self.worker.timers.watch(self)

    def _expect_nothing(self) -> None:
        """
        Have no deadline any more, and be held by no timer.
        """
        self.deadline = inf
        self.worker.timers.forget(self)

    def _expect_head(self) -> None:
        """
        Give the head that has begun its time, if it does not have it already.
        """
        deadline = self.worker.loop.time() + self.worker.options.head_timeout
        if self.deadline > deadline:
            self.expect_by(deadline)

    def on_deadline(self, now: float) -> None:
        """
        Do what is due; called by the timing wheel.
        """
        self.deadline = inf
        exchange = self.exchange
        if self._lost:
            if exchange is not None and exchange.task is not None:
                self.worker.cancel_late(exchange)
        elif self._lingering or self.transport.is_closing():
            self._end_late()
        elif self._stalled(now):
            metrics.drops.add("stalled")
            if exchange is not None and exchange.lasting:
                exchange.end(codes.TRY_AGAIN_LATER, "stood still")
            self.transport.abort()
        elif self.answering and exchange is not None:
            self.deadline = min(exchange.on_deadline(now), self._stall_due(now))
        elif self._decoder is not None and self._decoder.head_started:
            self._refuse(RemoteProtocolError("the request's head took too long", status=408))
        else:
            self.close()

    def _end_late(self) -> None:
        """
        Cut off a peer that does not let the connection end, unless it is still reading.
        """
        if self.transport.get_write_buffer_size() and has_read(self, self.transport):
            self._expect_end()
        else:
            self.transport.abort()

    def _stalled(self, now: float) -> bool:
        """
        Whether somebody waits for a reader that took nothing for too long.
        """
        if self._stalled_at == inf:
            return False
        if has_read(self, self.transport):
            self._stalled_at = now + self.worker.options.outbox_stall_timeout
        return now >= self._stalled_at

    def _stall_due(self, now: float) -> float:
        """
        Give the time to look again whether it takes anything.
        """
        soon = now + self.worker.options.outbox_stall_timeout / STALL_LOOKS
        return min(soon, self._stalled_at) if self._stalled_at < inf else inf
