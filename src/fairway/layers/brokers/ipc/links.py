"""
One connected socket between two processes: bytes queued, written once per loop turn, and read.

A link knows nothing of what its frames mean. It works on the socket itself and not through
a transport, because a transport whose write fails throws away what it has not read yet: the
last messages of a process that has published and gone would be lost by answering it.
Everything here belongs to one loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import Protocol

from fairway.layers.brokers.ipc.frames import Decoder, Frame, FrameError, is_message

__all__ = ["Link", "LinkOwner", "Links"]

READ_BYTES = 262_144
"""
What one read takes at most, and hence what one link may give in one loop turn.
"""

DRAIN_READS = 64
"""
Reads after which a link that has been replaced is closed, whatever may be left in it.
"""

WRITE_BYTES = 131_072
"""
Bytes queued in one loop turn at which they are written without waiting for its end.
"""

WRITE_FRAMES = 512
"""
Frames handed to the kernel in one call; below the 1,024 that systems take (IOV_MAX).
"""


class LinkOwner(Protocol):
    """
    Who is told what happens on a link.
    """

    def take(self, link: Link, frame: Frame) -> None:
        """
        Heed one frame.
        """

    def lost(self, link: Link, reason: str) -> None:
        """
        Learn that a link has ended and was closed, other than by ``Link.close``.
        """

    def misled(self, link: Link, reason: str) -> None:
        """
        Learn that what came is nothing that one of us sends; the link was closed.
        """


class Links:
    """
    The links of one broker on one loop, and what they share.

    Attributes:
        loop: The loop.
        open: Those that are not closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.open: set[Link] = set()
        # One buffer for all: what is read is taken apart before anything else is read.
        self.buffer = memoryview(bytearray(READ_BYTES))
        self._dirty: list[Link] = []

    def write_soon(self, link: Link) -> None:
        """
        Have a link written to at the end of the loop turn.
        """
        if not self._dirty:
            self.loop.call_soon(self._write)
        self._dirty.append(link)

    def forked(self) -> None:
        """
        Close this process's copies of the sockets, in a child, without touching the loop.

        The parent's stay as they are; kept open here, they would outlive it.
        """
        for link in self.open:
            link.forked()
        self.open.clear()

    def _write(self) -> None:
        dirty, self._dirty = self._dirty, []
        for link in dirty:
            link.write()


class Link:
    """
    One end of a connected socket.

    Attributes:
        open: Whether it has not been closed.
        begun_at: When it began, in seconds of ``loop.time()``.
        pending_bytes: Queued and not yet taken by the kernel.
        heard_at: When the last byte arrived.
        moved_at: When the kernel last took bytes, or all had been taken.
        wrote_at: When something was last queued.
        answered: Whether a byte has arrived at all.
        messages: How many messages were queued since it began.
    """

    __slots__ = (
        "_blocked",
        "_broken",
        "_decoder",
        "_dirty",
        "_failed",
        "_links",
        "_loop",
        "_offset",
        "_owner",
        "_queue",
        "_room",
        "_sock",
        "answered",
        "begun_at",
        "heard_at",
        "messages",
        "moved_at",
        "open",
        "pending_bytes",
        "wrote_at",
    )

    def __init__(self, links: Links, sock: socket.socket, owner: LinkOwner) -> None:
        """
        Begin to read a connected, non-blocking socket, and belong to ``links``.
        """
        self._links = links
        self._loop = links.loop
        self._sock = sock
        self._owner = owner
        self._decoder = Decoder()
        self._queue: deque[bytes] = deque()
        self._offset = 0
        self._dirty = self._blocked = self._broken = self._failed = False
        self._room: tuple[int, asyncio.Future[None]] | None = None
        self.open = True
        self.answered = False
        self.pending_bytes = self.messages = 0
        self.begun_at = self.heard_at = self.moved_at = self.wrote_at = self._loop.time()
        links.open.add(self)
        # By number: uvloop keeps a socket object open for as long as it is watched.
        self._loop.add_reader(sock.fileno(), self._read)

    # --- Out ---------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """
        Queue one frame, without waiting. Hot path: once per publish and interested process.
        """
        if not self.open:
            return
        self._queue.append(frame)
        self.pending_bytes += len(frame)
        if self._blocked or self._broken:
            return
        if self.pending_bytes >= WRITE_BYTES:
            self.write()
        elif not self._dirty:
            self._dirty = True
            self._links.write_soon(self)

    def send_message(self, frame: bytes) -> None:
        """
        Queue one frame that counts as a message, as ``send`` does.
        """
        self.messages += 1
        self.send(frame)

    def unsent_messages(self) -> int:
        """
        Count the messages that the kernel has not taken, or not wholly.
        """
        return sum(is_message(frame) for frame in self._queue)

    def moving(self, within: float) -> bool:
        """
        Whether the other end takes bytes, or did within so many seconds.
        """
        return not self._blocked or self._loop.time() - self.moved_at <= within

    async def wait_room(self, limit: int) -> None:
        """
        Wait until at most ``limit`` bytes are pending, or the link is closed.
        """
        while self.open and self.pending_bytes > limit:
            if self._room is None:
                self._room = (limit, self._loop.create_future())
            await asyncio.shield(self._room[1])

    def write(self) -> None:
        """
        Hand the kernel what is queued, as far as it goes, without waiting.
        """
        self._dirty = False
        if self._blocked or self._broken or not self.open:
            return
        self.wrote_at = self._loop.time()
        try:
            while self._queue:
                self._advance(self._hand_over())
        except (BlockingIOError, InterruptedError):
            self._blocked = True
            self._loop.add_writer(self._sock.fileno(), self._unblock)
        except OSError:
            # The other end reads no more, but what it sent before is still to be read: to its end,
            # as the error that says so may have been this one.
            self._broken = self._failed = True
            self._loop.call_soon(self._read)
        self._check_room()

    def _hand_over(self) -> int:
        """
        Make one system call, and give how many bytes the kernel took.
        """
        queue = self._queue
        if len(queue) == 1 and not self._offset:
            return self._sock.send(queue[0])
        frames: list[bytes | memoryview] = list(islice(queue, WRITE_FRAMES))
        if self._offset:
            frames[0] = memoryview(frames[0])[self._offset :]
        return self._sock.sendmsg(frames)

    def _advance(self, taken: int) -> None:
        """
        Drop what the kernel took from the queue.
        """
        self.moved_at = self.wrote_at
        self.pending_bytes -= taken
        taken += self._offset
        queue = self._queue
        while queue and taken >= len(queue[0]):
            taken -= len(queue.popleft())
        self._offset = taken

    def _unblock(self) -> None:
        """
        Go on writing, now that the kernel takes more.
        """
        self._loop.remove_writer(self._sock.fileno())
        self._blocked = False
        self.write()

    def _check_room(self) -> None:
        """
        Let those go on who wait for room.
        """
        if self._room is not None:
            limit, room = self._room
            if self.pending_bytes <= limit or not self.open:
                self._room = None
                with suppress(RuntimeError):  # The loop has been closed.
                    room.set_result(None)

    # --- In ----------------------------------------------------------------------------------

    def _read(self) -> None:
        """
        Read once; after an error of the socket, again and again.
        """
        if not self.open or not self._read_once() or not self.open:
            return
        # It is an error when the other end closed without having read everything, and uvloop
        # calls no more after one: so what is left is fetched without being called.
        self._failed = self._failed or bool(
            self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        )
        if self._failed:
            self._loop.call_soon(self._read)

    def drain(self) -> None:
        """
        Heed what has arrived and was not read, and close: a newer link takes its place.
        """
        for _ in range(DRAIN_READS):
            if not self.open or not self._read_once():
                break
        self.close()

    def _read_once(self) -> bool:
        """
        Read and heed what one call gives; False if it gave nothing.
        """
        buffer = self._links.buffer
        try:
            size = self._sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            if self._broken:
                # It lives, but takes nothing here any more: a new link may do better.
                self._end("it cannot be written to")
            return False
        except OSError as error:
            self._end(error.strerror or str(error))
            return False
        if not size:
            self._end("it ended")
            return False
        self.heard_at = self._loop.time()
        self.answered = True
        try:
            frames = self._decoder.feed(buffer[:size])
        except FrameError as error:
            self.close()
            self._owner.misled(self, f"it sent {error}")
            return False
        for frame in frames:
            self._owner.take(self, frame)
            if not self.open:
                break
        return True

    # --- The end -----------------------------------------------------------------------------

    def close(self) -> None:
        """
        Close the socket now. What the kernel took arrives; what is queued does not.
        """
        if not self.open:
            return
        self.open = False
        self._links.open.discard(self)
        descriptor = self._sock.fileno()
        with suppress(RuntimeError):  # The loop has been closed.
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)
        self._sock.close()
        self._check_room()

    def forked(self) -> None:
        """
        Close this process's copy of the socket, in a child, and touch nothing else.
        """
        self.open = False
        self._sock.close()

    def _end(self, reason: str) -> None:
        """
        Close because of what happened on the socket, and tell the owner.
        """
        self.close()
        self._owner.lost(self, reason)
