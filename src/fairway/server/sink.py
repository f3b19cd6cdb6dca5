"""
How a response becomes HTTP/1.1 bytes: one sink per connection.

Decides how a body is delimited, whether the connection lives on, and joins head
and first body into one write. Parts that a slow reader has no room for wait here;
who waits for that is the connection's business. What an application may send when
is not known here (``asgi_state``), nor how much (``exchange``).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fairway import metrics
from fairway.server.outbox import PIECE_BYTES, piece_bytes, take
from fairway.wire.http1 import LAST_CHUNK, encode_chunk, encode_head
from fairway.wire.sse import event_chunk, event_plain

if TYPE_CHECKING:
    import asyncio

    from fairway.server.clock import DateHeader
    from fairway.server.outbox import Piece
    from fairway.wire.http1 import Request
    from fairway.wire.prepared import Format

__all__ = ["WHOLE_BYTES", "Http1Sink"]

WHOLE_BYTES = 2 * PIECE_BYTES
"""
Up to here a part of a body leaves in one piece where its reader keeps up.
"""

_sent = metrics.bytes_sent


class Waiting(list["Piece"]):
    """
    Parts of a body that wait until what came before is taken.

    Attributes:
        size: In bytes.
    """

    __slots__ = ("size",)

    def __init__(self) -> None:
        super().__init__()
        self.size = 0


class Http1Sink:
    """
    ``types.Sink`` over one HTTP/1.1 connection, for one response after the other.

    Event-loop thread only.

    Attributes:
        keep_alive: Whether another request may follow; known at the end of a response.
        writable: Whether nothing is pending; set by the connection too.
        waiting: What of the body is still to be written; None for nothing.
    """

    __slots__ = (
        "_chunked",
        "_date",
        "_http_1_0",
        "_no_body",
        "_transport",
        "keep_alive",
        "waiting",
        "writable",
    )

    def __init__(self, transport: asyncio.Transport, date: DateHeader) -> None:
        self._transport = transport
        self._date = date
        self._chunked = False
        self._http_1_0 = False
        self._no_body = False
        self.keep_alive = True
        self.waiting: Waiting | None = None
        self.writable = True

    def begin(self, request: Request) -> None:
        """
        Prepare for the response to a request.
        """
        self.keep_alive = request.keep_alive
        self._http_1_0 = request.version == "1.0"
        self._no_body = request.method == "HEAD"

    def begin_refusal(self) -> None:
        """
        Prepare for the response to what is no request, after which nothing follows.
        """
        self.keep_alive = self._http_1_0 = self._no_body = False

    def head(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        *,
        length: int | None,
        end: bool,
    ) -> None:
        """
        See ``types.Sink``: everything given here leaves in one write.
        """
        extra = self._date.line()
        no_body, chunked = self._no_body, False
        if status == 204 or status == 304:  # noqa: PLR1714 - no tuple per response
            # RFC 9110 section 15.3.5 and 15.4.5: no body, whatever the application says.
            no_body = True
        elif length is not None:
            extra += b"content-length: %d\r\n" % length
        elif self._http_1_0:
            self.keep_alive = False
        elif not no_body:
            chunked = True
            extra += b"transfer-encoding: chunked\r\n"
        if not self.keep_alive:
            extra += b"connection: close\r\n"
        elif self._http_1_0:
            extra += b"connection: keep-alive\r\n"
        # May raise, and then another head follows: nothing of this one may be left behind.
        encoded = encode_head(status, headers, extra)
        self._no_body, self._chunked = no_body, chunked
        if not no_body:
            encoded += self.frame(body, end=end) if chunked else body
        _sent.value += len(encoded)
        self._transport.write(encoded)

    def body(self, data: bytes, *, end: bool) -> None:
        """
        See ``types.Sink``.
        """
        framed = self.frame(data, end=end)
        if end or (self.writable and len(framed) <= WHOLE_BYTES):
            if self.waiting is not None:
                self.write_all()
            if framed:
                _sent.value += len(framed)
                self._transport.write(framed)
        elif framed:
            self._wait(framed)

    def _wait(self, framed: bytes) -> None:
        """
        Let a part wait for ``flush``, which is to follow.
        """
        self.writable = False
        waiting = self.waiting
        if waiting is None:
            waiting = self.waiting = Waiting()
        waiting.append(framed)
        waiting.size += len(framed)

    def flush(self, bytes_max: int) -> None:
        """
        Write what waits, for as long as the transport takes it at once.

        As an outbox does: in pieces while that is more than half of what may be pending, since
        somebody may wait for its reader, and else in one.
        """
        self.writable = not self._transport.get_write_buffer_size()
        while self.waiting is not None and self.writable and not self._transport.is_closing():
            is_much = self.waiting.size * 2 > bytes_max
            self._write(self.waiting, piece_bytes(bytes_max) if is_much else sys.maxsize)

    def write_all(self) -> None:
        """
        Give all that waits to the transport, since something else is to come behind it.
        """
        if self.waiting is not None:
            self.writable = not self._transport.get_write_buffer_size()
            self._write(self.waiting, sys.maxsize)

    def _write(self, waiting: Waiting, bytes_max: int) -> None:
        """
        Give so many bytes of what waits to the transport.
        """
        data, _ = take(waiting, bytes_max)
        waiting.size -= len(data)
        if not waiting:
            self.waiting = None
        _sent.value += len(data)
        self._transport.write(data)

    @property
    def pending_bytes(self) -> int:
        """
        Bytes that wait here and in the transport, not yet taken by the kernel.

        Here each part counts for 64 at least, which it takes in memory.
        """
        waiting = self.waiting
        size = 0 if waiting is None else max(waiting.size, 64 * len(waiting))
        return size + self._transport.get_write_buffer_size()

    def switch(self, head: bytes) -> asyncio.Transport:
        """
        See ``types.Sink``: HTTP/1.1 switches by a 101, after which bytes are the peer's.
        """
        self.interim(head)
        return self._transport

    def interim(self, head: bytes) -> None:
        """
        Send an interim response, such as ``100 Continue``.
        """
        _sent.value += len(head)
        self._transport.write(head)

    def reset(self) -> None:
        """
        See ``types.Sink``: what was written leaves, then the connection ends early.
        """
        self.keep_alive = False
        self.write_all()
        self._transport.close()

    @property
    def event_format(self) -> Format:
        """
        See ``types.Sink``.
        """
        return event_plain if self._http_1_0 else event_chunk

    def frame(self, data: bytes, *, end: bool) -> bytes:
        """
        See ``types.Sink``.
        """
        if self._no_body:
            return b""
        if not self._chunked:
            return data
        framed = encode_chunk(data) if data else b""
        return framed + LAST_CHUNK if end else framed
