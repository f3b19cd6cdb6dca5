"""
Server-sent events, byte by byte where it matters.
"""

from __future__ import annotations

import pytest

from fairway.exceptions import LocalProtocolError
from fairway.wire.prepared import Prepared
from fairway.wire.sse import encode_event, encode_retry, event_plain
from tests.unit.wire.events import Event, EventReader


def test_fields() -> None:
    """An event is its fields, a line each, and an empty line."""
    expected = b"event: tick\nid: 7\ndata: a\ndata: b\n\n"
    assert encode_event("a\nb", event="tick", id="7") == expected


def test_empty_data_is_an_event() -> None:
    """A page gets an event whose data is empty, as a WebSocket gets an empty message."""
    assert EventReader().feed(encode_event("")) == [Event("")]


def test_an_id_alone() -> None:
    """Without data the reader remembers the id and the page gets nothing."""
    reader = EventReader()
    assert reader.feed(encode_event(id="9")) == []
    assert reader.last_event_id == "9"


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"])
@pytest.mark.parametrize("field", ["event", "id"])
def test_nothing_breaks_out_of_its_line(field: str, bad: str) -> None:
    """A name or id that would begin another field is refused."""
    with pytest.raises(LocalProtocolError, match=f"expected an {field} without CR"):
        encode_event("x", **{field: bad})


def test_no_time_runs_backwards() -> None:
    """A negative time to reconnect is refused."""
    with pytest.raises(LocalProtocolError, match="0 s or more"):
        encode_retry(-1)


def test_binary_is_base64_under_a_name_of_its_own() -> None:
    """Bytes, which an event cannot hold, are told from text by the event's name."""
    assert event_plain(Prepared(data=b"\xff\0")) == b"event: binary\ndata: /wA=\n\n"
