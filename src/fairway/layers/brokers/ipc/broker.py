"""
The broker ``ipc``: the promises of ``base`` kept by a mesh of links and a file of queues.

Publishing delivers here at once and hands each interested process one frame. What a mesh
is, how links work and what is in the file is its neighbours'; nothing here touches a socket.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.base import Broker, Deliver, OnGap, OnState
from fairway.layers.brokers.ipc.mesh import Listener, Mesh
from fairway.layers.brokers.ipc.queues import SQLiteQueues
from fairway.layers.iothread import THREAD_NAME
from fairway.layers.notices import Notices
from fairway.options import IPCOptions

__all__ = ["IPCBroker"]

logger = logging.getLogger("fairway.layers")

QUEUE = "queue:"
"""
What the subject begins with on which a push into a queue is made known.
"""

QUEUES_FILE = "queues.sqlite3"

HEARING_SECONDS = 5.0
"""
Time after which it is looked whether a queue still has readers here.
"""

PARTING_SECONDS = 1.0
"""
Time for pushes to be written when the broker closes.
"""

DERIVED_NAMESPACE = re.compile(r"[0-9a-f]{24}")


class IPCBroker(Broker):
    """
    Reaches the processes of this user on this machine that use the same directory.
    """

    def __init__(
        self,
        directory: Path | Callable[[], Path],
        options: IPCOptions,
        *,
        expiry: float,
        namespace: str,
    ) -> None:
        """
        Make a broker that has met nobody yet.

        Args:
            directory: Where the processes meet, or what gives it at each start.
            options: The limits.
            expiry: Seconds after which an unread message is worthless.
            namespace: What people call the directory.
        """
        super().__init__()
        self._locate = directory if callable(directory) else lambda: directory
        self._options = options
        self._expiry = expiry
        self._namespace = namespace
        self._notices = Notices(logger)
        self._inherited: list[object] = []
        self._begin_anew()

    def _begin_anew(self) -> None:
        """
        Be in no mesh, subscribed to nothing.
        """
        self._mesh: Mesh | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subjects: set[str] = set()
        self._deliver: Deliver = _nobody
        self._on_gap: OnGap = _nobody
        self._on_state: OnState = _nobody
        self._directory: Path | None = None
        self._queues: SQLiteQueues | None = None
        # Entered a second time where it lets a reader be collected that nobody awaits any more.
        self._reading = threading.RLock()
        self._readers: Counter[str] = Counter()
        self._pushing: set[Future[None]] = set()
        self._solitude_told = False
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
        Begin on the running loop; done once the other processes know the subjects.

        Raises:
            ConfigurationError: The directory cannot be used.
            ChannelLayerUnavailable: The system refuses what is needed at present.
        """
        self._leave_ended_loop()
        directory = self._locate()
        if directory != self._directory or self._queues is None:
            before, self._directory = self._queues, directory
            self._queues = SQLiteQueues(directory / QUEUES_FILE, self._options.queue_poll)
            if before is not None:
                await before.close(PARTING_SECONDS)
        self._deliver = deliver
        self._subjects = set(subjects)
        self._on_gap, self._on_state = on_gap, on_state
        mesh = Mesh(
            directory,
            self._options,
            self._expiry,
            self._subjects,
            Listener(self._receive, self._pass_on_gap, self._pass_on_state),
            self._notices,
        )
        mesh.open()
        self._mesh, self._loop = mesh, asyncio.get_running_loop()
        self.connected = True
        for queue in list(self._readers):
            self._begin_hearing(queue)
        await mesh.settle()

    async def close(self) -> None:
        """
        End on the running loop, after what was published has left, in bounded time.

        Readers of queues go on waiting, as they do while the hub moves to another loop.
        """
        if self._pushing:
            # Before the mesh, by which readers elsewhere learn of them.
            pushing = [asyncio.wrap_future(push) for push in self._pushing]
            await asyncio.wait(pushing, timeout=PARTING_SECONDS / 2)
        mesh, self._mesh = self._mesh, None
        self.connected = False
        leaving: list[Awaitable[object]] = [] if mesh is None else [mesh.close()]
        if self._queues is not None and not self._readers:
            leaving.append(self._queues.close(PARTING_SECONDS))
        await asyncio.gather(*leaving)
        if self._mesh is None:  # Else it was taken over meanwhile.
            self._deliver = _nobody

    def forked(self) -> None:
        """
        Forget everything that belongs to the parent process, without touching it.
        """
        mesh = self._mesh
        # Kept, and with them what is the parent's; the queues look after forks themselves.
        self._inherited += [mesh, self._queues]
        self._begin_anew()
        if mesh is not None:
            mesh.forked()

    def _leave_ended_loop(self) -> None:
        """
        Leave the mesh of a loop that has ended, or stands still, without a close.
        """
        mesh, loop = self._mesh, self._loop
        self._mesh = None
        if mesh is None or loop is None:
            return
        mesh.retire()
        try:
            loop.call_soon_threadsafe(mesh.abandon)
        except RuntimeError:
            mesh.abandon()

    def _pass_on_state(self, connected: bool) -> None:
        """
        Tell the hub whether others can find this process.
        """
        self.connected = connected
        self._on_state(connected)

    def _pass_on_gap(self, subject: str, lost: int | None) -> None:
        """
        Tell the hub of lost messages. In a queue nothing is lost, it was only not made known.
        """
        if subject.startswith(QUEUE):
            self._receive(subject, b"")
        else:
            self._on_gap(subject, lost)

    # --- Groups and processes ----------------------------------------------------------------

    def subscribe(self, subject: str) -> Awaitable[None] | None:
        """
        Have the messages of a subject delivered; done once the other processes know.

        Those who do not answer within ``join_timeout`` are counted and not waited for any more.
        """
        self._subjects.add(subject)
        return None if self._mesh is None else self._mesh.subscribe(subject)

    def unsubscribe(self, subject: str) -> None:
        """
        End a subscription.
        """
        self._subjects.discard(subject)
        if self._mesh is not None:
            self._mesh.unsubscribe(subject)

    def publish(self, subject: str, payload: bytes) -> Awaitable[None] | None:
        """
        Send to every process subscribed to a subject. Hot path: once per publish.

        Returns:
            None, or what waits while more than half of a queue is full and still moves.

        Raises:
            ChannelLayerUnavailable: The broker was closed.
        """
        mesh = self._mesh
        if mesh is None:
            raise ChannelLayerUnavailable("the broker is closed")
        self.published += 1
        # The others first: what this process does with it may publish something else.
        crowded = mesh.publish(subject, payload)
        if subject in self._subjects:
            self.received += 1
            self._deliver(subject, payload)
        elif not (mesh.peers or self._solitude_told or len(self._subjects) > 1):
            self._tell_solitude()
        return mesh.pace(crowded) if crowded else None

    async def audience(self, subject: str) -> int:
        """
        Give the number of processes that a publish to a subject reaches at present.
        """
        others = 0 if self._mesh is None else await self._mesh.audience(subject)
        return others + (subject in self._subjects)

    @property
    def peers(self) -> int:
        """
        How many other processes there are.
        """
        return 0 if self._mesh is None else len(self._mesh.peers)

    def describe(self) -> str:
        """
        Say in which namespace this is, and how many others there are.
        """
        name = self._namespace
        if DERIVED_NAMESPACE.fullmatch(name):
            name = name[:6]
        others = f"{self.peers} other process{'' if self.peers == 1 else 'es'}"
        return f"ipc, namespace {name}, {others}"

    def _receive(self, subject: str, payload: bytes) -> None:
        """
        Take a message of another process.
        """
        if subject.startswith(QUEUE):
            if self._queues is not None:
                self._queues.wake(subject.removeprefix(QUEUE))
            return
        self.received += 1
        self._deliver(subject, payload)

    def _tell_solitude(self) -> None:
        """
        Say once that a process which only publishes has found nobody to publish to.

        One without members is subscribed to its own subject alone. Not in a server, where it
        means that no browser is connected yet.
        """
        self._solitude_told = True
        if threading.current_thread().name == THREAD_NAME:
            logger.warning(
                "a message was published and no other process of this project was found "
                "(namespace %s, in %s): if a server runs, it runs as another user or with "
                "other settings",
                self._namespace,
                self._directory,
            )

    # --- Queues ------------------------------------------------------------------------------

    def push(
        self, queue: str, payload: bytes, *, lifetime: float, capacity: int
    ) -> Awaitable[None] | None:
        """
        Add to the end of a queue, and have its readers in other processes look.

        Raises:
            ChannelFull: There is no room; by the awaitable.
            ChannelLayerUnavailable: It could not be written; here or by the awaitable.
        """
        pushing = self._open_queues().push(queue, payload, lifetime, capacity)
        self._pushing.add(pushing)
        loop = asyncio.get_running_loop()

        def pushed(_: Future[None]) -> None:
            with suppress(RuntimeError):  # The loop has ended.
                loop.call_soon_threadsafe(self._announce, pushing, queue)

        # Whether or not anybody waits for it, and before who does goes on.
        pushing.add_done_callback(pushed)
        return asyncio.wrap_future(pushing)

    async def pop(self, queue: str) -> bytes:
        """
        Wait for the oldest payload of a queue, from any loop. A cancelled call loses nothing.
        """
        queues = self._open_queues()
        with self._reading:
            self._readers[queue] += 1
        self._hear(queue)
        try:
            payload = await queues.pop(queue)
        finally:
            with self._reading:
                self._readers[queue] -= 1
                if not self._readers[queue]:
                    del self._readers[queue]
        self.received += 1
        return payload

    async def flush(self) -> None:
        """
        Throw away what lies in the queues.
        """
        await asyncio.wrap_future(self._open_queues().flush())

    def _announce(self, pushing: Future[None], queue: str) -> None:
        """
        Have readers in other processes look at a queue that was pushed into.
        """
        self._pushing.discard(pushing)
        if pushing.cancelled() or pushing.exception() is not None:
            return
        self.published += 1
        if self._mesh is not None:
            self._mesh.publish(QUEUE + queue, b"")

    def _open_queues(self) -> SQLiteQueues:
        if self._queues is None:
            raise ChannelLayerUnavailable("the broker has not been started")
        return self._queues

    def _hear(self, queue: str) -> None:
        """
        Have others tell us when they push into a queue. From any thread.
        """
        loop = self._loop
        if loop is not None and QUEUE + queue not in self._subjects:
            with suppress(RuntimeError):  # It has ended; the next start subscribes.
                loop.call_soon_threadsafe(self._begin_hearing, queue)

    def _begin_hearing(self, queue: str) -> None:
        subject = QUEUE + queue
        if self._mesh is not None and subject not in self._subjects:
            self._subjects.add(subject)
            heeded = self._mesh.subscribe(subject)
            if heeded is not None:
                # What was pushed by somebody who did not know yet was not made known.
                heeded.add_done_callback(lambda _: self._receive(subject, b""))
            self._mesh.loop.call_later(HEARING_SECONDS, self._end_hearing, self._mesh, queue)

    def _end_hearing(self, mesh: Mesh, queue: str) -> None:
        """
        Hear no more of a queue that has had no reader for a while; readers come and go.
        """
        if mesh is not self._mesh:
            return
        if queue in self._readers:
            mesh.loop.call_later(HEARING_SECONDS, self._end_hearing, mesh, queue)
        else:
            self.unsubscribe(QUEUE + queue)


def _nobody(*told: object) -> None:
    """
    Stand in for the hub before the start.
    """
