"""
Messages on their way: the envelope, and its form as bytes between processes.

An envelope is what hubs hand to inboxes and consumers: one object for all
members, its content encoded once by the sender. What may be in the content is
in ``values``; who gets an envelope is in ``hub``. No broker and no clock here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from fairway.exceptions import LocalProtocolError
from fairway.layers.values import decode, encode
from fairway.wire import codes
from fairway.wire.prepared import BodyPart, Prepared
from fairway.wire.sse import encode_event
from fairway.wire.websocket import encode_close

__all__ = [
    "EVENT_MARK",
    "JSON_MARK",
    "Envelope",
    "Kind",
    "decode",
    "encode",
    "pack",
    "pack_event",
    "sort",
    "unpack",
    "unpack_event",
]

JSON_MARK = "fairway.json"
"""
Key of a ``websocket.send`` whose text was made from a value that a class may encode its own way.
"""

EVENT_MARK = "fairway.event"
"""
Key of a ``websocket.send`` that is an event, with its name and id.
"""

LIFETIME_MAX = 10.0 * 365 * 86400
"""
Seconds that a message may live: a bound for what comes from elsewhere.
"""


class Kind(IntEnum):
    """
    What a message is for; the numbers are those on the wire between processes.
    """

    HANDLER = 0
    """A message for a handler of the consumer, chosen by its ``type``."""
    TEXT = 1
    """A ``websocket.send`` with text, for the socket itself."""
    BINARY = 2
    """A ``websocket.send`` with bytes, for the socket itself."""
    JSON = 3
    """Text as well, which a consumer with its own ``encode_json`` encodes again."""
    CLOSE = 4
    """A ``websocket.close``, for the socket itself."""
    JOIN = 5
    """To the process of a channel: add the channel to a group."""
    LEAVE = 6
    """To the process of a channel: take the channel out of a group."""
    EVENT = 7
    """Text, with what readers of event streams are told besides: the event's name and id."""
    BODY = 8
    """An ``http.response.body`` that goes on, for event streams."""


class Envelope:
    """
    One message on its way, shared by all who get it.

    Attributes:
        kind: What it is for.
        sender: The process that sent it.
        sequence: Its number among those of this sender to this subject; 0 for none.
        channel: The channel it is addressed to, None for a group's or queue's message.
        exclude: The channel that is to get nothing, or None.
        payload: The content. For HANDLER what ``values.encode`` gave; for TEXT and JSON UTF-8;
            for EVENT what ``pack_event`` gave; for CLOSE the encoded event; for JOIN and LEAVE
            the group's name in UTF-8.
        expires: The last moment at which it may be read, in seconds of ``time.monotonic()``.
    """

    __slots__ = (
        "_prepared",
        "_read",
        "channel",
        "exclude",
        "expires",
        "kind",
        "payload",
        "sender",
        "sequence",
    )

    def __init__(
        self,
        kind: Kind,
        payload: bytes,
        *,
        expires: float,
        sender: str = "",
        sequence: int = 0,
        channel: str | None = None,
        exclude: str | None = None,
    ) -> None:
        self.kind = kind
        self.payload = payload
        self.expires = expires
        self.sender = sender
        self.sequence = sequence
        self.channel = channel
        self.exclude = exclude
        self._prepared: Prepared | None = None
        # What verify() read, for the first who asks.
        self._read: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        return (
            f"<Envelope {self.kind.name} of {len(self.payload)} bytes, "
            f"{self.sequence} from {self.sender or 'here'}>"
        )

    @property
    def prepared(self) -> Prepared:
        """
        The one prepared message of a TEXT, JSON or BINARY envelope, made at the first look.
        """
        prepared = self._prepared
        if prepared is None:
            if self.kind is Kind.BINARY:
                prepared = Prepared(data=self.payload)
            elif self.kind is Kind.BODY:
                prepared = BodyPart(data=self.payload)
            elif self.kind is Kind.EVENT:
                text, event, id_, _ = unpack_event(self.payload)
                prepared = Prepared(text=text, event=event, id=id_)
            else:
                prepared = Prepared(text=self.payload.decode())
            self._prepared = prepared
        return prepared

    def verify(self) -> None:
        """
        Read the payload of a message for consumers once, so that nothing later can fail.

        Raises:
            ValueError: The payload is not what its kind says.
        """
        kind = self.kind
        if kind is Kind.TEXT or kind is Kind.JSON:
            self._prepared = Prepared(text=self.payload.decode())
        elif kind is Kind.HANDLER:
            self._read.append(decode(self.payload))
        elif kind is Kind.EVENT:
            try:
                encode_event(event=self.prepared.event, id=self.prepared.id)
            except LocalProtocolError as error:
                raise ValueError(str(error)) from None
        elif kind is Kind.CLOSE:
            self.closing()
        elif kind is not Kind.BINARY and kind is not Kind.BODY:
            raise ValueError(f"{kind.name} is for processes")

    def closing(self) -> tuple[int, str]:
        """
        Give code and reason of a CLOSE envelope.
        """
        return read_close(decode(self.payload))

    def message(self) -> dict[str, Any]:
        """
        Give the message as a dict that nobody else has.

        For a direct kind, that is the ASGI event which would say the same. May be called
        from any thread.
        """
        if self.kind is Kind.HANDLER or self.kind is Kind.CLOSE:
            try:
                return self._read.pop()
            except IndexError:
                return decode(self.payload)
        if self.kind is Kind.BINARY:
            return {"type": "websocket.send", "bytes": self.payload}
        if self.kind is Kind.BODY:
            return {"type": "http.response.body", "body": self.payload, "more_body": True}
        if self.kind is Kind.EVENT:
            text, event, id_, is_json = unpack_event(self.payload)
            marks: dict[str, Any] = {JSON_MARK: True} if is_json else {}
            return {"type": "websocket.send", "text": text, EVENT_MARK: (event, id_), **marks}
        return {"type": "websocket.send", "text": self.payload.decode()}


def sort(message: dict[str, Any]) -> tuple[Kind, bytes]:
    """
    Encode a message and tell its kind: an ASGI send event goes to the socket itself.

    Raises:
        TypeError: As ``values.encode``.
        ValueError: A ``websocket.close`` whose code or reason cannot be sent.
    """
    payload = encode(message)
    if message.get("type") == "websocket.send" and message.keys() <= {"type", "text", "bytes"}:
        # What was encoded is read, so that a safe or lazy string is a string here too.
        event = decode(payload)
        text, data = event.get("text"), event.get("bytes")
        if isinstance(text, str) and data is None:
            return Kind.TEXT, text.encode()
        if isinstance(data, bytes) and text is None:
            return Kind.BINARY, data
    elif message.get("type") == "http.response.body":
        event = decode(payload)
        body = event.get("body")
        if isinstance(body, bytes) and event == {
            "type": "http.response.body",
            "body": body,
            "more_body": True,
        }:
            return Kind.BODY, body
    elif message.get("type") == "websocket.close":
        read_close(decode(payload))
        return Kind.CLOSE, payload
    return Kind.HANDLER, payload


def pack_event(text: str, event: str | None, id: str | None, *, is_json: bool) -> bytes:  # noqa: A002 - the field's own word
    """
    Encode the payload of an EVENT.

    Raises:
        LocalProtocolError: The name or id could break its line.
        UnicodeEncodeError: A text holds lone surrogates.
    """
    encode_event(text, event=event, id=id)
    return _encoder.encode((text, event, id, is_json))


def unpack_event(payload: bytes) -> tuple[str, str | None, str | None, bool]:
    """
    Read what ``pack_event`` wrote: text, name, id, and whether the text was made as JSON.

    Raises:
        ValueError: This is none.
    """
    try:
        return _event_decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise ValueError(f"not an event: {error}") from None


def read_close(event: dict[str, Any]) -> tuple[int, str]:
    """
    Read code and reason of a ``websocket.close`` event.

    Raises:
        ValueError: They cannot be sent.
    """
    code, reason = event.get("code"), event.get("reason") or ""
    code = codes.NORMAL if code is None else code
    if type(code) is not int or not isinstance(reason, str):
        raise ValueError(f"websocket.close takes an int and a str, not {code!r} and {reason!r}")
    try:
        encode_close(code, reason)
    except LocalProtocolError as error:
        raise ValueError(str(error)) from None
    return code, reason


def pack(envelope: Envelope, now: float) -> bytes:
    """
    Give the bytes of an envelope, as they travel between processes.

    Args:
        envelope: Any.
        now: The present in seconds of ``time.monotonic()``: clocks differ between machines,
            so the time left travels, not the time it ends.
    """
    return _encoder.encode(
        (
            envelope.kind,
            envelope.sender,
            envelope.sequence,
            envelope.expires - now,
            envelope.channel,
            envelope.exclude,
            envelope.payload,
        )
    )


def unpack(data: bytes, now: float) -> Envelope:
    """
    Read what ``pack`` wrote.

    Raises:
        ValueError: These bytes are no envelope.
    """
    try:
        number, sender, sequence, lifetime, channel, exclude, payload = _decoder.decode(data)
        return Envelope(
            Kind(number),
            payload,
            expires=now + max(0.0, min(lifetime, LIFETIME_MAX)),
            sender=sender,
            sequence=sequence,
            channel=channel,
            exclude=exclude,
        )
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"not an envelope: {error}") from None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(
    tuple[int, str, int, float, str | None, str | None, bytes],
)
_event_decoder = msgspec.msgpack.Decoder(tuple[str, str | None, str | None, bool])
