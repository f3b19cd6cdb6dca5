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
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from fairway import metrics
from fairway.exceptions import ChannelFull, ChannelLayerUnavailable
from fairway.layers.codec import Envelope, Kind, pack, unpack
from fairway.layers.mailbox import Mailbox, Mailboxes
from fairway.layers.members import Group, Member, Taker
from fairway.layers.notices import Notices
from fairway.layers.owner import Owner

if TYPE_CHECKING:
    from fairway.layers.brokers.base import Broker
    from fairway.options import LayerOptions
    from fairway.types import Inbox, Outbox

__all__ = ["Hub"]

logger = logging.getLogger("fairway.layers")

GROUP = "group:"
PROCESS = "process:"
"""
What the subjects begin with under which groups and processes are known to brokers.
"""

SUBJECTS_MAX = 65536
"""
Subjects whose messages are numbered; beyond that the numbers begin anew, under a new sender.
"""

SENDERS_MAX = 256
"""
Senders per group whose numbers are watched; beyond that the one heard first is forgotten.
"""


class Hub:
    """
    The channels of this process, their groups, and the broker to all other processes.

    ``group_send``, ``run`` and ``receive`` may be awaited on any loop and ``submit`` be called
    from any thread; everything else belongs to the owning loop.

    Attributes:
        process: The name of this process among others.
        owner: The loop it belongs to, and the way there.
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
        self._mailboxes: Mailboxes[Envelope] = Mailboxes(options.expiry)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin_anew()
        self.owner = Owner(self)

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
            if pending is None:
                return
            await self._bounded(pending)
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
        Number one message and write it to the broker, once, however many members there are.
        """
        now = monotonic()
        envelope = Envelope(
            kind,
            payload,
            expires=now + self._options.expiry,
            sender=self._sender,
            sequence=self._next_number(subject),
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
            group = self._groups.get(subject)
            if group is None:
                metrics.delivered_uninterested.value += 1
                return
            envelope.verify()
        except ValueError as error:
            metrics.drops.add("malformed")
            self._notices.say("malformed", "a message of the broker was dropped: %s", error)
            return
        if self._in_order(subject, group.heard, envelope):
            self.fan_out(group, envelope)

    def fan_out(self, group: Group, envelope: Envelope) -> None:
        """
        Hand one message to all members of a group but the excluded one.
        """
        excluded = self._members.get(envelope.exclude) if envelope.exclude is not None else None
        if excluded is not None and not group.discard(excluded):
            excluded = None
        refused = hand_out(group.direct.values(), group.takers.values(), envelope)
        for loop, members in list(group.remote.items()):
            try:
                loop.call_soon_threadsafe(_hand_out_elsewhere, tuple(members.values()), envelope)
            except RuntimeError:
                self._lose(loop)
        metrics.delivered.value += len(group) - refused
        if refused:
            self._report_refused(group, refused)
        if excluded is not None:
            group.add(excluded, self._loop)

    # --- From other threads and loops --------------------------------------------------------

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """
        Call a function of the hub on the owning loop and wait for it, in bounded time.

        Raises:
            ChannelLayerUnavailable: The loop or the broker did not answer in time.
        """
        if self.owner.here():
            pending = function(*args)
            if not isinstance(pending, Awaitable):
                return pending
        else:
            pending = asyncio.wrap_future(self.owner.enter(function, *args))
        return await self._bounded(pending)

    def submit(
        self, group: str, kind: Kind, payload: bytes, exclude: str | None = None
    ) -> Future[None]:
        """
        Send to a group without waiting, from any thread.

        Messages keep the order in which one thread submitted them.

        Returns:
            What is done once the broker has taken the message, and raises if it did not.
        """
        publish = partial(self._publish_bounded, GROUP + group, kind, payload, exclude)
        if not self.owner.here():
            return self.owner.enter(publish)
        future: Future[None] = Future()
        try:
            pending = publish()
        except Exception as error:  # noqa: BLE001 - it is given to the caller
            future.set_exception(error)
            return future
        if pending is None:
            future.set_result(None)
        else:
            self.owner.spawn(pending, future)
        return future

    async def receive(self, channel: str) -> Envelope:
        """
        Wait for the next message of a channel or queue, on any loop.

        A cancelled call loses nothing.
        """
        while True:
            if "!" in channel:
                envelope = await self._mailboxes.get(channel)
            else:
                envelope = await self._receive_queue(channel)
            try:
                envelope.verify()
            except ValueError:
                metrics.drops.add("malformed")
            else:
                return envelope

    def _publish_bounded(
        self, subject: str, kind: Kind, payload: bytes, exclude: str | None
    ) -> Awaitable[None] | None:
        pending = self.publish(subject, kind, payload, exclude=exclude)
        return None if pending is None else self._bounded(pending)

    async def _bounded(self, pending: Awaitable[Any]) -> Any:
        """
        Await something of the broker for as long as an option says.
        """
        seconds = self._options.publish_timeout
        try:
            async with asyncio.timeout(seconds):
                return await pending
        except TimeoutError:
            raise ChannelLayerUnavailable(
                f"the broker did not answer within {seconds:g} s (publish_timeout)"
            ) from None

    async def _receive_queue(self, queue: str) -> Envelope:
        if self.owner.loop is None:
            await self.run(_nothing)
        while True:
            payload = await self._broker.pop(queue)
            try:
                return unpack(payload, monotonic())
            except ValueError:
                metrics.drops.add("malformed")

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
        previous = self._members.get(channel)
        direct = None if outbox is None else (outbox, inbox)
        member = self._members[channel] = Member(channel, inbox, direct, loop)
        if previous is not None and previous.groups:
            member.groups = previous.groups
            for name in previous.groups:
                group = self._groups[GROUP + name]
                group.discard(previous)
                group.add(member, self._loop)
        for envelope in self._mailboxes.take_all(channel):
            _give(member, envelope)

    def detach(self, channel: str) -> None:
        """
        Forget a channel, in all its groups.
        """
        member = self._members.pop(channel, None)
        if member is None:
            self._mailboxes.take_all(channel)
            return
        for name in member.groups or ():
            self._take_out(GROUP + name, member)
        if member.loop is None:
            self._mailboxes.take_all(channel)

    def join(self, group: str, channel: str) -> Awaitable[None] | None:
        """
        Add a channel to a group; confirmed once what is returned is done, or if it is None.

        A channel of another process is added by that process, some time later.
        """
        if not self.owns(channel):
            return self._tell_owner(Kind.JOIN, group, channel)
        member = self._members.get(channel)
        if member is None:
            box = self._mailboxes.hold(channel, self._capacity(channel))
            member = self._members[channel] = Member(channel, box, None, None)
        if member.groups is None:
            member.groups = set()
        member.groups.add(group)
        entry = self._groups.get(GROUP + group) or self._open_group(GROUP + group)
        entry.add(member, self._loop)
        if entry.confirmed is None:
            return None
        return self._confirmed(entry.confirmed, group, channel)

    def leave_group(self, group: str, channel: str) -> Awaitable[None] | None:
        """
        Take a channel out of a group. Does nothing if it is not in it.
        """
        if not self.owns(channel):
            return self._tell_owner(Kind.LEAVE, group, channel)
        member = self._members.get(channel)
        if member is None or member.groups is None or group not in member.groups:
            return None
        member.groups.remove(group)
        self._take_out(GROUP + group, member)
        if member.loop is None and not member.groups:
            del self._members[channel]
            self._mailboxes.release(channel)
        return None

    def send(self, channel: str, kind: Kind, payload: bytes) -> Awaitable[None] | None:
        """
        Send to one channel: of this process, of another one, or a queue of the broker.

        Raises:
            ChannelFull: A channel of this process or a queue has no room; here or by what is
                returned. Another process drops what its channel has no room for.
        """
        if "!" in channel and not self.owns(channel):
            return self.publish(self._subject_of(channel), kind, payload, channel=channel)
        expiry = self._options.expiry
        now = monotonic()
        envelope = Envelope(kind, payload, expires=now + expiry, sender=self._sender)
        if "!" in channel:
            return self._send_here(channel, envelope)
        metrics.published.value += 1
        return self._broker.push(
            channel, pack(envelope, now), lifetime=expiry, capacity=self._capacity(channel)
        )

    def flush(self) -> Awaitable[None]:
        """
        Forget all groups of this process and all unread messages.
        """
        for channel, member in list(self._members.items()):
            for name in member.groups or ():
                self._take_out(GROUP + name, member)
            member.groups = None
            if member.loop is None:
                del self._members[channel]
                self._mailboxes.release(channel)
        self._mailboxes.clear()
        return self._broker.flush()

    def owns(self, channel: str) -> bool:
        """
        Whether a channel belongs to this process. From any thread.
        """
        return self._broker.alone or self._subject_of(channel) == self._subject

    @property
    def groups(self) -> dict[str, list[str]]:
        """
        The groups that have members here, with their channels. From any thread.
        """
        return {
            subject.removeprefix(GROUP): group.channels()
            for subject, group in list(self._groups.items())
        }

    @property
    def mailboxes(self) -> dict[str, Mailbox[Envelope]]:
        """
        The mailboxes in use, by channel. From any thread.
        """
        return self._mailboxes.snapshot()

    # --- Where it lives (called by its owner) ------------------------------------------------

    @property
    def wanted(self) -> bool:
        """
        Whether somebody here waits for messages of groups.
        """
        return bool(self._groups)

    async def arrive(self) -> None:
        """
        Begin on the running loop, with the members and groups there are.
        """
        self._loop = asyncio.get_running_loop()
        for loop in {member.loop for member in self._members.values()}:
            if loop is not None and loop.is_closed():
                self._lose(loop)
        for subject, group in self._groups.items():
            regrouped = self._groups[subject] = Group()
            regrouped.heard = group.heard
            for channel in group.channels():
                regrouped.add(self._members[channel], self._loop)
        await self._broker.start(
            self.deliver, self._on_gap, self._on_state, [self._subject, *self._groups]
        )

    async def leave(self) -> None:
        """
        End on the running loop, after what was published has left.
        """
        await self._broker.close()

    def forked(self) -> None:
        """
        Begin anew in a child process, as a process of another name.
        """
        self._begin_anew()
        self._mailboxes.forked()
        self._broker.forked()

    # --- Helpers -----------------------------------------------------------------------------

    def _begin_anew(self) -> None:
        """
        Be a process without channels that has sent nothing yet.
        """
        self.process = secrets.token_hex(6)
        self._subject = PROCESS + self.process
        self._sender = self.process
        self._senders = 0
        self._sequences: dict[str, int] = {}
        self._heard: dict[str, int] = {}
        self._groups: dict[str, Group] = {}
        self._members: dict[str, Member] = {}
        self._notices = Notices(logger)
        self._loop = None

    def _next_number(self, subject: str) -> int:
        """
        Number a message among those of this sender to this subject, from 1.
        """
        number = self._sequences.get(subject, 0) + 1
        if number == 1 and len(self._sequences) >= SUBJECTS_MAX:
            self._sequences.clear()
            self._senders += 1
            self._sender = f"{self.process}.{self._senders}"
        self._sequences[subject] = number
        return number

    def _in_order(self, subject: str, heard: dict[str, int], envelope: Envelope) -> bool:
        """
        Whether a message is not an old one; counts those that are missing before it.
        """
        sender, number = envelope.sender, envelope.sequence
        last = heard.get(sender)
        if last is None:
            if len(heard) >= SENDERS_MAX:
                del heard[next(iter(heard))]
        elif number <= last:
            metrics.drops.add("duplicate")
            return False
        elif number > last + 1:
            self._on_gap(subject, number - last - 1)
        heard[sender] = number
        return True

    def _deliver_here(self, envelope: Envelope) -> None:
        """
        Take a message that another process addressed to a channel of this one.
        """
        if not self._in_order(self._subject, self._heard, envelope):
            return
        channel = envelope.channel
        if channel is None or not self.owns(channel):
            raise ValueError(f"addressed to {channel!r}")
        if envelope.kind is Kind.JOIN or envelope.kind is Kind.LEAVE:
            change = self.join if envelope.kind is Kind.JOIN else self.leave_group
            pending = change(envelope.payload.decode(), channel)
            if pending is not None:
                self.owner.spawn(pending)
            return
        envelope.verify()
        try:
            self._send_here(channel, envelope)
        except ChannelFull:
            metrics.drops.add("full")
            self._notices.say("full", "channel %r is full: messages for it are dropped", channel)

    def _send_here(self, channel: str, envelope: Envelope) -> Awaitable[None] | None:
        """
        Give a message to a channel of this process, or raise ChannelFull.
        """
        member = self._members.get(channel)
        if member is not None and member.loop is not None and member.loop is not self._loop:
            return self._send_elsewhere(member, envelope)
        if member is None or member.loop is None:
            taken = self._mailboxes.put(channel, envelope, self._capacity(channel))
        else:
            taken = _give(member, envelope)
        if not taken:
            raise ChannelFull(channel)
        metrics.delivered.value += 1
        return None

    def _send_elsewhere(self, member: Member, envelope: Envelope) -> Awaitable[None] | None:
        """
        Give a message to a member on another loop.
        """
        assert member.loop is not None  # noqa: S101 - the caller looked
        future: Future[None] = Future()
        try:
            member.loop.call_soon_threadsafe(_give_and_tell, member, envelope, future)
        except RuntimeError:
            self._lose(member.loop)
            return None
        return asyncio.wrap_future(future)

    def _open_group(self, subject: str) -> Group:
        """
        Begin a group in this process, with a subscription at the broker.
        """
        group = self._groups[subject] = Group()
        pending = self._broker.subscribe(subject)
        if pending is not None:
            group.confirmed = asyncio.ensure_future(pending)
            group.confirmed.add_done_callback(partial(_forget_confirmed, group))
        return group

    async def _confirmed(
        self, confirmation: asyncio.Future[None], group: str, channel: str
    ) -> None:
        """
        Wait for the broker's word that a group is subscribed to; without it, undo the joining.
        """
        try:
            await asyncio.shield(confirmation)
        except Exception:
            # By way of the owner: the hub may have moved to another loop meanwhile.
            self.owner.enter(self.leave_group, group, channel)
            raise

    def _take_out(self, subject: str, member: Member) -> None:
        """
        Take a member out of a group, which ends with its last member.
        """
        group = self._groups[subject]
        group.discard(member)
        if not len(group):
            del self._groups[subject]
            self._broker.unsubscribe(subject)

    def _tell_owner(self, kind: Kind, group: str, channel: str) -> Awaitable[None] | None:
        """
        Have another process change the groups of its channel.
        """
        return self.publish(self._subject_of(channel), kind, group.encode(), channel=channel)

    @staticmethod
    def _subject_of(channel: str) -> str:
        """
        Give the subject of the process that a channel's name names.
        """
        return PROCESS + channel.partition("!")[0].rpartition(".")[2]

    def _lose(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Forget the members of a loop that has ended.
        """
        lost = [member.channel for member in self._members.values() if member.loop is loop]
        for channel in lost:
            self.detach(channel)
        metrics.members_lost.value += len(lost)
        logger.warning("%d channels were removed: their event loop has ended", len(lost))

    def _report_refused(self, group: Group, refused: int) -> None:
        """
        Count messages of a group that found no room, and forget members nobody reads any more.
        """
        metrics.drops.add("full", refused)
        self._notices.say(
            "full", "%d members of a group read too slowly: messages for them are dropped", refused
        )
        for channel, taker in list(group.takers.items()):
            if isinstance(taker, Mailbox) and taker.abandoned:
                self.detach(channel)

    def _on_gap(self, subject: str, lost: int | None) -> None:
        """
        Count messages that are known to be lost between processes.
        """
        metrics.gaps.value += 1 if lost is None else lost
        self._notices.say(
            "gap", "%s messages of %s were lost on their way", lost or "some", subject
        )

    def _on_state(self, connected: bool) -> None:
        """
        Say that the broker went away or came back.
        """
        if connected:
            logger.info("the broker is back")
        else:
            logger.warning("the broker went away; reconnecting")


def hand_out(
    direct: Iterable[tuple[Outbox, Inbox]], takers: Iterable[Taker], envelope: Envelope
) -> int:
    """
    Give one message to many members on this loop.

    Hot path: the loops here run once per member and publish. Nothing awaits, no task is made,
    nothing is copied: a socket gets the prepared message that all share, a consumer the
    envelope that all share.

    Args:
        direct: Outbox and inbox of members whose sockets take messages directly. One whose
            consumer has a layer message unread or in hand gets its message behind that.
        takers: Where messages go for all other members.
        envelope: The message, verified.

    Returns:
        How many had no room for it.
    """
    refused = 0
    kind = envelope.kind
    if kind is Kind.HANDLER:
        for _, inbox in direct:
            if not inbox.put(envelope):
                refused += 1
    elif kind is Kind.CLOSE:
        code, reason = envelope.closing()
        for outbox, inbox in direct:
            if inbox.idle:
                outbox.close(code, reason)
            elif not inbox.put(envelope):
                refused += 1
    else:
        prepared = envelope.prepared
        for outbox, inbox in direct:
            if inbox.idle:
                outbox.offer(prepared)
            elif not inbox.put(envelope):
                refused += 1
    for taker in takers:
        if not taker.put(envelope):
            refused += 1
    return refused


def _hand_out_elsewhere(members: tuple[Member, ...], envelope: Envelope) -> None:
    """
    Give one message to members on another loop than the hub's, which runs this.
    """
    direct = [member.direct for member in members if member.direct is not None]
    takers = [member.taker for member in members if member.direct is None]
    refused = hand_out(direct, takers, envelope)
    if refused:
        metrics.drops.add("full", refused)


def _give(member: Member, envelope: Envelope) -> bool:
    """
    Give one message to one member on its loop, which runs this; False if it has no room.
    """
    if member.direct is not None:
        return not hand_out((member.direct,), (), envelope)
    return member.taker.put(envelope)


def _give_and_tell(member: Member, envelope: Envelope, future: Future[None]) -> None:
    """
    Give a message to a member on its loop and tell the hub's whether there was room.
    """
    if not future.set_running_or_notify_cancel():
        return
    if _give(member, envelope):
        metrics.delivered.value += 1
        future.set_result(None)
    else:
        future.set_exception(ChannelFull(member.channel))


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
