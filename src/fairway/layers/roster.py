"""
Who is here: the channels of this process and the groups they are in.

Plain bookkeeping for one hub, and the way of a message to one channel. No broker
and no other process: what changes for them is returned and the hub's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from fairway import metrics
from fairway.exceptions import ChannelFull
from fairway.layers.mailbox import Mailbox, Mailboxes
from fairway.layers.members import Group, Member

if TYPE_CHECKING:
    from fairway.layers.codec import Envelope
    from fairway.types import Inbox, Outbox

__all__ = ["Roster"]


class Roster:
    """
    The channels and groups of one process. Owning loop only, but for ``mailboxes``.

    Attributes:
        groups: The groups that have members here, by name.
        mailboxes: Unread messages of channels that have no inbox of their own.
        here: The hub's loop; None before its first.
    """

    def __init__(self, expiry: float, capacity: Callable[[str], int]) -> None:
        """
        Make an empty roster.

        Args:
            expiry: Seconds that a message may lie unread.
            capacity: Gives how many unread messages a channel may hold, by its name.
        """
        self._capacity = capacity
        self._members: dict[str, Member] = {}
        self.groups: dict[str, Group] = {}
        self.mailboxes: Mailboxes[Envelope] = Mailboxes(expiry)
        self.here: asyncio.AbstractEventLoop | None = None

    def member(self, channel: str) -> Member | None:
        """
        Give a channel that has an inbox or is in a group.
        """
        return self._members.get(channel)

    def channels(self) -> list[str]:
        """
        Give the channels that have an inbox or are in a group.
        """
        return list(self._members)

    def attach(
        self,
        channel: str,
        inbox: Inbox,
        outbox: Outbox | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """
        Give a channel an inbox on some loop, and an outbox if its socket takes messages directly.
        """
        before = self._members.get(channel)
        direct = None if outbox is None else (outbox, inbox)
        member = self._members[channel] = Member(channel, inbox, direct, loop)
        if before is not None and before.groups:
            member.groups = before.groups
            for name in before.groups:
                self.groups[name].discard(before)
                self.groups[name].add(member, self.here)
        for envelope in self.mailboxes.take_all(channel):
            self.give(channel, envelope)

    def detach(self, channel: str) -> list[str]:
        """
        Forget a channel; give the groups that ended with it.
        """
        member = self._members.pop(channel, None)
        self.mailboxes.take_all(channel)
        return [] if member is None else self._leave_all(member)

    def join(self, name: str, channel: str) -> bool:
        """
        Add a channel to a group; whether that began the group.
        """
        member = self._members.get(channel)
        if member is None:
            box = self.mailboxes.hold(channel, self._capacity(channel))
            member = self._members[channel] = Member(channel, box, None, None)
        if member.groups is None:
            member.groups = set()
        member.groups.add(name)
        begins = name not in self.groups
        if begins:
            self.groups[name] = Group()
        self.groups[name].add(member, self.here)
        return begins

    def leave(self, name: str, channel: str) -> bool:
        """
        Take a channel out of a group; whether that ended the group.
        """
        member = self._members.get(channel)
        if member is None or member.groups is None or name not in member.groups:
            return False
        ends = self._leave(name, member)
        if not member.groups:
            self._forget_mailbox(member)
        return ends

    def clear(self) -> list[str]:
        """
        End all groups and throw away all unread messages; give the groups.
        """
        ended = list(self.groups)
        for member in list(self._members.values()):
            self._leave_all(member)
            self._forget_mailbox(member)
        self.mailboxes.clear()
        return ended

    def give(self, channel: str, envelope: Envelope) -> Awaitable[None] | None:
        """
        Give a message to one channel. To be awaited where that is on another loop.

        Raises:
            ChannelFull: It has no room; here or by the awaitable.
        """
        member = self._members.get(channel)
        if member is None or member.loop is None:
            given = self.mailboxes.put(channel, envelope, self._capacity(channel))
        elif member.loop is self.here:
            given = member.give(envelope)
        else:
            future: Future[None] = Future()
            try:
                member.loop.call_soon_threadsafe(_give_and_tell, member, envelope, future)
            except RuntimeError:
                return None  # Its loop has ended; the next group message finds out.
            return asyncio.wrap_future(future)
        if not given:
            raise ChannelFull(channel)
        metrics.delivered.value += 1
        return None

    def lose(self, loop: asyncio.AbstractEventLoop) -> tuple[int, list[str]]:
        """
        Forget the channels of a loop that has ended; give their number and the groups that ended.
        """
        lost = [member.channel for member in self._members.values() if member.loop is loop]
        return len(lost), [group for channel in lost for group in self.detach(channel)]

    def abandoned(self, group: Group) -> list[str]:
        """
        Name the members of a group whose mailbox nobody reads any more.
        """
        return [
            channel
            for channel, taker in group.takers.items()
            if isinstance(taker, Mailbox) and taker.abandoned
        ]

    def ended_loops(self) -> list[asyncio.AbstractEventLoop]:
        """
        Give the loops that have ended while channels of theirs are here.
        """
        loops = {member.loop for member in self._members.values()}
        return [loop for loop in loops if loop is not None and loop.is_closed()]

    def move(self, here: asyncio.AbstractEventLoop) -> None:
        """
        Sort all groups again for a hub that is on another loop now.
        """
        self.here = here
        for group in self.groups.values():
            channels = group.channels()
            group.direct, group.takers, group.remote = {}, {}, {}
            group.confirmed = None
            for channel in channels:
                group.add(self._members[channel], here)

    def _leave(self, name: str, member: Member) -> bool:
        """
        Take a member out of a group it is in; whether that ended the group.
        """
        assert member.groups is not None  # noqa: S101 - it is in this one
        member.groups.remove(name)
        group = self.groups[name]
        group.discard(member)
        if len(group):
            return False
        del self.groups[name]
        if group.confirmed is not None:
            group.confirmed.cancel()
        return True

    def _leave_all(self, member: Member) -> list[str]:
        """
        Take a member out of all its groups; give those that ended.
        """
        return [name for name in list(member.groups or ()) if self._leave(name, member)]

    def _forget_mailbox(self, member: Member) -> None:
        """
        Forget a member that was here only for its groups.
        """
        if member.loop is None:
            del self._members[member.channel]
            self.mailboxes.release(member.channel)


def _give_and_tell(member: Member, envelope: Envelope, future: Future[None]) -> None:
    """
    Give a message to a member on its loop and tell the hub's whether there was room.
    """
    if not future.set_running_or_notify_cancel():
        return
    if member.give(envelope):
        metrics.delivered.value += 1
        future.set_result(None)
    else:
        future.set_exception(ChannelFull(member.channel))
