"""
Response heads and chunks, and that nothing an application passes breaks their lines.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from fairway.exceptions import LocalProtocolError
from fairway.wire import http1
from fairway.wire.response import LAST_CHUNK, encode_chunk, encode_head


def test_a_head() -> None:
    """
    Status line, the server's own lines, then the application's in their order.
    """
    headers = [(b"content-type", b"text/plain"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert encode_head(200, headers, b"server: fairway\r\n") == (
        b"HTTP/1.1 200 OK\r\nserver: fairway\r\ncontent-type: text/plain\r\n"
        b"set-cookie: a=1\r\nset-cookie: b=2\r\n\r\n"
    )


def test_a_head_without_fields() -> None:
    """
    A status line and the empty line.
    """
    assert encode_head(204, []) == b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize("status", HTTPStatus)
def test_each_known_status_has_its_phrase(status: HTTPStatus) -> None:
    """
    As the standard library puts it.
    """
    assert encode_head(status, []) == f"HTTP/1.1 {status:d} {status.phrase}\r\n\r\n".encode()


def test_another_status_has_an_empty_phrase() -> None:
    """
    RFC 9112 section 4: the phrase may be absent, the space before it may not.
    """
    assert encode_head(299, []) == b"HTTP/1.1 299 \r\n\r\n"
    assert encode_head(999, []) == b"HTTP/1.1 999 \r\n\r\n"


@pytest.mark.parametrize("status", [99, 1000, 0, -200, "200", 200.5, None])
def test_a_status_has_three_digits(status: Any) -> None:
    """
    Anything else is a mistake of the application.
    """
    with pytest.raises(LocalProtocolError, match="three digits"):
        encode_head(status, [])


@pytest.mark.parametrize("breaking", [b"\r", b"\n", b"\0", b"\r\n", b"\r\nset-cookie: x=1"])
@pytest.mark.parametrize("place", [b"%b", b"a%b", b"%bb", b"a%bb"])
def test_no_value_and_no_name_ends_its_line(breaking: bytes, place: bytes) -> None:
    """
    CR, LF and NUL are refused wherever they stand (CVE-2020-7695 and its kin).
    """
    with pytest.raises(LocalProtocolError, match="without CR, LF and NUL"):
        encode_head(200, [(b"x", place % breaking)])
    with pytest.raises(LocalProtocolError, match="token as header name"):
        encode_head(200, [(place % breaking, b"x")])


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a: b", b"\xe9", b"a\t", b"(a)"])
def test_a_name_is_a_token(name: bytes) -> None:
    """
    RFC 9110 section 5.1.
    """
    with pytest.raises(LocalProtocolError, match="token as header name"):
        encode_head(200, [(name, b"x")])


@pytest.mark.parametrize("field", [("a", b"b"), (b"a", "b"), (b"a", None), (b"a", 1)])
def test_names_and_values_are_bytes(field: Any) -> None:
    """
    A str is refused with the reason, whichever half it is.
    """
    with pytest.raises(LocalProtocolError, match="as bytes"):
        encode_head(200, [field])


def test_values_may_hold_other_bytes() -> None:
    """
    Obsolete text passes as it is, and a tab too.
    """
    assert encode_head(200, [(b"x", b"\xe9\ta")]).endswith(b"\r\nx: \xe9\ta\r\n\r\n")


def test_chunks() -> None:
    """
    The size in hexadecimal; nothing makes no chunk, since that would end the body.
    """
    assert encode_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert encode_chunk(b"") == b""
    assert LAST_CHUNK == b"0\r\n\r\n"


def test_http1_gives_all_of_it() -> None:
    """
    Who speaks HTTP/1.1 imports one module.
    """
    assert http1.encode_head is encode_head
    assert http1.encode_chunk is encode_chunk
