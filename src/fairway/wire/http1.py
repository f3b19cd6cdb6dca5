"""
HTTP/1.1 requests to events, response heads and chunks to bytes.

Parsing is llhttp's, through httptools; here are the limits in raw bytes, the
refusals llhttp leaves to its user, and the order of things. Each head is parsed
in one piece by a parser of its own, so a resting connection holds no parser and
no request can leave anything behind for the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Literal, TypeAlias

import httptools

from fairway.exceptions import LocalProtocolError, RemoteProtocolError

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


class Request:
    """
    The head of one request.

    Attributes:
        method: The method, in upper case.
        target: The request target as it came.
        version: ``"1.0"`` or ``"1.1"``.
        headers: Names in lower case and values, in the order they came.
        keep_alive: Whether the connection may carry another request after this one.
        upgrade: Whether this is the opening handshake of a WebSocket.
        complete: Whether no body follows.
        expect_continue: Whether the peer waits for ``100 Continue`` before it sends the body.
        content_length: The declared size of the body, None if it is chunked or absent.
    """

    __slots__ = (
        "complete",
        "content_length",
        "expect_continue",
        "headers",
        "keep_alive",
        "method",
        "target",
        "upgrade",
        "version",
    )

    def __init__(
        self, method: str, target: bytes, version: str, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.keep_alive = version == "1.1"
        self.upgrade = False
        self.complete = True
        self.expect_continue = False
        self.content_length: int | None = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target!r} HTTP/{self.version}>"


Event: TypeAlias = Request | bytes | Literal[_End.END] | RemoteProtocolError

_REQUEST_LINE: Final = re.compile(rb"([A-Z-]+) ([!-~\x80-\xff]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION: Final = re.compile(rb"[^ \r\n]+ [^\r\n]* HTTP/[0-9]+(?:\.[0-9]+)?\r\n")
_HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|\[v[0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+\]"
    rb"|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]*)?"
)
_UPGRADE_NAME: Final = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_METHODS: dict[bytes, str] = {
    method.encode(): method
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
}
# Fields that may come only once.
_SINGLE: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
# A length of more digits is no length any more.
_LENGTH_DIGITS_MAX: Final = 19
_FRAMING: Final = frozenset(
    {b"host", b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"expect"}
)
# What chunk extensions and trailers may cost the server, beyond the body that they carry.
_OVERHEAD_BYTES_MAX: Final = 16384
_OVERHEAD_BYTES_PER_CHUNK: Final = 64


class _Fields:
    """
    Receives the fields of one head from its parser.
    """

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


class _ChunkedBody:
    """
    Decodes one chunked body, and finds where it ends.

    Trailers are ignored.
    """

    __slots__ = ("_allowance", "_complete", "_parser", "_parts", "_tail")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._complete = False
        self._allowance = _OVERHEAD_BYTES_MAX
        self._tail = b""
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)
        self._allowance += len(part)

    def on_chunk_header(self) -> None:
        self._allowance += _OVERHEAD_BYTES_PER_CHUNK

    def on_message_complete(self) -> None:
        self._complete = True

    def receive_data(self, data: bytes) -> tuple[bytes, int]:
        """
        Decode more of the body.

        llhttp does not say where a message ended, but a chunked one always ends with an empty
        line: it is fed up to one at a time.

        Returns:
            The body in ``data``, and where in ``data`` the message ended, or -1.

        Raises:
            RemoteProtocolError: The chunks are malformed or carry too much else.
        """
        start, size = 0, len(data)
        while start < size and not self._complete:
            end = self._next_stop(data, start)
            try:
                self._parser.feed_data(memoryview(data)[start:end])
            except httptools.HttpParserError:
                raise RemoteProtocolError("malformed chunked body") from None
            self._allowance -= end - start
            if self._allowance < 0:
                raise RemoteProtocolError("too many bytes of chunk extensions and trailers")
            start = end
        self._tail = (self._tail + data[-3:])[-3:]
        parts, self._parts = self._parts, []
        return b"".join(parts), start if self._complete else -1

    def _next_stop(self, data: bytes, start: int) -> int:
        """
        Find the end of the next empty line, which may have begun in an earlier call.
        """
        if start == 0 and self._tail:
            straddling = (self._tail + data[:3]).find(b"\r\n\r\n")
            if straddling >= 0:
                return straddling + 4 - len(self._tail)
        found = data.find(b"\r\n\r\n", start)
        return found + 4 if found >= 0 else len(data)


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
        "_closed",
        "_fresh",
        "_keep_alive",
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
        self._blank = False  # Whether an empty line before the head was skipped.
        self._remaining = 0  # Bytes to come of a body of declared length.
        self._chunks: _ChunkedBody | None = None
        self._keep_alive = True
        self._upgraded = False
        self._closed = False

    @property
    def has_pending(self) -> bool:
        """
        Whether ``receive_data(b"")`` has something to look at behind the last request.
        """
        return self._fresh

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
        if self._closed:
            return []
        source: bytes | bytearray = data
        if self._buffer is not None:
            source = self._buffer
            source += data
        self._fresh = False
        try:
            if self._remaining:
                return self._receive_declared(source)
            if self._chunks is not None:
                return self._receive_chunks(self._chunks, source)
            return self._receive_head(source)
        except RemoteProtocolError as error:
            self._closed = True
            self._buffer = self._chunks = None
            return [error]

    def _receive_head(self, source: bytes | bytearray) -> list[Event]:
        """
        Look for a complete head, parse it, and go on with the body behind it.
        """
        if self._upgraded or not source:
            self._buffer = bytearray(source) if source else None
            return []
        if not 0x41 <= source[0] <= 0x5A:
            source = self._skip_blank(source)
            if not source:
                return []
        searched = self._scanned - 3 if self._scanned > 3 else 0
        end = source.find(b"\r\n\r\n", searched, self.head_bytes_max + 4)
        if end < 0:
            return self._await_head(source)
        request = self._parse_head(bytes(source[: end + 4]))
        self._buffer = None
        self._scanned = 0
        self._blank = False
        self._keep_alive = request.keep_alive
        rest = _drop(source, end + 4)
        if request.upgrade:
            self._upgraded = True
            self._buffer = bytearray(rest)
        elif request.complete:
            self._finish(rest)
        else:
            return [request, *self._begin_body(request, rest)]
        return [request]

    def _skip_blank(self, source: bytes | bytearray) -> bytes | bytearray:
        """
        Skip one empty line before a request (RFC 9112 section 2.2); refuse other beginnings.
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
            raise RemoteProtocolError("tls hello on a plain port")
        raise RemoteProtocolError("not an http request")

    def _await_head(self, source: bytes | bytearray) -> list[Event]:
        """
        Keep an unfinished head, unless it is too long or torn already.
        """
        limit = self.head_bytes_max + 4
        size = min(len(source), limit)
        checked = size - 1 if source[size - 1] == 0x0D else size  # Its LF may yet come.
        if _is_torn(source, self._scanned, checked):
            raise RemoteProtocolError("bare cr or lf in the request head")
        if size == limit:
            raise RemoteProtocolError(
                f"request head is larger than {self.head_bytes_max} bytes", status=431
            )
        self._scanned = checked
        self._buffer = source if isinstance(source, bytearray) else bytearray(source)
        return []

    def _parse_head(self, head: bytes) -> Request:
        """
        Parse one complete head.
        """
        try:
            # A field has four bytes at least, so most heads need no counting.
            if len(head) > 4 * self.head_fields_max:
                self._count_fields(head)
            return _parse_head(head)
        except RemoteProtocolError:
            # The same verdict as if the head had come byte by byte.
            if _is_torn(head, 0, len(head)):
                raise RemoteProtocolError("bare cr or lf in the request head") from None
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
        if request.content_length is not None:
            self._remaining = request.content_length
            return self._receive_declared(rest)
        self._chunks = _ChunkedBody()
        try:
            return self._receive_chunks(self._chunks, rest)
        except RemoteProtocolError as error:
            self._closed = True
            self._buffer = self._chunks = None
            return [error]

    def _receive_declared(self, source: bytes | bytearray) -> list[Event]:
        """
        Take some of a body of declared length.
        """
        if not source:
            return []
        part = bytes(source[: self._remaining])
        self._remaining -= len(part)
        if self._remaining:
            self._buffer = None
            return [part]
        self._finish(_drop(source, len(part)))
        return [part, END]

    def _receive_chunks(self, chunks: _ChunkedBody, source: bytes | bytearray) -> list[Event]:
        """
        Take some of a chunked body.
        """
        self._buffer = None
        part, end = chunks.receive_data(bytes(source))
        events: list[Event] = [part] if part else []
        if end >= 0:
            self._chunks = None
            self._finish(_drop(source, end))
            events.append(END)
        return events

    def _finish(self, rest: bytes | bytearray) -> None:
        """
        Keep what follows a complete request for the next call.
        """
        self._closed = not self._keep_alive
        if rest and self._keep_alive:
            self._buffer = rest if isinstance(rest, bytearray) else bytearray(rest)
            self._fresh = True
        else:
            self._buffer = None


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


def _parse_head(head: bytes) -> Request:
    """
    Parse one complete head by llhttp and check what llhttp leaves open.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        if _OTHER_VERSION.match(head):
            raise RemoteProtocolError("expected http/1.0 or http/1.1", status=505)
        raise RemoteProtocolError("malformed request line")
    method, target, minor = line.groups()
    if method == b"CONNECT":
        raise RemoteProtocolError("connect is for proxies", status=501)
    fields = _Fields()
    switching = False
    try:
        httptools.HttpRequestParser(fields).feed_data(head)
    except httptools.HttpParserUpgrade:
        switching = True
    except httptools.HttpParserError as error:
        raise RemoteProtocolError("malformed request head") from error
    request = Request(
        _METHODS.get(method) or method.decode(),
        target,
        "1.1" if minor == b"1" else "1.0",
        fields.headers,
    )
    _read_framing(request)
    if switching and not request.upgrade:
        _check_unswitched(head)
    return request


def _check_unswitched(head: bytes) -> None:
    """
    Parse a head again with its ``Upgrade`` out of llhttp's sight.

    llhttp stops at an upgrade before it has judged the framing of the body. Here another
    protocol than WebSocket was asked for, and the request is served as if it had not been.
    """
    try:
        httptools.HttpRequestParser(_Fields()).feed_data(_UPGRADE_NAME.sub(b"\r\nupgrad-", head))
    except httptools.HttpParserError as error:
        raise RemoteProtocolError("malformed request head") from error


def _read_framing(request: Request) -> None:
    """
    Read the fields that say whom a request is for and where it ends.
    """
    framing: dict[bytes, bytes] = {}
    underscored = False
    for name, value in request.headers:
        if name in _FRAMING:
            framing[name] = _merge(name, framing[name], value) if name in framing else value
        elif b"_" in name:
            underscored = True
    if underscored:
        # CGI and Django spell X-Forwarded-For and X_Forwarded_For the same; a proxy that sets the
        # one does not remove the other. So no name with an underscore gets in, as in nginx.
        request.headers = [field for field in request.headers if b"_" not in field[0]]
    _check_host(framing.get(b"host"), request.version)
    if b"transfer-encoding" in framing or b"content-length" in framing:
        _read_length(request, framing)
    connection = framing.get(b"connection")
    if connection is not None and connection != b"keep-alive":
        _read_connection(request, connection, framing.get(b"upgrade"))
    elif connection is not None:
        request.keep_alive = True
    if b"expect" in framing and not request.complete and request.version == "1.1":
        request.expect_continue = framing[b"expect"].lower() == b"100-continue"


def _merge(name: bytes, earlier: bytes, value: bytes) -> bytes:
    """
    Join two fields of one name where that is allowed (RFC 9110 section 5.3).
    """
    if name in _SINGLE:
        raise RemoteProtocolError(f"{name.decode()} came twice")
    return earlier + b"," + value


def _check_host(host: bytes | None, version: str) -> None:
    """
    Check the Host field (RFC 9112 section 3.2).
    """
    if host is None:
        if version == "1.1":
            raise RemoteProtocolError("host is missing")
    elif not _is_host(host):
        raise RemoteProtocolError("malformed host")


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    """
    Whether a Host field is well formed. A server is asked for few different ones.
    """
    return _HOST.fullmatch(value) is not None


def _read_length(request: Request, framing: dict[bytes, bytes]) -> None:
    """
    Find out how the end of the body is told (RFC 9112 section 6).
    """
    coding, length = framing.get(b"transfer-encoding"), framing.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise RemoteProtocolError("content-length with transfer-encoding")
        if coding.lower() != b"chunked":
            raise RemoteProtocolError("transfer-encoding is not chunked")
        if request.version == "1.0":
            raise RemoteProtocolError("transfer-encoding in http/1.0")
        request.complete = False
    elif length is not None:
        # llhttp takes any number of leading zeros, int() at most 4,300 digits.
        if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
            raise RemoteProtocolError("malformed content-length")
        request.content_length = int(length)
        request.complete = request.content_length == 0


def _read_connection(request: Request, connection: bytes, upgrade: bytes | None) -> None:
    """
    Read what is to become of the connection.

    A WebSocket handshake is a GET without a body that names the protocol in both fields, in
    HTTP/1.1 (RFC 6455 section 4.1, RFC 9110 section 7.8); any other upgrade is passed over.
    """
    tokens = _split(connection)
    if b"close" in tokens:
        request.keep_alive = False
    elif b"keep-alive" in tokens:
        request.keep_alive = True
    request.upgrade = (
        upgrade is not None
        and b"upgrade" in tokens
        and b"websocket" in _split(upgrade)
        and request.method == "GET"
        and request.version == "1.1"
        and request.complete
    )


def _split(value: bytes) -> list[bytes]:
    """
    Split a field that is a list of tokens.
    """
    return [token.strip(b" \t") for token in value.lower().split(b",")]


_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_BREAKING: Final = re.compile(rb"[\r\n\0]")

LAST_CHUNK: Final = b"0\r\n\r\n"


def encode_head(
    status: int, headers: Iterable[tuple[bytes, bytes]], default_headers: bytes = b""
) -> bytes:
    """
    Encode the head of a response.

    Hot path: once per response.

    Args:
        status: Three digits.
        headers: Names and values, sent in this order.
        default_headers: Lines already encoded, each with its CRLF, sent before them.

    Raises:
        LocalProtocolError: A name or value could end its line, or is no bytes.
    """
    lines = [_status_line(status), default_headers]
    try:
        for name, value in headers:
            if _BREAKING.search(value) or not _is_name(name):
                raise LocalProtocolError(_complain(name, value))
            lines.append(name + b": " + value + b"\r\n")
    except TypeError:
        raise LocalProtocolError("expected header names and values as bytes") from None
    lines.append(b"\r\n")
    return b"".join(lines)


def _status_line(status: int) -> bytes:
    """
    Give the first line of a response, with an empty phrase if the status is nobody's.
    """
    line = _STATUS_LINES.get(status)
    if line is None:
        if not isinstance(status, int) or not 100 <= status <= 999:
            raise LocalProtocolError(f"expected a status of three digits, not {status!r}")
        line = b"HTTP/1.1 %d \r\n" % status
    return line


@lru_cache(maxsize=1024)
def _is_name(name: bytes) -> bool:
    """
    Whether a header name is well formed. Applications send few different ones.
    """
    return _NAME.fullmatch(name) is not None


def _complain(name: bytes, value: bytes) -> str:
    """
    Say which half of a header is wrong.
    """
    if not _is_name(name):
        return f"expected a token as header name, not {name!r}"
    return f"expected a value without CR, LF and NUL in header {name!r}, not {value!r}"


def encode_chunk(data: bytes) -> bytes:
    """
    Encode some of a chunked body; nothing for nothing, since an empty chunk would end it.
    """
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
