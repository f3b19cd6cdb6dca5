"""
The processes of one machine that are linked with this one: who they are, found and kept.

Each process listens in the directory and dials everybody it finds there; whoever is dialled
by a process it has no link to dials back. So there are two links per pair, and each
carries the messages of the process that dialled it. One mesh lives from a start of the
broker to its close, on one loop, and makes no task: connecting to a Unix socket does not wait.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Hashable, Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fairway import metrics
from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.base import Deliver, OnGap, OnState
from fairway.layers.brokers.ipc import frames
from fairway.layers.brokers.ipc.door import Door
from fairway.layers.brokers.ipc.interests import Interests
from fairway.layers.brokers.ipc.joins import Joins, fail, new_wait
from fairway.layers.brokers.ipc.links import Link, Links
from fairway.layers.brokers.ipc.peers import (
    REFUSED_SECONDS_MAX,
    RETRY_SECONDS_MAX,
    RETRY_SECONDS_MIN,
    Peer,
    Visitor,
)
from fairway.layers.notices import Notices
from fairway.options import IPCOptions

__all__ = ["Listener", "Mesh"]

logger = logging.getLogger("fairway.layers")

PACE_SECONDS = 1.0
"""
Time that a publish waits at most for processes that read more slowly than it sends.
"""

AUDIENCE_SECONDS = 1.0
"""
Time after which those who have not said what they want are no audience.
"""

PARTING_SECONDS = 1.0
"""
Time for what is queued to leave when the mesh closes.
"""


class Listener(NamedTuple):
    """
    Who is told what arrives.
    """

    deliver: Deliver
    on_gap: OnGap
    on_state: OnState


class Mesh:
    """
    The place of this process among the others.

    Attributes:
        name: The own entry's name.
        peers: The other processes, by the names of their entries.
        loop: Where it lives.
        links: The links of this process.
        interests: Who wants what.
        bytes_max: Bytes that may be queued for one other process.
    """

    def __init__(
        self,
        directory: Path,
        options: IPCOptions,
        expiry: float,
        subjects: AbstractSet[str],
        listener: Listener,
        notices: Notices,
    ) -> None:
        """
        Be alone, on the running loop, until ``open``.

        Args:
            directory: Where the processes meet.
            options: The limits.
            expiry: Seconds after which a message is worthless.
            subjects: What this process wants; changed by the owner, who then calls
                ``subscribe`` or ``unsubscribe``.
            listener: Told what arrives.
            notices: Where a line goes that may come often.
        """
        self._directory = directory
        self._options = options
        self._expiry = expiry
        self._subjects = subjects
        self._listener = listener
        self._notices = notices
        self.loop = asyncio.get_running_loop()
        self._door = Door(self.loop, directory, notices, self._admit, listener.on_state)
        self._visitors: dict[Link, Visitor] = {}
        self._joins = Joins(self.loop, options.join_timeout, self._note_late)
        self._asked = 1
        self._asking: asyncio.Future[None] | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._beat_at = self._scan_at = 0.0
        self._closed = False
        self.name = self._door.name
        self.peers: dict[str, Peer] = {}
        self.links = Links(self.loop)
        self.interests: Interests[Peer] = Interests()
        self.bytes_max = options.link_bytes_max

    # --- The beginning and the end -----------------------------------------------------------

    def open(self) -> None:
        """
        Listen, and dial everybody who is there.

        Raises:
            ConfigurationError: The directory cannot be used.
            ChannelLayerUnavailable: The system refuses what is needed at present.
        """
        try:
            self._door.listen()
            self._scan()
        except OSError as error:
            self.abandon()
            raise ChannelLayerUnavailable(
                f"cannot listen in {self._directory}: {error.strerror or error}"
            ) from error
        self._schedule_beat()

    async def settle(self) -> None:
        """
        Wait until everybody who is there has told its interests and heeds ours, or is late.
        """
        missing: set[Hashable] = {peer for peer in self.peers.values() if peer.awaited}
        missing |= self._unheard()
        settled = new_wait(self.loop)
        self._joins.wait(self._asked, settled, missing)
        await settled

    async def close(self) -> None:
        """
        Leave: say so, after what is queued has left, in bounded time.
        """
        self._withdraw()
        for link in list(self.links.open):
            link.send(frames.BYE)
        leaving = [
            link.wait_room(0)
            for link in list(self.links.open)
            if link.moving(self._options.join_timeout)
        ]
        if leaving:
            with suppress(TimeoutError):
                async with asyncio.timeout(PARTING_SECONDS):
                    await asyncio.gather(*leaving)
        self.abandon()

    def abandon(self) -> None:
        """
        Leave without a word, now. May be called when the loop has ended.
        """
        self._withdraw()
        for link in list(self.links.open):
            link.close()
        self._visitors.clear()
        self.peers.clear()

    def retire(self) -> None:
        """
        Be found and listened to no more, from now on; ``abandon`` follows. From any thread.

        For a mesh whose loop stands still and may go on: another one is in its place.
        """
        self._closed = True
        self._listener = Listener(_nobody, _nobody, _nobody)
        self._door.withdraw()

    def forked(self) -> None:
        """
        Close this process's copies of the descriptors, in a child, and touch nothing else.

        Kept open they would outlive the parent, which then would seem to be alive.
        """
        self._closed = True
        self.links.forked()
        self._door.forked()

    def _withdraw(self) -> None:
        """
        Be found and called no more.
        """
        self._closed = True
        if self._beat is not None:
            self._beat.cancel()
        self._door.close()
        self._joins.close()
        fail(self._asking)

    # --- Messages and interests --------------------------------------------------------------

    def publish(self, subject: str, payload: bytes) -> list[Link]:
        """
        Send to every interested process. Hot path: once per publish.

        Returns:
            The links on which more than half of what may be queued is.
        """
        interested = self.interests.of(subject)
        if not interested:
            return []
        frame = frames.message(subject, payload)
        crowded = [peer.publish(frame) for peer in interested]
        return [link for link in crowded if link is not None]

    async def pace(self, crowded: list[Link]) -> None:
        """
        Wait while links stay crowded and still move, for a bounded time.

        What is published is queued already; this keeps who publishes from going too fast.
        """
        until = self.loop.time() + PACE_SECONDS
        for link in crowded:
            while link.moving(self._options.join_timeout) and self.loop.time() < until:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._options.join_timeout):
                        await link.wait_room(self.bytes_max >> 1)
                    break

    def subscribe(self, subject: str) -> asyncio.Future[None] | None:
        """
        Tell everybody of an interest; done once they heed it, or are late.
        """
        self._tell(frames.interest(subject))
        if self._asking is None:
            if not any(peer.awaited for peer in self.peers.values()):
                return None
            # One question per loop turn, however many join in it.
            self._asking = new_wait(self.loop)
            self.loop.call_soon(self._ask)
        return self._asking

    def unsubscribe(self, subject: str) -> None:
        """
        Tell everybody of the end of an interest.
        """
        self._tell(frames.disinterest(subject))

    async def audience(self, subject: str) -> int:
        """
        Count the processes that have said that they want a subject, and can be reached.

        Those that were late at the start get some more time to say so: it is asked for people.
        """
        until = self.loop.time() + AUDIENCE_SECONDS
        while self.loop.time() < until and (missing := self._unheard()):
            told = new_wait(self.loop)
            self._joins.wait(self._asked, told, missing)
            await told
        return sum(peer.out is not None for peer in self.interests.known(subject))

    def _unheard(self) -> set[Hashable]:
        """
        Name those who have not told their interests yet.
        """
        return {peer.name for peer in self.peers.values() if peer.out and not peer.known}

    def _ask(self) -> None:
        """
        Ask everybody to say when they have heeded what they were told so far.
        """
        asking, self._asking = self._asking, None
        if asking is None or asking.done():
            return
        self._asked += 1
        self._tell(frames.ask(self._asked))
        missing: set[Hashable] = {peer for peer in self.peers.values() if peer.awaited}
        self._joins.wait(self._asked, asking, missing)

    def _tell(self, frame: bytes) -> None:
        """
        Send to all who publish to us; one that does not read is cut off, and dials again.
        """
        for visitor in list(self._visitors.values()):
            if visitor.peer is None:
                continue
            link = visitor.link
            if link.pending_bytes > visitor.bytes_max:
                link.close()
                self.left(visitor)
            else:
                link.send(frame)

    def _note_late(self, missing: set[Hashable]) -> None:
        """
        Count that somebody did not acknowledge in time, and wait for it no more.
        """
        metrics.joins_unconfirmed.value += 1
        for peer in missing:
            if isinstance(peer, Peer):
                peer.late = True

    # --- What peers and visitors tell --------------------------------------------------------

    def told(self, peer: Peer) -> None:
        """
        Learn that a peer has told all its interests.
        """
        self._joins.heard(peer.name, self._asked)

    def cut_off(self, peer: Peer, reason: str) -> None:
        """
        Learn that the link to a peer has ended; dial it again unless it left.
        """
        if self._closed:
            return
        if peer.ended:
            self._part(peer)
            return
        logger.debug("the link to process %s ended: %s", peer.name, reason)
        self._dial_later(peer)

    def given_up(self, peer: Peer, reason: str, unsent: int) -> None:
        """
        Learn that we have closed the link to a peer, with so many messages unsent.
        """
        self._notices.say(
            "given up",
            "process %s was cut off with %d messages unsent: %s",
            peer.name,
            unsent,
            reason,
        )

    def welcome(self, visitor: Visitor, name: str) -> None:
        """
        Learn who has dialled: tell it our interests, and dial back.
        """
        if self._closed:
            visitor.link.close()
            return
        peer = self.peers.get(name)
        if peer is None:
            peer = self.peers[name] = Peer(self, name)
        elif peer.visitor is not None:
            # It has given up that link; what it sent there before comes first.
            before, peer.visitor = peer.visitor, None
            before.link.drain()
            self._visitors.pop(before.link, None)
        peer.visitor, visitor.peer = visitor, peer
        # It goes on: joins wait for it again, though it was late before.
        peer.ended = peer.late = False
        link = visitor.link
        for subject in self._subjects:
            link.send(frames.interest(subject))
        link.send(frames.COMPLETE)
        link.send(frames.ask(self._asked))
        # However many interests there are, it gets the time to read them.
        visitor.bytes_max = self.bytes_max + link.pending_bytes
        if peer.out is None:
            self._dial(peer)

    def receive(self, message: frames.Message) -> None:
        """
        Take a message. Hot path: once per message and interested process.
        """
        if message.subject not in self._subjects:
            metrics.delivered_uninterested.value += 1
            return
        try:
            self._listener.deliver(message.subject, message.payload)
        except Exception:
            logger.exception("a message of another process could not be delivered")

    def acknowledged(self, peer: Peer, number: int) -> None:
        """
        Learn that a peer has heeded everything up to a number.
        """
        peer.late = False
        self._joins.heard(peer, number)

    def misled(self, reason: str) -> None:
        """
        Count that a link was closed because of what came on it.
        """
        if self._closed:
            return  # Nobody is welcome any more, whoever it is.
        metrics.drops.add("malformed")
        self._notices.say("link", "a link between processes was closed: %s", reason)

    def gap(self) -> None:
        """
        Learn that messages of a peer were lost, of any subject.
        """
        for subject in list(self._subjects):
            self._listener.on_gap(subject, None)

    def left(self, visitor: Visitor) -> None:
        """
        Learn that the link from a peer has ended.
        """
        self._visitors.pop(visitor.link, None)
        peer = visitor.peer
        if peer is None or peer.visitor is not visitor:
            return
        peer.visitor = None
        if peer.ended and peer.out is None:
            self._part(peer)

    # --- Finding and dialling ----------------------------------------------------------------

    def _scan(self) -> None:
        """
        Dial everybody in the directory to whom there is no link.
        """
        for name in self._door.others():
            peer = self.peers.get(name)
            if peer is None:
                peer = self.peers[name] = Peer(self, name)
                self._dial(peer)
            elif peer.ended and peer.out is None:
                self._dial(peer)  # Its entry was gone, and is back.

    def _dial(self, peer: Peer) -> None:
        """
        Connect to a peer, without waiting; try again later, or find that it has ended.
        """
        if self._closed or peer.out is not None:
            return
        try:
            sock = self._door.dial(peer.name)
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self._notices.say("dial", "cannot reach process %s: %s", peer.name, error)
            self._dial_later(peer)
            return
        if sock is None:
            peer.ended = True
            self._part(peer)
        else:
            peer.connect(Link(self.links, sock, peer))

    def _dial_later(self, peer: Peer) -> None:
        """
        Dial after the peer's delay, which doubles, give or take a quarter.
        """
        delay = peer.delay * random.uniform(0.75, 1.25)  # noqa: S311 - it only spreads them
        longest = REFUSED_SECONDS_MAX if peer.refused else RETRY_SECONDS_MAX
        peer.delay = min(max(2 * peer.delay, RETRY_SECONDS_MIN), longest)
        self.loop.call_later(delay, self._dial_again, peer)

    def _dial_again(self, peer: Peer) -> None:
        if self.peers.get(peer.name) is peer and not peer.ended:
            self._dial(peer)

    def _part(self, peer: Peer) -> None:
        """
        Forget a process that has ended, once all it sent has been read.
        """
        self.interests.forget(peer)
        self._joins.gone(peer.name)
        if peer.visitor is None:
            self._joins.gone(peer)
            self.peers.pop(peer.name, None)

    def _admit(self, sock: socket.socket) -> None:
        """
        Listen to one who has dialled.
        """
        visitor = Visitor(self, lambda owner: Link(self.links, sock, owner))
        self._visitors[visitor.link] = visitor

    # --- Time --------------------------------------------------------------------------------

    @property
    def _interval(self) -> float:
        return min(self._options.heartbeat, self._options.silence / 4)

    def _schedule_beat(self) -> None:
        self._beat_at = self.loop.time() + self._interval
        self._beat = self.loop.call_at(self._beat_at, self._on_beat)

    def _on_beat(self) -> None:
        """
        Show that we live, look who else does, and now and then look at the directory.
        """
        if self._closed:
            return
        now = self.loop.time()
        # After having stood still itself, what others have sent meanwhile is yet to be read.
        stood_still = now - self._beat_at > self._interval
        # First, so that nothing below keeps it from coming.
        self._schedule_beat()
        for link in list(self.links.open):
            if stood_still:
                link.heard_at = now
            elif now - link.heard_at > self._options.silence:
                self._end_silent(link)
            if link.open and not link.pending_bytes and link.wrote_at <= now - self._interval / 2:
                link.send(frames.BEAT)
        if now >= self._scan_at:
            self._scan_at = now + self._options.silence / 4
            self._look_after_directory()

    def _end_silent(self, link: Link) -> None:
        """
        Close a link on which nothing comes.

        Not one that has never answered: its process stands still, and would find a link for
        each of our attempts when it goes on; and when it ends, the link ends. But it keeps
        no messages longer than they are worth something.
        """
        visitor = self._visitors.get(link)
        if visitor is not None:
            link.close()
            self.left(visitor)
            return
        worthless = link.messages and self.loop.time() - link.begun_at > self._expiry
        if link.answered or worthless:
            for peer in list(self.peers.values()):
                if peer.out is link:
                    peer.give_up(f"nothing came for {self._options.silence:g} s")

    def _look_after_directory(self) -> None:
        """
        Find whom we have missed, and make sure that we can be found. The links stay in any case.
        """
        self._door.look_after()
        try:
            self._scan()
        except OSError as error:
            self._notices.say("scan", "cannot look into %s: %s", self._directory, error)


def _nobody(*told: object) -> None:
    """
    Stand in for the listener of a mesh that has retired.
    """
