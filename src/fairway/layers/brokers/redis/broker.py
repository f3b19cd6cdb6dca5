"""
The broker ``redis``: the promises of ``base`` kept by one or several Redis servers.

A subject belongs to one node, so a publish is one PUBLISH and a process hears only what it
asked for. How links are kept, how subjects are confirmed and what a queue is are its
neighbours'; nothing here touches a connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from fairway import metrics
from fairway.exceptions import ChannelLayerUnavailable
from fairway.faults import Fault
from fairway.layers.brokers.base import Broker, Deliver, OnGap, OnState
from fairway.layers.brokers.redis.hosts import Host, shard
from fairway.layers.brokers.redis.node import Node
from fairway.layers.brokers.redis.queues import QUEUE, RedisQueues
from fairway.layers.notices import Notices
from fairway.options import RedisOptions

__all__ = ["Cipher", "RedisBroker"]

logger = logging.getLogger("fairway.layers")

PARTING_SECONDS = 0.75
"""
Time for what was published to be answered when the broker closes, and before that for what
is asked of queues: together less than a hub has to leave its loop.
"""


class Cipher(Protocol):
    """
    What makes payloads unreadable for others.
    """

    def seal(self, subject: str, payload: bytes) -> bytes:
        """
        Encrypt a payload for a subject.
        """

    def open(self, subject: str, sealed: bytes) -> bytes:
        """
        Decrypt it.

        Raises:
            ValueError: It was not sealed with a known key for this subject.
        """


class RedisBroker(Broker):
    """
    Reaches the processes that use the same servers with the same prefix.

    Attributes:
        hosts: The servers, among which subjects are distributed.
        project: Tells processes of one project from others with the same prefix; may be empty.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        options: RedisOptions,
        *,
        prefix: str | Callable[[], str],
        project: str = "",
        cipher: Cipher | None = None,
    ) -> None:
        """
        Make a broker that has no connection yet.

        Args:
            hosts: The servers, among which subjects are distributed.
            options: The limits.
            prefix: What the names of channels and keys begin with, or what gives it at each
                start.
            project: See the attribute.
            cipher: Encrypts what travels; None to send it as it is.
        """
        super().__init__()
        self.hosts = tuple(hosts)
        self.project = project
        self._options = options
        self._locate = prefix if callable(prefix) else lambda: prefix
        self._prefix = self._locate()
        self._cipher = cipher
        self._notices = Notices(logger)
        self._inherited: list[object] = []
        self._begin_anew()

    def _begin_anew(self) -> None:
        """
        Have no node, and nobody waiting.
        """
        self._nodes: list[Node] = []
        self._deliver: Deliver = _nobody
        self._on_gap: OnGap = _nobody
        self._on_state: OnState = _nobody
        self._settled = False
        self.queues = RedisQueues(self._prefix, self._options.queue_poll)
        self.connected = False

    # --- Where it lives ----------------------------------------------------------------------

    async def start(
        self,
        deliver: Deliver,
        on_gap: OnGap,
        on_state: OnState,
        subjects: Iterable[str] = (),
    ) -> None:
        """
        Begin on the running loop; done once the subjects are confirmed, or Redis is away.

        Raises:
            ConfigurationError: Redis refuses, and will as long as the settings are what they are.
        """
        self._leave_ended_loop()
        self._deliver, self._on_gap, self._on_state = deliver, on_gap, on_state
        self._settled = False
        prefix = self._locate()
        if prefix != self._prefix:
            self._prefix = prefix
            self.queues = RedisQueues(prefix, self._options.queue_poll)
        nodes = self._nodes = [
            Node(
                host,
                self._options,
                self.prefix_at(host).encode(),
                project=self.project,
                hear=self._receive,
                on_gap=self._pass_on_gap,
                on_state=self._look_at_state,
                notices=self._notices,
            )
            for host in self.hosts
        ]
        for subject in subjects:
            self._node(subject).listener.want(subject)
        try:
            await asyncio.gather(*(node.open() for node in nodes))
        except BaseException:
            if self._nodes is nodes:
                self._nodes = []
            await asyncio.gather(*(node.close(0) for node in nodes))
            raise
        self.connected = all(node.connected for node in nodes)
        self._settled = True
        self.queues.begin(nodes, self._node)

    async def close(self) -> None:
        """
        End on the running loop, after what was published has left, in bounded time.

        Readers of queues go on waiting, as they do while the hub moves to another loop.
        """
        nodes = self._nodes
        self._settled = False
        await self.queues.end(PARTING_SECONDS)
        await asyncio.gather(*(node.close(PARTING_SECONDS) for node in nodes))
        if self._nodes is nodes:  # Else it was taken over meanwhile.
            self._nodes = []
            self.connected = False
            self._deliver = _nobody

    def forked(self) -> None:
        """
        Forget everything that belongs to the parent process, without touching it.
        """
        self._inherited += [self._nodes, self.queues]
        self._begin_anew()

    def _leave_ended_loop(self) -> None:
        """
        Give up the links of a loop that has ended, or stands still, without a close.
        """
        nodes, self._nodes = self._nodes, []
        for node in nodes:
            node.abandon()

    # --- Groups and processes ----------------------------------------------------------------

    def subscribe(self, subject: str) -> Awaitable[None] | None:
        """
        Have the messages of a subject delivered; done once Redis has confirmed it.
        """
        return self._node(subject).listener.subscribe(subject) if self._nodes else None

    def unsubscribe(self, subject: str) -> None:
        """
        End a subscription, ``unsubscribe_delay`` later; nothing is delivered from now on.
        """
        if self._nodes:
            self._node(subject).listener.unsubscribe(subject)

    def publish(self, subject: str, payload: bytes) -> Awaitable[None] | None:
        """
        Send to every process subscribed to a subject. Hot path: once per publish.

        Returns:
            What is done once Redis has taken the message.

        Raises:
            ChannelLayerUnavailable: Redis has been away for a while; here or by the awaitable.
        """
        node = self._node(subject)
        if self._cipher is not None:
            payload = self._cipher.seal(subject, payload)
        taken = node.publish(subject, payload)
        self.published += 1
        return taken

    async def audience(self, subject: str) -> int:
        """
        Give the number of processes that a publish to a subject reaches at present.
        """
        node = self._node(subject)
        counted = await node.commands.execute("PUBSUB", "NUMSUB", node.channel(subject))
        return int(counted[1])

    def prefix_at(self, host: Host) -> str:
        """
        Give what the names of channels begin with on a server.
        """
        # Pub/sub knows no databases, and settings mean them to separate projects.
        return f"{self._prefix}/{host.database}:"

    def describe(self) -> str:
        """
        Say where it is and under which prefix.
        """
        return f"redis, {', '.join(host.name for host in self.hosts)}, prefix {self._prefix}"

    def _node(self, subject: str) -> Node:
        """
        Give the node that a subject belongs to.

        Raises:
            ChannelLayerUnavailable: The broker is closed.
        """
        nodes = self._nodes
        if not nodes:
            raise ChannelLayerUnavailable("the broker is closed")
        return nodes[0] if len(nodes) == 1 else nodes[shard(subject, len(nodes))]

    def _receive(self, subject: str, payload: bytes) -> None:
        """
        Take a message. Hot path: once per message and process.
        """
        if subject.startswith(QUEUE):
            self.queues.wake(subject.removeprefix(QUEUE))
            return
        self.received += 1
        if self._cipher is not None:
            try:
                payload = self._cipher.open(subject, payload)
            except ValueError as error:
                self._drop("a group", error)
                return
        self._deliver(subject, payload)

    def _pass_on_gap(self, subject: str) -> None:
        """
        Tell the hub of a break. In a queue nothing is lost, it was only not made known.
        """
        if subject.startswith(QUEUE):
            self.queues.wake(subject.removeprefix(QUEUE))
        else:
            self._on_gap(subject, None)

    def _look_at_state(self) -> bool:
        """
        Tell the hub when Redis goes away or comes back.

        Returns:
            Whether it was told that it went away, and why.
        """
        connected = all(node.connected for node in self._nodes)
        if not self._settled or connected is self.connected:
            return False
        self.connected = connected
        troubles = (node.trouble for node in self._nodes if node.trouble is not None)
        self.trouble = next((f"{trouble} [{Fault.REDIS_AWAY}]" for trouble in troubles), "")
        self._on_state(connected)
        return not connected

    # --- Queues ------------------------------------------------------------------------------

    def push(
        self, queue: str, payload: bytes, *, lifetime: float, capacity: int
    ) -> Awaitable[None] | None:
        """
        Add to the end of a queue, and have its readers look.

        Raises:
            ChannelFull: There is no room; by the awaitable.
            ChannelLayerUnavailable: Redis did not take it; here or by the awaitable.
        """
        if self._cipher is not None:
            payload = self._cipher.seal(QUEUE + queue, payload)
        pushed = self.queues.push(queue, payload, lifetime, capacity)
        self.published += 1
        return pushed

    async def pop(self, queue: str) -> bytes:
        """
        Wait for the oldest payload of a queue, from any loop. A cancelled call loses nothing.
        """
        while True:
            payload = await self.queues.pop(queue)
            self.received += 1
            if self._cipher is None:
                return payload
            try:
                return self._cipher.open(QUEUE + queue, payload)
            except ValueError as error:
                self._drop(f"the queue {queue!r}", error)

    def _drop(self, place: str, error: ValueError) -> None:
        """
        Count a message that cannot be decrypted, and say so now and then. From any thread.
        """
        metrics.drops.add("undecipherable")
        self._notices.say(
            "undecipherable",
            "a message for %s was dropped: %s [%s]",
            place,
            error,
            Fault.MESSAGE_UNDECIPHERABLE,
        )

    async def flush(self) -> None:
        """
        Throw away what lies in the queues.
        """
        await self.queues.flush()


def _nobody(*told: object) -> None:
    """
    Stand in for the hub before the start.
    """
