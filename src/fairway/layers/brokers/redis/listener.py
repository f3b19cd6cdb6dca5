"""
The subscriber's side of one node: subjects asked for, messages heard, breaks reported.

What one loop turn wants or leaves is written at once. Messages go on only while their
subject is wanted; after a break each subject that missed something is reported once, when
it is confirmed again, so that whoever then looks for what was lost looks late enough.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.redis.commands import PAUSE_SECONDS, Refused
from fairway.layers.brokers.redis.link import Link, ReplyError, pack
from fairway.layers.brokers.redis.subscriptions import Subscriptions

__all__ = ["Listener"]

logger = logging.getLogger("fairway.layers")

SUBJECTS_PER_COMMAND = 512

REVIVAL_SECONDS = 0.5
"""
Time after which a subject that was refused is asked for again.
"""

PING = pack(("PING",))


class Listener:
    """
    What is heard from one node. Belongs to one loop.

    Attributes:
        subscriptions: The subjects, to look at.
    """

    def __init__(
        self,
        name: str,
        prefix: bytes,
        hear: Callable[[str, bytes], None],
        on_gap: Callable[[str], None],
        on_refusal: Callable[[Refused], None],
        *,
        delay: float,
        timeout: float,
    ) -> None:
        """
        Make a listener that waits for its first link.

        Args:
            name: What people call the node.
            prefix: What the names of its channels begin with, before the subject.
            hear: Called with subject and payload of each message.
            on_gap: Called with each subject that may have missed messages.
            on_refusal: Called when the server refuses to be listened to.
            delay: Seconds that a subject nobody wants is still subscribed to.
            timeout: Seconds that a confirmation is waited for, that of a link included.
        """
        self.subscriptions = Subscriptions()
        self._name = name
        self._prefix = prefix
        self._cut = len(prefix)
        self._hear = hear
        self._on_gap = on_gap
        self._on_refusal = on_refusal
        self._delay = delay
        self._timeout = timeout
        self._deadlines: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._trouble = f"redis at {name} is not connected yet"
        self._loop = asyncio.get_running_loop()
        self._answered_at = self._loop.time()
        self._patient_until = self._answered_at + timeout
        self._link: Link | None = None
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._revival: asyncio.TimerHandle | None = None
        self._pings: list[asyncio.Future[None]] = []

    def subscribe(self, subject: str) -> asyncio.Future[None] | None:
        """
        Want a subject; None if it is confirmed already, else what is done once it is.

        What is returned raises ChannelLayerUnavailable after a time, or at once where there has
        been no link for a while.
        """
        known = self.subscriptions.want(subject)
        if known.confirmed:
            return None
        now = self._loop.time()
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self._link is None and now > self._patient_until:
            # Wanted all the same, until its user takes that back.
            waiter.set_exception(ChannelLayerUnavailable(self._trouble))
            return waiter
        known.waiters = [one for one in known.waiters if not one.done()]
        known.waiters.append(waiter)
        self._deadlines.append((now + self._timeout, waiter))
        if self._deadline_timer is None:
            self._deadline_timer = self._loop.call_later(self._timeout, self._look_at_deadlines)
        self._flush_soon()
        return waiter

    def want(self, subject: str) -> None:
        """
        As ``subscribe``, for those who do not wait.
        """
        self.subscriptions.want(subject)
        self._flush_soon()

    def unsubscribe(self, subject: str) -> None:
        """
        Want a subject no more.
        """
        self.subscriptions.unwant(subject, self._loop.time() + self._delay)
        if self._timer is None:
            self._timer = self._loop.call_later(self._delay, self._expire)

    def attach(self, link: Link) -> None:
        """
        Have a link, and ask on it for everything wanted.
        """
        self._link = link
        self._answered_at = self._loop.time()
        self.subscriptions.begin()
        self._flush()

    def detach(self, error: Exception) -> None:
        """
        Have no link any more.
        """
        self._link = None
        self._patient_until = self._loop.time() + self._timeout
        self._trouble = str(error)
        pings, self._pings = self._pings, []
        for ping in pings:
            if not ping.done():
                ping.set_exception(error)

    def explain(self, error: Exception) -> None:
        """
        Remember why there is no link.
        """
        self._trouble = str(error)

    def ping(self) -> asyncio.Future[None]:
        """
        Ask the server for a sign of life.
        """
        answered: asyncio.Future[None] = self._loop.create_future()
        if self._link is None:
            answered.set_exception(ChannelLayerUnavailable(f"redis at {self._name} is away"))
        else:
            self._pings.append(answered)
            self._link.write(PING)
        return answered

    def close(self) -> None:
        """
        Forget everything; whoever waits gets ChannelLayerUnavailable.
        """
        error = ChannelLayerUnavailable("the broker was closed")
        self.detach(error)
        self.subscriptions.close(error)
        for timer in (self._timer, self._deadline_timer, self._revival):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline_timer = self._revival = None

    def on_reply(self, reply: Any) -> None:
        """
        Take what the server sends. Hot path: once per message.
        """
        if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
            subject = reply[1][self._cut :].decode()
            known = self.subscriptions.get(subject)
            if known is None or not known.wanted:
                return
            try:
                self._hear(subject, reply[2])
            except Exception:
                logger.exception("a message of %r could not be delivered", subject)
            return
        self._note(reply)

    def _note(self, reply: Any) -> None:
        """
        Take an answer to something that was written.
        """
        self._answered_at = self._loop.time()
        if isinstance(reply, ReplyError):
            self._refused(Refused(self._name, str(reply)))
        elif reply == b"PONG" or _kind(reply) == b"pong":
            ping = self._pings.pop(0) if self._pings else None
            if ping is not None and not ping.done():
                ping.set_result(None)
        elif _kind(reply) in (b"subscribe", b"unsubscribe"):
            known = self.subscriptions.confirm()
            if known is not None and known.broken:
                known.broken = False
                self._on_gap(known.subject)
        elif self._link is not None:
            self._link.lose(f"an answer that nobody asked for: {str(reply)[:100]}")

    def _refused(self, error: Refused) -> None:
        """
        Take a refusal of subjects, and ask again for those that stay wanted a little later.
        """
        self.subscriptions.refuse(error)
        self._on_refusal(error)
        if self._revival is None:
            self._revival = self._loop.call_later(REVIVAL_SECONDS, self._revive)

    def _revive(self) -> None:
        """
        Ask again for what was refused.
        """
        self._revival = None
        self.subscriptions.revive()
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing and self._link is not None and self.subscriptions.changed:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """
        Write what this loop turn wants and leaves.
        """
        self._flushing = False
        if self._link is None:
            return
        for subscribes, subjects in self.subscriptions.take(
            self._loop.time(), SUBJECTS_PER_COMMAND
        ):
            channels = (self._prefix + subject.encode() for subject in subjects)
            self._link.write(pack((b"SUBSCRIBE" if subscribes else b"UNSUBSCRIBE", *channels)))

    def _look_at_deadlines(self) -> None:
        """
        Have nobody wait any longer; a link without any answer for as long is none.
        """
        now = self._loop.time()
        late = False
        while self._deadlines and self._deadlines[0][0] <= now:
            waiter = self._deadlines.popleft()[1]
            if not waiter.done():
                late = True
                waiter.set_exception(
                    ChannelLayerUnavailable(
                        f"redis at {self._name} did not confirm a subscription within "
                        f"{self._timeout:g} s (command_timeout)"
                        if self._link is not None
                        else f"{self._trouble} (waited for {self._timeout:g} s, command_timeout)"
                    )
                )
        if late and self._link is not None and now - self._answered_at >= self._timeout:
            self._link.lose(f"no answer within {self._timeout:g} s (command_timeout)")
        self._deadline_timer = None
        if self._deadlines:
            self._deadline_timer = self._loop.call_at(
                max(self._deadlines[0][0], now + PAUSE_SECONDS), self._look_at_deadlines
            )

    def _expire(self) -> None:
        """
        End what nobody has wanted for long enough.
        """
        due = self.subscriptions.expire(self._loop.time())
        self._timer = None if due is None else self._loop.call_at(due, self._expire)
        self._flush_soon()


def _kind(reply: Any) -> Any:
    """
    Give what the first part of a reply says that it is.
    """
    return reply[0] if isinstance(reply, list) and reply else None
