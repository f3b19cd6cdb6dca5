"""
Server-sent events: what a browser's ``EventSource`` reads, as bytes.

The grammar is that of the HTML standard, section 9.2.6. Nothing an application passes can
begin a field or an event of its own. The two formats for ``Prepared`` stand here too: an event
as it is, and as one chunk of HTTP/1.1. Who gets an event, and when, is not known here.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from fairway.exceptions import LocalProtocolError
from fairway.wire.prepared import BodyPart, Prepared
from fairway.wire.response import encode_chunk

__all__ = ["HEARTBEAT", "encode_event", "encode_retry", "event_chunk", "event_plain"]

HEARTBEAT: Final = b":\n\n"
"""
A comment: a reader ignores it, but proxies and kernels see that somebody is there.
"""

BINARY_EVENT: Final = "binary"
"""
Name of the events that carry binary messages, whose data is base64.
"""

# What the standard takes for the end of a line. str.splitlines() knows eight more.
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_BREAKING: Final = re.compile(r"[\r\n\0]")


def encode_event(
    data: str | None = None,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's own word
) -> bytes:
    """
    Encode one event.

    Args:
        data: The message; its lines may end in any way, and arrive ended by LF. Without it
            the reader is told nothing, but remembers the id.
        event: The name under which a page listens; None for ``message``.
        id: What the reader names as the last it has seen when it comes back; an empty one
            makes it forget. None keeps what it knows.

    Raises:
        LocalProtocolError: The name or id could break its line.
        UnicodeEncodeError: A text holds lone surrogates, which UTF-8 cannot say.
    """
    lines = []
    if event is not None:
        lines.append(f"event: {_one_line('event', event)}\n")
    if id is not None:
        lines.append(f"id: {_one_line('id', id)}\n")
    if data is not None:
        if "\n" in data or "\r" in data:
            lines += [f"data: {line}\n" for line in _LINE_END.split(data)]
        else:
            lines.append(f"data: {data}\n")
    lines.append("\n")
    return "".join(lines).encode()


def encode_retry(seconds: float) -> bytes:
    """
    Tell the reader how long to wait before it comes back; it rounds to milliseconds.

    Raises:
        LocalProtocolError: The time is negative.
    """
    if seconds < 0:
        raise LocalProtocolError(f"expected a retry time of 0 s or more, got {seconds!r}")
    return b"retry: %d\n\n" % round(seconds * 1000)


def event_plain(prepared: Prepared) -> bytes:
    """
    Encode a prepared message as an event; a format in the sense of ``Prepared``.
    """
    if prepared.text is not None:
        return encode_event(prepared.text, event=prepared.event, id=prepared.id)
    if isinstance(prepared, BodyPart):
        return prepared.data or b""
    data = base64.b64encode(prepared.data or b"").decode("ascii")
    return encode_event(data, event=BINARY_EVENT)


def event_chunk(prepared: Prepared) -> bytes:
    """
    Encode a prepared message as one chunk of a chunked body that holds the event; a format.
    """
    return encode_chunk(event_plain(prepared))


def _one_line(field: str, value: str) -> str:
    """
    Refuse what would end its line, or what readers throw away (an id with NUL).
    """
    if _BREAKING.search(value):
        raise LocalProtocolError(f"expected an {field} without CR, LF and NUL, got {value!r}")
    return value
