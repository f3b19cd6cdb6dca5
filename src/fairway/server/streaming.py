"""
A response that stays open, and the server's ends of an HTTP request.

``HttpEnds`` is what ``scope["extensions"]["fairway"]`` of an HTTP request holds; it makes what
is asked for, so that a request which asks for nothing costs nothing. ``Stream`` is the outbox of
a response that goes on: events offered by fan-out and what the application sends leave through
it in one order, with the limits of WebSockets. Its heartbeat has no task and no timer of its
own: the connection's deadline serves. The request itself is in ``exchange``.
"""

from __future__ import annotations

import asyncio
import random
import socket
from math import inf
from typing import TYPE_CHECKING, Any

from fairway import metrics
from fairway.server.asgi_state import State
from fairway.server.outbox import OutboxState
from fairway.server.overflow import TCP, configure, limit_latest
from fairway.wire import codes
from fairway.wire.sse import HEARTBEAT, encode_retry

if TYPE_CHECKING:
    from fairway.server.connection import Connection
    from fairway.server.exchange import HttpExchange
    from fairway.server.outbox import Outbox
    from fairway.types import Receive

__all__ = ["HttpEnds", "Stream", "wait_for_room"]

RETRY_SECONDS = (0.5, 2.0)
"""
When readers of a stream that ends for a restart come back: spread, so that not all come at once.
"""


_ENDS = ("configure", "gone", "inbox", "outbox", "receive")


class HttpEnds:
    """
    ``types.Extension`` for an HTTP request, read like the dict that a WebSocket has.

    Event-loop thread only.
    """

    __slots__ = ("_exchange", "receive")

    def __init__(self, exchange: HttpExchange, receive: Receive) -> None:
        self._exchange = exchange
        self.receive = receive

    def __getitem__(self, name: str) -> Any:
        if name == "receive":
            return self.receive
        if name == "inbox":
            return self._exchange.open_inbox()
        if name == "outbox":
            return self._exchange.open_stream().outbox
        if name == "configure":
            return self._exchange.open_stream().configure
        if name == "gone":
            # Whether nobody will read an answer any more. From any thread.
            return self._exchange.state is State.GONE
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        # To look is not to ask for it.
        return name in _ENDS


class Stream:
    """
    The outbox of one response, which opens when the response turns out to go on.

    Event-loop thread only.

    Attributes:
        outbox: What has yet to be written.
        gone_at_eof: Whether the client's end of sending means that it has left.
        lasting: Whether it goes on until it is ended, by a restart for one.
    """

    __slots__ = ("_beat_at", "_exchange", "_heartbeat", "gone_at_eof", "lasting", "outbox")

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange
        self._heartbeat = 0.0
        self._beat_at = inf
        self.gone_at_eof = False
        self.lasting = True
        connection = exchange.connection
        worker = connection.worker
        self.outbox = worker.outbox_class(
            worker.flusher, worker.options, self, connection.sink.event_format
        )

    @property
    def is_open(self) -> bool:
        """
        Whether what is sent leaves through the outbox.
        """
        return self.outbox.state is OutboxState.OPEN

    def configure(
        self,
        *,
        overflow: str | None = None,
        outbox_bytes_max: int | None = None,
        heartbeat: float | None = None,
        gone_at_eof: bool | None = None,
        lasting: bool | None = None,
    ) -> None:
        """
        See ``types.Configure``. Does nothing once the client has gone.

        Args:
            overflow: What becomes of a reader that is too slow.
            outbox_bytes_max: When it is.
            heartbeat: Seconds between two comments of an event stream; 0 for none.
            gone_at_eof: Whether a client that stops sending has left, before its answer begins
                too: nobody half-closes a connection on which it waits for news.
            lasting: Whether a server that restarts ends it, and does not let it finish.

        Raises:
            LocalProtocolError: The response has begun already, or a value is not known.
        """
        if self._exchange.state is State.GONE:
            # It has left while the application was about to say so, which will soon hear of it.
            return
        configure(self.outbox, overflow, outbox_bytes_max)
        if heartbeat is not None:
            self._heartbeat = heartbeat
        if gone_at_eof is not None:
            self.gone_at_eof = gone_at_eof
        if lasting is not None:
            self.lasting = lasting

    def open(self) -> None:
        """
        Let flow what was offered before the response began, and all that follows.
        """
        connection = self._exchange.connection
        transport, sink = connection.transport, connection.sink
        options = connection.worker.options
        if self.outbox.conflates:
            limit_latest(transport, options)
        self.outbox.open(transport, writable=sink.writable)
        if self._heartbeat:
            self._beat_at = connection.worker.loop.time() + self._heartbeat
            connection.expect_by(self._beat_at)
            seconds = self._heartbeat * options.pings_missed
            give_up_after(transport.get_extra_info("socket"), seconds)

    def write(self, data: bytes, *, end: bool) -> Any:
        """
        Queue a part of the body; what is returned waits for a slow reader.
        """
        sink = self._exchange.connection.sink
        if not self.is_open:
            sink.body(data, end=end)
            return None
        frame = sink.frame(data, end=end)
        if end:
            self._finish(frame)
        elif frame and self.outbox.send(frame):
            return wait_for_room(self._exchange.connection, self.outbox)
        return None

    def end(self, code: int, reason: str = "") -> None:
        """
        End the response by decision of the server or of a group; the application is told.

        Codes are those of WebSockets. Before the response has begun the client gets a 503 if it
        may come back for the same, else a 403. A reader that is too slow is cut off.
        """
        exchange = self._exchange
        if exchange.state in (State.COMPLETE, State.GONE):
            return
        metrics.closes.add(str(code))
        connection = exchange.connection
        again = code in codes.CLOSE_CODES and codes.CLOSE_CODES[code].reconnect
        if code == codes.RESTART and not self.is_open and exchange.flows:
            # Nobody asked for an outbox. No hint either: an event may be half written.
            connection.sink.keep_alive = False
            exchange.enter(State.GONE)
            connection.sink.body(b"", end=True)
            connection.response_complete()
        elif not self.is_open or code == codes.TRY_AGAIN_LATER:
            self.outbox.shut()
            exchange.answer_instead(503 if again else 403, State.GONE)
        else:
            # Where events are not whole ones of ours, one may be half written.
            again = again and self.lasting
            hint = encode_retry(random.uniform(*RETRY_SECONDS)) if again else b""  # noqa: S311 - no secret
            if code == codes.RESTART:
                connection.sink.keep_alive = False
            exchange.enter(State.GONE)
            self._finish(connection.sink.frame(hint, end=True))
            connection.response_complete()
        exchange.disconnect()

    def on_deadline(self, now: float) -> float:
        """
        Beat, and return when to look again.
        """
        if now >= self._beat_at and self.is_open:
            if self.outbox.writable:
                frame = self._exchange.connection.sink.frame(HEARTBEAT, end=False)
                self.outbox.control(frame)
            self._beat_at = now + self._heartbeat
        return self._beat_at

    def peer_gone(self) -> None:
        """
        Throw away what is left.
        """
        self._beat_at = inf
        self.outbox.shut()
        self.outbox.release()

    def _finish(self, last: bytes) -> None:
        """
        Write everything and the end of the body, in this turn: another response may follow.
        """
        self.outbox.finish_with(last)
        self.outbox.flush(force=True)
        self.peer_gone()


def give_up_after(sock: Any, seconds: float) -> None:
    """
    Have the kernel report a reader that acknowledges nothing for so long.

    A reader of events never sends, so nothing else tells one that vanished from one that is
    silent: the heartbeats would be repeated for a quarter of an hour (tcp(7), tcp_retries2).
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None and sock.family in TCP:
        sock.setsockopt(socket.IPPROTO_TCP, option, max(1, int(seconds * 1000)))


async def wait_for_room(connection: Connection, outbox: Outbox) -> None:
    """
    Wait until half an outbox's limit is free again, or the peer has gone.
    """
    # Whoever sends without end and never waits would not hear that its peer has gone, and nobody
    # else would get the loop.
    await asyncio.sleep(0)
    outbox.flush()
    while outbox.crowded():
        await connection.wait_for_room()
        outbox.flush()
