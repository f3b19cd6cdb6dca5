"""
What becomes of a reader who is too slow, where that is not the end of its connection.

The policies beside ``close`` are outboxes of their own, into whose class an outbox changes when
it is configured: the fan-out may know it already, and a reader at rest should cost no more for
what few ask for. Only what was offered is dropped; what the application awaits, control frames
and closes keep their place. Here too: how far ahead the kernel may take bytes, and how one sees
whether a reader takes any.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from fairway import metrics
from fairway.exceptions import LocalProtocolError
from fairway.server.outbox import Outbox, OutboxState

if TYPE_CHECKING:
    import asyncio

    from fairway.options import ServerOptions
    from fairway.server.outbox import Piece
    from fairway.wire.prepared import Prepared

__all__ = [
    "POLICIES",
    "DropOldestOutbox",
    "LatestOutbox",
    "configure",
    "has_read",
    "limit_latest",
    "limit_unsent",
    "measure_unread",
]

TCP = (socket.AF_INET, socket.AF_INET6)

NOTSENT_LOWAT: Final[int | None] = getattr(
    socket, "TCP_NOTSENT_LOWAT", {"linux": 25, "darwin": 0x201}.get(sys.platform)
)
"""
From netinet/tcp.h, where Python was built without it.
"""

TCP_INFO: Final[int | None] = 11 if sys.platform == "linux" else None
"""
From linux/tcp.h. Of what it gives: where the bytes acknowledged and those not sent yet are.
"""

ACKED, UNSENT = slice(120, 128), slice(144, 148)


class Reader(Protocol):
    """
    Whoever is asked now and then whether it reads.

    Attributes:
        unread: What ``measure_unread`` found last.
    """

    unread: int | None


class Backlog(list["Piece"]):
    """
    What waits for a slow reader: in the list what leaves in any case, behind it the rest.

    Attributes:
        droppable: How many of the rest may be dropped.
        droppable_bytes: Their size.
        newest_bytes: Size of the newest of these.
    """

    __slots__ = ("_droppable", "_rest", "droppable", "droppable_bytes", "newest_bytes")

    def __init__(self, first: Iterable[Piece] = ()) -> None:
        super().__init__(first)
        self._rest: deque[bytes] = deque()
        self._droppable: deque[bool] = deque()
        self.droppable = 0
        self.droppable_bytes = 0
        self.newest_bytes = 0

    def put(self, frame: bytes, *, droppable: bool) -> None:
        """
        Add a frame at the end.
        """
        if droppable:
            self.droppable += 1
            self.droppable_bytes += len(frame)
            self.newest_bytes = len(frame)
        elif not self._rest:
            self.append(frame)
            return
        self._rest.append(frame)
        self._droppable.append(droppable)

    def drop(self) -> int:
        """
        Drop the oldest that may be dropped, and give its size. There has to be one.

        What is older is passed once and stays, so that this costs the same however much waits.
        """
        while not self._droppable.popleft():
            self.append(self._rest.popleft())
        size = len(self._rest.popleft())
        self.droppable -= 1
        self.droppable_bytes -= size
        return size

    @property
    def frames(self) -> int:
        """
        Count everything that waits.
        """
        return len(self) + len(self._rest)

    def settle(self, size: int) -> None:
        """
        Let so many bytes, or all, leave in any case: they are about to be written.
        """
        settled = sum(map(len, self))
        while self._rest and settled < size:
            frame = self._rest.popleft()
            if self._droppable.popleft():
                self.droppable -= 1
                self.droppable_bytes -= len(frame)
            self.append(frame)
            settled += len(frame)


class DropOldestOutbox(Outbox):
    """
    Over its limit it drops the oldest messages offered, but never the newest.
    """

    __slots__ = ()

    policy: ClassVar[str] = "drop_oldest"

    def offer(self, prepared: Prepared) -> bool:
        """
        See ``Outbox``: taken as long as the exchange is not closing.
        """
        if self.state is not OutboxState.OPEN or (self._queue is None and self.writable):
            return super().offer(prepared)
        frame = prepared.encode(self.format)
        is_over = self._is_over()
        self._put(frame, droppable=True)
        if is_over:
            self._overflow()
        return True

    def send(self, frame: bytes) -> bool:
        """
        See ``Outbox``.
        """
        if self._queue is None and self.writable:
            return super().send(frame)
        self._put(frame, droppable=False)
        return self.crowded()

    def crowded(self) -> bool:
        """
        See ``Outbox``, but nobody waits for what may be dropped: of that there may always be more.
        """
        queue = self._queue
        if type(queue) is not Backlog:
            return super().crowded()
        if self._are_many(queue.frames - queue.droppable):
            return True
        return (self.pending_bytes - queue.droppable_bytes) * 2 > self.bytes_max

    def shut(self) -> None:
        """
        See ``Outbox``.
        """
        if type(self._queue) is Backlog:
            self._queue.settle(sys.maxsize)
        super().shut()

    def _put(self, frame: bytes, *, droppable: bool) -> None:
        """
        Add a frame to those that wait.
        """
        queue = self._queue
        if type(queue) is not Backlog:
            if queue is None:
                self._bytes = 0
            elif not isinstance(queue, list):
                queue, self._bytes = [queue], len(queue)
            queue = self._queue = Backlog(queue or ())
        queue.put(frame, droppable=droppable)
        self._bytes += len(frame)

    def _take(self, bytes_max: int) -> tuple[bytes, int]:
        """
        See ``Outbox``.
        """
        if type(self._queue) is Backlog:
            self._queue.settle(bytes_max)
        return super()._take(bytes_max)

    def _is_over(self) -> bool:
        """
        See ``Outbox``.
        """
        return super()._is_over() or self._has_many()

    def _offer_early(self, prepared: Prepared) -> bool:
        """
        See ``Outbox``: for the newest the oldest make room here too.
        """
        if self.state is OutboxState.CONNECTING and self._early:
            size = len(prepared.encode(self.format))
            while self._early and self._has_no_room(size):
                del self._early[0]
                metrics.drops.add("before_accept")
        return super()._offer_early(prepared)

    def _overflow(self) -> None:
        """
        Have messages dropped one turn later, at which a fast reader may have caught up.

        Unless twice the limit is reached before.
        """
        if not self._overflowing:
            self._overflowing = True
            self._flusher.loop.call_soon(self._make_room)
        elif self._has_many() or self.pending_bytes > 2 * self.bytes_max:
            self._drop()

    def _make_room(self) -> None:
        """
        Drop what is over the limit, after what can be written.
        """
        self._overflowing = False
        self.flush()
        self._drop()

    def _drop(self) -> None:
        """
        Drop what is over the limit. What counts is what waits before the newest, as for offers.
        """
        backlog = self._queue
        if type(backlog) is not Backlog or self.state is not OutboxState.OPEN:
            return
        dropped, excess = 0, self._excess(backlog)
        while backlog.droppable > 1 and (excess > 0 or self._has_many()):
            size = backlog.drop()
            self._bytes -= size
            excess -= size
            dropped += 1
        if dropped:
            metrics.drops.add(self.policy, dropped)

    def _has_many(self) -> bool:
        """
        Whether too many messages wait, be they ever so small.
        """
        return type(self._queue) is Backlog and self._are_many(self._queue.frames)

    def _excess(self, backlog: Backlog) -> int:
        """
        Give the bytes to be dropped, if there are as many that may be.
        """
        return self.pending_bytes - backlog.newest_bytes - self.bytes_max


class LatestOutbox(DropOldestOutbox):
    """
    While its reader is behind it keeps only the newest message offered.
    """

    __slots__ = ()

    policy = "latest"
    conflates = True

    def _is_over(self) -> bool:
        """
        See ``DropOldestOutbox``: at once where the reader has not taken what came before.
        """
        return not self.writable or super()._is_over()

    def flush(self, *, force: bool = False) -> bool:
        """
        See ``Outbox``: what a reader who falls behind has not got by then is old already.
        """
        is_empty = super().flush(force=force)
        if not (is_empty or self.writable):
            self._drop()
        return is_empty

    def _overflow(self) -> None:
        """
        See ``DropOldestOutbox``: dropping one for one needs no turn of its own.
        """
        if self.writable:
            super()._overflow()
        else:
            self._drop()

    def _excess(self, backlog: Backlog) -> int:
        """
        See ``DropOldestOutbox``.
        """
        return sys.maxsize


POLICIES: Final[dict[str, type[Outbox]]] = {
    "close": Outbox,
    "drop_oldest": DropOldestOutbox,
    "latest": LatestOutbox,
}
"""
The outboxes by what becomes of a slow reader; see the option ``overflow``.
"""


def configure(outbox: Outbox, overflow: str | None, bytes_max: int | None) -> None:
    """
    See ``types.Configure``: what holds for outboxes of any kind.

    Raises:
        LocalProtocolError: It is too late, or a value is none.
    """
    if outbox.state is not OutboxState.CONNECTING:
        raise LocalProtocolError(
            "expected configure() before websocket.accept or http.response.body, got it after"
        )
    if overflow is not None and (not isinstance(overflow, str) or overflow not in POLICIES):
        expected = " or ".join(map(repr, POLICIES))
        raise LocalProtocolError(f"expected overflow={expected}, got {overflow!r}")
    if bytes_max is not None and (type(bytes_max) is not int or bytes_max < 1):
        raise LocalProtocolError(
            f"expected outbox_bytes_max of 1 byte or more, a whole number, got {bytes_max!r}"
        )
    if overflow is not None:
        # All of them have the same slots.
        outbox.__class__ = POLICIES[overflow]
    if bytes_max is not None:
        outbox.bytes_max = bytes_max


def limit_latest(transport: asyncio.Transport, options: ServerOptions) -> None:
    """
    Have the kernel take less than usual ahead for a reader who is to get only the latest.
    """
    size = min(options.latest_unsent_bytes_max, options.unsent_bytes_max)
    limit_unsent(transport.get_extra_info("socket"), size)


def limit_unsent(sock: Any, size: int) -> None:
    """
    Have the kernel take only so many bytes ahead of what the network carries.

    Otherwise it swallows megabytes per reader that stands still, and what lies there is not to
    be dropped any more.

    Args:
        sock: Of a transport, or one that listens: accepted ones inherit it. Only TCP knows it.
        size: In bytes.
    """
    if sock is not None and NOTSENT_LOWAT is not None and sock.family in TCP:
        sock.setsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT, size)


def measure_unread(transport: Any) -> int | None:
    """
    Measure what a reader who is behind has yet to take: by this one sees whether it takes any.

    A transport hears from the kernel by tens of kilobytes, for which a slow link needs a minute.
    Therefore what the peer has acknowledged is counted too, where the system tells. Not for hot
    paths.

    Returns:
        Bytes on a scale of the connection's own, whose zero means nothing: less than last time
        if the reader took something. None if nothing is unsent: what is on its way tells nothing,
        since the kernel acknowledges for a program that hangs.
    """
    pending: int = transport.get_write_buffer_size()
    acked, unsent = _ask_kernel(transport)
    return pending - acked if pending or unsent else None


def has_read(reader: Reader, transport: Any) -> bool:
    """
    Whether a reader who was behind took something since it was measured last.

    Args:
        reader: Keeps the measure, which is taken anew.
        transport: Leads to it.
    """
    before, reader.unread = reader.unread, measure_unread(transport)
    return before is not None and (reader.unread is None or reader.unread < before)


def _ask_kernel(transport: Any) -> tuple[int, int]:
    """
    Give the bytes that the peer has acknowledged so far, and those not sent yet; 0 if unknown.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or TCP_INFO is None or sock.family not in TCP:
        return 0, 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, UNSENT.stop)
    except OSError:
        # Reset, which the loop has yet to tell.
        return 0, 0
    return int.from_bytes(info[ACKED], sys.byteorder), int.from_bytes(info[UNSENT], sys.byteorder)
