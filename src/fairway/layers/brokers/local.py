"""
The broker of one process: nothing leaves it, nothing waits, and a publish delivers at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import NamedTuple

from fairway.exceptions import ChannelFull
from fairway.layers.brokers.base import Broker, Deliver, OnGap, OnState
from fairway.layers.mailbox import Mailbox, Mailboxes

__all__ = ["LocalBroker"]


class _Parcel(NamedTuple):
    """
    A payload in a queue, until when.
    """

    payload: bytes
    expires: float


class LocalBroker(Broker):
    """
    Delivers within ``publish``, on the owning loop, without a task.
    """

    alone = True

    def __init__(self, expiry: float) -> None:
        """
        Make a broker without subscriptions, whose queues keep for ``expiry`` seconds.
        """
        super().__init__()
        self._expiry = expiry
        self._subjects: set[str] = set()
        self._queues: Mailboxes[_Parcel] = Mailboxes(expiry)
        self._deliver: Deliver = _nobody

    @property
    def queues(self) -> dict[str, Mailbox[_Parcel]]:
        """
        The queues in use, by name, to look at.
        """
        return self._queues.snapshot()

    async def start(
        self,
        deliver: Deliver,
        on_gap: OnGap,
        on_state: OnState,
        subjects: Iterable[str] = (),
    ) -> None:
        """
        Begin delivering. Queues keep what they held.
        """
        self._deliver = deliver
        self._subjects = set(subjects)
        self.connected = True

    async def close(self) -> None:
        """
        Deliver nothing until the next ``start``.
        """
        self._subjects = set()
        self._deliver = _nobody
        self.connected = False

    def subscribe(self, subject: str) -> None:
        """
        Have the messages of a subject delivered from now on.
        """
        self._subjects.add(subject)

    def unsubscribe(self, subject: str) -> None:
        """
        End a subscription now.
        """
        self._subjects.discard(subject)

    def publish(self, subject: str, payload: bytes) -> None:
        """
        Deliver at once, if anybody here wants it.
        """
        self.published += 1
        if subject in self._subjects:
            self.received += 1
            self._deliver(subject, payload)

    def push(self, queue: str, payload: bytes, *, lifetime: float, capacity: int) -> None:
        """
        Add to the end of a queue, or raise ChannelFull.
        """
        if not self._queues.put(queue, _Parcel(payload, monotonic() + lifetime), capacity):
            raise ChannelFull(queue)
        self.published += 1

    async def pop(self, queue: str) -> bytes:
        """
        Wait for the oldest payload of a queue, from any loop. A cancelled call loses nothing.
        """
        parcel = await self._queues.get(queue)
        self.received += 1
        return parcel.payload

    async def audience(self, subject: str) -> int:
        """
        Give 1 if anybody here wants a subject, else 0.
        """
        return int(subject in self._subjects)

    def describe(self) -> str:
        """
        Say that nothing leaves this process.
        """
        return "memory, this process alone"

    async def flush(self) -> None:
        """
        Empty the queues.
        """
        self._queues.clear()

    def forked(self) -> None:
        """
        Begin empty in a child process.
        """
        self._queues = Mailboxes(self._expiry)
        self._subjects = set()
        self._deliver = _nobody
        self.connected = False


def _nobody(subject: str, payload: bytes) -> None:
    """
    Stand in for the hub before the start.
    """
