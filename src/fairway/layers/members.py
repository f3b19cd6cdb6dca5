"""
One channel of this process, and one group of such channels, as the fan-out wants them.

A group keeps apart members whose sockets take messages directly, members that
handle all of theirs, and members on other loops than the hub's. Who is in which
group is the roster's business.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from fairway import metrics
from fairway.layers.codec import Envelope, Kind
from fairway.layers.sequences import Hearing

if TYPE_CHECKING:
    from fairway.types import Inbox, Outbox

__all__ = ["Group", "Member", "Taker"]


class Taker(Protocol):
    """
    Anything an envelope can be put into: an inbox or a mailbox.
    """

    def put(self, item: Envelope) -> bool:
        """
        Queue one envelope, without waiting; False when there is no room.
        """


class Member:
    """
    One channel of this process.

    Attributes:
        channel: Its name.
        taker: Where its messages go that a consumer is to handle.
        direct: Its outbox and inbox, if messages may go to its socket around the consumer.
        loop: The loop both belong to; None for a mailbox, which belongs to none.
        groups: The groups it is in; None until the first.
    """

    __slots__ = ("channel", "direct", "groups", "loop", "taker")

    def __init__(
        self,
        channel: str,
        taker: Taker,
        direct: tuple[Outbox, Inbox] | None,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.channel = channel
        self.taker = taker
        self.direct = direct
        self.loop = loop
        self.groups: set[str] | None = None

    def give(self, envelope: Envelope) -> bool:
        """
        Give it one message, on its own loop; False if it has no room.

        One for its socket goes behind the layer messages that the consumer has unread or in hand.
        """
        if self.direct is None:
            return self.taker.put(envelope)
        outbox, inbox = self.direct
        outbox.clear = (
            inbox.idle
            and envelope.kind is not Kind.HANDLER
            and (envelope.kind is not Kind.BODY or outbox.takes_bodies)
        )
        if not outbox.clear:
            return inbox.put(envelope)
        if envelope.kind is Kind.CLOSE:
            outbox.close(*envelope.closing())
        else:
            outbox.offer(envelope.prepared)
        return True


class Group:
    """
    The members that one group has in this process.

    Attributes:
        direct: Members whose sockets take messages directly, by outbox: that is all the fan-out
            looks at, since the cache has to fetch whatever else a member is made of.
        takers: Where messages go for members that handle all of theirs, by channel.
        remote: Members on other loops than the hub's, by loop and channel.
        hearing: The numbers of the messages so far.
        confirmed: What joining waits for while the broker has not confirmed the
            subscription; None afterwards.
    """

    __slots__ = ("confirmed", "direct", "hearing", "remote", "takers")

    def __init__(self) -> None:
        self.direct: dict[Outbox, Member] = {}
        self.takers: dict[str, Taker] = {}
        self.remote: dict[asyncio.AbstractEventLoop, dict[str, Member]] = {}
        self.hearing = Hearing()
        self.confirmed: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """
        Count the members.
        """
        return len(self.direct) + len(self.takers) + sum(map(len, self.remote.values()))

    def add(self, member: Member, here: asyncio.AbstractEventLoop | None) -> None:
        """
        Add a member; ``here`` is the hub's loop.
        """
        if member.loop is not None and member.loop is not here:
            self.remote.setdefault(member.loop, {})[member.channel] = member
        elif member.direct is not None:
            self.direct[member.direct[0]] = member
        else:
            self.takers[member.channel] = member.taker

    def discard(self, member: Member) -> bool:
        """
        Take a member out; whether it was one.
        """
        channel, loop, direct = member.channel, member.loop, member.direct
        if direct is not None and self.direct.get(direct[0]) is member:
            del self.direct[direct[0]]
        elif channel in self.takers:
            del self.takers[channel]
        elif loop is not None and channel in self.remote.get(loop, ()):
            del self.remote[loop][channel]
            if not self.remote[loop]:
                del self.remote[loop]
        else:
            return False
        return True

    def hand_over(self, envelope: Envelope) -> list[asyncio.AbstractEventLoop]:
        """
        Give one message to the members on other loops, with one wake-up for each loop.

        Returns:
            The loops that have ended.
        """
        ended = []
        for loop, members in self.remote.items():
            try:
                loop.call_soon_threadsafe(_give_all, tuple(members.values()), envelope)
            except RuntimeError:
                ended.append(loop)
        return ended

    def channels(self) -> list[str]:
        """
        Name all members.
        """
        elsewhere = [channel for members in self.remote.values() for channel in members]
        direct = [member.channel for member in self.direct.values()]
        return [*direct, *self.takers, *elsewhere]


def _give_all(members: tuple[Member, ...], envelope: Envelope) -> None:
    """
    Give one message to members on the loop that runs this.
    """
    refused = sum(not member.give(envelope) for member in members)
    if refused:
        metrics.drops.add("full", refused)
