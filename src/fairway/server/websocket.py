"""
One WebSocket: frames in, messages out, and how it ends.

The exchange stands between the frame decoder, the inbox and the outbox. It
answers pings and closes by itself, holds the peer back when the application
does not read, and finds out when the peer has gone silent. The application's
side is the table ``asgi_state.WEBSOCKET``, whose actions are methods here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from fairway import metrics
from fairway.exceptions import ClientFault, LocalProtocolError, RemoteProtocolError
from fairway.faults import Fault
from fairway.server import log
from fairway.server.abuse import Abuse, is_flood
from fairway.server.asgi_state import WEBSOCKET, Machine, State
from fairway.server.exchange import (
    EVENT_BYTES,
    FRAMING,
    Exchange,
    refusal_status,
    response_status,
)
from fairway.server.inbox import Inbox
from fairway.server.outbox import OutboxState
from fairway.server.overflow import configure, has_read, limit_latest, measure_unread
from fairway.server.streaming import wait_for_room
from fairway.wire import codes
from fairway.wire.deflate import Deflate, InflatingDecoder, deflate_of, negotiate
from fairway.wire.handshake import Upgrade, accept_head
from fairway.wire.websocket import (
    OP_BINARY,
    OP_TEXT,
    Close,
    FrameDecoder,
    Note,
    Ping,
    Pong,
    encode_binary,
    encode_ping,
    encode_pong,
    encode_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fairway.server.connection import Connection
    from fairway.types import Message, Scope

__all__ = ["WebSocketExchange"]

PING = encode_ping(b"")

# Looking a member up in its enum costs 50 ns on Python 3.11; these are met in each handshake.
_CONNECTING, _OPEN, _GONE = State.CONNECTING, State.OPEN, State.GONE
_OUTBOX_OPEN = OutboxState.OPEN

_ENDS = ("configure", "inbox", "outbox", "receive")


class SocketEnds(Mapping[str, Any]):
    """
    ``types.Extension`` of a WebSocket: read like a dict, of which only what is asked for is made.

    Event-loop thread only.
    """

    __slots__ = ("_exchange",)

    def __init__(self, exchange: WebSocketExchange) -> None:
        self._exchange = exchange

    def __getitem__(self, name: str) -> Any:
        if name in _ENDS:
            return getattr(self._exchange, name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_ENDS)

    def __len__(self) -> int:
        return len(_ENDS)


class WebSocketExchange(Exchange):
    """
    One WebSocket, from its handshake to its end.

    Event-loop thread only.

    Attributes:
        inbox: What the application has yet to read.
        outbox: What has yet to be written.
        receive: The application's.
        unread: See ``overflow.Reader``; looked at when a ping is due, and at the close.
    """

    __slots__ = (
        "_ahead",
        "_close_by",
        "_compress",
        "_decoder",
        "_deflate",
        "_early",
        "_finish",
        "_missed",
        "_ping_at",
        "_refusal",
        "_rest",
        "_upgrade",
        "inbox",
        "outbox",
        "receive",
        "unread",
    )

    def __init__(self, connection: Connection, scope: Scope, upgrade: Upgrade) -> None:
        super().__init__(connection, scope, _CONNECTING)
        worker = connection.worker
        options = worker.options
        self._upgrade: Upgrade | None = upgrade
        self._decoder: FrameDecoder | None = None
        self._compress = options.compress
        self._deflate: Deflate | None = None
        self._early: bytes = b""
        self._ahead = 0
        self._rest = False
        self._missed = 0
        self._ping_at = inf
        self.unread: int | None = None
        self._close_by = inf
        self._finish: Callable[[], None] | None = None
        self._refusal: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self.outbox = worker.outbox_class(worker.flusher, options, self)
        self.inbox = Inbox(worker.loop, options.inbox_messages_max, self)
        self.inbox.push({"type": "websocket.connect"})
        # One bound method, since a consumer tells by identity that nobody wraps it.
        self.receive = self.inbox.receive
        scope["extensions"] = {"websocket.http.response": {}, "fairway": SocketEnds(self)}

    def configure(
        self,
        *,
        overflow: str | None = None,
        outbox_bytes_max: int | None = None,
        compress: bool | None = None,
    ) -> None:
        """
        See ``types.Configure``. Does nothing once the peer has gone.

        Args:
            overflow: What becomes of a reader that is too slow.
            outbox_bytes_max: When it is.
            compress: Whether messages are compressed if the client offers it.

        Raises:
            LocalProtocolError: The handshake is accepted already, or a value is not known.
        """
        if compress is not None and not isinstance(compress, bool):
            raise LocalProtocolError(f"expected compress=True or False, got {compress!r}")
        if self.state is _GONE:
            # It has left while the application was about to say so, which will soon hear of it.
            return
        configure(self.outbox, overflow, outbox_bytes_max)
        if compress is not None:
            self._compress = compress

    # -- from the peer

    def receive_data(self, data: bytes) -> None:
        """
        Take bytes of the peer. Hot path: once per read.
        """
        decoder, inbox = self._decoder, self.inbox
        if decoder is None:
            self._receive_early(data)
            return
        for event in decoder.receive_data(data):
            kind = type(event)
            if kind is str:
                metrics.messages_received.value += 1
                inbox.push({"type": "websocket.receive", "text": event}, len(event))  # type: ignore[arg-type] # by kind
            elif kind is bytes:
                metrics.messages_received.value += 1
                inbox.push({"type": "websocket.receive", "bytes": event}, len(event))  # type: ignore[arg-type] # by kind
            elif kind is Close:
                self._receive_close(event)  # type: ignore[arg-type] # by kind
            elif isinstance(event, RemoteProtocolError):
                self._fail(event, Fault.FRAME_MALFORMED)
            elif event is Note.MORE:
                self._leave_rest()
            elif not self._bear(event):  # type: ignore[arg-type] # the only ones left
                return
        if inbox.unread_messages:
            self._hold_back(len(data))

    def _receive_early(self, data: bytes) -> None:
        """
        Keep what a hasty peer sends before its handshake is answered.
        """
        if self.state is not _CONNECTING:
            return
        self._early += data
        if len(self._early) > self.connection.worker.options.receive_bytes:
            self.connection.pause_reading()

    def _bear(self, event: Ping | Pong | Note) -> bool:
        """
        Answer a ping; count whatever is no message, and end a peer that sends too much of it.

        Returns:
            Whether the peer may go on.
        """
        if type(event) is Ping:
            self.outbox.pong(encode_pong(event.payload))
        abuse = Abuse.CONTROL_FRAME
        if isinstance(event, Note):
            abuse = Abuse[event.name]
        if not is_flood(self.connection, abuse):
            return True
        metrics.floods.add(abuse.label)
        # What else it has sent, and still sends, is not even looked at.
        self._decoder, self._rest = None, False
        words = f"too many {abuse.label.replace('_', ' ')}"
        self._fail(RemoteProtocolError(words, code=codes.POLICY_VIOLATION), Fault.FLOODED)
        return False

    def _hold_back(self, size: int) -> None:
        """
        Pause reading when the application is behind and control frames were looked for.
        """
        inbox, options = self.inbox, self.connection.worker.options
        if (
            inbox.unread_bytes < options.receive_bytes
            and inbox.unread_messages < options.receive_messages
        ):
            return
        assert self._decoder is not None  # noqa: S101 - it gave what is unread
        self._ahead += size + self._decoder.inflated_bytes or 1
        if self._is_behind():
            self.connection.pause_reading()

    def _is_behind(self) -> bool:
        """
        Whether the application has so much to catch up on that nothing more is looked at.

        Each message counts for what it takes in memory too: tiny ones are mostly that.
        """
        if not self._ahead or self.outbox.state is not _OUTBOX_OPEN:
            # In the latter case nothing is kept any more, and the peer's close is to be found.
            return False
        cost = self._ahead + self.inbox.unread_messages * EVENT_BYTES
        return cost > self.connection.worker.options.receive_ahead_bytes

    def message_read(self) -> None:
        """
        Read again once the application has caught up.
        """
        if not self._ahead:
            return
        inbox, options = self.inbox, self.connection.worker.options
        if (
            inbox.unread_bytes < options.receive_bytes
            and inbox.unread_messages < options.receive_messages
        ):
            self._ahead = 0
            self._look_on()

    def _leave_rest(self) -> None:
        """
        Look at the rest of a read of very many frames in another turn: others get theirs.
        """
        self._rest = True
        self.connection.pause_reading()
        self.connection.worker.loop.call_soon(self._take_rest)

    def _take_rest(self) -> None:
        """
        Look at what a read has left, unless the application has to catch up first.
        """
        if self._rest and not self._is_behind():
            self._rest = False
            self.receive_data(b"")
            if not self._rest and not self._is_behind():
                self.connection.resume_reading()

    def _look_on(self) -> None:
        """
        Take what is left of the last read, else read again.
        """
        if not self._rest:
            self.connection.resume_reading()
        else:
            self.connection.worker.loop.call_soon(self._take_rest)

    def _receive_close(self, close: Close) -> None:
        """
        Answer the peer's close frame, or take it as the answer to ours (RFC 6455 section 5.5.1).
        """
        if self.outbox.state is _OUTBOX_OPEN:
            code = close.code if codes.is_sendable(close.code) else codes.NO_STATUS
            self.outbox.finish(code, "")
        self._gone(close.code, close.reason)
        self._finish_when_flushed(self.connection.transport.close)

    def _fail(self, error: RemoteProtocolError, fault: Fault) -> None:
        """
        End because the peer broke the protocol (RFC 6455 section 7.1.7).
        """
        log.refused(self.scope, error.code, error.reason, fault)
        self.end(error.code, error.reason)
        self._finish_when_flushed(self.connection.linger)

    # -- to the peer: the actions of asgi_state.WEBSOCKET

    def accept(self, message: Message) -> None:
        """
        ``websocket.accept``: answer the handshake and let everything flow.
        """
        assert self._upgrade is not None  # noqa: S101 - the state table calls this once
        upgrade = self._upgrade
        agreed = negotiate(upgrade.extensions) if self._compress and upgrade.extensions else None
        subprotocol, headers = message.get("subprotocol"), message.get("headers") or ()
        head = accept_head(upgrade, subprotocol, headers, agreed and agreed.answer)
        connection, options = self.connection, self.connection.worker.options
        self._upgrade = None
        decoder = FrameDecoder if agreed is None else InflatingDecoder
        if agreed is not None:
            self._deflate = self.outbox.format = deflate_of(
                agreed.window_bits, options.compress_bytes_min, options.compress_bytes_max
            )
        self._decoder = decoder(
            message_bytes_max=options.message_bytes_max, fragments_max=options.fragments_max
        )
        if connection.worker.access_log:
            log.access(self, 101)
        if self.outbox.conflates:
            limit_latest(connection.transport, options)
        sink = connection.sink
        transport = sink.switch(head)
        self.outbox.open(transport, writable=sink.writable)
        if options.ping_interval:
            self._ping_at = connection.worker.loop.time() + options.ping_interval
            connection.expect_by(self._ping_at)
        # Not left to the state table: a frame that came too early may end what just began.
        self.enter(_OPEN)
        if self._early:
            early, self._early = self._early, b""
            connection.resume_reading()
            self.receive_data(early)

    def send_message(self, message: Message) -> Any:
        """
        ``websocket.send``: queue one message; hot path of what applications send.
        """
        deflate, text = self._deflate, message.get("text")
        if text is not None:
            frame = encode_text(text) if deflate is None else deflate.encode(OP_TEXT, text.encode())
        else:
            data = message.get("bytes")
            if data is None:
                raise LocalProtocolError(
                    "expected 'text' or 'bytes' in websocket.send, got neither"
                )
            frame = encode_binary(data) if deflate is None else deflate.encode(OP_BINARY, data)
        return wait_for_room(self.connection, self.outbox) if self.outbox.send(frame) else None

    def close(self, message: Message) -> None:
        """
        ``websocket.close`` after the handshake: the peer gets what is queued, then the code.
        """
        code = message.get("code")
        code = codes.NORMAL if code is None else code
        reason = message.get("reason") or ""
        self.outbox.finish(code, reason)
        self._await_close()
        self._disconnect(code, reason)

    def refuse(self, message: Message) -> None:
        """
        ``websocket.close`` before the handshake is accepted: 403, as the ASGI spec says.
        """
        self._refuse_with(403)

    def start_refusal(self, message: Message) -> None:
        """
        ``websocket.http.response.start``: held back until the first part of the body.
        """
        status = response_status(message)
        headers = [
            (name, value)
            for name, value in message.get("headers") or ()
            if name.lower() not in FRAMING
        ]
        self._refusal = (status, headers)

    def refusal_body(self, message: Message) -> Any:
        """
        ``websocket.http.response.body``: an answer of the application's own instead of a 101.
        """
        data, end = bytes(message.get("body", b"")), not message.get("more_body", False)
        sink = self.connection.sink
        sink.keep_alive = False
        if self._refusal is not None:
            status, headers = self._refusal
            sink.head(status, headers, data, length=len(data) if end else None, end=end)
            self._refusal = None
            if self.connection.worker.access_log:
                log.access(self, status)
        else:
            sink.body(data, end=end)
        if not end:
            return self.connection.wait_for_reader()
        self.enter(State.CLOSED)
        self._refused()
        self.connection.response_complete()
        return None

    # -- the transport

    def pause_writing(self) -> None:
        """
        See ``Exchange``.
        """
        self.outbox.writable = False

    def resume_writing(self) -> None:
        """
        See ``Exchange``: write what was queued meanwhile.
        """
        # The peer has read something, however much is written for it next.
        self.unread = sys.maxsize
        self.outbox.writable = True
        self.outbox.flush()
        if self._finish is not None:
            self._finish_when_flushed(self._finish)

    # -- the end

    @property
    def lasting(self) -> bool:
        """
        See ``Exchange``.
        """
        return True

    def end(self, code: int, reason: str = "") -> None:
        """
        End by decision of the server: the application gets ``websocket.disconnect``.

        Before the handshake is accepted the peer gets a 503 instead if the server restarts,
        else a 403.
        """
        if self.state in (_CONNECTING, State.REFUSING):
            self._refuse_with(503 if code == codes.RESTART else 403)
        elif self.outbox.state is _OUTBOX_OPEN:
            self.outbox.finish(code, reason)
            metrics.closes.add(str(code))
            self._await_close()
            self._gone(code, reason)

    def peer_gone(self) -> None:
        """
        See ``Exchange``: without a closing handshake the code is 1006.
        """
        if self.state is _CONNECTING and self.inbox.awaited:
            log.unanswered(self.scope)
        self._rest = False
        self.outbox.shut()
        self._gone(codes.ABNORMAL, "")
        metrics.websockets_closed.value += 1

    def release(self) -> None:
        """
        Cut what refers back to this exchange, once its peer and its application have gone.
        """
        self.scope = {}
        self.outbox.release()

    def _gone(self, code: int, reason: str) -> None:
        """
        Let the application know that the peer left or was cut off.
        """
        if self.state is not State.CLOSED:
            self.enter(_GONE)
        self._disconnect(code, reason)

    def _disconnect(self, code: int, reason: str) -> None:
        """
        Queue the application's one ``websocket.disconnect``, whoever comes first.
        """
        event = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self.inbox.disconnect(event)

    def _await_close(self) -> None:
        """
        Give the peer its time to answer our close frame.
        """
        self._ping_at = inf
        loop, options = self.connection.worker.loop, self.connection.worker.options
        self._close_by = loop.time() + options.close_timeout
        # Else it has its time once, and from then on as long as it reads.
        writable, transport = self.outbox.writable, self.connection.transport
        self.unread = sys.maxsize if writable else measure_unread(transport)
        self._look_on()
        self.connection.expect_by(self._close_by)

    def _finish_when_flushed(self, finish: Callable[[], None]) -> None:
        """
        Let go of the transport once the close frame has been handed to it.
        """
        flushed = self.outbox.flush()
        if not self.outbox.writable and self._close_by == inf:
            # The transport closes when the peer has read everything, for which it has its time.
            self._await_close()
        if flushed:
            self._finish = None
            finish()
        else:
            self._finish = finish

    def on_deadline(self, now: float) -> float:
        """
        See ``Exchange``: ping, find the peer silent, or stop waiting for its close frame.
        """
        transport = self.connection.transport
        if now >= self._close_by:
            if not (transport.get_write_buffer_size() and has_read(self, transport)):
                transport.abort()
                return inf
            # It has yet to reach the close frame, behind what waits for it.
            self._close_by = now + self.connection.worker.options.close_timeout
        if now >= self._ping_at:
            self._ping(now)
        return min(self._ping_at, self._close_by)

    def _ping(self, now: float) -> None:
        """
        Ask the peer for a sign of life, or give it up after too many silent intervals.

        Any byte since the last ping counts, read or taken. While we do not read, nothing can
        be missed, but the ping is still written: the kernel reports a reset peer by that.
        """
        connection, options = self.connection, self.connection.worker.options
        if self._is_alive():
            self._missed = 0
        elif not connection.reading_paused:
            self._missed += 1
        if self._missed >= options.pings_missed:
            metrics.closes.add("silent")
            connection.transport.abort()
            return
        connection.alive = False
        if self.outbox.writable:
            self.outbox.control(PING)
        self._ping_at = now + options.ping_interval

    def _is_alive(self) -> bool:
        """
        Whether the peer sent or took something since last time.
        """
        connection = self.connection
        if connection.alive and not connection.transport.get_write_buffer_size():
            # Nearly everybody: no question to the kernel.
            self.unread = None
            return True
        return has_read(self, self.connection.transport) or connection.alive

    def _refuse_with(self, status: int) -> None:
        """
        Answer the handshake with a refusal of the server's own.
        """
        unanswered = self.state is _CONNECTING or self._refusal is not None
        self.enter(_GONE)
        self._refusal = None
        self._refused()
        if unanswered:
            self.connection.sink.keep_alive = False
            if self.connection.worker.access_log:
                log.access(self, status)
            self.connection.answer_plainly(status)
        else:
            self.connection.reset()

    def _refused(self) -> None:
        """
        Let go of what was meant for the WebSocket that will not be.
        """
        self.outbox.shut()
        self._disconnect(codes.ABNORMAL, "")

    def _ended(self, error: BaseException | None) -> None:
        """
        See ``Exchange``: a socket that its application leaves open is closed here.
        """
        early = self.state in (_CONNECTING, State.REFUSING)
        if isinstance(error, ClientFault):
            status = error.status if early else error.code
            log.refused(self.scope, status, error.reason, error.fault)
        elif error is not None:
            metrics.application_errors.value += 1
            log.application_error(self.scope, error)
        elif early:
            log.application_fault(self.scope, "returned without accepting or closing")
        if early:
            self._refuse_with(refusal_status(error))
        elif error is None:
            self.end(codes.NORMAL)
        elif isinstance(error, ClientFault):
            code = error.code if codes.is_sendable(error.code) else codes.INTERNAL_ERROR
            self.end(code, log.printable(error.reason))
        else:
            self.end(codes.INTERNAL_ERROR)


WebSocketExchange.machine = Machine(WEBSOCKET, WebSocketExchange)
