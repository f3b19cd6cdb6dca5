"""
What goes over a link between two processes: frames, and bytes to frames and back.

A frame is its length in four bytes, its kind in one, and its content. The dialler of a link
sends Hello, then Message and Acknowledge; the acceptor sends Interest and Disinterest, Complete
after the first lot of them, and Ask. Either sends Beat and Bye. Pure: nothing here knows a
socket, a clock or what a message says, and what arrives is believed only within its bounds.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple, TypeAlias

from fairway.exceptions import MessageTooLarge

__all__ = [
    "BEAT",
    "BYE",
    "COMPLETE",
    "FRAME_BYTES_MAX",
    "GAP",
    "VERSION",
    "Acknowledge",
    "Ask",
    "Beat",
    "Bye",
    "Complete",
    "Decoder",
    "Disinterest",
    "Frame",
    "FrameError",
    "Gap",
    "Hello",
    "Interest",
    "Message",
    "acknowledge",
    "ask",
    "disinterest",
    "hello",
    "interest",
    "is_message",
    "is_name",
    "message",
]

VERSION = 1
"""
The language spoken; a process that says another one in its Hello is not talked to.
"""

FRAME_BYTES_MAX = 268_435_456
"""
The largest frame that is made or believed. Memory is taken only as bytes arrive.
"""

SUBJECT_BYTES_MAX = 65_535

_HEX = frozenset("0123456789abcdef")


class FrameError(ValueError):
    """
    Bytes that no process of ours sends.
    """


class Hello(NamedTuple):
    """
    The first frame of the dialler: what it speaks and the name of its own entry.
    """

    version: int
    name: str


class Message(NamedTuple):
    """
    What was published to a subject.
    """

    subject: str
    payload: bytes


class Interest(NamedTuple):
    """
    The acceptor wants the messages of a subject from now on.
    """

    subject: str


class Disinterest(NamedTuple):
    """
    The acceptor wants no more of them.
    """

    subject: str


class Complete(NamedTuple):
    """
    The acceptor has told all its interests; from here on it tells changes.
    """


class Ask(NamedTuple):
    """
    The acceptor wants to know when everything before this has been heeded.
    """

    number: int


class Acknowledge(NamedTuple):
    """
    The dialler has heeded everything before Ask of that number, and of all smaller ones.
    """

    number: int


class Gap(NamedTuple):
    """
    The dialler lost messages before this point, nobody knows how many.
    """


class Beat(NamedTuple):
    """
    A sign of life.
    """


class Bye(NamedTuple):
    """
    The sender leaves for good; there is no point in dialling it again.
    """


Frame: TypeAlias = (
    Hello | Message | Interest | Disinterest | Complete | Ask | Acknowledge | Gap | Beat | Bye
)

_HEAD = Struct("!IB")
_MESSAGE_HEAD = Struct("!IBH")
_LENGTH = Struct("!I")
_SUBJECT_SIZE = Struct("!H")
_NUMBER = Struct("!Q")

# The kinds, as they stand in the fifth byte.
_HELLO, _MESSAGE, _INTEREST, _DISINTEREST, _COMPLETE = 1, 2, 3, 4, 5
_ASK, _ACKNOWLEDGE, _GAP, _BEAT, _BYE = 6, 7, 8, 9, 10


def hello(name: str) -> bytes:
    """
    Encode Hello in the version spoken here.
    """
    return _frame(_HELLO, bytes([VERSION]) + name.encode())


def message(subject: str, payload: bytes) -> bytes:
    """
    Encode Message. Hot path: once per publish that another process is interested in.

    Raises:
        MessageTooLarge: Subject or payload are larger than a frame can say.
    """
    encoded = subject.encode()
    size = 3 + len(encoded) + len(payload)
    if len(encoded) > SUBJECT_BYTES_MAX or size > FRAME_BYTES_MAX:
        raise MessageTooLarge(
            f"expected a subject of at most {SUBJECT_BYTES_MAX} bytes and at most "
            f"{FRAME_BYTES_MAX} in all, got {len(encoded)} and {size}"
        )
    return b"".join((_MESSAGE_HEAD.pack(size, _MESSAGE, len(encoded)), encoded, payload))


def interest(subject: str) -> bytes:
    """
    Encode Interest.
    """
    return _frame(_INTEREST, subject.encode())


def disinterest(subject: str) -> bytes:
    """
    Encode Disinterest.
    """
    return _frame(_DISINTEREST, subject.encode())


def ask(number: int) -> bytes:
    """
    Encode Ask.
    """
    return _frame(_ASK, _NUMBER.pack(number))


def acknowledge(number: int) -> bytes:
    """
    Encode Acknowledge.
    """
    return _frame(_ACKNOWLEDGE, _NUMBER.pack(number))


def is_name(text: str) -> bool:
    """
    Whether a Hello's name may be one of an entry.
    """
    return len(text) == 12 and not set(text) - _HEX


def is_message(frame: bytes) -> bool:
    """
    Whether an encoded frame is a Message.
    """
    return frame[4] == _MESSAGE


def _frame(kind: int, content: bytes = b"") -> bytes:
    return _HEAD.pack(1 + len(content), kind) + content


COMPLETE = _frame(_COMPLETE)
GAP = _frame(_GAP)
BEAT = _frame(_BEAT)
BYE = _frame(_BYE)


class Decoder:
    """
    Turns what arrives, however it is cut, into frames.

    Holds at most one incomplete frame.
    """

    __slots__ = ("_needed", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = 0

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """
        Take bytes and give the frames that are complete by them. Keeps no reference to ``data``.

        Raises:
            FrameError: They are none of ours. The decoder is of no use afterwards.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data, self._rest = self._rest, bytearray()  # type: ignore[assignment]
        with memoryview(data) as view:
            return self._split(view)

    def _split(self, view: memoryview) -> list[Frame]:
        """
        Give the complete frames, and keep what follows them.
        """
        frames: list[Frame] = []
        start, size = 0, len(view)
        while size - start >= 4:
            (length,) = _LENGTH.unpack_from(view, start)
            if not 0 < length <= FRAME_BYTES_MAX:
                raise FrameError(f"a frame of {length} bytes")
            end = start + 4 + length
            if end > size:
                break
            frames.append(_decode(view, start + 4, end))
            start = end
        if start < size:
            self._rest += view[start:]
            self._needed = end - start if size - start >= 4 else 4
        return frames


def _decode(view: memoryview, start: int, end: int) -> Frame:
    """
    Give the frame whose kind is at ``start``. Hot path: once per message and process.
    """
    kind = view[start]
    if kind == _MESSAGE:
        if end - start < 3:
            raise FrameError("a message without a subject")
        (size,) = _SUBJECT_SIZE.unpack_from(view, start + 1)
        split = start + 3 + size
        if split > end:
            raise FrameError("a subject that goes beyond its frame")
        return Message(_text(view[start + 3 : split]), bytes(view[split:end]))
    return _decode_control(kind, bytes(view[start + 1 : end]))


def _decode_control(kind: int, content: bytes) -> Frame:
    """
    Give the frame of a kind that is not Message.
    """
    if kind in _OF_SUBJECT:
        return _OF_SUBJECT[kind](_text(content))
    if kind in _OF_NUMBER and len(content) == _NUMBER.size:
        return _OF_NUMBER[kind](*_NUMBER.unpack(content))
    if kind in _EMPTY and not content:
        return _EMPTY[kind]
    if kind == _HELLO and content:
        return Hello(content[0], _text(content[1:]))
    raise FrameError(f"a frame of kind {kind} with {len(content)} bytes")


def _text(data: bytes | memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise FrameError(f"text that is not UTF-8: {error.reason}") from None


_OF_SUBJECT: dict[int, type[Interest | Disinterest]] = {
    _INTEREST: Interest,
    _DISINTEREST: Disinterest,
}
_OF_NUMBER: dict[int, type[Ask | Acknowledge]] = {_ASK: Ask, _ACKNOWLEDGE: Acknowledge}
_EMPTY: dict[int, Frame] = {
    _COMPLETE: Complete(),
    _GAP: Gap(),
    _BEAT: Beat(),
    _BYE: Bye(),
}
