"""
The shapes that cross a border between rooms: ASGI's, and the server's ends.

How the server hands its ends to the Django side is data and not an import:
``scope["extensions"]["fairway"]`` is an ``Extension``. On any other ASGI server
it is absent, and everything still works, slower. Types only: no behaviour.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from fairway.queues import Expiring
    from fairway.wire.prepared import Format, Prepared

__all__ = [
    "ASGIApplication",
    "Configure",
    "Extension",
    "Inbox",
    "Message",
    "Outbox",
    "Receive",
    "Scope",
    "Send",
    "Sink",
    "is_transparent",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]


class Outbox(Protocol):
    """
    Where anything that leaves through one exchange is queued.

    Event-loop thread only. Nothing here waits or raises because of the peer.

    Attributes:
        clear: Kept by the channel layer: whether it has put nothing into the exchange's inbox
            since it saw that idle, so that it need not look there for each message. False at first.
    """

    clear: bool

    @property
    def takes_bodies(self) -> bool:
        """
        Whether parts of an HTTP body may be offered, and not just messages.
        """

    @property
    def pending_bytes(self) -> int:
        """
        Bytes queued here and in the transport, not yet taken by the kernel.
        """

    def offer(self, prepared: Prepared) -> bool:
        """
        Queue one prepared message; False if the exchange is closing.
        """

    @staticmethod
    def offer_all(outboxes: Iterable[Any], prepared: Prepared) -> Iterable[Any]:
        """
        Offer one prepared message to many outboxes of this kind, all on this loop.

        Returns:
            Those that are not ``clear``, which were offered nothing.
        """

    def close(self, code: int = 1000, reason: str = "") -> None:
        """
        End the exchange after what is queued. A second call does nothing.
        """


class Inbox(Protocol):
    """
    Where channel layer messages for one exchange wait for its consumer.

    Event-loop thread only.

    Attributes:
        capacity: Items that wait here at most; whoever puts them may lower it before the first.
        idle: True while no layer message lies here and no layer message taken from
            here is being handled: only then may a message go straight to the outbox.
    """

    capacity: int
    idle: bool

    def put(self, item: Expiring) -> bool:
        """
        Queue one item and wake the consumer, without waiting; False when it is full.
        """

    async def next_event(self) -> Message | Expiring:
        """
        Wait for the next ASGI event of the peer or the next item put, alternating.

        Asking again says that the event given before has been handled.
        """


class Configure(Protocol):
    """
    Sets what one exchange may do, before its handshake is accepted.
    """

    def __call__(self, *, overflow: str | None = None, outbox_bytes_max: int | None = None) -> None:
        """
        Change the given settings of this exchange; None keeps a setting.

        Of WebSockets it takes ``compress`` besides, of HTTP requests ``heartbeat``,
        ``gone_at_eof`` and ``lasting``, see ``server.websocket`` and ``server.streaming``.
        """


class Extension(TypedDict):
    """
    ``scope["extensions"]["fairway"]``: the server's ends of one exchange.
    """

    outbox: Outbox
    inbox: Inbox
    receive: Receive
    configure: Configure


class Transport(Protocol):
    """
    A transport, as an outbox knows it.
    """

    def write(self, data: bytes) -> object:
        """
        Have the kernel take bytes, as soon as it will.
        """

    def get_write_buffer_size(self) -> int:
        """
        Count the bytes that the kernel has not taken yet.
        """

    def is_closing(self) -> bool:
        """
        Whether it is closed, or has failed, and takes nothing any more.
        """


class Sink(Protocol):
    """
    What an exchange writes through, whatever the version of HTTP below.

    Event-loop thread only; nothing waits. How a body is delimited is the sink's
    business, how long it may be is the exchange's.

    Attributes:
        writable: Whether the transport holds no bytes.
    """

    writable: bool

    def head(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        *,
        length: int | None,
        end: bool,
    ) -> None:
        """
        Begin the response, with the first part of its body.

        Args:
            status: 200 to 599.
            headers: As the application gave them, without those that delimit the body.
            body: May be empty.
            length: Size of the whole body in bytes, None if unknown.
            end: Whether the response is complete with this.
        """

    def body(self, data: bytes, *, end: bool) -> None:
        """
        Send more of the body; with ``end`` the response is complete.
        """

    @property
    def event_format(self) -> Format:
        """
        The format in which a prepared message is a part of a body of unknown length.
        """

    def frame(self, data: bytes, *, end: bool) -> bytes:
        """
        Delimit a part of the body, for writing it elsewhere.
        """

    def switch(self, head: bytes) -> Transport:
        """
        Answer with a switch of protocols; what is returned writes the new one's bytes.
        """

    def reset(self) -> None:
        """
        Give the response up, so that the peer sees that it is not complete.
        """


def is_transparent(send: Send) -> bool:
    """
    Whether messages sent around this ``send`` miss nothing.

    True for the server's own ``send`` and for wrappers that carry the attribute
    ``fairway_transparent = True``, by which a middleware says that it changes no
    ``websocket.send``.
    """
    return getattr(send, "fairway_transparent", False) is True
