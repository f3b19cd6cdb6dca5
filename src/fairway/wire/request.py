"""
One complete request head to a ``Request``: llhttp parses, the rest is judged here.

What a head is cut out of, and the body behind it, is the business of ``http1``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import httptools

from fairway.exceptions import RemoteProtocolError

__all__ = ["Request", "check_line", "parse_head"]

# Known methods need no decoding; llhttp decides which others there are.
_METHODS: Final = {
    method.encode(): method
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
}
_REQUEST_LINE: Final = re.compile(rb"([A-Z-]+) ([!-~]+) HTTP/1\.([01])\r\n")
_OTHER_VERSION: Final = re.compile(rb"[A-Z-]+ [!-~]+ HTTP/(?!1\.[01]\r)[0-9]+(?:\.[0-9]+)?\r\n")
# RFC 3986 section 3.2.2, and the port.
_HOST: Final = re.compile(
    rb"(?:\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+)\]"
    rb"|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]*)?"
)
_SINGLE_FIELDS: Final = (b"host", b"content-length", b"transfer-encoding")
_BODY_FIELDS: Final = frozenset({b"content-length", b"transfer-encoding"})
_LENGTH_DIGITS_MAX: Final = 19  # More is no length any more.

# A client repeats the fields of its GETs to the letter, and parsing them is most of the work of
# a head. So some are remembered: not many, not long ones, and none that say who somebody is; of
# those with a cookie what is around it.
_REPEATED_MAX: Final = 512
_REPEATED_BYTES_MAX: Final = 2048
_PRIVATE_FIELDS: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
_repeated: dict[bytes, Request] = {}

# Lines that different clients send to the letter, read: a scope at rest shares them with all
# others. Of fields that differ between requests, or say who somebody is, only the name is kept.
_COMMON_MAX: Final = 1024
_COMMON_BYTES_MAX: Final = 256
_COMMON_NAMES: Final = frozenset(
    b"""
    accept accept-encoding accept-language cache-control connection dnt host origin pragma priority
    sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site
    sec-fetch-user sec-gpc sec-websocket-extensions sec-websocket-protocol sec-websocket-version
    te upgrade upgrade-insecure-requests user-agent via x-forwarded-host x-forwarded-port
    x-forwarded-proto
    """.split()
)
_NAMES: Final = {
    name: name
    for name in (
        *_COMMON_NAMES,
        *b"""
        authorization content-length content-type cookie if-modified-since if-none-match referer
        sec-websocket-key x-forwarded-for x-real-ip x-request-id
        """.split(),
    )
}
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_common: dict[bytes, tuple[bytes, bytes]] = {}
_VERSION: Final = b" HTTP/1."
_VISIBLE: Final = bytes(range(0x21, 0x7F))
_PRINTABLE: Final = bytes(range(0x20, 0x7F))

_HOST_BYTES_MAX: Final = 512  # Above a domain name with its port, and little enough to remember.


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

    def repeat(self, target: bytes) -> Request:
        """
        Make another request with the same fields, whose list of headers is its own.
        """
        # Hot path, once per request: without the call of __init__().
        request = Request.__new__(Request)
        request.method = self.method
        request.target = target
        request.version = self.version
        request.headers = self.headers.copy()
        request.keep_alive = self.keep_alive
        request.upgrade = self.upgrade
        request.complete = self.complete
        request.expect_continue = self.expect_continue
        request.content_length = self.content_length
        return request

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target!r} HTTP/{self.version}>"


def check_line(line: bytes) -> re.Match[bytes]:
    """
    Read the request line that some bytes begin with.

    Raises:
        RemoteProtocolError: It is none, or one of another version.
    """
    found = _REQUEST_LINE.match(line)
    if found is None:
        if _OTHER_VERSION.match(line):
            raise RemoteProtocolError("expected http/1.0 or http/1.1", status=505)
        raise RemoteProtocolError("malformed request line")
    return found


def parse_head(head: bytes) -> Request:
    """
    Parse one complete head, up to and with the empty line that ends it.

    Hot path: once per request.

    Raises:
        RemoteProtocolError: The head is refused, with the status to answer.
    """
    if head.startswith(b"GET /"):
        cut = head.find(_VERSION)
        known = _recall(head[cut + len(_VERSION) :], head[4:cut])
        if known is not None:
            return known
    line = _REQUEST_LINE.match(head) or check_line(head)
    method, target, minor = line.groups()
    if method == b"CONNECT":
        raise RemoteProtocolError("connect is for proxies", status=501)
    request = _parse(method, target, minor, head)
    # In the line of a GET of a path nothing was left for llhttp to judge.
    if method == b"GET" and target[0] == 0x2F and not request.upgrade:
        _remember(head[line.end() - 3 :], request)  # With the digit of the version before them.
    return request


def _recall(fields: bytes, target: bytes) -> Request | None:
    """
    Give the request for a path whose fields were judged before, but for its cookie.
    """
    if target.translate(None, _VISIBLE):
        return None
    known = _repeated.get(fields)
    if known is not None:
        return known.repeat(target)
    found = _without_cookie(fields)
    known = None if found is None else _repeated.get(found[0])
    if found is None or known is None:
        return None
    request = known.repeat(target)
    request.headers.insert(found[1], (b"cookie", found[2]))
    return request


def _remember(fields: bytes, request: Request) -> None:
    """
    Remember the fields of a request, if they may be.
    """
    names = [name for name, _ in request.headers]
    found = _without_cookie(fields)
    # None was dropped for its name: they are told apart by their places.
    whole = len(names) == fields.count(b"\r\n") - 2
    if found is not None and whole:
        fields = found[0]
        del names[found[1]]
    if whole and len(fields) <= _REPEATED_BYTES_MAX and _PRIVATE_FIELDS.isdisjoint(names):
        known = request.repeat(request.target)
        if found is not None:
            del known.headers[found[1]]
        if len(_repeated) >= _REPEATED_MAX:
            _repeated.clear()
        _repeated[fields] = known


def _without_cookie(fields: bytes) -> tuple[bytes, int, bytes] | None:
    """
    Take the cookie out of the fields of a head: what is left may repeat.

    Returns:
        What is left, how many fields stood before the cookie, and its value; None for no cookie,
        and for one that is llhttp's to judge.
    """
    start = fields.find(b"\r\nCookie: ")
    if start < 0:
        start = fields.find(b"\r\ncookie: ")
    if start < 0:
        return None
    end = fields.find(b"\r\n", start + 10)
    value = fields[start + 10 : end]
    if not value or value.strip(b" ") != value or value.translate(None, _PRINTABLE):
        return None
    return fields[:start] + fields[end:], fields.count(b"\r\n", 0, start), value


def _parse(method: bytes, target: bytes, minor: bytes, head: bytes) -> Request:
    """
    Parse a head whose request line is known.

    Each head has a parser of its own: making one costs 0.15 us, and no request can leave
    anything behind for the next.
    """
    try:
        # Without somebody to tell of each field, which would cost more than the rest.
        httptools.HttpRequestParser(None).feed_data(head)
    except httptools.HttpParserUpgrade:
        # It has read every field and stops before the body. Whether there is one, and whether
        # this is a handshake, is found below from the fields, as for every request.
        pass
    except httptools.HttpParserError:
        raise RemoteProtocolError("malformed request head") from None
    version = "1.1" if minor == b"1" else "1.0"
    request = Request(_METHODS.get(method) or method.decode(), target, version, _cut(head))
    _read_fields(request, head)
    return request


def _cut(head: bytes) -> list[tuple[bytes, bytes]]:
    """
    Cut a head that llhttp takes into its fields, one in each line.
    """
    lines = head[head.find(b"\n") + 1 : -4].split(b"\r\n")
    if lines == [b""]:
        return []
    return [_common.get(line) or _read_field(line) for line in lines]


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    """
    Read one field, with its name in lower case, and remember it where that helps others.

    What llhttp took for more than one line, or for part of one, is none.
    """
    name, colon, value = line.partition(b":")
    name, value = name.lower(), value.strip(b" \t")
    known = _NAMES.get(name)
    if not colon or b"\n" in line or b"\r" in line or not (known or _NAME.fullmatch(name)):
        raise RemoteProtocolError("malformed request head")
    field = known or name, value
    if known in _COMMON_NAMES and len(line) <= _COMMON_BYTES_MAX:
        if len(_common) >= _COMMON_MAX:
            _common.clear()
        _common[line] = field
    return field


def _read_fields(request: Request, head: bytes) -> None:
    """
    Read the fields that say whom a request is for and where it ends.
    """
    headers = request.headers
    fields = dict(headers)
    if len(fields) != len(headers):
        fields = _merge(headers)
    if b"_" in head and b"_" in b"".join(fields):
        # CGI and Django spell X-Forwarded-For and X_Forwarded_For the same; a proxy that sets the
        # one does not remove the other. So no name with an underscore gets in, as in nginx.
        request.headers = [field for field in headers if b"_" not in field[0]]
    host = fields.get(b"host")
    if host is None:
        if request.version == "1.1":
            raise RemoteProtocolError("host is missing")
    elif len(host) > _HOST_BYTES_MAX or not _is_host(host):
        raise RemoteProtocolError("malformed host")
    if not _BODY_FIELDS.isdisjoint(fields):
        _read_length(request, fields)
    connection = fields.get(b"connection")
    if connection == b"keep-alive":  # As most clients have it.
        request.keep_alive = True
    elif connection is not None:
        _read_connection(request, connection, fields.get(b"upgrade"))


def _merge(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """
    Join fields of one name, where more than one may come (RFC 9110 section 5.3).
    """
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    for name in _SINGLE_FIELDS:
        if len(values.get(name, ())) > 1:
            raise RemoteProtocolError(f"{name.decode()} came twice")
    return {name: b",".join(parts) for name, parts in values.items()}


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    """
    Whether a Host field is well formed. A server is asked for few different ones.
    """
    return _HOST.fullmatch(value) is not None


def _read_length(request: Request, fields: dict[bytes, bytes]) -> None:
    """
    Find out how the end of the body is told (RFC 9112 section 6).
    """
    coding = fields.get(b"transfer-encoding")
    if coding is None:
        length = fields[b"content-length"]
        # llhttp takes any number of leading zeros, int() at most 4,300 digits.
        if not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
            raise RemoteProtocolError("malformed content-length")
        request.content_length = int(length)
        request.complete = request.content_length == 0
    elif coding.lower() != b"chunked" or b"content-length" in fields or request.version == "1.0":
        raise RemoteProtocolError("expected transfer-encoding chunked, alone, in http/1.1")
    else:
        request.complete = False
    expectation = fields.get(b"expect")
    if expectation is not None and request.version == "1.1" and not request.complete:
        request.expect_continue = expectation.lower() == b"100-continue"


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
    if upgrade is not None and b"upgrade" in tokens and request.version == "1.1":
        request.upgrade = (
            request.method == "GET"
            and request.complete
            and (upgrade == b"websocket" or b"websocket" in _split(upgrade))
        )


def _split(value: bytes) -> list[bytes]:
    """
    Split a field that is a list of tokens.
    """
    return [token.strip(b" \t") for token in value.lower().split(b",")]
