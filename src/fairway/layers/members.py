"""
Who is here: the channels of this process, and the groups they are in.

Groups are kept in the shape the fan-out wants: members whose sockets take
messages directly, members with an inbox, and members on other loops. Plain
bookkeeping, without loops of its own, brokers or messages.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fairway.layers.codec import Envelope
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
        loop: The loop both belong to, None for a mailbox, which belongs to none.
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


class Group:
    """
    The members that one group has in this process.

    Attributes:
        direct: Outbox and inbox of the members whose sockets take messages directly.
        takers: Where messages go for members that handle all of theirs.
        remote: Members on other loops than the hub's, by loop.
        heard: The last sequence number heard, by sender.
        confirmed: What joining waits for while the broker has not confirmed the
            subscription; None afterwards.
    """

    __slots__ = ("confirmed", "direct", "heard", "remote", "takers")

    def __init__(self) -> None:
        self.direct: dict[str, tuple[Outbox, Inbox]] = {}
        self.takers: dict[str, Taker] = {}
        self.remote: dict[asyncio.AbstractEventLoop, dict[str, Member]] = {}
        self.heard: dict[str, int] = {}
        self.confirmed: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """
        How many members there are.
        """
        return len(self.direct) + len(self.takers) + sum(map(len, self.remote.values()))

    def add(self, member: Member, here: asyncio.AbstractEventLoop) -> None:
        """
        Add a member, or put it where it belongs now, with the hub on the loop ``here``.
        """
        if member.loop is not None and member.loop is not here:
            self.remote.setdefault(member.loop, {})[member.channel] = member
        elif member.direct is not None:
            self.direct[member.channel] = member.direct
        else:
            self.takers[member.channel] = member.taker

    def discard(self, member: Member) -> bool:
        """
        Take a member out; whether it was one.
        """
        channel = member.channel
        if self.direct.pop(channel, None) is not None or self.takers.pop(channel, None) is not None:
            return True
        members = self.remote.get(member.loop) if member.loop is not None else None
        if members is None or members.pop(channel, None) is None:
            return False
        if not members:
            del self.remote[member.loop]  # type: ignore[arg-type] # found by it above
        return True

    def channels(self) -> list[str]:
        """
        Name all members.
        """
        names = [*self.direct, *self.takers]
        for members in self.remote.values():
            names.extend(members)
        return names
