"""
Client frames for tests, right and wrong, made without the code under test.
"""

from __future__ import annotations

from fairway.exceptions import RemoteProtocolError
from fairway.wire.websocket import Event, FrameDecoder, Note

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
KEY = b"\x37\xfa\x21\x3d"  # As in the examples of RFC 6455 section 5.7.


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    """
    The payload under a mask, byte by byte as RFC 6455 section 5.3 puts it.
    """
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def head(size: int, width: int | None = None) -> tuple[int, bytes]:
    """
    The seven length bits for a payload and the bytes of its extended length.

    ``width`` forces a form: 0, 2 or 8 bytes.
    """
    if width is None:
        width = 0 if size < 126 else 2 if size < 65536 else 8
    return {0: size, 2: 126, 8: 127}[width], size.to_bytes(width, "big") if width else b""


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bool = True,
    key: bytes = KEY,
    width: int | None = None,
) -> bytes:
    """
    One frame as a client sends it, or as a broken one does.
    """
    bits, extended = head(len(payload), width)
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if not mask:
        return bytes((first, bits)) + extended + payload
    return bytes((first, 0x80 | bits)) + extended + key + masked(payload, key)


def decoder(message_bytes_max: int = 1024, fragments_max: int = 16) -> FrameDecoder:
    """
    A decoder with small limits.
    """
    return FrameDecoder(message_bytes_max=message_bytes_max, fragments_max=fragments_max)


def plain(events: list[Event]) -> list[object]:
    """
    The events in a form that compares: an error as its close code, and no notes.
    """
    return [
        event.code if isinstance(event, RemoteProtocolError) else event
        for event in events
        if type(event) is not Note
    ]


def run(target: FrameDecoder, *chunks: bytes) -> list[Event]:
    """
    What a decoder tells of some reads, each looked at to its end.
    """
    told: list[Event] = []
    for chunk in chunks:
        events = target.receive_data(chunk)
        told += events
        while events and events[-1] is Note.MORE:
            events = target.receive_data(b"")
            told += events
    return told


def decode(*chunks: bytes, message_bytes_max: int = 1024, fragments_max: int = 16) -> list[object]:
    """
    What a fresh decoder makes of some reads.
    """
    target = decoder(message_bytes_max, fragments_max)
    return plain(run(target, *chunks))
