"""
What a broker promises: to move bytes by subject and through queues, and to say what it lost.

A broker knows nothing of groups, consumers, messages or Django. It reconnects by
itself and restores its subscriptions; a hub never ends because a broker went away.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable

__all__ = ["Broker", "Deliver", "OnGap", "OnState"]

Deliver = Callable[[str, bytes], None]
"""
Called with subject and payload of each message, synchronously, on the broker's loop.
"""

OnGap = Callable[[str, "int | None"], None]
"""
Called with a subject and how many of its messages were lost, None if nobody knows.
"""

OnState = Callable[[bool], None]
"""
Called with whether there is a connection, when that changes.
"""


class Broker(ABC):
    """
    The border between a hub and what carries its messages.

    All of it but ``pop`` belongs to the loop that ``start`` ran on; it may be started again
    on another loop after ``close``, or after its loop has ended without one. What returns
    ``Awaitable | None`` takes its place in the order of things when it is called; None
    says that it is done already, an awaitable that it may be waited for, and raises
    ChannelLayerUnavailable if it could not be done.

    Attributes:
        alone: Whether no other process can be reached through it.
        connected: Whether messages get through at present.
        trouble: Why they did not when that was told last, for people; may be empty.
        published: Messages taken by ``publish`` and ``push`` since the process started.
        received: Messages given to ``deliver`` since the process started.
    """

    alone = False

    def __init__(self) -> None:
        self.connected = False
        self.trouble = ""
        self.published = 0
        self.received = 0

    @abstractmethod
    async def start(
        self,
        deliver: Deliver,
        on_gap: OnGap,
        on_state: OnState,
        subjects: Iterable[str] = (),
    ) -> None:
        """
        Begin on the running loop, subscribed to ``subjects``, without waiting for a broker away.

        Raises:
            ConfigurationError: It can never work as configured.
        """

    @abstractmethod
    async def close(self) -> None:
        """
        End on the running loop, after what was published has left, in bounded time.

        Whoever still waits for something here gets ChannelLayerUnavailable.
        """

    @abstractmethod
    def subscribe(self, subject: str) -> Awaitable[None] | None:
        """
        Have the messages of a subject delivered; confirmed once the awaitable is done.
        """

    @abstractmethod
    def unsubscribe(self, subject: str) -> None:
        """
        End a subscription, now or a little later.
        """

    @abstractmethod
    def publish(self, subject: str, payload: bytes) -> Awaitable[None] | None:
        """
        Send to every process subscribed to a subject, this one included.
        """

    @abstractmethod
    def push(
        self, queue: str, payload: bytes, *, lifetime: float, capacity: int
    ) -> Awaitable[None] | None:
        """
        Add to the end of a queue, from which one reader of all processes takes it.

        Args:
            queue: Its name.
            payload: The bytes.
            lifetime: Seconds until it may be thrown away unread.
            capacity: Unread payloads the queue may hold, this one included.

        Raises:
            ChannelFull: The queue holds as many; here or by the awaitable.
        """

    @abstractmethod
    async def pop(self, queue: str) -> bytes:
        """
        Wait for the oldest payload of a queue and take it, on whichever loop.

        A cancelled call loses nothing.
        """

    @property
    def peers(self) -> int | None:
        """
        Give the number of other processes known at present, None if that is never known.
        """
        return None

    async def audience(self, subject: str) -> int:
        """
        Give the number of processes that a publish to a subject reaches at present.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know who listens")

    def describe(self) -> str:
        """
        Say for people what this is and whom it reaches: ``ipc, namespace 3f2a, 2 other processes``.
        """
        return type(self).__name__

    @abstractmethod
    async def flush(self) -> None:
        """
        Throw away what lies in the queues.
        """

    @abstractmethod
    def forked(self) -> None:
        """
        Forget everything that belongs to the parent process, without touching it.
        """
