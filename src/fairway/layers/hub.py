"""
The hub: who is here, and how one publish reaches all of them.

One per process and channel layer, owned by one loop (see ``owner``). Its state
is touched on that loop only. The way of a group message is readable from top to
bottom here: ``group_send``, ``publish``, (the broker), ``deliver``, ``fan_out``,
``hand_out``. Names, message types and Channels' rules are the layer's business.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from fairway import metrics
from fairway.exceptions import ChannelFull, ChannelLayerUnavailable
from fairway.layers.codec import Envelope, Kind, pack, unpack
from fairway.layers.mailbox import Mailbox
from fairway.layers.members import Group, Member, Taker
from fairway.layers.notices import Notices
from fairway.layers.owner import Owner
from fairway.layers.roster import Roster
from fairway.layers.sequences import Hearing, Numbering

if TYPE_CHECKING:
    from fairway.layers.brokers.base import Broker
    from fairway.options import LayerOptions
    from fairway.types import Inbox, Outbox

__all__ = ["Hub", "hand_out"]

logger = logging.getLogger("fairway.layers")

GROUP = "group:"
PROCESS = "process:"
"""
What the subjects begin with under which brokers know groups and processes.
"""

_FOR_SOME = frozenset({Kind.HANDLER, Kind.CLOSE, Kind.BODY})
"""
What is no message for a socket, or not for each.
"""


class Hub:
    """
    The channels of this process, their groups, and the broker to all other processes.

    ``group_send``, ``run`` and ``receive`` may be awaited on any loop and ``submit`` be called
    from any thread; everything else belongs to the owning loop.

    Attributes:
        process: The name of this process among others.
        owner: The loop it belongs to, and the way there.
        on_state: Called when the broker went away or came back, if anybody wants to know.
    """

    def __init__(
        self, broker: Broker, options: LayerOptions, capacity: Callable[[str], int]
    ) -> None:
        """
        Make a hub that begins at first use.

        Args:
            broker: Carries its messages; nobody else uses it.
            options: The limits.
            capacity: Gives how many unread messages a channel may hold, by its name.
        """
        self._broker = broker
        self._options = options
        self._capacity = capacity
        self._notices = Notices(logger)
        self._told_away = False
        self.on_state: Callable[[bool], None] | None = None
        self._begin_anew()
        self.owner = Owner(self)

    def _begin_anew(self) -> None:
        """
        Be a process without channels that has sent nothing yet.
        """
        self.process = secrets.token_hex(6)
        self._subject = PROCESS + self.process
        self._numbering = Numbering(self.process)
        self._hearing = Hearing()
        self._roster = Roster(self._options.expiry, self._capacity)

    # --- Hot path: from a publish to the sockets ---------------------------------------------

    async def group_send(
        self, group: str, kind: Kind, payload: bytes, exclude: str | None = None
    ) -> None:
        """
        Send to every member of a group, in all processes. From any loop.

        Returns once the broker has taken the message.

        Raises:
            ChannelLayerUnavailable: It did not, in bounded time.
        """
        if self.owner.here():
            pending = self.publish(GROUP + group, kind, payload, exclude=exclude)
            if pending is not None:
                await self._bounded(pending, self._options.publish_timeout)
        else:
            await self.run(partial(self.publish, GROUP + group, kind, payload, exclude=exclude))

    def publish(
        self,
        subject: str,
        kind: Kind,
        payload: bytes,
        *,
        channel: str | None = None,
        exclude: str | None = None,
    ) -> Awaitable[None] | None:
        """
        Write one message to the broker, once, however many members there are.
        """
        now = monotonic()
        sequence = self._numbering.number(subject)
        envelope = Envelope(
            kind,
            payload,
            expires=now + self._options.expiry,
            sender=self._numbering.sender,
            sequence=sequence,
            channel=channel,
            exclude=exclude,
        )
        metrics.published.value += 1
        return self._broker.publish(subject, pack(envelope, now))

    def deliver(self, subject: str, payload: bytes) -> None:
        """
        Take one message from the broker. Hot path: once per message and process.
        """
        try:
            envelope = unpack(payload, monotonic())
            if subject == self._subject:
                self._deliver_here(envelope)
                return
            group = self._roster.groups.get(subject.removeprefix(GROUP))
            if group is None:
                metrics.delivered_uninterested.value += 1
                return
            envelope.verify()
        except ValueError as error:
            metrics.drops.add("malformed")
            self._notices.say(
                "malformed",
                "a message of the broker was dropped: %s. Hint: give all processes the same "
                "symmetric_encryption_keys, or none, and one version of Fairway",
                error,
            )
            return
        if self._in_order(subject, group.hearing, envelope):
            self.fan_out(group, envelope)

    def fan_out(self, group: Group, envelope: Envelope) -> None:
        """
        Hand one message to all members of a group but the excluded one.
        """
        excluded = None if envelope.exclude is None else self._roster.member(envelope.exclude)
        if excluded is not None and not group.discard(excluded):
            excluded = None
        try:
            refused = hand_out(group.direct, group.takers.values(), envelope)
            ended = group.hand_over(envelope)
            metrics.delivered.value += len(group) - refused
        finally:
            if excluded is not None:
                group.add(excluded, self._roster.here)
        if refused:
            self._report_refused(group, refused)
        for loop in ended:
            self._lose(loop)

    # --- From other threads and loops --------------------------------------------------------

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Call a function of the hub on the owning loop and wait for it, in bounded time.

        Raises:
            ChannelLayerUnavailable: The loop or the broker did not answer in time.
        """
        if self.owner.here():
            pending = self._begin(function, *args)
        else:
            # As long for the owning loop to get there as it gives the broker.
            entered = asyncio.wrap_future(self.owner.enter(self._begin, function, *args))
            pending = self._bounded(entered, 2 * self._options.publish_timeout)
        return await pending if isinstance(pending, Awaitable) else pending

    def submit(
        self, group: str, kind: Kind, payload: bytes, exclude: str | None = None
    ) -> Future[None]:
        """
        Send to a group without waiting, from any thread, in the order of the calls.

        Returns:
            What is done once the broker has taken the message, and raises if it did not.
        """
        publish = partial(self.publish, GROUP + group, kind, payload, exclude=exclude)
        return self.owner.run_or_enter(self._begin, publish)

    async def receive(self, channel: str) -> Envelope:
        """
        Wait for the next message of a channel or queue, on any loop.

        A cancelled call loses nothing.
        """
        if self.owner.loop is None:
            await self.run(_nothing)
        while True:
            try:
                if "!" in channel:
                    envelope = await self._roster.mailboxes.get(channel)
                else:
                    envelope = unpack(await self._broker.pop(channel), monotonic())
                envelope.verify()
            except ValueError as error:
                metrics.drops.add("malformed")
                self._notices.say("unreadable", "a message on %r was dropped: %s", channel, error)
            else:
                return envelope

    def _begin(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Call a function on the owning loop; an awaitable it returns is given a time limit.
        """
        pending = function(*args)
        if isinstance(pending, Awaitable):
            return self._bounded(pending, self._options.publish_timeout)
        return pending

    async def _bounded(self, pending: Awaitable[Any], seconds: float) -> Any:
        """
        Await something of the broker or the owning loop for so many seconds.
        """
        try:
            async with asyncio.timeout(seconds):
                return await pending
        except TimeoutError:
            raise ChannelLayerUnavailable(
                f"the broker did not answer within {seconds:g} s (publish_timeout)"
            ) from None

    # --- Who is here (owning loop) -----------------------------------------------------------

    def attach(
        self,
        channel: str,
        inbox: Inbox,
        outbox: Outbox | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """
        Have a channel's messages put into an inbox from now on.

        Args:
            channel: A channel of this process.
            inbox: Where its messages go.
            outbox: Where messages for the socket itself go around the consumer; None where a
                consumer is to see all of them.
            loop: The loop that both belong to.
        """
        self._roster.attach(channel, inbox, outbox, loop)

    def detach(self, channel: str) -> None:
        """
        Forget a channel, in all its groups.
        """
        self._unsubscribe(self._roster.detach(channel))

    def join(self, group: str, channel: str) -> Awaitable[None] | None:
        """
        Add a channel to a group; confirmed once what is returned is done, or if it is None.

        A channel of another process is added by that process, some time later.
        """
        if not self.owns(channel):
            return self._tell_owner(Kind.JOIN, group, channel)
        begins = self._roster.join(group, channel)
        entry = self._roster.groups[group]
        if begins:
            pending = self._broker.subscribe(GROUP + group)
            if pending is not None:
                entry.confirmed = asyncio.ensure_future(pending)
                entry.confirmed.add_done_callback(partial(_forget_confirmed, entry))
        if entry.confirmed is None:
            return None
        return self._confirmed(entry.confirmed, group, channel)

    def leave(self, group: str, channel: str) -> Awaitable[None] | None:
        """
        Take a channel out of a group. Does nothing if it is not in it.
        """
        if not self.owns(channel):
            return self._tell_owner(Kind.LEAVE, group, channel)
        if self._roster.leave(group, channel):
            self._broker.unsubscribe(GROUP + group)
        return None

    def send(self, channel: str, kind: Kind, payload: bytes) -> Awaitable[None] | None:
        """
        Send to one channel: of this process, of another one, or a queue of the broker.

        Raises:
            ChannelFull: A channel of this process or a queue has no room; here or by what is
                returned. Another process drops what its channel has no room for.
        """
        if "!" in channel and not self.owns(channel):
            return self.publish(_subject_of(channel), kind, payload, channel=channel)
        expiry = self._options.expiry
        now = monotonic()
        envelope = Envelope(kind, payload, expires=now + expiry, sender=self._numbering.sender)
        if "!" in channel:
            return self._roster.give(channel, envelope)
        metrics.published.value += 1
        return self._broker.push(
            channel, pack(envelope, now), lifetime=expiry, capacity=self._capacity(channel)
        )

    def tell_all(self, kind: Kind, payload: bytes) -> None:
        """
        Send to every channel of this process that somebody reads or that is in a group.
        """
        expires = monotonic() + self._options.expiry
        envelope = Envelope(kind, payload, expires=expires, sender=self._numbering.sender)
        for channel in self._roster.channels():
            pending = self._send_or_drop(channel, envelope)
            if pending is not None:
                self.owner.spawn(pending)

    def flush(self) -> Awaitable[None]:
        """
        Forget all groups of this process and all unread messages.
        """
        self._unsubscribe(self._roster.clear())
        return self._broker.flush()

    def owns(self, channel: str) -> bool:
        """
        Whether a channel belongs to this process. From any thread.
        """
        return self._broker.alone or _subject_of(channel) == self._subject

    @property
    def groups(self) -> dict[str, list[str]]:
        """
        Groups that have members here, with their channels. From any thread.
        """
        return {name: group.channels() for name, group in list(self._roster.groups.items())}

    @property
    def mailboxes(self) -> dict[str, Mailbox[Envelope]]:
        """
        The mailboxes in use, by channel. From any thread.
        """
        return self._roster.mailboxes.snapshot()

    # --- Where it lives (called by its owner) ------------------------------------------------

    @property
    def wanted(self) -> bool:
        """
        Whether somebody here waits for messages of groups.
        """
        return bool(self._roster.groups)

    async def arrive(self) -> None:
        """
        Begin on the running loop, with the members and groups there are.
        """
        self._roster.move(asyncio.get_running_loop())
        for loop in self._roster.ended_loops():
            self._lose(loop)
        subjects = [self._subject, *(GROUP + name for name in self._roster.groups)]
        await self._broker.start(self.deliver, self._on_gap, self._on_state, subjects)
        metrics.brokers[self._broker] = None

    async def depart(self) -> None:
        """
        End on the running loop, after what was published has left.
        """
        metrics.brokers.pop(self._broker, None)
        await self._broker.close()

    def forked(self) -> None:
        """
        Begin anew in a child process, as a process of another name.
        """
        self._begin_anew()
        self._broker.forked()

    # --- Helpers -----------------------------------------------------------------------------

    def _in_order(self, subject: str, hearing: Hearing, envelope: Envelope) -> bool:
        """
        Whether a message is not an old one; counts those that are missing before it.
        """
        missing = hearing.missing(envelope.sender, envelope.sequence)
        if missing > 0:
            self._on_gap(subject, missing)
        elif missing < 0:
            metrics.drops.add("duplicate")
        return missing >= 0

    def _deliver_here(self, envelope: Envelope) -> None:
        """
        Take a message that another process addressed to a channel of this one.

        Raises:
            ValueError: It is none.
        """
        channel = envelope.channel
        if channel is None or not self.owns(channel):
            raise ValueError(f"addressed to {channel!r}")
        if not self._in_order(self._subject, self._hearing, envelope):
            return
        if envelope.kind in {Kind.JOIN, Kind.LEAVE}:
            change = self.join if envelope.kind is Kind.JOIN else self.leave
            pending = change(envelope.payload.decode(), channel)
        else:
            envelope.verify()
            pending = self._send_or_drop(channel, envelope)
        if pending is not None:
            self.owner.spawn(pending)

    def _send_or_drop(self, channel: str, envelope: Envelope) -> Awaitable[None] | None:
        """
        Give a message of another process to a channel, or count that there was no room.
        """
        try:
            return self._roster.give(channel, envelope)
        except ChannelFull:
            metrics.drops.add("full")
            self._notices.say("full", "channel %s is full: messages to it are dropped", channel)
            return None

    async def _confirmed(
        self, confirmation: asyncio.Future[None], group: str, channel: str
    ) -> None:
        """
        Wait for the broker's word that a group is subscribed to; without it, undo the joining.
        """
        try:
            await asyncio.shield(confirmation)
        except BaseException:
            task = asyncio.current_task()
            if confirmation.cancelled() and not (task and task.cancelling()):
                return  # All have left meanwhile, this one too: there is nothing to wait for.
            # By way of the owner: the hub may have moved to another loop meanwhile.
            self.owner.enter(self.leave, group, channel)
            raise

    def _unsubscribe(self, groups: list[str]) -> None:
        """
        Tell the broker that groups have no members here any more.
        """
        for group in groups:
            self._broker.unsubscribe(GROUP + group)

    def _tell_owner(self, kind: Kind, group: str, channel: str) -> Awaitable[None] | None:
        """
        Have another process change the groups of its channel.
        """
        return self.publish(_subject_of(channel), kind, group.encode(), channel=channel)

    def _lose(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Forget the channels of a loop that has ended.
        """
        lost, ended = self._roster.lose(loop)
        self._unsubscribe(ended)
        if lost:
            metrics.members_lost.value += lost
            logger.warning("channels removed because their event loop has ended: %d", lost)

    def _report_refused(self, group: Group, refused: int) -> None:
        """
        Count members that had no room, and forget those whom nobody reads any more.
        """
        metrics.drops.add("full", refused)
        self._notices.say(
            "full", "%d members of a group read too slowly: messages to them are dropped", refused
        )
        for channel in self._roster.abandoned(group):
            self.detach(channel)

    def _on_gap(self, subject: str, lost: int | None) -> None:
        """
        Count messages that were lost between processes, or that some may have been.

        After a break that says nothing of their number, holes in the numbers will.
        """
        if lost is None:
            metrics.gaps.value += 1
        else:
            metrics.missing.value += lost
        self._notices.say(
            "gap", "%s messages of %r were lost on their way", lost or "some", subject
        )

    def _on_state(self, connected: bool) -> None:
        """
        Say that the broker went away or came back.
        """
        if not connected:
            reason = self._broker.trouble
            self._told_away = self._notices.say(
                "away", "the broker went away; reconnecting%s", f": {reason}" if reason else ""
            )
        elif self._told_away:
            logger.info("the broker is back")
        if self.on_state is not None:
            self.on_state(connected)


def hand_out(direct: Mapping[Outbox, Member], takers: Iterable[Taker], envelope: Envelope) -> int:
    """
    Give one message to many members on this loop.

    Hot path: the loops here run once per member and publish. Nothing awaits, no task is made,
    nothing is copied: sockets get the prepared message that all share, consumers the envelope
    that all share.

    Args:
        direct: Members whose sockets take messages directly, by outbox.
        takers: Where messages go for all other members.
        envelope: The message, verified.

    Returns:
        How many had no room for it.
    """
    refused = 0
    if envelope.kind in _FOR_SOME:
        for member in direct.values():
            if not member.give(envelope):
                refused += 1
    else:
        first = next(iter(direct), None)
        unclear = () if first is None else first.offer_all(direct, envelope.prepared)
        for outbox in unclear:
            if not direct[outbox].give(envelope):
                refused += 1
    for taker in takers:
        if not taker.put(envelope):
            refused += 1
    return refused


def _subject_of(channel: str) -> str:
    """
    Give the subject of the process that a channel's name names.
    """
    return PROCESS + channel.partition("!")[0].rpartition(".")[2]


def _forget_confirmed(group: Group, confirmation: asyncio.Future[None]) -> None:
    """
    Let those who join a group from now on wait no more, once it is confirmed.
    """
    if not confirmation.cancelled() and confirmation.exception() is None:
        group.confirmed = None


def _nothing() -> None:
    """
    Be called on the owning loop, so that the hub is on one.
    """
