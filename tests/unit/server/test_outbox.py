"""
The outbox and its flusher: one write per turn, and bounds on what one turn may cost.

What is pending, dropped and in which order is shown by the stateful test in ``tests/property``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fairway import metrics
from fairway.exceptions import LocalProtocolError
from fairway.options import ServerOptions
from fairway.server import outbox as outbox_module
from fairway.server.outbox import Flusher, Outbox, OutboxState
from fairway.wire.prepared import Prepared
from tests.unit.wire.frames import BINARY, PONG, TEXT, client_frame


class Turns:
    """
    Holds back what a loop would run soon, until the test asks for the next turn.
    """

    def __init__(self) -> None:
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        """
        Keep a callback for the next turn.
        """
        self.soon.append((callback, arguments))

    def turn(self) -> None:
        """
        Run what was kept.
        """
        soon, self.soon = self.soon, []
        for callback, arguments in soon:
            callback(*arguments)


class Peer:
    """
    An open outbox and what was written through it.
    """

    def __init__(self, flusher: Flusher, options: ServerOptions) -> None:
        self.writes: list[bytes] = []
        self.ends: list[tuple[int, str]] = []
        self.outbox = Outbox(
            flusher, options, lambda code, reason: self.ends.append((code, reason))
        )
        self.outbox.open(self.writes.append, lambda: 0, writable=True)


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

    def make(count: int, **options: Any) -> list[Peer]:
        chosen = ServerOptions(**options)
        flusher = Flusher(turns, chosen)  # type: ignore[arg-type] # as much of a loop as it needs
        return [Peer(flusher, chosen) for _ in range(count)]

    return make


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """
    A frame of the server.
    """
    return client_frame(opcode, payload, mask=False)


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
        first.outbox._write = lambda data: second.outbox.send(frame(b"answer"))
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

        broken.outbox._write = refuse
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
        peer.outbox._transport_bytes = lambda: 100
        peer.outbox.writable = False
        peer.outbox.offer(Prepared(data=b"12345678"))
        assert peer.outbox.pending_bytes == 110
        peer.outbox.offer(Prepared(data=b"12345678"))
        assert peer.outbox.pending_bytes == 120


async def test_real_loop() -> None:
    """
    On a real loop all this happens by itself.
    """
    options = ServerOptions()
    peer = Peer(Flusher(asyncio.get_running_loop(), options), options)
    peer.outbox.offer(Prepared(data=b"x"))
    await asyncio.sleep(0)
    assert peer.writes == [frame(b"x")]
