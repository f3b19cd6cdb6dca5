"""
Envelopes: what kind a message is of, who reads it how, and how it travels.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

from fairway.layers.codec import (
    LIFETIME_MAX,
    Envelope,
    Kind,
    encode,
    pack,
    pack_event,
    sort,
    unpack,
)
from fairway.wire.websocket import websocket_frame


@pytest.mark.parametrize(
    ("message", "kind", "payload"),
    [
        ({"type": "websocket.send", "text": "é"}, Kind.TEXT, "é".encode()),
        ({"type": "websocket.send", "text": "x", "bytes": None}, Kind.TEXT, b"x"),
        ({"type": "websocket.send", "text": ""}, Kind.TEXT, b""),
        ({"type": "websocket.send", "text": mark_safe("<b>")}, Kind.TEXT, b"<b>"),
        ({"type": "websocket.send", "text": lazystr("later")}, Kind.TEXT, b"later"),
        ({"type": "websocket.send", "bytes": b"\xff"}, Kind.BINARY, b"\xff"),
        ({"type": "http.response.body", "body": b"x", "more_body": True}, Kind.BODY, b"x"),
        ({"type": "websocket.send", "bytes": bytearray(b"x"), "text": None}, Kind.BINARY, b"x"),
    ],
)
def test_a_websocket_send_is_for_the_socket(
    message: dict[str, Any], kind: Kind, payload: bytes
) -> None:
    """
    An ASGI send event is of a direct kind, its content ready for the socket.
    """
    assert sort(message) == (kind, payload)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "chat.message", "text": "x"},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": "x", "bytes": b"x"},
        {"type": "websocket.send", "text": 1},
        {"type": "websocket.send", "text": "x", "extra": 1},
        {"type": "websocket.receive", "text": "x"},
        {"type": "http.response.body", "body": b"the last"},
        {"text": "x"},
    ],
)
def test_anything_else_is_for_a_handler(message: dict[str, Any]) -> None:
    """
    A message that says more than an ASGI send event reaches a handler whole.
    """
    assert sort(message) == (Kind.HANDLER, encode(message))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({}, (1000, "")),
        ({"code": None, "reason": None}, (1000, "")),
        ({"code": 4001, "reason": "bye"}, (4001, "bye")),
    ],
)
def test_a_websocket_close_is_for_the_socket(
    event: dict[str, Any], expected: tuple[int, str]
) -> None:
    """
    A close event keeps code and reason.
    """
    message = {"type": "websocket.close", **event}
    kind, payload = sort(message)
    envelope = Envelope(kind, payload, expires=0)
    assert kind is Kind.CLOSE
    assert envelope.closing() == expected
    assert envelope.message() == message


@pytest.mark.parametrize(
    "event",
    [
        {"code": 1006},
        {"code": 999},
        {"code": "4000"},
        {"code": True},
        {"reason": 1},
        {"reason": "new\nline"},
    ],
)
def test_a_close_that_cannot_be_sent_is_refused_at_once(event: dict[str, Any]) -> None:
    """
    A code or reason that no close frame carries is the sender's mistake.
    """
    with pytest.raises(ValueError, match="clos"):
        sort({"type": "websocket.close", **event})


@pytest.mark.parametrize(
    ("kind", "payload", "message"),
    [
        (Kind.TEXT, "é".encode(), {"type": "websocket.send", "text": "é"}),
        (Kind.JSON, b"[1]", {"type": "websocket.send", "text": "[1]"}),
        (Kind.BINARY, b"\xff", {"type": "websocket.send", "bytes": b"\xff"}),
        (Kind.HANDLER, encode({"type": "x", "n": [1]}), {"type": "x", "n": [1]}),
        (Kind.BODY, b"x", {"type": "http.response.body", "body": b"x", "more_body": True}),
        (
            Kind.EVENT,
            pack_event("[1]", "tick", None, is_json=True),
            {
                "type": "websocket.send",
                "text": "[1]",
                "fairway.event": ("tick", None),
                "fairway.json": True,
            },
        ),
    ],
)
def test_every_kind_reads_as_a_dict(kind: Kind, payload: bytes, message: dict[str, Any]) -> None:
    """
    A consumer without a direct path gets the event that says the same, a new one each time.
    """
    envelope = Envelope(kind, payload, expires=0)
    envelope.verify()
    first, second, third = (envelope.message() for _ in range(3))
    assert first == second == third == message
    assert first is not second is not third


def test_the_prepared_message_is_made_once() -> None:
    """
    All members of a process share one prepared message, and each format's one encoding.
    """
    for kind, content in ((Kind.TEXT, "text"), (Kind.JSON, "text"), (Kind.BINARY, "data")):
        envelope = Envelope(kind, b"{}", expires=0)
        prepared = envelope.prepared
        assert envelope.prepared is prepared
        assert prepared.encode(websocket_frame) is prepared.encode(websocket_frame)
        assert getattr(prepared, content) in {"{}", b"{}"}


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Kind.TEXT, b"\xff"),
        (Kind.JSON, b"\xc3"),
        (Kind.HANDLER, b"\xc1"),
        (Kind.CLOSE, b"\x80x"),
        (Kind.CLOSE, encode({"code": 1005000})),
        (Kind.EVENT, b"\xc1"),
        (Kind.EVENT, msgspec.msgpack.encode(("text", "two\nlines", None, False))),
        (Kind.JOIN, b"room"),
        (Kind.LEAVE, b"room"),
    ],
)
def test_a_payload_of_another_kind_is_refused(kind: Kind, payload: bytes) -> None:
    """
    What consumers will read is read once before, so that it cannot fail there.
    """
    with pytest.raises(ValueError, match=r"."):
        Envelope(kind, payload, expires=0).verify()


def test_an_envelope_travels_whole() -> None:
    """
    All fields arrive; the time left is counted from the receiver's present.
    """
    sent = Envelope(
        Kind.TEXT,
        b"hello",
        expires=160.0,
        sender="a1.2",
        sequence=7,
        channel="specific.b!1",
        exclude="specific.a!2",
    )
    got = unpack(pack(sent, now=100.0), now=5000.0)
    for name in ("kind", "payload", "sender", "sequence", "channel", "exclude"):
        assert getattr(got, name) == getattr(sent, name)
    assert got.expires == 5060.0
    assert repr(got) == "<Envelope TEXT of 5 bytes, 7 from a1.2>"


@pytest.mark.parametrize(("lifetime", "expected"), [(1e300, LIFETIME_MAX), (-5.0, 0.0)])
def test_a_lifetime_from_elsewhere_has_bounds(lifetime: float, expected: float) -> None:
    """
    No sender makes a message live for ever.
    """
    data = msgspec.msgpack.encode((1, "a", 1, lifetime, None, None, b""))
    assert unpack(data, now=10.0).expires == 10.0 + expected


@pytest.mark.parametrize(
    "fields",
    [
        (9, "a", 1, 1.0, None, None, b""),
        (-1, "a", 1, 1.0, None, None, b""),
        ("1", "a", 1, 1.0, None, None, b""),
        (1, None, 1, 1.0, None, None, b""),
        (1, "a", "1", 1.0, None, None, b""),
        (1, "a", 1, "1", None, None, b""),
        (1, "a", 1, 1.0, 5, None, b""),
        (1, "a", 1, 1.0, None, None, "text"),
        (1, "a", 1, 1.0, None, None),
        {"kind": 1},
    ],
)
def test_other_bytes_are_no_envelope(fields: Any) -> None:
    """
    Every field's type is checked on arrival.
    """
    with pytest.raises(ValueError, match="not an envelope"):
        unpack(msgspec.msgpack.encode(fields), now=0.0)
