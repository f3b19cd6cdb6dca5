"""
Responses of HTTP/1.1 to bytes: heads and chunks.

Nothing an application passes can end a line early: CR, LF and NUL are refused
in names and values. Which fields a response needs is for the server to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from fairway.exceptions import LocalProtocolError

__all__ = ["LAST_CHUNK", "encode_chunk", "encode_head"]

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BREAKING: Final = re.compile(rb"[\r\n\0]")

# Lines that an application sends again and again, encoded; not what is one client's or one page's.
_COMMON_MAX: Final = 512
_COMMON_BYTES_MAX: Final = 256
_COMMON_NAMES: Final = frozenset(
    b"""
    access-control-allow-headers access-control-allow-methods access-control-allow-origin
    cache-control content-encoding content-language content-security-policy content-type
    cross-origin-opener-policy permissions-policy referrer-policy server
    strict-transport-security vary x-content-type-options x-frame-options x-powered-by
    """.split()
)
_common: dict[tuple[bytes, bytes], bytes] = {}

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
        LocalProtocolError: A name or value could break its line, or is not bytes.
    """
    lines = [_STATUS_LINES.get(status) or _status_line(status), default_headers]
    try:
        for field in headers:
            name, value = field
            # Names and values that are no bytes, or pairs that are lists, may have no hash.
            known = type(value) is bytes and type(field) is tuple and _common.get(field)
            lines.append(known or _line(name, value))
    except TypeError:
        raise LocalProtocolError("expected header names and values as bytes") from None
    lines.append(b"\r\n")
    return b"".join(lines)


def _line(name: bytes, value: bytes) -> bytes:
    """
    Encode one field, and remember it if it will come again.
    """
    if _BREAKING.search(value) or not _is_name(name):
        raise LocalProtocolError(_complain(name, value))
    line = name + b": " + value + b"\r\n"
    if len(line) <= _COMMON_BYTES_MAX and name.lower() in _COMMON_NAMES:
        if len(_common) >= _COMMON_MAX:
            _common.clear()
        _common[bytes(name), bytes(value)] = line
    return line


def encode_chunk(data: bytes) -> bytes:
    """
    Encode some of a chunked body; nothing for nothing, since an empty chunk would end it.
    """
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _status_line(status: int) -> bytes:
    """
    Make the first line for a status that the standard library has no phrase for.
    """
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise LocalProtocolError(f"expected a status of three digits, not {status!r}")
    return b"HTTP/1.1 %d \r\n" % status


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
