"""
The bytes of one HTTP/1.1 connection to requests and their bodies, in order.

Here are the limits in raw bytes, the bodies' ends and what is kept between
reads. What a head says is in ``request``, what is answered in ``response``;
their public names are given here too, as the whole of HTTP/1.1.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, TypeAlias

import httptools

from fairway.exceptions import RemoteProtocolError
from fairway.wire.request import Request, check_line, parse_head
from fairway.wire.response import LAST_CHUNK, encode_chunk, encode_head

__all__ = [
    "END",
    "LAST_CHUNK",
    "Event",
    "Request",
    "RequestDecoder",
    "encode_chunk",
    "encode_head",
]


class _End(Enum):
    """
    The type of ``END``.
    """

    END = "end"


END: Final = _End.END

Event: TypeAlias = Request | bytes | Literal[_End.END] | RemoteProtocolError

_TORN: Final = "bare cr or lf in the request head"
_EMPTY_LINE: Final = b"\r\n\r\n"
# What chunk sizes, extensions and trailers may cost the server beyond the body they carry. What
# the chunks of one read leave of their share is kept for the next, but only so much of it: after
# a million tiny chunks a single trailer could fill the memory else.
_OVERHEAD_BYTES_MAX: Final = 16384
_OVERHEAD_BYTES_PER_CHUNK: Final = 64
_OVERHEAD_BYTES_KEPT: Final = 65536


class RequestDecoder:
    """
    Turns the bytes of one connection into requests, one at a time.

    Belongs to one thread. ``head_bytes_max`` counts the raw head from the first byte of the
    request line up to the empty line that ends it; that CRLFCRLF itself is free, and so is
    the one empty line that may stand before a request.

    Args:
        head_bytes_max: The raw size a head may have.
        head_fields_max: The number of header fields a head may have.
    """

    __slots__ = (
        "_blank",
        "_buffer",
        "_chunks",
        "_ended",
        "_fresh",
        "_keep_alive",
        "_lined",
        "_remaining",
        "_scanned",
        "_upgraded",
        "head_bytes_max",
        "head_fields_max",
    )

    def __init__(self, *, head_bytes_max: int, head_fields_max: int) -> None:
        self.head_bytes_max = head_bytes_max
        self.head_fields_max = head_fields_max
        self._buffer: bytearray | None = None  # An unfinished head, or what follows a request.
        self._fresh = False  # Whether the latter: nobody has looked at it yet.
        self._scanned = 0  # How much of the head was found free of bare CR and LF.
        self._lined = False  # Whether its first line was found complete, and right.
        self._blank = False  # Whether an empty line before the head was skipped.
        self._remaining = 0  # Bytes to come of a body of declared length.
        self._chunks: _ChunkedBody | None = None
        self._keep_alive = True
        self._upgraded = False
        self._ended = False  # By that, by an error, or by a request that ends the connection.

    @property
    def has_pending(self) -> bool:
        """
        Whether ``receive_data(b"")`` has something to look at behind the last request.
        """
        return self._fresh

    @property
    def pending_bytes(self) -> int:
        """
        Size of that.
        """
        return len(self._buffer or b"") if self._fresh else 0

    @property
    def head_started(self) -> bool:
        """
        Whether some bytes of an unfinished head are here.
        """
        return bool(self._buffer) and not self._fresh and not self._upgraded

    def take_rest(self) -> bytes:
        """
        Take the bytes behind the request that switched the protocol.
        """
        rest, self._buffer = bytes(self._buffer or b""), None
        return rest

    def receive_data(self, data: bytes) -> list[Event]:
        """
        Take bytes of the peer, return what they tell of at most one request.

        Hot path: once per read. What lies behind that request stays inside and comes out by
        ``receive_data(b"")``. A ``RemoteProtocolError`` is always the last event; after it, as
        after a request that ends the connection, further input is ignored.
        """
        if self._ended:
            self._keep_rest(data)
            return []
        source: bytes | bytearray = data
        if self._buffer is not None:
            source = self._buffer
            source += data
        self._fresh = False
        if not source:
            return []
        try:
            if self._remaining:
                return self._receive_declared(source)
            if self._chunks is not None:
                return self._receive_chunks(self._chunks, source)
            return self._receive_head(source)
        except RemoteProtocolError as error:
            return [self._fail(error)]

    def _receive_head(self, source: bytes | bytearray) -> list[Event]:
        """
        Look for a complete head, parse it, and go on with the body behind it.
        """
        if not 0x41 <= source[0] <= 0x5A:  # A to Z
            source = self._skip_blank(source)
            if not source:
                return []
        searched = self._scanned - 3 if self._scanned > 3 else 0
        end = source.find(_EMPTY_LINE, searched, self.head_bytes_max + 4) + 4
        if end < 4:
            return self._await_head(source)
        request = self._parse_head(bytes(source[:end]))
        self._keep_alive = request.keep_alive
        self._scanned = 0
        self._blank = self._lined = False
        if request.complete and not request.upgrade:
            self._finish(source, end)
            return [request]
        self._buffer = None
        rest = _drop(source, end)
        if request.upgrade:
            self._ended = self._upgraded = True
            self._buffer = bytearray(rest)
            return [request]
        return [request, *self._begin_body(request, rest)]

    def _skip_blank(self, source: bytes | bytearray) -> bytes | bytearray:
        """
        Skip one empty line before a request (RFC 9112 section 2.2); refuse other beginnings.

        Returns:
            What is to be parsed now, possibly nothing.
        """
        if source[0] == 0x0D and not self._blank:
            if len(source) == 1:
                self._buffer = bytearray(source)
                return b""
            if source[1] == 0x0A:
                self._blank = True
                self._buffer = None
                source = _drop(source, 2)
                if not source or 0x41 <= source[0] <= 0x5A:
                    return source
        if source[0] == 0x16:
            raise RemoteProtocolError("tls hello on a plain port, which speaks http:// and ws://")
        raise RemoteProtocolError("not an http request")

    def _await_head(self, source: bytes | bytearray) -> list[Event]:
        """
        Keep an unfinished head, unless it is too long or torn already.
        """
        limit = self.head_bytes_max + 4
        size = min(len(source), limit)
        checked = size - 1 if source[size - 1] == 0x0D else size  # Its LF may yet come.
        if not self._lined:
            self._check_line(source, checked)
        if _is_torn(source, self._scanned, checked):
            raise RemoteProtocolError(_TORN)
        if size == limit:
            raise RemoteProtocolError(
                f"request head is larger than {self.head_bytes_max} bytes", status=431
            )
        self._scanned = checked
        self._buffer = source if isinstance(source, bytearray) else bytearray(source)
        return []

    def _check_line(self, source: bytes | bytearray, checked: int) -> None:
        """
        Judge the first line once it is there: who speaks another protocol may wait for an answer.
        """
        end = source.find(b"\r\n", max(self._scanned - 1, 0), checked) + 2
        if end >= 2 and not _is_torn(source, self._scanned, end):
            check_line(bytes(source[:end]))
            self._lined = True

    def _parse_head(self, head: bytes) -> Request:
        """
        Parse one complete head.
        """
        try:
            # A field has four bytes at least, so most heads need no counting.
            if len(head) > 4 * self.head_fields_max:
                self._count_fields(head)
            return parse_head(head)
        except RemoteProtocolError:
            # The same verdict as if the head had come byte by byte.
            line = head[: head.find(b"\r\n") + 2]
            if not _is_torn(line, 0, len(line)):
                check_line(line)
            if _is_torn(head, 0, len(head)):
                raise RemoteProtocolError(_TORN) from None
            raise

    def _count_fields(self, head: bytes) -> None:
        """
        Refuse a head with too many fields before any of them is parsed.
        """
        # One CRLF ends the request line and one the head.
        if head.count(b"\r\n") - 2 > self.head_fields_max:
            raise RemoteProtocolError(
                f"request head has more than {self.head_fields_max} fields", status=431
            )

    def _begin_body(self, request: Request, rest: bytes | bytearray) -> list[Event]:
        """
        Turn to the body of a request that has one.
        """
        if request.content_length is None:
            self._chunks = _ChunkedBody()
            return self._receive_chunks(self._chunks, rest)
        self._remaining = request.content_length
        return self._receive_declared(rest)

    def _receive_declared(self, source: bytes | bytearray) -> list[Event]:
        """
        Take some of a body of declared length.
        """
        part = bytes(source[: self._remaining])
        self._remaining -= len(part)
        if self._remaining:
            return [part] if part else []
        self._finish(source, len(part))
        return [part, END]

    def _receive_chunks(self, chunks: _ChunkedBody, source: bytes | bytearray) -> list[Event]:
        """
        Take some of a chunked body.
        """
        try:
            end = chunks.feed(bytes(source))
        except RemoteProtocolError as error:
            return [*chunks.take(), self._fail(error)]
        if end < 0:
            return [*chunks.take()]
        self._chunks = None
        self._finish(source, end)
        return [*chunks.take(), END]

    def _finish(self, source: bytes | bytearray, end: int) -> None:
        """
        Keep what follows a complete request for the next call.
        """
        self._buffer = None
        if not self._keep_alive:
            self._ended = True
        elif end < len(source):
            rest = _drop(source, end)
            self._buffer = rest if isinstance(rest, bytearray) else bytearray(rest)
            self._fresh = True

    def _fail(self, error: RemoteProtocolError) -> RemoteProtocolError:
        """
        End decoding; the error is the last event.
        """
        self._ended = True
        self._buffer = self._chunks = None
        return error

    def _keep_rest(self, data: bytes) -> None:
        """
        Keep what comes after a switch of protocols, and nothing after any other end.
        """
        if self._upgraded:
            self._buffer = (self._buffer or bytearray()) + data


class _ChunkedBody:
    """
    Decodes one chunked body, and finds where it ends. Trailers are ignored.

    llhttp does not say where a message ended, but a chunked one always ends with an empty
    line: it is fed up to one at a time.
    """

    __slots__ = ("_allowance", "_complete", "_parser", "_parts", "_tail")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._complete = False
        self._allowance = _OVERHEAD_BYTES_MAX
        self._tail = b""  # The last bytes fed, in which an empty line may have begun.
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """
        Take some of the body. Called by httptools.
        """
        self._parts.append(part)
        self._allowance += len(part)

    def on_chunk_header(self) -> None:
        """
        Note that another chunk began. Called by httptools.
        """
        self._allowance += _OVERHEAD_BYTES_PER_CHUNK

    def on_message_complete(self) -> None:
        """
        Note that the body and its trailers are complete. Called by httptools.
        """
        self._complete = True
        self._parser = None  # It refers to this object: without it both go at once.

    def feed(self, data: bytes) -> int:
        """
        Decode more.

        Returns:
            Where in ``data`` the message ended, or -1.

        Raises:
            RemoteProtocolError: The chunks are malformed or carry too much else.
        """
        start, size = 0, len(data)
        view = memoryview(data)
        while start < size and self._parser is not None:
            end = self._find_stop(data, start)
            try:
                self._parser.feed_data(view[start:end])
            except httptools.HttpParserError:
                raise RemoteProtocolError("malformed chunked body") from None
            self._allowance -= end - start
            if self._allowance < 0:
                raise RemoteProtocolError("too many bytes of chunk extensions and trailers")
            start = end
        self._allowance = min(self._allowance, _OVERHEAD_BYTES_KEPT)
        self._tail = (self._tail + data[-3:])[-3:]
        return start if self._complete else -1

    def take(self) -> list[bytes]:
        """
        Take what was decoded since the last call, as one part or none.
        """
        parts, self._parts = self._parts, []
        return [b"".join(parts)] if parts else []

    def _find_stop(self, data: bytes, start: int) -> int:
        """
        Find the end of the next empty line, which may have begun in an earlier call.
        """
        if start == 0 and self._tail:
            straddling = (self._tail + data[:3]).find(_EMPTY_LINE)
            if straddling >= 0:
                return straddling + 4 - len(self._tail)
        found = data.find(_EMPTY_LINE, start)
        return found + 4 if found >= 0 else len(data)


def _drop(source: bytes | bytearray, count: int) -> bytes | bytearray:
    """
    Remove bytes at the beginning; in a buffer that costs no copy of what is left.
    """
    if isinstance(source, bytearray):
        del source[:count]
        return source
    return source[count:]


def _is_torn(source: bytes | bytearray, start: int, end: int) -> bool:
    """
    Whether there is a CR without LF or an LF without CR.
    """
    pairs = source.count(b"\r\n", start, end)
    return source.count(b"\r", start, end) != pairs or source.count(b"\n", start, end) != pairs
