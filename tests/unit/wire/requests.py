"""
Requests for tests, and what a decoder makes of them in a form that compares.
"""

from __future__ import annotations

from fairway.exceptions import RemoteProtocolError
from fairway.wire.http1 import END, Event, Request, RequestDecoder


def head(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes | None = b"a") -> bytes:
    """
    A complete head: a request line, Host unless None, and fields.
    """
    hosts = () if host is None else (b"Host: " + host,)
    return b"\r\n".join((line, *hosts, *fields)) + b"\r\n\r\n"


def post(*fields: bytes) -> bytes:
    """
    The head of a POST.
    """
    return head(*fields, line=b"POST / HTTP/1.1")


def decoder(head_bytes_max: int = 4096, head_fields_max: int = 16) -> RequestDecoder:
    """
    A decoder with small limits.
    """
    return RequestDecoder(head_bytes_max=head_bytes_max, head_fields_max=head_fields_max)


def run(target: RequestDecoder, *chunks: bytes) -> list[Event]:
    """
    Everything a decoder tells of some reads, asked again as long as something is pending.
    """
    events: list[Event] = []
    for chunk in chunks:
        events += target.receive_data(chunk)
        while target.has_pending:
            events += target.receive_data(b"")
    return events


def decode(*chunks: bytes, head_bytes_max: int = 4096, head_fields_max: int = 16) -> list[Event]:
    """
    What a fresh decoder makes of some reads.
    """
    return run(decoder(head_bytes_max, head_fields_max), *chunks)


def plain(events: list[Event]) -> list[object]:
    """
    Events that compare: requests as their fields, errors as status and reason, body parts joined.
    """
    result: list[object] = []
    for event in events:
        if isinstance(event, Request):
            result.append(tuple(getattr(event, name) for name in Request.__slots__))
        elif isinstance(event, RemoteProtocolError):
            result.append((event.status, event.reason))
        elif isinstance(event, bytes) and result and isinstance(result[-1], bytes):
            result[-1] += event
        else:
            result.append(event)
    return result


def request(*chunks: bytes) -> Request:
    """
    The one request without a body that some reads hold.
    """
    (event,) = decode(*chunks)
    assert isinstance(event, Request)
    assert event.complete
    return event


def refusal(*chunks: bytes, head_bytes_max: int = 4096, head_fields_max: int = 16) -> int:
    """
    The status with which some reads are refused before any request is told.
    """
    (event,) = decode(*chunks, head_bytes_max=head_bytes_max, head_fields_max=head_fields_max)
    assert isinstance(event, RemoteProtocolError)
    return event.status


def body(*chunks: bytes) -> bytes:
    """
    The whole body of the one request that some reads hold.
    """
    first, *parts, last = decode(*chunks)
    assert isinstance(first, Request)
    assert not first.complete
    assert last is END
    assert all(isinstance(part, bytes) for part in parts)
    return b"".join(part for part in parts if isinstance(part, bytes))


def broken_body(*chunks: bytes) -> int:
    """
    The status with which a body is refused after its request was told.
    """
    first, *_, last = decode(*chunks)
    assert isinstance(first, Request)
    assert isinstance(last, RemoteProtocolError)
    return last.status
