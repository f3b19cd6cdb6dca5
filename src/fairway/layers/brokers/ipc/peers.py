"""
One other process: the link to it, on which we publish, and the one from it, on which it does.

What a process knows of another one, what it sends it and when it gives up on a link is
decided here; finding and dialling is ``mesh``'s. Belongs to one loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fairway import metrics
from fairway.layers.brokers.ipc.frames import (
    GAP,
    VERSION,
    Acknowledge,
    Ask,
    Beat,
    Bye,
    Complete,
    Disinterest,
    Frame,
    Gap,
    Hello,
    Interest,
    Message,
    acknowledge,
    hello,
    is_name,
)
from fairway.layers.brokers.ipc.interests import Interests
from fairway.layers.brokers.ipc.links import Link, Links

__all__ = ["Peer", "Surroundings", "Visitor"]

RETRY_SECONDS_MIN = 0.05
RETRY_SECONDS_MAX = 2.0
REFUSED_SECONDS_MAX = 60.0
"""
The longest pause before dialling one that closes every link without a word, as one of
another version does.
"""


class Surroundings(Protocol):
    """
    What peers and visitors ask of the mesh they are part of.

    Attributes:
        name: The own entry's name.
        links: The links of this process.
        interests: Who wants what.
        bytes_max: Bytes that may be queued for one other process.
    """

    name: str
    links: Links
    interests: Interests[Peer]
    bytes_max: int

    def told(self, peer: Peer) -> None:
        """
        Learn that a peer has told all its interests.
        """

    def cut_off(self, peer: Peer, reason: str) -> None:
        """
        Learn that the link to a peer has ended.
        """

    def given_up(self, peer: Peer, reason: str, unsent: int) -> None:
        """
        Learn that we have closed the link to a peer, with so many messages unsent.
        """

    def welcome(self, visitor: Visitor, name: str) -> None:
        """
        Learn who has dialled, and set the visitor's peer; or close its link.
        """

    def receive(self, message: Message) -> None:
        """
        Take a message.
        """

    def acknowledged(self, peer: Peer, number: int) -> None:
        """
        Learn that a peer has heeded everything up to a number.
        """

    def misled(self, reason: str) -> None:
        """
        Count that a link was closed because of what came on it.
        """

    def gap(self) -> None:
        """
        Learn that messages of a peer were lost.
        """

    def left(self, visitor: Visitor) -> None:
        """
        Learn that the link from a peer has ended.
        """


class Peer:
    """
    Another process, and the link that we have dialled to it.

    Attributes:
        name: Its entry.
        out: The link to it, on which we publish and it tells its interests; None without one.
        visitor: Its link to us; None before it has dialled us.
        late: Whether it did not acknowledge in time, and is not waited for until it does or dials.
        ended: Whether its entry is gone, or it said that it leaves.
        known: Whether it has ever told its interests.
        refused: Whether it closed the last link without a word.
        delay: Seconds until it is dialled again.
    """

    __slots__ = (
        "_answered",
        "_around",
        "_lossy",
        "delay",
        "ended",
        "known",
        "late",
        "name",
        "out",
        "refused",
        "visitor",
    )

    def __init__(self, around: Surroundings, name: str) -> None:
        self._around = around
        self.name = name
        self.out: Link | None = None
        self.visitor: Visitor | None = None
        self.late = self.ended = self.known = self.refused = False
        self.delay = 0.0
        # Whether messages to it were lost of which it does not know yet.
        self._lossy = False
        self._answered = False

    @property
    def awaited(self) -> bool:
        """
        Whether joins wait for its acknowledgement.
        """
        return not self.late and (self.visitor is not None or not self.ended)

    def connect(self, link: Link) -> None:
        """
        Begin to publish on a new link.
        """
        self.out = link
        self._answered = False
        self.ended = False
        self._around.interests.begin(self, everything=not self._lossy)
        link.send(hello(self._around.name))

    def publish(self, frame: bytes) -> Link | None:
        """
        Send a message, or count that it is lost. Hot path: once per publish and interested peer.

        Returns:
            The link, if more than half of what may be queued is.
        """
        link = self.out
        if link is None or (self._lossy and not self._answered):
            # Nothing is queued for a process that has lost messages until it shows that it
            # lives, or one that stands still would be sent the whole queue again and again.
            self._lossy = True
            if self.known:
                metrics.drops.add("link_down")
            return None
        if link.pending_bytes >= self._around.bytes_max:
            metrics.drops.add("link_full")
            self._give_up(link, "full", "its queue is full")
            return None
        link.send_message(frame)
        # With this one: it may be larger than the queue.
        return link if link.pending_bytes > self._around.bytes_max >> 1 else None

    def take(self, link: Link, frame: Frame) -> None:
        """
        Heed what it says on the link to it.
        """
        if isinstance(frame, Interest):
            self._around.interests.add(self, frame.subject)
        elif isinstance(frame, Disinterest):
            self._around.interests.discard(self, frame.subject)
        elif isinstance(frame, Ask):
            link.send(acknowledge(frame.number))
        elif isinstance(frame, Complete):
            self._told(link)
        elif isinstance(frame, Bye):
            self.ended = True
            link.close()
            self._detach("it left")
        elif not isinstance(frame, Beat):
            link.close()
            self.misled(link, f"it sent {type(frame).__name__} where it does not belong")

    def lost(self, link: Link, reason: str) -> None:
        """
        Note that the link to it has ended, other than by our doing.
        """
        if link is not self.out:
            return
        self.refused = not link.answered
        # What the kernel took and the other end has not read may be lost as well.
        self._lossy = self._lossy or link.messages > 0
        self._count_unsent(link, "link_down")
        self._detach(reason)

    def misled(self, link: Link, reason: str) -> None:
        """
        Note that it has sent what no process of ours sends.
        """
        self._around.misled(reason)
        self.lost(link, reason)

    def give_up(self, reason: str) -> None:
        """
        Close the link to it, which is silent.
        """
        if self.out is not None:
            self._give_up(self.out, "silent", reason)

    def _told(self, link: Link) -> None:
        """
        Send from now on what it has said that it wants.
        """
        self._around.interests.complete(self)
        self.known = self._answered = True
        self.delay = 0.0
        if self._lossy:
            self._lossy = False
            link.send(GAP)
        self._around.told(self)

    def _give_up(self, link: Link, kind: str, reason: str) -> None:
        """
        Close the link from this side. What the kernel took still arrives.
        """
        unsent = self._count_unsent(link, f"link_{kind}")
        self._lossy = self._lossy or unsent > 0 or kind == "full"
        link.close()
        self.delay = max(self.delay, RETRY_SECONDS_MIN)
        self._around.given_up(self, reason, unsent)
        self._detach(reason)

    def _detach(self, reason: str) -> None:
        self.out = None
        self._around.cut_off(self, reason)

    @staticmethod
    def _count_unsent(link: Link, reason: str) -> int:
        unsent = link.unsent_messages()
        if unsent:
            metrics.drops.add(reason, unsent)
        return unsent


class Visitor:
    """
    Another process that has dialled us, to publish; who it is, it says first.

    Attributes:
        link: Its link.
        peer: Who it is; None until it has said so.
        bytes_max: Bytes of interests that may be queued for it.
    """

    __slots__ = ("_around", "bytes_max", "link", "peer")

    def __init__(self, around: Surroundings, attach: Callable[[Visitor], Link]) -> None:
        self._around = around
        self.peer: Peer | None = None
        self.bytes_max = 0
        self.link = attach(self)

    def take(self, link: Link, frame: Frame) -> None:
        """
        Heed what it says.
        """
        peer = self.peer
        if peer is None:
            self._introduce(frame)
        elif isinstance(frame, Message):
            self._around.receive(frame)
        elif isinstance(frame, Acknowledge):
            self._around.acknowledged(peer, frame.number)
        elif isinstance(frame, Gap):
            self._around.gap()
        elif isinstance(frame, Bye):
            peer.ended = True
            link.close()
            self._around.left(self)
        elif not isinstance(frame, Beat):
            self._refuse(f"it sent {type(frame).__name__} where it does not belong")

    def lost(self, link: Link, reason: str) -> None:
        """
        Note that its link has ended.
        """
        self._around.left(self)

    def misled(self, link: Link, reason: str) -> None:
        """
        Note that it has sent what no process of ours sends.
        """
        self._around.misled(reason)
        self._around.left(self)

    def _introduce(self, frame: Frame) -> None:
        """
        Learn who it is.
        """
        if not isinstance(frame, Hello):
            self._refuse(f"it began with {type(frame).__name__}")
        elif frame.version != VERSION:
            self._refuse(f"it speaks version {frame.version}, expected {VERSION}")
        elif not is_name(frame.name) or frame.name == self._around.name:
            self._refuse(f"it calls itself {frame.name[:32]!r}")
        else:
            self._around.welcome(self, frame.name)

    def _refuse(self, reason: str) -> None:
        self.link.close()
        self.misled(self.link, reason)
