"""
What a slow reader meets: three policies, and what they may be set to.

Order, bounds and counts under everything at once are shown by the stateful test in
``tests/property``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fairway import metrics
from fairway.exceptions import LocalProtocolError
from fairway.options import ServerOptions
from fairway.server import overflow
from fairway.server.outbox import Flusher, Outbox
from fairway.server.overflow import (
    NOTSENT_LOWAT,
    POLICIES,
    Backlog,
    DropOldestOutbox,
    LatestOutbox,
    configure,
    limit_unsent,
)
from fairway.wire.prepared import Prepared
from tests.unit.server.outboxes import Peer, Turns, frame, open_peers
from tests.unit.wire.frames import PONG

LIMIT = 1024


@pytest.fixture
def turns() -> Turns:
    """
    The turns of a loop.
    """
    return Turns()


@pytest.fixture
def behind(turns: Turns) -> Callable[[str], Peer]:
    """
    Makes an open outbox of a policy whose reader takes nothing.
    """

    def make(policy: str) -> Peer:
        (peer,) = open_peers(turns, 1, outbox_bytes_max=LIMIT, overflow=policy)
        peer.outbox.writable = False
        return peer

    return make


@pytest.fixture
def outbox(turns: Turns) -> Outbox:
    """
    An outbox that is not open yet.
    """
    options = ServerOptions()
    flusher = Flusher(turns, options)  # type: ignore[arg-type] # as much of a loop as it needs
    return Outbox(flusher, options, None)  # type: ignore[arg-type] # nobody ends it


def dropped(policy: str) -> int:
    """
    How many messages a policy has dropped so far.
    """
    return metrics.drops.values.get(policy, 0)


def read(peer: Peer) -> bytes:
    """
    Let the reader take everything.
    """
    peer.outbox.writable = True
    assert peer.outbox.flush()
    return b"".join(peer.writes)


class TestDropOldest:
    """
    ``drop_oldest``.
    """

    def test_drops(self, turns: Turns, behind: Callable[[str], Peer]) -> None:
        """
        Over the limit the oldest go, one turn later, until what waits before the newest fits.
        """
        peer, before = behind("drop_oldest"), dropped("drop_oldest")
        messages = [frame(b"%04d" % number * 50) for number in range(8)]
        for number in range(8):
            assert peer.outbox.offer(Prepared(data=b"%04d" % number * 50))
        assert peer.outbox.pending_bytes == sum(map(len, messages))
        turns.turn()
        assert dropped("drop_oldest") == before + 2
        assert read(peer) == b"".join(messages[2:])
        assert peer.ends == []

    def test_what_is_awaited_stays(self, turns: Turns, behind: Callable[[str], Peer]) -> None:
        """
        Sends, pongs and the close stay, in their order, whatever lies between.
        """
        peer = behind("drop_oldest")
        kept = []
        for number in range(10):
            peer.outbox.offer(Prepared(data=bytes(400)))
            kept.append(frame(b"%d" % number))
            peer.outbox.send(kept[-1])
            turns.turn()
        newest = [frame(bytes(400))] * 3
        peer.outbox.pong(frame(b"", PONG))
        peer.outbox.finish(1000, "")
        tail = [newest[0], kept[7], newest[1], kept[8], newest[2], kept[9]]
        ends = [frame(b"", PONG), frame(b"\x03\xe8", 0x8)]
        assert read(peer) == b"".join([*kept[:7], *tail, *ends])

    def test_newest_stays(self, turns: Turns, behind: Callable[[str], Peer]) -> None:
        """
        The newest message stays even where what is awaited fills the limit.
        """
        peer, before = behind("drop_oldest"), dropped("drop_oldest")
        peer.outbox.send(frame(bytes(2000)))
        for text in "abc":
            peer.outbox.offer(Prepared(text=text))
            turns.turn()
        assert dropped("drop_oldest") == before + 2
        assert read(peer) == frame(bytes(2000)) + frame(b"c", 0x1)

    def test_within_one_turn(self, turns: Turns, behind: Callable[[str], Peer]) -> None:
        """
        What one turn offers is bounded too, by twice the limit.
        """
        peer, before = behind("drop_oldest"), dropped("drop_oldest")
        for _ in range(1000):
            assert peer.outbox.offer(Prepared(data=bytes(98)))
            assert peer.outbox.pending_bytes <= 2 * LIMIT + 200
        turns.turn()
        assert peer.outbox.pending_bytes <= LIMIT + 100
        assert dropped("drop_oldest") == before + 1000 - peer.outbox.pending_bytes // 100

    def test_fast_reader(self, turns: Turns) -> None:
        """
        A burst costs a reader nothing who takes it at the end of the turn.
        """
        (peer,) = open_peers(turns, 1, outbox_bytes_max=LIMIT, overflow="drop_oldest")
        before = dropped("drop_oldest")
        for number in range(8):
            assert peer.outbox.offer(Prepared(data=b"%04d" % number * 60))
        turns.turn()
        turns.turn()
        assert b"".join(peer.writes) == b"".join(frame(b"%04d" % n * 60) for n in range(8))
        assert dropped("drop_oldest") == before

    def test_what_is_being_written_stays(self, turns: Turns, behind: Callable[[str], Peer]) -> None:
        """
        A message of which a part is written leaves whole.
        """
        peer = behind("drop_oldest")
        write = peer.writes.append

        def full(data: bytes) -> None:
            write(data)
            peer.outbox.writable = False

        peer.write = full
        for number in range(4):
            peer.outbox.offer(Prepared(data=b"%d" % number * 240))
        peer.outbox.writable = True
        assert not peer.outbox.flush()
        for number in range(4, 9):
            peer.outbox.offer(Prepared(data=b"%d" % number * 240))
            turns.turn()
        peer.write = write
        assert read(peer).startswith(frame(b"0" * 240))
        assert b"".join(peer.writes).endswith(frame(b"8" * 240))

    def test_unread(self, turns: Turns, behind: Callable[[str], Peer]) -> None:
        """
        What still waits when the peer is gone is counted as such.
        """
        peer, before = behind("drop_oldest"), dropped("unread")
        peer.outbox.send(frame(b"x"))
        for text in "abc":
            peer.outbox.offer(Prepared(text=text))
        peer.outbox.shut()
        assert dropped("unread") == before + 4
        assert not peer.outbox.offer(Prepared(text="d"))
        turns.turn()

    def test_nobody_waits_for_what_may_be_dropped(self, behind: Callable[[str], Peer]) -> None:
        """
        A sender waits for what is awaited alone: messages of a group may come without end.
        """
        peer = behind("drop_oldest")
        for _ in range(10):
            peer.outbox.offer(Prepared(data=bytes(98)))
        assert not peer.outbox.send(frame(bytes(LIMIT // 2 - 4)))
        assert peer.outbox.send(frame(b"x"))
        assert peer.outbox.crowded()
        read(peer)
        assert not peer.outbox.crowded()

    @pytest.mark.parametrize("policy", ["drop_oldest", "latest"])
    @pytest.mark.parametrize(("messages", "size"), [(3, 100), (9, 10)])
    def test_before_accept(self, turns: Turns, policy: str, messages: int, size: int) -> None:
        """
        Before the handshake is accepted the newest are kept too, and what they push out is counted.
        """
        before = dropped("before_accept")
        options = ServerOptions(early_messages_max=messages, early_bytes_max=size)
        flusher = Flusher(turns, options)  # type: ignore[arg-type] # as much of a loop as it needs
        outbox = POLICIES[policy](flusher, options, None)  # type: ignore[arg-type] # nobody ends it
        writes: list[bytes] = []
        transport = SimpleNamespace(write=writes.append, is_closing=lambda: False)
        for text in "abcde":
            assert outbox.offer(Prepared(text=text))
        assert dropped("before_accept") == before + 2
        outbox.open(transport, writable=True)
        turns.turn()
        assert b"".join(writes) == b"".join(frame(text, 0x1) for text in (b"c", b"d", b"e"))


class TestLatest:
    """
    ``latest``.
    """

    def test_newest(self, turns: Turns, behind: Callable[[str], Peer]) -> None:
        """
        A reader who is behind gets the newest message, and what is awaited around it.
        """
        peer, before = behind("latest"), dropped("latest")
        for text in ("1", "2"):
            peer.outbox.offer(Prepared(text=text))
        peer.outbox.send(frame(b"awaited"))
        for text in ("3", "4"):
            peer.outbox.offer(Prepared(text=text))
        assert dropped("latest") == before + 3
        assert turns.soon == []
        assert read(peer) == frame(b"awaited") + frame(b"4", 0x1)

    def test_reader_who_keeps_up(self, turns: Turns) -> None:
        """
        A reader who is not behind gets every message.
        """
        (peer,) = open_peers(turns, 1, outbox_bytes_max=LIMIT, overflow="latest")
        for number in range(8):
            peer.outbox.offer(Prepared(data=b"%04d" % number * 60))
        turns.turn()
        turns.turn()
        assert b"".join(peer.writes) == b"".join(frame(b"%04d" % n * 60) for n in range(8))

    def test_falling_behind(self, turns: Turns) -> None:
        """
        Of a burst that the reader does not take, it gets what was written and the newest.
        """
        (peer,) = open_peers(turns, 1, outbox_bytes_max=LIMIT, overflow="latest")
        write = peer.writes.append

        def full(data: bytes) -> None:
            write(data)
            peer.outbox.writable = False

        peer.write = full
        for number in range(8):
            peer.outbox.offer(Prepared(data=b"%04d" % number * 60))
        turns.turn()
        assert peer.outbox.pending_bytes < 2 * len(frame(bytes(240)))
        peer.write = write
        assert read(peer) == frame(b"0000" * 60) + frame(b"0007" * 60)


class TestConfigure:
    """
    What may be set before a connection is accepted.
    """

    def test_policy(self, outbox: Outbox) -> None:
        """
        A policy can be chosen, and chosen again; the outbox stays the same object.
        """
        configure(outbox, "latest", None)
        assert type(outbox) is LatestOutbox
        configure(outbox, "drop_oldest", 4096)
        assert type(outbox) is DropOldestOutbox
        configure(outbox, None, None)
        assert (type(outbox), outbox.bytes_max) == (DropOldestOutbox, 4096)
        configure(outbox, "close", None)
        assert type(outbox) is Outbox

    @pytest.mark.parametrize("policy", ["newest", "", 5, ["latest"]])
    def test_unknown_policy(self, outbox: Outbox, policy: Any) -> None:
        """
        What is no policy is told beside those there are, and nothing changes.
        """
        text = r"expected overflow='close' or 'drop_oldest' or 'latest', got"
        with pytest.raises(LocalProtocolError, match=text):
            configure(outbox, policy, 4096)
        assert (type(outbox), outbox.bytes_max) == (Outbox, ServerOptions().outbox_bytes_max)

    @pytest.mark.parametrize("size", [0, -1, True, 1.5, "4096"])
    def test_wrong_size(self, outbox: Outbox, size: Any) -> None:
        """
        What is no size is told.
        """
        with pytest.raises(LocalProtocolError, match=f"a whole number, got {size!r}"):
            configure(outbox, "latest", size)
        assert type(outbox) is Outbox

    def test_options(self) -> None:
        """
        The option knows the same words.
        """
        choices = ServerOptions.__dataclass_fields__["overflow"].metadata["choices"]
        assert list(choices) == list(POLICIES)


class TestUnsent:
    """
    How far ahead the kernel may take bytes.
    """

    @pytest.fixture
    def sock(self, request: pytest.FixtureRequest) -> Iterator[socket.socket]:
        """
        A socket of a family.
        """
        with socket.socket(request.param) as sock:
            yield sock

    @pytest.mark.parametrize("sock", [socket.AF_INET, socket.AF_INET6], indirect=True)
    def test_tcp(self, sock: socket.socket) -> None:
        """
        A TCP socket is told.
        """
        limit_unsent(sock, 16384)
        assert NOTSENT_LOWAT is not None
        assert sock.getsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT) == 16384

    @pytest.mark.parametrize("sock", [socket.AF_UNIX], indirect=True)
    def test_others(self, sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Unix sockets, transports without a socket and systems without the option are left alone.
        """
        limit_unsent(sock, 16384)
        limit_unsent(None, 16384)
        monkeypatch.setattr(overflow, "NOTSENT_LOWAT", None)
        with socket.socket() as tcp:
            limit_unsent(tcp, 16384)


def test_dropping_costs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However much waits that is not to be dropped, it is passed over once.
    """
    backlog = Backlog()
    backlog.put(b"first", droppable=True)
    for _ in range(1000):
        backlog.put(b"awaited", droppable=False)
    for _ in range(10):
        backlog.put(b"offered", droppable=True)
    passed: list[bytes] = []
    monkeypatch.setattr(Backlog, "append", lambda self, frame: passed.append(frame))
    assert [backlog.drop() for _ in range(11)] == [5] + [7] * 10
    assert (len(passed), backlog.droppable) == (1000, 0)
