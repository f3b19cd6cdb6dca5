"""
Every exception Fairway raises, in one tree.

::

    FairwayError
    ├── ConfigurationError            a setting, flag or file is wrong; the start ends with one line
    ├── ProtocolError
    │   ├── LocalProtocolError        the application sent the wrong message for the state
    │   └── RemoteProtocolError       the peer broke the protocol; carries the answer owed to it
    ├── ClientDisconnected (OSError)  the application sent to a peer that is gone
    ├── ClientFault                   the peer asked for something that cannot be served
    │   ├── RouteNotFound (ValueError)
    │   ├── InvalidJSON (JSONDecodeError)
    │   └── InvalidMessage (ValueError)
    ├── NoHandler (ValueError)        a message names a type that its consumer has no method for
    ├── ChannelLayerError
    │   ├── ChannelFull
    │   ├── MessageTooLarge
    │   ├── ChannelLayerUnavailable
    │   └── InvalidChannelLayerError (ValueError)
    └── ConsumerControl
        ├── AcceptConnection
        ├── DenyConnection
        └── StopConsumer
    RequestAborted, RequestTimeout    as Channels names them, for HTTP bodies

Only names and data live here: nothing logs, nothing is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from json import JSONDecodeError
from typing import Any

from fairway.faults import Fault

__all__ = [
    "AcceptConnection",
    "ChannelFull",
    "ChannelLayerError",
    "ChannelLayerMisconfigured",
    "ChannelLayerUnavailable",
    "ClientDisconnected",
    "ClientFault",
    "ConfigurationError",
    "ConsumerControl",
    "DenyConnection",
    "FairwayError",
    "InvalidChannelLayerError",
    "InvalidJSON",
    "InvalidMessage",
    "LocalProtocolError",
    "MessageTooLarge",
    "NoHandler",
    "ProtocolError",
    "RemoteProtocolError",
    "RequestAborted",
    "RequestTimeout",
    "RouteNotFound",
    "StopConsumer",
]


class FairwayError(Exception):
    """
    The root of everything Fairway raises.

    Attributes:
        fault: Its id in the log.
    """

    fault = Fault.APPLICATION_ERROR


class ConfigurationError(FairwayError):
    """
    A setting, flag or file is wrong: the message names what was found and the fix.

    A command that meets it prints the message with its id as one line and exits with status 2.
    """

    def __init__(self, message: str = "", *, fault: Fault = Fault.SETTING_INVALID) -> None:
        super().__init__(message)
        self.fault = fault


class ProtocolError(FairwayError):
    """
    One of the two ends broke the protocol.
    """


class LocalProtocolError(ProtocolError):
    """
    The application sent a message that its state does not allow.
    """

    fault = Fault.PROTOCOL_MISUSED


class RemoteProtocolError(ProtocolError):
    """
    The peer broke the protocol.

    Attributes:
        status: The HTTP status owed before a protocol switch.
        code: The WebSocket close code owed after it.
        reason: A lower-case fragment, sent to the peer and logged.
        headers: Fields that the HTTP answer must carry.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int = 400,
        code: int = 1002,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason
        self.headers = headers


class ClientDisconnected(FairwayError, OSError):
    """
    The application sent to a peer that is gone.

    An ``OSError``, as ASGI 2.4 asks. Fairway's consumers absorb it; the server
    swallows it when it leaves any other application.
    """


class ClientFault(FairwayError):
    """
    The peer asked for something that cannot be served: its fault, not the application's.

    The server answers quietly with one log line and no traceback.

    Attributes:
        status: The HTTP status to answer before a handshake is accepted.
        code: The WebSocket close code to answer after it.
        reason: A lower-case fragment, sent to the peer and logged.
    """

    fault = Fault.INVALID_MESSAGE
    status = 400
    code = 4400

    def __init__(
        self, reason: str = "", *, status: int | None = None, code: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        if status is not None:
            self.status = status
        if code is not None:
            self.code = code


class RouteNotFound(ClientFault, ValueError):
    """
    No route matches the scope.

    A ``ValueError``, since that is what Channels' routers raise.
    """

    fault = Fault.ROUTE_NOT_FOUND
    status = 404
    code = 4404


class InvalidJSON(ClientFault, JSONDecodeError):
    """
    A text message is not the JSON that the consumer expects.

    A ``JSONDecodeError``, since that is what leaves Channels' consumers.
    """

    fault = Fault.INVALID_JSON
    status = 400
    code = 1007

    def __init__(self, reason: str, doc: str = "", pos: int = 0) -> None:
        JSONDecodeError.__init__(self, reason, doc, pos)
        self.reason = reason


class InvalidMessage(ClientFault, ValueError):
    """
    A message has the wrong kind or shape for its consumer.
    """


class NoHandler(FairwayError, ValueError):
    """
    A message names a type that its consumer has no method for, or none at all.

    A ``ValueError``, since that is what Channels' consumers raise.

    Attributes:
        message: The message.
    """

    fault = Fault.NO_HANDLER

    def __init__(self, text: str, message: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.message = message


class ChannelLayerError(FairwayError):
    """
    The root of what a channel layer raises.
    """


class ChannelFull(ChannelLayerError):
    """
    A channel holds as many unread messages as its capacity allows.
    """


class MessageTooLarge(ChannelLayerError):
    """
    An encoded message is larger than the layer carries.
    """


class ChannelLayerUnavailable(ChannelLayerError):
    """
    The broker could not take a message within bounded time.
    """


class ChannelLayerMisconfigured(ConfigurationError, ChannelLayerUnavailable):
    """
    The broker takes no message, and will not as long as the settings are what they are.

    Whoever sends gets it where no server's start could: a publisher with a wrong password.
    """


class InvalidChannelLayerError(ChannelLayerError, ValueError):
    """
    ``CHANNEL_LAYERS`` does not describe a channel layer.
    """

    fault = Fault.LAYER_INVALID


class ConsumerControl(FairwayError):
    """
    Raised by a consumer's own code to steer its life, never an error.
    """


class AcceptConnection(ConsumerControl):
    """
    Raised in ``connect()``: accept the handshake.
    """


class DenyConnection(ConsumerControl):
    """
    Raised in ``connect()``: refuse the handshake.
    """


class StopConsumer(ConsumerControl):
    """
    Raised in a handler: the consumer ends here, cleanly.
    """


class RequestAborted(FairwayError):
    """
    The request ended before its body was complete.
    """


class RequestTimeout(RequestAborted):
    """
    The request body did not arrive in time.
    """
