"""
Heads that were remembered: whatever came before, a head is judged as if it were the first.
"""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from fairway.exceptions import RemoteProtocolError
from fairway.wire import request as request_module
from fairway.wire.request import parse_head

LINES = st.sampled_from(
    ["GET / HTTP/1.1", "GET /b?c=d HTTP/1.1", "GET / HTTP/1.0", "HEAD / HTTP/1.1"]
)
NAMES = st.sampled_from(
    [
        *("Cookie", "cookie", "COOKIE", "Cookie2", "Authorization", "Accept", "accept", "X-A"),
        *("X_A", "Host", "Connection", "Upgrade", "Content-Length"),
    ]
)
VALUES = st.sampled_from(["1", "2", "a=1", "close", "upgrade", "websocket", "", " ", "a\tb", "\0"])
COLONS = st.sampled_from([": ", ": ", ": ", ":", ":  ", " : "])
ENDS = st.sampled_from(["\r\n"] * 5 + ["\n", "\r", "\r\n ", " \r\n"])
FIELDS = st.lists(st.tuples(NAMES, COLONS, VALUES, ENDS).map("".join), max_size=4)
HEADS = st.tuples(LINES, FIELDS, FIELDS).map(
    lambda parts: f"{parts[0]}\r\n{''.join(parts[1])}Host: a\r\n{''.join(parts[2])}\r\n".encode()
)


def told(head: bytes) -> object:
    """
    All that is said of a head.
    """
    try:
        request = parse_head(head)
    except RemoteProtocolError as error:
        return error.status, error.reason
    said = {name: getattr(request, name) for name in request.__slots__}
    said["headers"] = [*request.headers]
    # What an application does to its own list is nobody else's affair.
    request.headers.append((b"cookie", b"foreign"))
    return said


def forget() -> None:
    """
    Be as a process that has seen no head.
    """
    request_module._repeated.clear()
    request_module._common.clear()


@settings(max_examples=150)
@given(heads=st.lists(HEADS, min_size=2, max_size=8))
def test_what_came_before_says_nothing(heads: list[bytes]) -> None:
    """
    A head gets the same verdict and the same fields behind others and itself as alone.
    """
    alone = []
    for head in heads:
        forget()
        alone.append(told(head))
    forget()
    assert [told(head) for head in [*heads, *heads]] == [*alone, *alone]
