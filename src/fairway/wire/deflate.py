"""
Compressed messages (permessage-deflate, RFC 7692): what is agreed, sent and read.

Each message is compressed for itself, in both directions: so one frame serves all
who agreed to the same window, and nothing of zlib exists between two messages.
Lists of extensions are read in ``handshake``, frames in ``websocket``.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from fairway import metrics
from fairway.exceptions import RemoteProtocolError
from fairway.wire.codes import INVALID_PAYLOAD
from fairway.wire.websocket import (
    OP_BINARY,
    OP_TEXT,
    Event,
    FrameDecoder,
    decode_text,
    encode_frame,
    too_big,
    websocket_frame,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairway.wire.handshake import Extension
    from fairway.wire.prepared import Prepared

__all__ = ["Agreement", "Deflate", "InflatingDecoder", "deflate_of", "negotiate"]

NAME: Final = "permessage-deflate"
_FIN: Final = 0x80
_CONTROL: Final = 0x08
_RSV1: Final = 0x40

# A window of 4 KiB finds nearly all that repeats in one message, and makes a compressor of 29 KiB
# for the moment instead of 256 (experiments/deflate_broadcast.py).
_WINDOW_BITS: Final = 12
_MEMORY_LEVEL: Final = 5
_LEVEL: Final = 6

_WINDOWS: Final = {str(bits): bits for bits in range(8, 16)}
_WINDOW_BITS_MIN: Final = 9  # zlib knows no smaller one without a header.
_FLAGS: Final = ("server_no_context_takeover", "client_no_context_takeover")
_PARAMETERS: Final = frozenset((*_FLAGS, "server_max_window_bits", "client_max_window_bits"))

# What flushing ends with and RFC 7692 takes off, and an empty block that is marked as the last.
_TAIL: Final = b"\x00\x00\xff\xff"
_LAST: Final = b"\x01\x00\x00\xff\xff"
_ENDS_MAX: Final = 16


class Agreement(NamedTuple):
    """
    What was agreed with one client.

    Attributes:
        window_bits: The window that its decompressor has, as a power of two.
        answer: The field of the handshake's answer.
    """

    window_bits: int
    answer: bytes


def negotiate(offers: Sequence[Extension]) -> Agreement | None:
    """
    Take up the first offer that can be kept (RFC 7692 section 7.1), None if there is none.
    """
    for offer in offers:
        if offer.name == NAME:
            agreement = _agree(offer.parameters)
            if agreement is not None:
                return agreement
    return None


def _agree(parameters: Sequence[tuple[str, str | None]]) -> Agreement | None:
    """
    Judge one offer: a parameter that is unknown, doubled or has a wrong value declines it.
    """
    asked = dict(parameters)
    if len(asked) != len(parameters) or not asked.keys() <= _PARAMETERS:
        return None
    if any(asked.get(flag) is not None for flag in _FLAGS):
        return None
    answer = [NAME, *_FLAGS]
    server = client = _WINDOW_BITS
    if "server_max_window_bits" in asked:
        server = min(server, _WINDOWS.get(asked["server_max_window_bits"] or "", 0))
        if server < _WINDOW_BITS_MIN:
            return None
        # Said only to who asked: some clients know an answer without it, and no other.
        answer.append(f"server_max_window_bits={server}")
    if "client_max_window_bits" in asked:
        value = asked["client_max_window_bits"]
        if value is not None:
            client = min(client, _WINDOWS.get(value, 0))
        if not client:
            return None
        answer.append(f"client_max_window_bits={client}")
    return Agreement(server, "; ".join(answer).encode())


class Deflate:
    """
    How messages leave for peers of one window: compressed where that makes them smaller.

    Each instance is a format in the sense of ``Prepared``, and costs nothing between messages.
    Event-loop thread only; compressing holds the loop up, which is what ``bytes_max`` bounds.

    Args:
        window_bits: The window, as a power of two.
        bytes_min: Smaller messages go as they are.
        bytes_max: Larger ones too.
    """

    __slots__ = ("_bytes_max", "_bytes_min", "_window_bits")

    def __init__(self, window_bits: int, bytes_min: int, bytes_max: int) -> None:
        self._window_bits = window_bits
        self._bytes_min = bytes_min
        self._bytes_max = bytes_max

    def __call__(self, prepared: Prepared) -> bytes:
        """
        Encode a prepared message as one frame, the plain one if that is not larger.
        """
        text = prepared.text
        if text is None:
            frame = self._compress(OP_BINARY, prepared.data or b"")
        elif len(text) <= self._bytes_max:
            frame = self._compress(OP_TEXT, text.encode())
        else:
            frame = None
        return prepared.encode(websocket_frame) if frame is None else frame

    def encode(self, opcode: int, payload: bytes) -> bytes:
        """
        Encode a message that goes to one peer.
        """
        return self._compress(opcode, payload) or encode_frame(opcode, payload)

    def _compress(self, opcode: int, payload: bytes) -> bytes | None:
        """
        Encode a message as a compressed frame, None if it had better go as it is.
        """
        size = len(payload)
        if not self._bytes_min <= size <= self._bytes_max:
            return None
        # Not kept: one that exists costs its memory, and resetting it nearly as much as a new one.
        stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, -self._window_bits, _MEMORY_LEVEL)
        body = (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]
        saved = size - len(body)
        if saved <= 0:
            return None
        metrics.deflated.value += 1
        metrics.deflated_saved_bytes.value += saved
        return encode_frame(opcode | _RSV1, body)


@lru_cache(maxsize=64)
def deflate_of(window_bits: int, bytes_min: int, bytes_max: int) -> Deflate:
    """
    Give the one instance for these arguments, so that all who share it share its frames.
    """
    return Deflate(window_bits, bytes_min, bytes_max)


class Inflater:
    """
    The compressed message that a peer is sending; made for it, and gone with it.

    Attributes:
        wire_bytes: What has come of it, compressed.
    """

    __slots__ = ("_end", "_ends", "_stream", "wire_bytes")

    def __init__(self) -> None:
        # The largest window whatever was agreed: who keeps to less is understood all the same.
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ends = 0
        self._end = b""  # The last bytes that came.
        self.wire_bytes = 0

    def feed(self, payload: bytes | bytearray, bytes_max: int, *, last: bool) -> bytes | None:
        """
        Inflate the next fragment, and no further than one byte over a limit.

        Args:
            payload: What the frame holds.
            bytes_max: What it may inflate to.
            last: Whether the message is complete with it.

        Returns:
            What it inflates to; None if that is more than it may be.

        Raises:
            RemoteProtocolError: It is not deflated, or cut short.
        """
        self.wire_bytes += len(payload)
        self._end = (self._end + payload[-len(_TAIL) :])[-len(_TAIL) :]
        parts = []
        data: bytes | bytearray = payload
        try:
            while data:
                if self._stream.eof:
                    self._begin_again()
                part = self._stream.decompress(data, bytes_max + 1)
                bytes_max -= len(part)
                if bytes_max < 0:
                    return None
                parts.append(part)
                data = self._stream.unused_data
            if last:
                self._finish()
        except zlib.error:
            raise _malformed() from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _begin_again(self) -> None:
        """
        Go on behind a block that was marked as the last, which some senders do once a message.
        """
        self._ends += 1
        if self._ends > _ENDS_MAX:
            # Each takes a new decompressor and a copy of all that follows.
            raise _malformed()
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)

    def _finish(self) -> None:
        """
        Put back what the sender took off, and see that the message is whole.

        Behind a whole message comes a block of its own, and that is then the last thing read.
        A sender that forgot to take its flush's end off is understood.
        """
        stream = self._stream
        if stream.eof or not self.wire_bytes:
            return
        end = _LAST if self._end == _TAIL else _TAIL + _LAST
        more = stream.decompress(end, 1)
        if more or stream.unused_data or not self._stream.eof:
            raise _malformed()


class InflatingDecoder(FrameDecoder):
    """
    A decoder for a peer with which compression was agreed; it need not compress.

    What one call inflates is bounded, since a kilobyte may hold a megabyte: the rest waits
    for the next call, and ``Note.MORE`` says so.
    """

    __slots__ = ("_inflater", "_wire_bytes_max", "inflated_bytes")

    def __init__(self, *, message_bytes_max: int, fragments_max: int) -> None:
        super().__init__(message_bytes_max=message_bytes_max, fragments_max=fragments_max)
        self._inflater: Inflater | None = None
        self.inflated_bytes = 0
        # What cannot be compressed grows by that; the limit is on what comes out.
        self._wire_bytes_max = message_bytes_max + message_bytes_max // 8 + 64

    def receive_data(self, data: bytes) -> list[Event]:
        """
        See ``FrameDecoder``.
        """
        self.inflated_bytes = 0
        return super().receive_data(data)

    def _check_first(self, first: int, second: int) -> None:
        # On other frames the bit stays an error (RFC 7692 section 6).
        if first & 0x0F in (OP_TEXT, OP_BINARY):
            first &= ~_RSV1
        super()._check_first(first, second)

    def _check_room(self, first: int, length: int) -> None:
        inflater = self._inflater
        if first & _CONTROL or not (first & _RSV1 or inflater is not None):
            super()._check_room(first, length)
            return
        self._check_fragments()
        if length + (0 if inflater is None else inflater.wire_bytes) > self._wire_bytes_max:
            raise too_big(self.message_bytes_max)

    def _take(self, first: int, payload: bytes | bytearray, events: list[Event]) -> None:
        if first & _CONTROL or not (first & _RSV1 or self._inflater is not None):
            super()._take(first, payload, events)
            return
        if self._inflater is None:
            self._inflater = Inflater()
        held = 0 if self._message is None else len(self._message)
        room, last = self.message_bytes_max - held, bool(first & _FIN)
        inflated = self._inflater.feed(payload, room, last=last)
        if inflated is None:
            raise too_big(self.message_bytes_max)
        self.inflated_bytes += len(inflated)
        if last:
            self._inflater = None
        if last and self._message is None:
            events.append(decode_text(inflated) if first & 0x0F == OP_TEXT else inflated)
        else:
            super()._take(first & ~_RSV1, inflated, events)

    def _release(self) -> None:
        super()._release()
        self._inflater = None


def _malformed() -> RemoteProtocolError:
    return RemoteProtocolError("message is not deflated", code=INVALID_PAYLOAD)
