"""
The frames of a link, as bytes and back.
"""

from __future__ import annotations

import pytest

from fairway.exceptions import MessageTooLarge
from fairway.layers.brokers.ipc import frames
from fairway.layers.brokers.ipc.frames import Decoder, FrameError, Message


def test_a_message_is_length_kind_subject_and_payload() -> None:
    """
    The layout is part of what processes of different releases agree on.
    """
    assert frames.message("ab", b"xyz") == b"\x00\x00\x00\x08\x02\x00\x02abxyz"
    assert frames.hello("0" * 12) == b"\x00\x00\x00\x0e\x01\x01" + b"0" * 12
    assert frames.BEAT == b"\x00\x00\x00\x01\x09"


def test_frames_come_out_when_they_are_complete() -> None:
    """
    A frame that arrives byte by byte comes out with its last byte, and the next begins after it.
    """
    decoder = Decoder()
    encoded = frames.message("a", b"1") + frames.BYE
    got = [decoder.feed(encoded[place : place + 1]) for place in range(len(encoded))]
    assert [frame for some in got for frame in some] == [Message("a", b"1"), frames.Bye()]
    assert got[8] == [Message("a", b"1")]


def test_what_was_fed_may_be_overwritten() -> None:
    """
    The buffer that all links share is used again at once.
    """
    buffer = bytearray(frames.message("subject", b"payload") + b"\x00\x00")
    decoder = Decoder()
    got = decoder.feed(memoryview(buffer))
    buffer[:] = b"\xff" * len(buffer)
    assert got == [Message("subject", b"payload")]
    assert decoder.feed(b"\x00\x01\x09") == [frames.Beat()]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x00",  # Nothing in it.
        b"\xff\xff\xff\xff\x02",  # Larger than any.
        b"\x00\x00\x00\x01\x00",  # No such kind.
        b"\x00\x00\x00\x01\x0b",
        b"\x00\x00\x00\x01\x02",  # A message without a subject's size,
        b"\x00\x00\x00\x03\x02\x00\x01",  # with a subject that is not there,
        b"\x00\x00\x00\x04\x02\x00\x01\xff",  # with one that is no text.
        b"\x00\x00\x00\x02\x09\x00",  # A beat with content.
        b"\x00\x00\x00\x02\x06\x00",  # A question without its whole number.
        b"\x00\x00\x00\x01\x01",  # A greeting that says nothing,
        b"\x00\x00\x00\x03\x01\x01\xff",  # or no text.
        b"\x00\x00\x00\x02\x03\xff",  # An interest in no text.
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    """
    Whatever none of our processes sends is a FrameError, once it is there.
    """
    with pytest.raises(FrameError):
        Decoder().feed(data)


def test_a_message_too_large_for_a_frame_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What the other end would not believe is not sent.
    """
    with pytest.raises(MessageTooLarge, match="65535"):
        frames.message("x" * 65_536, b"")
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", 100)
    frames.message("x", b"x" * 96)
    with pytest.raises(MessageTooLarge, match="at most 100 in all, got 1 and 101"):
        frames.message("x", b"x" * 97)


def test_messages_are_told_from_other_frames() -> None:
    """
    Only messages count when frames are thrown away.
    """
    assert frames.is_message(frames.message("", b""))
    assert not frames.is_message(frames.interest("a"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("0123456789ab", True), ("0123456789aB", False), ("../../../etc", False), ("0" * 11, False)],
)
def test_a_name_is_twelve_hexadecimal_digits(name: str, expected: bool) -> None:
    """
    Nothing else becomes part of a path.
    """
    assert frames.is_name(name) is expected
