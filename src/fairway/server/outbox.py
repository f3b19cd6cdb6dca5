"""
The outbox of one exchange, and the flusher that empties all of them.

Whatever leaves through an exchange is queued here: what the application sends
and what fan-out offers. Nothing is written at once: the outboxes that one loop
turn filled are written at its end, each in one call, which makes four messages
cost little more than one. Encoding lives in ``wire``, waiting in the exchange, and
what else than an end a slow reader may meet in ``overflow``.
"""

# ruff: noqa: SLF001 - fan-out and flusher are halves of the mechanism that outboxes are

from __future__ import annotations

import asyncio
import sys
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Protocol

from fairway import metrics
from fairway.wire import codes
from fairway.wire.deflate import Deflate
from fairway.wire.websocket import encode_close, websocket_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fairway.options import ServerOptions
    from fairway.types import Transport
    from fairway.wire.prepared import Format, Prepared

    Piece = bytes | memoryview

__all__ = ["PIECE_BYTES", "Flusher", "Outbox", "OutboxState", "piece_bytes", "take"]

CLOCK_STRIDE = 32
"""
Outboxes written between two looks at the clock: a look costs a tenth of a write.
"""

MESSAGES_MAX = 16384
"""
Messages that may wait in any case; of more each counts for 64 bytes at least, as in memory.
"""

PIECE_BYTES = 65536
"""
What is written at once to a reader who is far behind, so that it is known when half is read.
"""


class OutboxState(Enum):
    """
    What becomes of something offered.
    """

    CONNECTING = "held until the handshake is accepted, dropped if it is not"
    OPEN = "queued"
    CLOSING = "refused; what is queued still leaves, the close frame last"
    CLOSED = "refused; nothing leaves any more"


_OPEN = OutboxState.OPEN


class Ending(Protocol):
    """
    An exchange, as its outbox knows it.
    """

    def end(self, code: int, reason: str = "") -> None:
        """
        End by decision of the server.
        """


class _Nowhere:
    """
    Stands in for a transport that is not there yet, or gone.
    """

    def write(self, data: bytes) -> None:
        """
        Write nothing.
        """

    def get_write_buffer_size(self) -> int:
        """
        Hold nothing.
        """
        return 0

    def is_closing(self) -> bool:
        """
        Stay as it is.
        """
        return False


_NOWHERE = _Nowhere()


def piece_bytes(bytes_max: int) -> int:
    """
    Give how much is written at once to a reader who is far behind.

    Args:
        bytes_max: What may be pending.
    """
    return min(PIECE_BYTES, max(1, bytes_max // 8))


def take(queue: list[Piece], bytes_max: int) -> tuple[bytes, int]:
    """
    Take the oldest bytes out of a queue, and count the entries that end with them.

    Args:
        queue: May keep a part of its first entry.
        bytes_max: How many; all, if there are fewer.
    """
    size = count = 0
    while size < bytes_max and count < len(queue):
        size += len(queue[count])
        count += 1
    pieces = queue[:count]
    del queue[:count]
    if size > bytes_max:
        # Views, since each copy of what is left of a large message would cost all of it.
        last = memoryview(pieces[-1])
        cut = len(last) - (size - bytes_max)
        pieces[-1] = last[:cut]
        queue.insert(0, last[cut:])
        count -= 1
    return b"".join(pieces), count


class Flusher:
    """
    Writes at the end of a loop turn what the turn queued; one per worker.

    Attributes:
        dirty: Outboxes with something to write, in the order of their first entry.
        scheduled: Whether a run is on its way.
        control: Control frames queued that were not yet told from the messages written.
    """

    __slots__ = ("_connections_max", "_seconds_max", "control", "dirty", "loop", "scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, options: ServerOptions) -> None:
        self.loop = loop
        self._connections_max = options.flush_connections
        self._seconds_max = options.flush_seconds
        self.dirty: list[Outbox] = []
        self.scheduled = False
        self.control = 0

    def count(self, frames: int, size: int) -> None:
        """
        Count what was written.

        Control frames were counted when they were queued, so that fan-out need not look at
        each frame; the next frames written make up for them.
        """
        metrics.bytes_sent.value += size
        control = min(self.control, frames)
        self.control -= control
        metrics.messages_sent.value += frames - control

    def schedule(self) -> None:
        """
        Run at the end of this loop turn.
        """
        self.scheduled = True
        self.loop.call_soon(self._run)

    def _run(self) -> None:
        """
        Hot path: write to each dirty outbox, within the bounds of one loop turn.

        What nearly always happens needs no call, and is counted once for all that are alike.
        """
        dirty = self.dirty
        until = monotonic() + self._seconds_max
        count = min(len(dirty), self._connections_max)
        done = alike = frames = size = 0
        frame = b""  # What no queue holds.
        try:
            while done < count:
                stop = min(done + CLOCK_STRIDE, count)
                for outbox in dirty[done:stop]:
                    if outbox._queue is not frame or not outbox.writable:
                        frames, size, alike = frames + alike, size + alike * len(frame), 0
                        entry = outbox._queue
                        if type(entry) is not bytes or not outbox.writable:
                            outbox.flush()
                            continue
                        frame = entry
                    outbox._queue = None
                    alike += 1
                    outbox._transport.write(frame)
                done = stop
                if monotonic() >= until:
                    break
        finally:
            # Whatever a transport may raise: the others of the worker are still written.
            del dirty[:done]
            self.count(frames + alike, size + alike * len(frame))
            if dirty:
                self.loop.call_soon(self._run)
            else:
                self.scheduled = False


class Outbox:
    """
    What waits to be written to one peer.

    Event-loop thread only; nothing here waits or raises because of the peer.
    While the transport still holds earlier bytes nothing more is written, so that
    everything pending can be counted, and the newest pong replaces an older one. Over its
    limit a reader is closed; for other policies see ``overflow``.

    Attributes:
        state: What becomes of something offered.
        format: The wire format in which prepared messages leave here.
        writable: Whether the transport holds no bytes; set by the connection.
        bytes_max: What may be pending before an overflow.
        clear: See ``types.Outbox``.
    """

    # Whether older messages are worth nothing, so that the kernel should hold few of them.
    conflates: ClassVar[bool] = False

    __slots__ = (
        "_bytes",
        "_early",
        "_early_bytes_max",
        "_early_max",
        "_exchange",
        "_flusher",
        "_late_pong",
        "_overflowing",
        "_queue",
        "_transport",
        "bytes_max",
        "clear",
        "format",
        "state",
        "writable",
    )

    def __init__(
        self,
        flusher: Flusher,
        options: ServerOptions,
        exchange: Ending,
        format: Format = websocket_frame,  # noqa: A002 - the wire format, as everywhere here
    ) -> None:
        """
        Make an outbox in the state CONNECTING.

        Args:
            flusher: The worker's flusher.
            options: The limits.
            exchange: What ends with a close code and a reason, by ``finish`` if it is open.
            format: How prepared messages leave here.
        """
        self._flusher = flusher
        # Not their bound methods, of which each would cost a connection at rest 64 bytes, and
        # a message a miss of the cache.
        self._exchange: Ending | None = exchange
        self._transport: Transport = _NOWHERE
        self._overflowing = False
        self._early: list[bytes] | None = None
        self._early_max = options.early_messages_max
        self._early_bytes_max = options.early_bytes_max
        self._queue: bytes | list[Piece] | None = None
        self._bytes = 0
        self._late_pong: bytes | None = None
        self.bytes_max = options.outbox_bytes_max
        self.format: Format = format
        self.state = OutboxState.CONNECTING
        self.writable = False
        self.clear = False

    @property
    def takes_bodies(self) -> bool:
        """
        See ``types.Outbox``.
        """
        return not (self.format is websocket_frame or isinstance(self.format, Deflate))

    @property
    def pending_bytes(self) -> int:
        """
        Bytes queued here and in the transport, not yet taken by the kernel.

        Of very many messages that wait each counts for 64 at least, which it takes in memory.
        """
        queue = self._queue
        queued = 0 if queue is None else len(queue) if type(queue) is bytes else self._bytes
        if self.writable:
            return queued
        if type(queue) is list and len(queue) > MESSAGES_MAX:
            queued = max(queued, 64 * len(queue))
        return queued + self._transport.get_write_buffer_size()

    def offer(self, prepared: Prepared) -> bool:
        """
        Queue one prepared message without waiting.

        Hot path: once per member per publish. Event-loop thread only.

        Returns:
            Whether it was queued. If not, the exchange is closing, or overflowing: then
            the overflow policy is applied in the next loop turn and counted.
        """
        if self.state is not _OPEN:
            return self._offer_early(prepared)
        frame = prepared.encodings.get(self.format)
        if frame is None:
            frame = prepared.encode(self.format)
        queue = self._queue
        if queue is None and self.writable:
            self._queue = frame
            flusher = self._flusher
            flusher.dirty.append(self)
            if not flusher.scheduled:
                flusher.schedule()
            return True
        if not self.writable:
            pass
        elif type(queue) is bytes:
            # More of one turn, here and next: as below, but without the calls.
            if len(queue) <= self.bytes_max:
                self._queue = [queue, frame]
                self._bytes = len(queue) + len(frame)
                return True
        elif type(queue) is list and self._bytes <= self.bytes_max and len(queue) <= MESSAGES_MAX:
            queue.append(frame)
            self._bytes += len(frame)
            return True
        if self._is_over():
            metrics.drops.add("overflow")
            self._overflow()
            return False
        self.send(frame)
        return True

    @staticmethod
    def offer_all(outboxes: Iterable[Outbox], prepared: Prepared) -> list[Outbox]:
        """
        See ``types.Outbox``.

        Hot path: the loop runs once per member per publish. As ``offer``, but what nearly always
        happens needs no call, and what most of them share is looked up once.
        """
        unclear = []
        format_: Format | None = None
        flusher: Flusher | None = None
        for outbox in outboxes:
            if not outbox.clear:
                unclear.append(outbox)
            elif outbox._queue is None and outbox.writable and outbox.state is _OPEN:
                if outbox.format is not format_:
                    format_ = outbox.format
                    frame = prepared.encodings.get(format_) or prepared.encode(format_)
                outbox._queue = frame
                if outbox._flusher is not flusher:
                    flusher = outbox._flusher
                    dirty = flusher.dirty
                    if not flusher.scheduled:
                        flusher.schedule()
                dirty.append(outbox)
            else:
                outbox.offer(prepared)
        return unclear

    def send(self, frame: bytes) -> bool:
        """
        Queue bytes that must not be dropped: what the application sends, control frames.

        Hot path: once per message that an application sends. Does not look at the limit.

        Returns:
            Whether more than half of the limit is pending, so that a sender should wait.
        """
        queue = self._queue
        if queue is None:
            self._queue = frame
            if self.writable:
                flusher = self._flusher
                flusher.dirty.append(self)
                if not flusher.scheduled:
                    flusher.schedule()
                if len(frame) * 2 > self.bytes_max:
                    # To leave in pieces: what is alone is written whole.
                    self._queue = [frame]
                    self._bytes = len(frame)
                    return True
                return False
        elif type(queue) is list:
            queue.append(frame)
            self._bytes += len(frame)
        else:
            self._queue = [queue, frame]  # type: ignore[list-item] # it is bytes if no list
            self._bytes = len(queue) + len(frame)
        return self.crowded()

    def crowded(self) -> bool:
        """
        Whether more than half of the limit is pending.
        """
        return self.pending_bytes * 2 > self.bytes_max

    def pong(self, frame: bytes) -> None:
        """
        Queue the answer to a ping.

        A peer that pings and does not read gets only the answer to its last ping
        (RFC 6455 section 5.5.3 allows that), so its pings cost no memory.
        """
        if self.state is not _OPEN:
            return
        if self.writable:
            self.control(frame)
        else:
            self._late_pong = frame

    def control(self, frame: bytes) -> None:
        """
        Queue a control frame.
        """
        self._flusher.control += 1
        self.send(frame)

    def open(self, transport: Transport, *, writable: bool) -> None:
        """
        Let flow what was offered before the handshake was accepted, and all that follows.

        Args:
            transport: Writes bytes of the switched protocol.
            writable: Whether it holds none.
        """
        self._transport = transport
        self.writable = writable
        self.state = _OPEN
        for frame in self._early or ():
            self.send(frame)
        self._early = None

    def close(self, code: int = 1000, reason: str = "") -> None:
        """
        See ``types.Outbox``: the peer and the application get the code.
        """
        if self._exchange is not None:
            self._exchange.end(code, reason)

    def finish(self, code: int, reason: str) -> None:
        """
        Queue the close frame behind everything else; nothing is taken after it.
        """
        if self.state is _OPEN:
            frame = encode_close(code, reason)
            if self._late_pong is not None:
                pong, self._late_pong = self._late_pong, None
                self.control(pong)
            self.finish_with(frame)

    def finish_with(self, last: bytes) -> None:
        """
        Queue the last bytes behind everything else; nothing is taken after them.
        """
        self.state = OutboxState.CLOSING
        self.control(last)

    def shut(self) -> None:
        """
        Throw away what is left: the peer is gone, or the handshake was refused.
        """
        if self._early:
            metrics.drops.add("refused_handshake", len(self._early))
        if self._queue is not None:
            left = 1 if type(self._queue) is bytes else len(self._queue)
            if self.state is OutboxState.CLOSING:
                # Behind all messages is the last word, which nothing written is to make up for.
                left -= 1
                self._flusher.control -= 1
            if left:
                metrics.drops.add("unread", left)
        self.state = OutboxState.CLOSED
        self._early = self._queue = self._late_pong = None
        self.writable = False
        self._transport = _NOWHERE

    def release(self) -> None:
        """
        Forget the exchange; whoever still closes it is late.
        """
        self._exchange = None

    def flush(self, *, force: bool = False) -> bool:
        """
        Write what is queued, if the transport holds nothing.

        That is one call, unless more than half of the limit is pending: then somebody may wait
        for its reader, and it leaves in pieces, each behind the one before.

        Args:
            force: Write in any case: somebody else is to write behind this.

        Returns:
            Whether nothing is queued any more.
        """
        if not (self.writable or force):
            return self._queue is None
        if self._late_pong is not None:
            pong, self._late_pong = self._late_pong, None
            self.control(pong)
        while (queue := self._queue) is not None and (self.writable or force):
            if type(queue) is list and self._bytes * 2 <= self.bytes_max:
                self._queue = None
                data, frames = b"".join(queue), len(queue)
            elif type(queue) is bytes and len(queue) * 2 <= self.bytes_max:
                self._queue = None
                data, frames = queue, 1
            else:
                # What nobody will take any more goes at once: asyncio logs each write too many.
                whole = force or self._transport.is_closing()
                data, frames = self._take(sys.maxsize if whole else piece_bytes(self.bytes_max))
            self._flusher.count(frames, len(data))
            self._transport.write(data)
        return self._queue is None

    def _take(self, bytes_max: int) -> tuple[bytes, int]:
        """
        Take the oldest bytes out of the queue, and count the messages that end with them.

        Args:
            bytes_max: How many; all, if there are fewer.
        """
        queue = self._queue
        if not isinstance(queue, list):
            assert queue is not None  # noqa: S101 - whoever takes has looked
            queue = [queue]
            self._queue, self._bytes = queue, len(queue[0])
        data, frames = take(queue, bytes_max)
        self._bytes -= len(data)
        if not self._bytes:
            self._queue = None
        return data, frames

    def _is_over(self) -> bool:
        """
        Whether so much waits that another message is one too many.
        """
        queue = self._queue
        return self.pending_bytes > self.bytes_max or (
            type(queue) is list and self._are_many(len(queue))
        )

    def _are_many(self, messages: int) -> bool:
        """
        Whether so many messages are too many, be they ever so small.
        """
        return messages > MESSAGES_MAX and messages * 64 > self.bytes_max

    def _overflow(self) -> None:
        """
        Have the overflow policy applied, one turn later: fan-out goes on undisturbed.
        """
        if not self._overflowing:
            self._overflowing = True
            self._flusher.loop.call_soon(self.close, codes.TRY_AGAIN_LATER, "too slow to keep up")

    def _offer_early(self, prepared: Prepared) -> bool:
        """
        Hold an offer until the handshake is accepted, within bounds.
        """
        if self.state is not OutboxState.CONNECTING:
            # It is on its way out of its groups; a handler that takes its time holds that up.
            metrics.drops.add("closing")
            return False
        early = self._early
        if early is None:
            early = self._early = []
        frame = prepared.encode(self.format)
        if self._has_no_room(len(frame)):
            metrics.drops.add("before_accept")
            return False
        early.append(frame)
        return True

    def _has_no_room(self, size: int) -> bool:
        """
        Whether another message of this size is too much before the handshake is accepted.
        """
        early, bytes_max = self._early, min(self._early_bytes_max, self.bytes_max)
        if not early:
            return self._early_max < 1 or bytes_max < 1
        return len(early) >= self._early_max or sum(map(len, early)) + size > bytes_max
