"""
Event streams under random contents and cuts, against a reader written from the standard.
"""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given, strategies as st

from fairway.wire.prepared import Prepared
from fairway.wire.sse import HEARTBEAT, encode_event, encode_retry, event_chunk, event_plain
from tests.unit.wire.events import Event, EventReader

# The characters with a meaning, and neighbours that Python takes for line ends.
text = st.text(
    st.one_of(
        st.sampled_from("\r\n: \0\ufeff\x0b\x0c\x1c\x85\u2028adeintv"),
        st.characters(exclude_categories=["Cs"]),
    )
)
line = text.map(lambda value: re.sub("[\r\n\0]", "", value))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """
    Cut bytes into pieces.
    """
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@given(
    st.lists(st.tuples(text, st.none() | line, st.none() | line), max_size=6),
    st.lists(st.integers(0, 10_000), max_size=20),
)
def test_what_is_sent_arrives(
    messages: list[tuple[str, str | None, str | None]], cuts: list[int]
) -> None:
    """Data, names and ids arrive as they were, but for the ends of lines, however it is cut."""
    stream = HEARTBEAT + b"".join(
        encode_event(data, event=event, id=id_) + HEARTBEAT for data, event, id_ in messages
    )
    reader = EventReader()
    for piece in cut(stream, cuts):
        reader.feed(piece)
    seen = ""
    expected = []
    for data, event, id_ in messages:
        seen = seen if id_ is None else id_
        expected.append(Event(re.sub("\r\n|\r", "\n", data), event or "message", seen))
    assert reader.events == expected
    assert reader.last_event_id == seen
    assert reader.comments == len(messages) + 1


@given(st.integers(0, 10**9))
def test_retry_is_in_milliseconds(milliseconds: int) -> None:
    """A reader is told the time to the millisecond, and no event."""
    reader = EventReader()
    assert reader.feed(encode_retry(milliseconds / 1000)) == []
    assert reader.retry == milliseconds


@given(text, st.none() | line, st.none() | line)
def test_a_chunk_holds_the_event(data: str, event: str | None, id_: str | None) -> None:
    """The two formats differ by the chunk's frame alone."""
    prepared = Prepared(text=data, event=event, id=id_)
    plain, chunk = event_plain(prepared), event_chunk(prepared)
    assert chunk == b"%x\r\n%b\r\n" % (len(plain), plain)
