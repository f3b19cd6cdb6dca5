"""
Prepared messages: encoded once per format, counted, never changed.
"""

from __future__ import annotations

import pytest

from fairway import metrics
from fairway.wire.prepared import Prepared
from fairway.wire.websocket import encode_binary, encode_text, websocket_frame


def test_a_text_is_encoded_once_per_format() -> None:
    """
    The second call gives the very bytes of the first, and one encoding is counted.
    """
    before = metrics.prepared.value
    prepared = Prepared(text="hello")
    assert prepared.encode(websocket_frame) == encode_text("hello")
    assert prepared.encode(websocket_frame) is prepared.encodings[websocket_frame]
    assert metrics.prepared.value == before + 1


def test_each_format_has_its_own_encoding() -> None:
    """
    Formats do not see each other.
    """

    def event_stream(prepared: Prepared) -> bytes:
        return b"data: " + (prepared.text or "").encode() + b"\n\n"

    prepared = Prepared(text="hello")
    assert prepared.encode(event_stream) == b"data: hello\n\n"
    assert prepared.encode(websocket_frame) == encode_text("hello")
    assert len(prepared.encodings) == 2


@pytest.mark.parametrize("data", [b"", b"\x00\xff"])
def test_binary_stays_binary(data: bytes) -> None:
    """
    An empty binary message is a message too.
    """
    assert Prepared(data=data).encode(websocket_frame) == encode_binary(data)


def test_an_empty_text_is_a_message() -> None:
    """
    Empty is not absent.
    """
    assert Prepared(text="").encode(websocket_frame) == encode_text("")


def test_a_message_is_one_of_text_and_binary() -> None:
    """
    Neither and both are mistakes of the caller.
    """
    with pytest.raises(TypeError, match="exactly one"):
        Prepared()
    with pytest.raises(TypeError, match="exactly one"):
        Prepared(text="", data=b"")


def test_the_repr_tells_kind_and_size_but_not_the_words() -> None:
    """
    What people write to each other does not get into logs by accident.
    """
    assert repr(Prepared(text="secret")) == "<Prepared text of 6>"
    assert repr(Prepared(data=b"")) == "<Prepared data of 0>"
