"""
The four WebSocket consumers: sync and async, for raw messages and for JSON.

Their methods and signatures are Channels'. A project subclasses one and overrides
``connect``, ``receive`` (or ``receive_json``) and ``disconnect``; the ``websocket_*`` methods
below those handle the ASGI events. The sync and the async half say the same thing twice, as
the code of a project is either the one or the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from json import JSONDecodeError
from typing import Any, NoReturn

from fairway.consumers.base import AsyncConsumer, SyncConsumer
from fairway.exceptions import (
    AcceptConnection,
    DenyConnection,
    InvalidJSON,
    InvalidMessage,
    StopConsumer,
)
from fairway.layers.codec import JSON_MARK
from fairway.types import Message
from fairway.wire import codes

__all__ = [
    "AsyncJsonWebsocketConsumer",
    "AsyncWebsocketConsumer",
    "JsonWebsocketConsumer",
    "WebsocketConsumer",
]

Headers = Iterable[tuple[bytes, bytes]]


class AsyncWebsocketConsumer(AsyncConsumer):
    """
    One WebSocket, with methods that are coroutines.

    Attributes:
        groups: Groups this consumer is in from the start, set by the class or the constructor.
    """

    groups: Sequence[str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.groups is None:
            self.groups = []

    async def websocket_connect(self, message: Message) -> None:
        """
        Handle the handshake: join the groups, then ``connect()``.
        """
        for group in self.groups or ():
            await AsyncConsumer.group_add(self, group)
        try:
            await self.connect()
        except AcceptConnection:
            await self.accept()
        except DenyConnection:
            await self.close()

    async def connect(self) -> None:
        """
        Decide on the handshake: ``accept()`` it, as this does, or ``close()`` to refuse it.
        """
        await self.accept()

    async def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """
        Accept the handshake.

        Args:
            subprotocol: One of ``scope["subprotocols"]``, or None.
            headers: Header fields to add to the answer.
        """
        await self.base_send(_accept(subprotocol, headers))

    async def websocket_receive(self, message: Message) -> None:
        """
        Handle a message of the peer: hand it to ``receive()``.
        """
        text = message.get("text")
        if text is not None:
            await self.receive(text_data=text)
        else:
            await self.receive(bytes_data=message["bytes"])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Take a message of the peer: text or bytes, exactly one of them.
        """

    async def send(  # type: ignore[override] # Channels' signature
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        close: bool | int = False,
    ) -> None:
        """
        Send a message to the peer; waits while it reads too slowly.

        Args:
            text_data: The message, if it is text.
            bytes_data: The message, if it is binary.
            close: True or a close code to close the socket behind it.
        """
        if text_data is not None:
            await self.base_send({"type": "websocket.send", "text": text_data})
        elif bytes_data is not None:
            await self.base_send({"type": "websocket.send", "bytes": bytes_data})
        else:
            raise ValueError("You must pass one of bytes_data or text_data")
        if close:
            await self.close(close)

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """
        Close the socket, or refuse the handshake (HTTP 403) if it was not accepted.

        Args:
            code: The close code; None or True for the server's own, 1000.
            reason: At most 123 bytes for the peer.
        """
        await self.base_send(_close(code, reason))
        self._fairway_closing = True

    async def websocket_disconnect(self, message: Message) -> None:
        """
        Handle the end: ``disconnect()``, outside of all groups already.
        """
        await self.disconnect(message.get("code", codes.NO_STATUS))
        raise StopConsumer

    async def disconnect(self, code: int) -> None:
        """
        Clean up. Runs once at the end of every consumer, however it came.

        Args:
            code: The close code; 1006 for none, 1011 after an exception in a handler.
        """

    async def _fairway_relay(self, message: Message) -> None:
        """
        Pass a group message that is an ASGI send event on, by this class's own methods.
        """
        if message["type"] == "websocket.close":
            await self.close(*_close_arguments(message))
        elif message.get("text") is not None:
            await self.send(text_data=message["text"])
        else:
            await self.send(bytes_data=message.get("bytes"))


class AsyncJsonWebsocketConsumer(AsyncWebsocketConsumer):
    """
    One WebSocket that speaks JSON in text messages, with methods that are coroutines.
    """

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """
        Take a message of the peer: decode it and hand it to ``receive_json()``.

        Raises:
            InvalidJSON: It is text and no JSON.
            InvalidMessage: It is binary or empty.
        """
        if not text_data:
            raise InvalidMessage(NOT_TEXT)
        try:
            content = await self.decode_json(text_data)
        except JSONDecodeError as error:
            _refuse(error)
        await self.receive_json(content, **kwargs)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Take the decoded content of a message of the peer.
        """

    async def send_json(self, content: Any, close: bool | int = False) -> None:
        """
        Send JSON to the peer; waits while it reads too slowly.

        Args:
            content: What ``encode_json`` takes.
            close: True or a close code to close the socket behind it.
        """
        await super().send(text_data=await self.encode_json(content), close=close)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """
        Decode a message of the peer.

        Raises:
            JSONDecodeError: It is no JSON.
        """
        return _decode(text_data)

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """
        Encode a message for the peer.
        """
        return json.dumps(content)

    async def _fairway_relay(self, message: Message) -> None:
        """
        As for every WebSocket, but a value is encoded by this class's own ``encode_json``.
        """
        if JSON_MARK in message:
            await self.send_json(json.loads(message["text"]))
        else:
            await super()._fairway_relay(message)


class WebsocketConsumer(SyncConsumer):
    """
    One WebSocket, with ordinary methods, each run in a thread.

    Attributes:
        groups: Groups this consumer is in from the start, set by the class or the constructor.
    """

    groups: Sequence[str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.groups is None:
            self.groups = []

    def websocket_connect(self, message: Message) -> None:
        """
        Handle the handshake: join the groups, then ``connect()``.
        """
        for group in self.groups or ():
            SyncConsumer.group_add(self, group)
        try:
            self.connect()
        except AcceptConnection:
            self.accept()
        except DenyConnection:
            self.close()

    def connect(self) -> None:
        """
        Decide on the handshake: ``accept()`` it, as this does, or ``close()`` to refuse it.
        """
        self.accept()

    def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """
        Accept the handshake.

        Args:
            subprotocol: One of ``scope["subprotocols"]``, or None.
            headers: Header fields to add to the answer.
        """
        self.base_send(_accept(subprotocol, headers))

    def websocket_receive(self, message: Message) -> None:
        """
        Handle a message of the peer: hand it to ``receive()``.
        """
        text = message.get("text")
        if text is not None:
            self.receive(text_data=text)
        else:
            self.receive(bytes_data=message["bytes"])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Take a message of the peer: text or bytes, exactly one of them.
        """

    def send(  # type: ignore[override] # Channels' signature
        self,
        text_data: str | None = None,
        bytes_data: bytes | None = None,
        close: bool | int = False,
    ) -> None:
        """
        Send a message to the peer; waits while it reads too slowly.

        Args:
            text_data: The message, if it is text.
            bytes_data: The message, if it is binary.
            close: True or a close code to close the socket behind it.
        """
        if text_data is not None:
            self.base_send({"type": "websocket.send", "text": text_data})
        elif bytes_data is not None:
            self.base_send({"type": "websocket.send", "bytes": bytes_data})
        else:
            raise ValueError("You must pass one of bytes_data or text_data")
        if close:
            self.close(close)

    def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """
        Close the socket, or refuse the handshake (HTTP 403) if it was not accepted.

        Args:
            code: The close code; None or True for the server's own, 1000.
            reason: At most 123 bytes for the peer.
        """
        self.base_send(_close(code, reason))
        self._fairway_closing = True

    def websocket_disconnect(self, message: Message) -> None:
        """
        Handle the end: ``disconnect()``, outside of all groups already.
        """
        self.disconnect(message.get("code", codes.NO_STATUS))
        raise StopConsumer

    def disconnect(self, code: int) -> None:
        """
        Clean up. Runs once at the end of every consumer, however it came.

        Args:
            code: The close code; 1006 for none, 1011 after an exception in a handler.
        """

    def _fairway_relay(self, message: Message) -> None:  # type: ignore[override] # the twin that waits
        """
        Pass a group message that is an ASGI send event on, by this class's own methods.
        """
        if message["type"] == "websocket.close":
            self.close(*_close_arguments(message))
        elif message.get("text") is not None:
            self.send(text_data=message["text"])
        else:
            self.send(bytes_data=message.get("bytes"))


class JsonWebsocketConsumer(WebsocketConsumer):
    """
    One WebSocket that speaks JSON in text messages, with ordinary methods.
    """

    def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """
        Take a message of the peer: decode it and hand it to ``receive_json()``.

        Raises:
            InvalidJSON: It is text and no JSON.
            InvalidMessage: It is binary or empty.
        """
        if not text_data:
            raise InvalidMessage(NOT_TEXT)
        try:
            content = self.decode_json(text_data)
        except JSONDecodeError as error:
            _refuse(error)
        self.receive_json(content, **kwargs)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Take the decoded content of a message of the peer.
        """

    def send_json(self, content: Any, close: bool | int = False) -> None:
        """
        Send JSON to the peer; waits while it reads too slowly.

        Args:
            content: What ``encode_json`` takes.
            close: True or a close code to close the socket behind it.
        """
        super().send(text_data=self.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        """
        Decode a message of the peer.

        Raises:
            JSONDecodeError: It is no JSON.
        """
        return _decode(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """
        Encode a message for the peer.
        """
        return json.dumps(content)

    def _fairway_relay(self, message: Message) -> None:  # type: ignore[override] # the twin that waits
        """
        As for every WebSocket, but a value is encoded by this class's own ``encode_json``.
        """
        if JSON_MARK in message:
            self.send_json(json.loads(message["text"]))
        else:
            super()._fairway_relay(message)


NOT_TEXT = "expected a text message with JSON, got a binary or an empty one"


def _accept(subprotocol: str | None, headers: Headers | None) -> Message:
    """
    Make a ``websocket.accept``.
    """
    message: Message = {"type": "websocket.accept", "subprotocol": subprotocol}
    if headers:
        message["headers"] = list(headers)
    return message


def _close(code: int | bool | None, reason: str | None) -> Message:
    """
    Make a ``websocket.close``, which holds only what was given: the server knows the rest.
    """
    message: Message = {"type": "websocket.close"}
    if code is not None and code is not True:
        message["code"] = code
    if reason:
        message["reason"] = reason
    return message


def _close_arguments(message: Message) -> tuple[Any, ...]:
    """
    Give the arguments of ``close()`` for a ``websocket.close``, no more than it needs.
    """
    reason = message.get("reason")
    return (message.get("code"), reason) if reason else (message.get("code"),)


def _decode(text_data: str) -> Any:
    """
    Decode JSON. Whatever is wrong with it is the peer's fault, and said by one exception.
    """
    try:
        content = json.loads(text_data)
        if "\\ud" in text_data or "\\uD" in text_data:
            # Half of a surrogate pair is no text: neither a database nor a socket could take it.
            json.dumps(content, ensure_ascii=False).encode()
    except JSONDecodeError as error:
        _refuse(error)
    except UnicodeEncodeError:
        raise InvalidJSON("expected JSON: text with half a surrogate pair", text_data) from None
    except ValueError:
        # sys.get_int_max_str_digits(): reading them would take quadratic time.
        raise InvalidJSON("expected JSON: an integer has too many digits", text_data) from None
    except RecursionError:
        raise InvalidJSON("expected JSON: nested too deeply", text_data) from None
    return content


def _refuse(error: JSONDecodeError) -> NoReturn:
    """
    Raise what tells the server that the peer is to blame.
    """
    if isinstance(error, InvalidJSON):
        raise error
    raise InvalidJSON(f"expected JSON: {error.msg}", error.doc, error.pos) from error
