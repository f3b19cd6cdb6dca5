"""
A message that is encoded once per wire format, however many peers it goes to.

The formats live with their protocols: a format is simply the function that
encodes: ``websocket.websocket_frame``, ``deflate.Deflate``, ``sse.event_chunk``,
``sse.event_plain``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fairway import metrics

__all__ = ["BodyPart", "Format", "Prepared"]


class Prepared:
    """
    One message, text or binary, with its encodings so far.

    Shared by everybody it goes to, so nothing but ``encodings`` ever changes. May be
    made by any thread; ``encode`` belongs to the event-loop thread.

    Attributes:
        text: The message, if it is text.
        data: The message, if it is binary.
        event: Name of the event that it is to readers of event streams, or None.
        id: Its id for these, or None. WebSockets know neither.
        encodings: What has been encoded, by format; hot paths look here first.
    """

    __slots__ = ("data", "encodings", "event", "id", "text")

    def __init__(
        self,
        text: str | None = None,
        data: bytes | None = None,
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's own word
    ) -> None:
        if (text is None) == (data is None):
            raise TypeError("a message is either text or binary: pass exactly one of text and data")
        self.text = text
        self.data = data
        self.event = event
        self.id = id
        self.encodings: dict[Format, bytes] = {}

    def __repr__(self) -> str:
        kind, size = ("text", self.text) if self.text is not None else ("data", self.data)
        return f"<Prepared {kind} of {len(size or '')}>"

    def encode(self, format: Format) -> bytes:  # noqa: A002 - the wire format, as everywhere here
        """
        Give the bytes of this message in one format, encoding it at the first call.

        Raises:
            UnicodeEncodeError: The text holds lone surrogates, which UTF-8 cannot say.
        """
        encoded = self.encodings.get(format)
        if encoded is None:
            encoded = self.encodings[format] = format(self)
            metrics.prepared.value += 1
        return encoded


class BodyPart(Prepared):
    """
    A part of an HTTP body, which event streams get as it is; nothing for WebSockets.
    """

    __slots__ = ()


Format: TypeAlias = Callable[[Prepared], bytes]
