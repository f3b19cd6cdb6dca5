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
        for name, value in headers:
            if _BREAKING.search(value) or not _is_name(name):
                raise LocalProtocolError(_complain(name, value))
            lines.append(name + b": " + value + b"\r\n")
    except TypeError:
        raise LocalProtocolError("expected header names and values as bytes") from None
    lines.append(b"\r\n")
    return b"".join(lines)


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
