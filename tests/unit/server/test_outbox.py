"""
The outbox and its flusher: one write per turn, and bounds on what one turn may cost.

What is pending, dropped and in which order is shown by the stateful test in ``tests/property``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fairway import metrics
from fairway.exceptions import LocalProtocolError
from fairway.options import ServerOptions
from fairway.server import outbox as outbox_module
from fairway.server.outbox import MESSAGES_MAX, Flusher, Outbox, OutboxState
from fairway.server.overflow import POLICIES
from fairway.wire.prepared import Prepared
from fairway.wire.sse import event_chunk
from fairway.wire.websocket import encode_close
from tests.unit.server.outboxes import Peer, Turns, frame, open_peers
from tests.unit.wire.frames import PONG, TEXT


@pytest.fixture
def turns() -> Turns:
    """
    The turns of a loop.
    """
    return Turns()


@pytest.fixture
def peers(turns: Turns) -> Callable[..., list[Peer]]:
    """
    Makes open outboxes that share one flusher.
    """
    return partial(open_peers, turns)


class TestFlusher:
    """
    Writing at the end of a turn.
    """

    def test_one_write(self, turns: Turns, peers: Any) -> None:
        """
        What one turn queued, from whatever side, leaves in one write in its order.
        """
        (peer,) = peers(1)
        peer.outbox.offer(Prepared(data=b"1"))
        peer.outbox.send(frame(b"2"))
        peer.outbox.pong(frame(b"3", PONG))
        peer.outbox.offer(Prepared(text="4"))
        assert peer.writes == []
        turns.turn()
        assert peer.writes == [frame(b"1") + frame(b"2") + frame(b"3", PONG) + frame(b"4", TEXT)]
        assert turns.soon == []

    def test_many(self, turns: Turns, peers: Any) -> None:
        """
        One turn writes to all, with one callback, and encodes a prepared message once.
        """
        several = peers(100)
        message = Prepared(text="x")
        encoded = metrics.prepared.value
        for peer in several:
            assert peer.outbox.offer(message)
        assert len(turns.soon) == 1
        turns.turn()
        assert all(peer.writes == [frame(b"x", TEXT)] for peer in several)
        assert metrics.prepared.value == encoded + 1

    def test_connections_per_turn(self, turns: Turns, peers: Any) -> None:
        """
        Not more than the allowed number is written to in one turn; the others follow, in order.
        """
        several = peers(7, flush_connections=3)
        for peer in several:
            peer.outbox.offer(Prepared(data=b"x"))
        written = []
        for _ in range(3):
            turns.turn()
            written.append([bool(peer.writes) for peer in several].count(True))
        assert written == [3, 6, 7]
        assert turns.soon == []

    def test_seconds_per_turn(
        self, turns: Turns, peers: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Nor is a turn longer than allowed, whatever the number.
        """
        now = iter(range(100))
        monkeypatch.setattr(outbox_module, "monotonic", lambda: next(now))
        several = peers(100, flush_seconds=1)
        for peer in several:
            peer.outbox.offer(Prepared(data=b"x"))
        turns.turn()
        assert [bool(peer.writes) for peer in several].count(True) == outbox_module.CLOCK_STRIDE
        for _ in range(3):
            turns.turn()
        assert all(peer.writes for peer in several)

    def test_while_writing(self, turns: Turns, peers: Any) -> None:
        """
        What is queued while the flusher writes leaves in the next turn.
        """
        first, second = peers(2)
        first.write = lambda data: second.outbox.send(frame(b"answer"))
        first.outbox.send(frame(b"x"))
        turns.turn()
        assert second.writes == []
        turns.turn()
        assert second.writes == [frame(b"answer")]

    def test_broken_transport(self, turns: Turns, peers: Any) -> None:
        """
        A transport that raises costs the others nothing, now and later.
        """
        broken, other = peers(2)

        def refuse(data: bytes) -> None:
            raise RuntimeError("closed")

        broken.write = refuse
        for peer in (broken, other):
            peer.outbox.offer(Prepared(data=b"1"))
        with pytest.raises(RuntimeError, match="closed"):
            turns.turn()
        turns.turn()
        other.outbox.offer(Prepared(data=b"2"))
        turns.turn()
        assert other.writes == [frame(b"1"), frame(b"2")]

    def test_gone_meanwhile(self, turns: Turns, peers: Any) -> None:
        """
        Nothing is written to a peer that has gone since.
        """
        (peer,) = peers(1)
        peer.outbox.offer(Prepared(data=b"x"))
        peer.outbox.shut()
        turns.turn()
        assert peer.writes == []
        assert peer.outbox.pending_bytes == 0


class TestFanOut:
    """
    One message for many.
    """

    def test_like_offers(self, turns: Turns, peers: Any) -> None:
        """
        Each gets what offering to it alone gives it; who has something unread gets nothing.
        """
        at_rest, streams, has_some, is_behind, closing, unread = several = peers(6)
        for peer in several:
            peer.outbox.clear = peer is not unread
        streams.outbox.format = event_chunk
        has_some.outbox.send(frame(b"first"))
        is_behind.outbox.writable = False
        closing.outbox.finish(1000, "")
        message = Prepared(text="x")
        assert unread.outbox.offer_all([peer.outbox for peer in several], message) == [
            unread.outbox
        ]
        turns.turn()
        assert is_behind.writes == []
        is_behind.outbox.writable = True
        is_behind.outbox.flush()
        assert at_rest.writes == is_behind.writes == [frame(b"x", TEXT)]
        assert streams.writes == [event_chunk(message)]
        assert has_some.writes == [frame(b"first") + frame(b"x", TEXT)]
        assert closing.writes == [encode_close(1000, "")]
        assert unread.writes == []

    def test_of_two_workers(self, turns: Turns, peers: Any) -> None:
        """
        Outboxes of two flushers in turns are all written.
        """
        mixed = [peer for pair in zip(peers(3), peers(3), strict=True) for peer in pair]
        for peer in mixed:
            peer.outbox.clear = True
        mixed[0].outbox.offer_all([peer.outbox for peer in mixed], Prepared(text="x"))
        turns.turn()
        assert [peer.writes for peer in mixed] == [[frame(b"x", TEXT)]] * 6

    def test_counts(self, turns: Turns, peers: Any) -> None:
        """
        Frames and bytes are counted of each, whatever is written between those that are alike.
        """
        several = peers(5)
        for peer in several:
            peer.outbox.clear = True
        several[2].outbox.send(frame(b"another"))
        messages, size = metrics.messages_sent.value, metrics.bytes_sent.value
        several[0].outbox.offer_all([peer.outbox for peer in several], Prepared(text="x"))
        turns.turn()
        written = [data for peer in several for data in peer.writes]
        assert len(written) == 5
        assert metrics.messages_sent.value - messages == 6
        assert metrics.bytes_sent.value - size == sum(map(len, written))


class TestStates:
    """
    What becomes of an offer in each state.
    """

    def test_overflow(self, turns: Turns, peers: Any) -> None:
        """
        An offer over the limit is refused, and the end is asked for once, one turn later.
        """
        (peer,) = peers(1, outbox_bytes_max=1024)
        assert peer.outbox.offer(Prepared(data=bytes(2000)))
        dropped = metrics.drops.values.get("overflow", 0)
        assert not peer.outbox.offer(Prepared(data=b""))
        assert not peer.outbox.offer(Prepared(data=b""))
        assert peer.ends == []
        turns.turn()
        assert peer.ends == [(1013, "too slow to keep up")]
        assert metrics.drops.values["overflow"] == dropped + 2

    def test_exactly_at_the_limit(self, turns: Turns, peers: Any) -> None:
        """
        The limit itself is not over it: what counts is what was pending before.
        """
        (peer,) = peers(1, outbox_bytes_max=1024)
        assert peer.outbox.offer(Prepared(data=bytes(1020)))
        assert peer.outbox.pending_bytes == 1024
        assert peer.outbox.offer(Prepared(data=bytes(5000)))
        assert not peer.outbox.offer(Prepared(data=b""))

    def test_close_asks(self, turns: Turns, peers: Any) -> None:
        """
        ``close`` is the exchange's business; ``finish`` queues the frame and takes no more.
        """
        (peer,) = peers(1)
        peer.outbox.close(4000, "bye")
        assert peer.ends == [(4000, "bye")]
        assert peer.outbox.state is OutboxState.OPEN
        peer.outbox.finish(4000, "bye")
        peer.outbox.finish(4001, "again")
        peer.outbox.pong(frame(b"", PONG))
        assert not peer.outbox.offer(Prepared(data=b""))
        turns.turn()
        assert peer.writes == [frame(b"\x0f\xa0bye", 0x8)]

    def test_bad_code(self, turns: Turns, peers: Any) -> None:
        """
        A code that never travels changes nothing.
        """
        (peer,) = peers(1)
        with pytest.raises(LocalProtocolError):
            peer.outbox.finish(1006, "")
        assert peer.outbox.state is OutboxState.OPEN

    def test_not_writable(self, turns: Turns, peers: Any) -> None:
        """
        While the transport holds bytes nothing is written; then everything at once.
        """
        (peer,) = peers(1)
        peer.outbox.writable = False
        for text in "abc":
            assert peer.outbox.offer(Prepared(text=text))
        assert turns.soon == []
        assert not peer.outbox.flush()
        peer.outbox.writable = True
        assert peer.outbox.flush()
        assert peer.writes == [b"".join(frame(text, TEXT) for text in (b"a", b"b", b"c"))]

    def test_transport_counts(self, turns: Turns, peers: Any) -> None:
        """
        What the transport holds is pending as well.
        """
        (peer,) = peers(1)
        peer.held = 100
        peer.outbox.writable = False
        peer.outbox.offer(Prepared(data=b"12345678"))
        assert peer.outbox.pending_bytes == 110
        peer.outbox.offer(Prepared(data=b"12345678"))
        assert peer.outbox.pending_bytes == 120


class TestFarBehind:
    """
    A reader for whom more than half of the limit waits.
    """

    def test_pieces(self, turns: Turns, peers: Any) -> None:
        """
        It gets an eighth of the limit at a time, whatever the messages are, in their order.
        """
        (peer,) = peers(1, outbox_bytes_max=1024)
        peer.outbox.writable = False
        messages = [frame(b"a" * 300), frame(b"b"), frame(b"c" * 600)]
        for message in messages:
            peer.outbox.send(message)
        written = metrics.messages_sent.value
        write = peer.writes.append

        def full(data: bytes) -> None:
            write(data)
            peer.outbox.writable = False

        peer.write = full
        waits = []
        while peer.outbox.pending_bytes:
            waits.append(peer.outbox.crowded())
            peer.outbox.writable = True
            peer.outbox.flush()
        assert b"".join(peer.writes) == b"".join(messages)
        # Once half is free nobody waits any more, and the rest leaves in one piece.
        sizes = [len(data) for data in peer.writes]
        assert sizes[:-1] == [128] * (len(sizes) - 1)
        assert waits == [True] * (len(sizes) - 1) + [False]
        assert metrics.messages_sent.value == written + 3

    def test_a_reader_who_takes_it_all(self, turns: Turns, peers: Any) -> None:
        """
        A message of any size leaves in one turn where the reader keeps up.
        """
        (peer,) = peers(1, outbox_bytes_max=1024)
        assert peer.outbox.send(frame(bytes(100_000)))
        turns.turn()
        assert b"".join(peer.writes) == frame(bytes(100_000))
        assert not peer.outbox.crowded()
        assert peer.outbox.flush()

    def test_before_a_last_word(self, turns: Turns, peers: Any) -> None:
        """
        What somebody else is to write behind leaves at once.
        """
        (peer,) = peers(1, outbox_bytes_max=1024)
        peer.outbox.writable = False
        for _ in range(3):
            peer.outbox.send(frame(bytes(500)))
        assert peer.outbox.flush(force=True)
        assert peer.writes == [frame(bytes(500)) * 3]

    def test_unread(self, turns: Turns, peers: Any) -> None:
        """
        Messages that still wait when the peer is gone are counted, the close is not.
        """
        before = metrics.drops.values.get("unread", 0)
        gone, closing, at_rest = peers(3)
        for peer in (gone, closing):
            peer.outbox.writable = False
            for text in "abc":
                peer.outbox.offer(Prepared(text=text))
        closing.outbox.finish(1000, "")
        for peer in (gone, closing, at_rest):
            peer.outbox.shut()
        assert metrics.drops.values["unread"] == before + 6

    def test_many_tiny_messages(self, turns: Turns, peers: Any) -> None:
        """
        Who sends very many tiny messages waits by what they take in memory, whatever the policy.
        """
        for policy in POLICIES:
            (peer,) = peers(1, overflow=policy)
            peer.outbox.writable = False
            sent = 1
            while not peer.outbox.send(frame(b"x")):
                sent += 1
            assert sent == MESSAGES_MAX + 1
            peer.outbox.writable = True
            assert peer.outbox.flush()
            assert not peer.outbox.crowded()

    def test_a_last_word_that_nobody_reads(self, turns: Turns, peers: Any) -> None:
        """
        A close that never leaves is no message, and takes none off the count of messages.
        """
        gone, other = peers(2)
        before = metrics.messages_sent.value
        gone.outbox.writable = False
        gone.outbox.finish(1000, "")
        gone.outbox.shut()
        other.outbox.offer(Prepared(text="x"))
        turns.turn()
        assert metrics.messages_sent.value == before + 1


class TestEarly:
    """
    What is held until a handshake is accepted.
    """

    @pytest.mark.parametrize(
        ("options", "held"),
        [
            ({"early_messages_max": 0}, 0),
            ({"early_bytes_max": 0}, 0),
            ({"early_bytes_max": 10}, 3),
            ({"outbox_bytes_max": 10}, 3),
        ],
    )
    def test_bounds(self, turns: Turns, options: dict[str, int], held: int) -> None:
        """
        It is bounded by number and bytes, and by what may be pending afterwards.
        """
        chosen = ServerOptions(**options)  # type: ignore[arg-type] # numbers
        outbox = Outbox(Flusher(turns, chosen), chosen, None)  # type: ignore[arg-type] # as needed
        assert [outbox.offer(Prepared(text="x")) for _ in range(5)].count(True) == held


async def test_real_loop() -> None:
    """
    On a real loop all this happens by itself.
    """
    options = ServerOptions()
    peer = Peer(Flusher(asyncio.get_running_loop(), options), options)
    peer.outbox.offer(Prepared(data=b"x"))
    await asyncio.sleep(0)
    assert peer.writes == [frame(b"x")]
