"""
One link over a real pair of sockets, on both kinds of loop.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fairway.layers.brokers.ipc import frames
from fairway.layers.brokers.ipc.frames import Frame, Message
from fairway.layers.brokers.ipc.links import Link, Links
from tests.unit.layers.fakes import until


class End:
    """
    One end of a pair, and what happened to it.
    """

    def __init__(self, links: Links, sock: socket.socket) -> None:
        self.frames: list[Frame] = []
        self.lost_by: list[str] = []
        self.misled_by: list[str] = []
        self.on_frame: Callable[[Frame], object] | None = None
        sock.setblocking(False)
        self.sock = sock
        self.link = Link(links, sock, self)

    def take(self, link: Link, frame: Frame) -> None:
        """
        Keep a frame.
        """
        self.frames.append(frame)
        if self.on_frame is not None:
            self.on_frame(frame)

    def lost(self, link: Link, reason: str) -> None:
        """
        Note the end.
        """
        self.lost_by.append(reason)

    def misled(self, link: Link, reason: str) -> None:
        """
        Note nonsense.
        """
        self.misled_by.append(reason)

    @property
    def payloads(self) -> list[bytes]:
        """
        What arrived in messages.
        """
        return [frame.payload for frame in self.frames if isinstance(frame, Message)]


@contextmanager
def pair() -> Iterator[tuple[End, End]]:
    """
    Give both ends of a link.
    """
    links = Links(asyncio.get_running_loop())
    ours, theirs = (End(links, sock) for sock in socket.socketpair())
    try:
        yield ours, theirs
    finally:
        ours.link.close()
        theirs.link.close()
        assert not links.open


@contextmanager
def half() -> Iterator[tuple[End, socket.socket]]:
    """
    Give one end of a link, and a bare socket that reads when the test does.
    """
    links = Links(asyncio.get_running_loop())
    sock, bare = socket.socketpair()
    end = End(links, sock)
    bare.setblocking(False)
    try:
        yield end, bare
    finally:
        end.link.close()
        bare.close()


def read_all(sock: socket.socket) -> bytes:
    """
    Read what lies there.
    """
    data = bytearray()
    while True:
        try:
            more = sock.recv(1 << 20)
        except BlockingIOError:
            return bytes(data)
        if not more:
            return bytes(data)
        data += more


async def test_what_one_loop_turn_queues_is_written_once() -> None:
    """
    However many frames are queued in a turn, they leave together at its end.
    """
    with half() as (end, bare):
        for number in range(3):
            end.link.send_message(frames.message("a", b"%d" % number))
        assert end.link.pending_bytes == 27
        assert read_all(bare) == b""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert end.link.pending_bytes == 0
        assert read_all(bare) == b"".join(frames.message("a", b"%d" % n) for n in range(3))


async def test_megabytes_arrive_whole_and_in_order() -> None:
    """
    What the kernel does not take at once follows when it does.
    """
    with pair() as (ours, theirs):
        sent = [bytes([number]) * 1_000_000 for number in range(12)]
        for payload in sent:
            ours.link.send_message(frames.message("a", payload))
        await until(lambda: len(theirs.frames) == 12)
        assert theirs.payloads == sent
        assert ours.link.pending_bytes == 0


async def test_who_waits_for_room_goes_on_when_there_is() -> None:
    """
    Room is there when enough has been read, and also when the link is closed.
    """
    with half() as (end, bare):
        end.link.send(frames.message("a", bytes(2_000_000)))
        await end.link.wait_room(2_100_000)
        waiting = [asyncio.ensure_future(end.link.wait_room(1_000_000)) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert not any(wait.done() for wait in waiting)
        assert end.link.moving(5)
        assert not end.link.moving(0)

        def room() -> bool:
            read_all(bare)
            return all(wait.done() for wait in waiting)

        await until(room)
        end.link.send(frames.message("a", bytes(2_000_000)))
        last = asyncio.ensure_future(end.link.wait_room(0))
        await asyncio.sleep(0)
        end.link.close()
        await asyncio.wait_for(last, 5)
        await end.link.wait_room(0)


async def test_what_was_sent_before_the_end_is_read_though_answers_fail() -> None:
    """
    A process that publishes and ends at once has left without reading what it was told.
    """
    with pair() as (ours, theirs):
        theirs.on_frame = lambda frame: theirs.link.send(frames.interest("x" * 1000))
        payload = bytes(100_000)
        ours.link.send(frames.message("a", payload))
        theirs.link.send(frames.BEAT)  # It lies unread when the other end closes.
        while ours.link.pending_bytes:
            ours.link.write()
            await asyncio.sleep(0)
        for _ in range(20):
            theirs.link.send(frames.BEAT)
        ours.link.close()
        await until(lambda: theirs.lost_by)
        assert theirs.payloads == [payload]


async def test_everything_unread_is_read_after_an_error_of_the_socket() -> None:
    """
    More than one read lies there when the other end closes with something unread.
    """
    with half() as (end, bare):
        end.link.send(frames.BEAT)
        end.link.write()
        encoded = b"".join(frames.message("a", bytes(300)) for _ in range(400))
        assert bare.send(encoded) == len(encoded)
        end.link._links.buffer = end.link._links.buffer[:10_000]
        bare.close()
        await until(lambda: end.lost_by)
        assert len(end.payloads) == 400


async def test_the_end_is_told_once_with_its_reason() -> None:
    """
    Whoever closes, the other end learns of it, and the one that closed does not.
    """
    with pair() as (ours, theirs):
        ours.link.send_message(frames.message("a", b"1"))
        ours.link.close()
        ours.link.close()
        ours.link.send(frames.BEAT)
        ours.link.write()
        await until(lambda: theirs.lost_by)
        assert (theirs.frames, theirs.lost_by, ours.lost_by) == ([], ["it ended"], [])
        assert not theirs.link.open
        assert ours.link.unsent_messages() == 1


async def test_a_write_to_an_end_that_is_gone_does_not_raise() -> None:
    """
    It is found out by reading; what was queued counts as unsent.
    """
    with half() as (end, bare):
        bare.close()
        end.link.send_message(frames.message("a", b"1"))
        end.link.write()
        end.link.send_message(frames.message("a", b"2"))
        await until(lambda: end.lost_by)
        assert end.link.unsent_messages() == 2


class Exhausted:
    """
    A socket for which the system has no memory at present.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: bytes) -> int:
        """
        Fail.
        """
        raise OSError(errno.ENOBUFS, "No buffer space available")

    def __getattr__(self, name: str) -> Any:
        """
        Be the real one otherwise.
        """
        return getattr(self._sock, name)


async def test_a_link_that_takes_nothing_ends_though_the_other_end_lives() -> None:
    """
    What has arrived on it counts; nobody waits until its silence is noticed.
    """
    with half() as (end, bare):
        end.link._sock = Exhausted(end.sock)  # type: ignore[assignment] # as much of one as it needs
        bare.send(frames.BEAT)
        end.link.send_message(frames.message("a", b"1"))
        await until(lambda: end.lost_by)
        assert (end.frames, end.lost_by) == ([frames.Beat()], ["it cannot be written to"])
        assert end.link.unsent_messages() == 1


@pytest.mark.parametrize("answers", [0, 1, 1000])
async def test_an_end_that_goes_while_it_is_written_to_is_noticed(
    answers: int,
) -> None:
    """
    At once, whatever it has left unread and unwritten.
    """
    with half() as (end, bare):
        end.link.send_message(frames.message("a", bytes(2_000_000)))
        await asyncio.sleep(0.01)
        assert end.link.pending_bytes
        bare.send(frames.BEAT * answers)
        bare.close()
        await until(lambda: end.lost_by)
        assert len(end.frames) == answers
        assert end.link.unsent_messages() == 1


async def test_nonsense_closes_the_link_and_what_came_before_counts() -> None:
    """
    Frames before the nonsense are heeded, or come in an earlier piece, and nothing after it is.
    """
    with half() as (end, bare):
        bare.send(frames.message("a", b"1"))
        await until(lambda: end.frames)
        bare.send(struct.pack("!IB", 1, 99) + frames.message("a", b"2"))
        await until(lambda: end.misled_by)
        assert (end.payloads, end.lost_by) == ([b"1"], [])
        assert "kind 99" in end.misled_by[0]
        assert not end.link.open


async def test_a_link_closed_by_a_frame_heeds_no_more() -> None:
    """
    What lies behind a farewell in the same read is not handed on.
    """
    with half() as (end, bare):
        end.on_frame = lambda frame: end.link.close()
        bare.send(frames.BYE + frames.message("a", b"late"))
        await until(lambda: end.frames)
        assert end.frames == [frames.Bye()]


async def test_draining_heeds_what_has_arrived_and_closes() -> None:
    """
    A link that is replaced gives what it holds before the new one gives anything.
    """
    with half() as (end, bare):
        for number in range(3):
            bare.send(frames.message("a", b"%d" % number))
        end.link.drain()
        assert end.payloads == [b"0", b"1", b"2"]
        assert not end.link.open


async def test_a_child_closes_its_copies_without_a_word() -> None:
    """
    After a fork the sockets are closed and the loop is not asked.
    """
    with half() as (end, bare):
        links = end.link._links
        end.link._loop.remove_reader(end.sock.fileno())  # The parent's, which is this one here.
        links.forked()
        assert end.sock.fileno() == -1
        assert not links.open
        assert read_all(bare) == b""


def test_a_link_may_be_closed_after_its_loop() -> None:
    """
    A broker that is taken from a loop that has ended closes what it had there.
    """
    loop = asyncio.new_event_loop()
    links = Links(loop)
    sock, bare = socket.socketpair()
    end = End(links, sock)
    loop.close()
    end.link.close()
    bare.close()
    assert sock.fileno() == -1
