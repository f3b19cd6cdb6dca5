"""
A WebSocket exchange under everything that may happen to it at once, against a small model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairway import metrics
from fairway.exceptions import ClientDisconnected, LocalProtocolError
from fairway.server.overflow import POLICIES
from fairway.server.websocket import WebSocketExchange
from fairway.wire.prepared import Prepared
from tests.protocol.harness import handshake
from tests.unit.server.transports import StepLoop, connect
from tests.unit.wire.frames import BINARY, CLOSE, TEXT, client_frame

LIMIT = 1024
EARLY_MESSAGES, EARLY_BYTES = 4, 300
CAPACITY = 3

sizes = st.one_of(st.integers(0, 130), st.sampled_from([LIMIT // 2, LIMIT - 4, LIMIT, LIMIT * 2]))


class Item:
    """
    A handler's message.
    """

    expires = float("inf")


class Frame:
    """
    A frame owed to the peer, as far as the transport has not got it.
    """

    def __init__(
        self,
        data: bytes,
        *,
        offered: bool = False,
        droppable: bool = False,
        is_close: bool = False,
    ) -> None:
        self.data = data
        self.is_close = is_close
        self.offered = offered
        self.droppable = droppable


class Exchange(RuleBasedStateMachine):
    """
    Offers, sends, handler messages, the peer's messages, closes, pauses, overflows, late accepts.

    The model knows three things: the frames owed to the peer, in order, with those that may be
    dropped; what lies in the inbox; and whether the end has begun. Everything of the exchange is
    compared with that after each step. How much the transport gets when is the outbox's own affair.
    """

    @initialize(
        room=st.sampled_from([0, 200, 10_000]),
        policy=st.sampled_from([*POLICIES]),
        late=st.integers(0, 3),
    )
    def open(self, room: int, policy: str, late: int) -> None:
        """
        A handshake has come; how much the kernel takes differs, and what a slow reader meets.
        """
        self.loop = StepLoop()
        self.policy = policy
        self.drops = dict(metrics.drops.values)
        self.connection, self.transport = connect(
            self.loop,
            room + 1000,
            ping_interval=0,
            overflow=policy,
            outbox_bytes_max=LIMIT,
            early_messages_max=EARLY_MESSAGES,
            early_bytes_max=EARLY_BYTES,
            inbox_messages_max=CAPACITY,
        )
        self.connection.data_received(handshake())
        self.loop.turn()
        exchange = self.connection.exchange
        assert isinstance(exchange, WebSocketExchange)
        self.exchange = exchange
        self.outbox, self.inbox = exchange.outbox, exchange.inbox
        self.transport.room = room
        # The model.
        self.phase = "connecting"
        self.early: list[bytes] = []
        self.early_events: list[dict[str, Any]] = []
        self.early_close = False
        self.handed = bytearray()
        self.waiting: deque[Frame] = deque()
        self.taken = self.delivered = self.refused = self.dropped = self.unread = 0
        self.dropped_early = self.dropped_at_end = 0
        self.head: int | None = None
        self.overflowing = False
        self.events: deque[Any] = deque([{"type": "websocket.connect"}])
        self.items: deque[Item] = deque()
        self.last_was_event = False
        self.handling_item = False
        self.disconnect: dict[str, Any] | None = None
        self.senders: list[asyncio.Task[None]] = []
        if late:
            self.accept()

    # -- to the peer

    @rule(burst=st.lists(sizes, min_size=4, max_size=12))
    def offer_many(self, burst: list[int]) -> None:
        """
        Fan-out offers several messages in one turn.
        """
        for size in burst:
            self.offer(size)

    @rule(size=sizes)
    def offer(self, size: int) -> None:
        """
        Fan-out offers a message: taken as the limits say, by what was pending before.
        """
        message = Prepared(data=bytes(size))
        frame = server_frame(size)
        taken = self.outbox.offer(message)
        if self.phase == "connecting":
            assert taken is self.keep_early(frame)
        elif self.phase == "open":
            pending = self.pending()
            assert taken is (self.policy != "close" or pending <= LIMIT)
            if taken:
                self.taken += 1
                # What finds nothing before it is as good as written.
                droppable = self.policy != "close" and not (self.writable() and not self.waiting)
                self.waiting.append(Frame(frame, offered=True, droppable=droppable))
            else:
                self.refused += 1
            if self.policy == "latest" and not self.writable():
                self.drop()
            elif pending <= LIMIT:
                pass
            elif not self.overflowing:
                self.overflowing = True
            elif self.pending() > 2 * LIMIT:
                self.drop()
        else:
            assert not taken

    @rule(size=sizes)
    def send(self, size: int) -> None:
        """
        The application sends a message: always taken, and waited for beyond half the limit.
        """
        task = self.call({"type": "websocket.send", "bytes": bytes(size)})
        if self.phase != "open":
            assert isinstance(task.exception(), LocalProtocolError | ClientDisconnected)
            return
        self.waiting.append(Frame(server_frame(size)))
        self.settle()
        droppable = sum(len(frame.data) for frame in self.waiting if frame.droppable)
        awaited = sum(len(frame.data) for frame in self.waiting if not frame.offered)
        assert task.done() or (self.pending() - droppable) * 2 > LIMIT
        # What was dropped or offered before it may have been written meanwhile.
        still = self.pending() if self.policy == "close" else awaited
        assert not (task.done() and still * 2 > LIMIT)
        self.senders.append(task)

    @precondition(lambda self: self.phase == "connecting")
    @rule()
    def accept(self) -> None:
        """
        The application accepts; what was offered before leaves first.
        """
        task = self.call({"type": "websocket.accept"})
        assert task.exception() is None
        self.phase = "open"
        self.events += self.early_events
        wire = self.transport.wire + self.transport._buffer
        self.head = wire.index(b"\r\n\r\n") + 4
        self.handed = bytearray(wire[: self.head])
        self.taken += len(self.early)
        self.waiting.extend(Frame(frame, offered=True) for frame in self.early)
        if self.early_close:
            self.end(1001)
        self.settle()

    @rule(count=st.sampled_from([1, 100, 5000]))
    def drain(self, count: int) -> None:
        """
        The peer reads.
        """
        self.transport.drain(count)
        self.turn()

    # -- from the peer

    @rule(size=st.integers(0, 50))
    def message(self, size: int) -> None:
        """
        A message of the peer.
        """
        if self.transport.lost or self.transport.is_closing():
            return
        self.connection.data_received(client_frame(BINARY, bytes(size)))
        event = {"type": "websocket.receive", "bytes": bytes(size)}
        if self.phase == "connecting":
            if not self.early_close:
                self.early_events.append(event)
        elif self.disconnect is None:
            self.events.append(event)

    # -- the end

    @rule(how=st.sampled_from(["close", "outbox", "peer", "reset"]), luck=st.integers(0, 5))
    def farewell(self, how: str, luck: int) -> None:
        """
        Somebody ends it; not too often, for most is to be seen before.
        """
        if luck or self.transport.is_closing():
            return
        getattr(self, f"end_by_{how}")()

    def end_by_close(self) -> None:
        """
        The application closes, or refuses: everything queued leaves before.
        """
        task = self.call({"type": "websocket.close", "code": 4000})
        if self.phase == "open":
            assert task.exception() is None
            self.end(4000)
        elif self.phase == "connecting":
            assert task.exception() is None
            self.phase = "ended"
            self.gone(1006)
        else:
            assert isinstance(task.exception(), LocalProtocolError | ClientDisconnected)

    def end_by_outbox(self) -> None:
        """
        Somebody else closes, through the outbox.
        """
        self.outbox.close(4401)
        if self.phase == "open":
            self.end(4401)
        elif self.phase == "connecting":
            self.phase = "ended"
            self.gone(1006)

    def end_by_peer(self) -> None:
        """
        The peer closes; what it sends behind that does not count.
        """
        self.connection.data_received(client_frame(CLOSE, b"\x03\xe9") + client_frame(TEXT, b"x"))
        if self.phase == "connecting":
            self.early_close = True
        elif self.phase == "open":
            self.end(1001)

    def end_by_reset(self) -> None:
        """
        The peer is gone.
        """
        self.hand_over()
        self.transport.abort()
        self.turn()
        assert self.phase == "lost"

    # -- the application's other end

    @rule()
    def handler_message(self) -> None:
        """
        The channel layer puts a handler's message.
        """
        item = Item()
        taken = self.inbox.put(item)
        assert taken is (len(self.items) < CAPACITY)
        if taken:
            self.items.append(item)

    @precondition(lambda self: self.events or self.items or self.disconnect)
    @rule()
    def next_event(self) -> None:
        """
        The application takes what is next: alternating, in order, the disconnect last.
        """
        self.overflow()
        task = self.loop.task(self.inbox.next_event())
        self.notice_loss()
        event = self.events[0] if self.events else self.disconnect
        if self.items and (event is None or self.last_was_event):
            assert task.result() is self.items.popleft()
            self.last_was_event, self.handling_item = False, True
            return
        assert task.result() == event
        self.handling_item = False
        if self.events:
            self.events.popleft()
            self.last_was_event = True

    @precondition(lambda self: not (self.events or self.items or self.disconnect))
    @precondition(lambda self: not self.overflowing)
    @rule(cancel=st.booleans())
    def next_event_that_waits(self, cancel: bool) -> None:
        """
        The application waits; what comes is handed to it, or kept if it gave up meanwhile.
        """
        self.overflow()
        task = self.loop.task(self.inbox.next_event())
        self.notice_loss()
        assert not task.done()
        self.handling_item = False
        item = Item()
        assert self.inbox.put(item)
        if cancel:
            task.cancel()
            self.turn(2)
            assert task.cancelled()
            self.items.append(item)
        else:
            self.turn(2)
            assert task.result() is item
            # What is handed over directly takes no turn: nothing else was there.
            self.handling_item = True

    # -- the model

    @invariant()
    def agrees(self) -> None:
        """
        Order, bytes and capacity are as the model says.
        """
        if not hasattr(self, "phase"):
            return
        self.hand_over()
        if self.head is not None and self.phase in ("open", "closing"):
            assert self.outbox.pending_bytes == self.pending()
        if self.policy != "close" and not self.overflowing and self.phase == "open":
            old = [frame for frame in self.waiting if frame.droppable][:-1]
            assert sum(len(frame.data) for frame in old) <= LIMIT
            assert not old or self.policy == "drop_oldest" or self.writable()
        counts = {
            self.policy: self.dropped,
            "overflow": self.refused,
            "before_accept": self.dropped_early,
            "unread": self.dropped_at_end,
        }
        for reason, count in counts.items():
            assert metrics.drops.values.get(reason, 0) == self.drops.get(reason, 0) + count
        assert self.inbox.unread_messages == len(self.events)
        idle = not self.items and not self.handling_item
        assert self.inbox.idle is idle or self.disconnect is not None
        assert len(self.items) <= CAPACITY

    def keep_early(self, frame: bytes) -> bool:
        """
        Keep a message until the handshake is accepted, if there is room or the oldest makes it.
        """
        while self.early and (
            len(self.early) >= EARLY_MESSAGES
            or sum(map(len, self.early)) + len(frame) > EARLY_BYTES
        ):
            self.dropped_early += 1
            if self.policy == "close":
                return False
            del self.early[0]
        self.early.append(frame)
        return True

    def pending(self) -> int:
        """
        Bytes owed and not yet taken by the kernel.
        """
        waiting = sum(len(frame.data) for frame in self.waiting)
        return waiting + self.transport.get_write_buffer_size()

    def writable(self) -> bool:
        """
        Whether the peer has read what was written so far.
        """
        return not self.transport.get_write_buffer_size()

    def hand_over(self) -> None:
        """
        What the transport has got is what waited longest, in its order and nothing else.
        """
        if self.head is None:
            return
        got = bytes(self.transport.wire + self.transport._buffer)
        # Of a transport that was lost only what the kernel has taken is known.
        assert got[: len(self.handed)] == self.handed[: len(got)]
        while more := got[len(self.handed) :]:
            first = self.waiting[0]
            part = more[: len(first.data)]
            assert first.data.startswith(part)
            self.handed += part
            first.data = first.data[len(part) :]
            first.droppable = False
            if not first.data:
                self.delivered += self.waiting.popleft().offered
        if self.policy == "latest" and not self.writable():
            self.drop()

    def drop(self) -> None:
        """
        Drop the oldest that may be dropped: until those before the newest fit, or all of them.
        """
        droppable = [frame for frame in self.waiting if frame.droppable]
        if self.phase != "open" or not droppable:
            return
        excess = self.pending() - len(droppable[-1].data) - LIMIT
        for frame in droppable[:-1]:
            if excess > 0 or self.policy == "latest":
                self.waiting.remove(frame)
                self.dropped += 1
                excess -= len(frame.data)

    def gone(self, code: int) -> None:
        """
        The application is owed a disconnect, if it is not already.
        """
        if self.disconnect is None:
            reason = "too slow to keep up" if code == 1013 else ""
            self.disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self.early.clear()

    def end(self, code: int) -> None:
        """
        The close frame is owed, and nothing after it.
        """
        reason = b"too slow to keep up" if code == 1013 else b""
        payload = code.to_bytes(2, "big") + reason
        self.waiting.append(Frame(bytes((0x88, len(payload))) + payload, is_close=True))
        self.phase = "closing"
        self.overflowing = False
        self.gone(code)

    def call(self, message: dict[str, Any]) -> asyncio.Task[None]:
        """
        Have the application send something.
        """
        self.overflow()
        if self.policy != "close":
            self.turn()
        task = self.loop.task(self.exchange.send(message))
        self.notice_loss()
        return task

    def turn(self, count: int = 1) -> None:
        """
        Run the loop.
        """
        for _ in range(count):
            self.overflow()
            self.loop.turn()
            self.hand_over()
            self.notice_loss()

    def settle(self) -> None:
        """
        Run the loop until nothing more happens by itself.
        """
        self.turn(3)

    def overflow(self) -> None:
        """
        What the next turn of the loop begins with, if there was one.
        """
        if not self.overflowing or self.phase != "open":
            return
        self.overflowing = False
        if self.policy == "close":
            self.end(1013)
        else:
            self.loop.turn()
            self.hand_over()
            self.drop()

    def notice_loss(self) -> None:
        """
        What becomes of a transport that was closed.
        """
        if self.transport.lost and self.phase != "lost":
            self.hand_over()
            self.unread = sum(frame.offered for frame in self.waiting)
            self.dropped_at_end = sum(not frame.is_close for frame in self.waiting)
            self.phase = "lost"
            self.gone(1006)

    def teardown(self) -> None:
        """
        Let the peer read everything: nothing owed to it is missing.
        """
        if not hasattr(self, "phase"):
            return
        try:
            if not self.transport.lost:
                self.settle()
                self.transport.drain(10_000_000)
                self.settle()
                if self.head is not None and self.phase in ("open", "closing"):
                    assert bytes(self.transport.wire) == self.handed
                    assert not self.waiting
                    assert self.outbox.pending_bytes == 0
                assert all(task.done() for task in self.senders)
            self.transport.abort()
            self.settle()
            assert self.taken == self.delivered + self.dropped + self.unread
            assert all(task.done() for task in self.senders)
            for task in self.senders:
                assert task.exception() is None
        finally:
            self.loop.close()


def server_frame(size: int) -> bytes:
    """
    A binary message of so many zeros, as servers frame it.
    """
    return client_frame(BINARY, bytes(size), mask=False)


TestExchange = Exchange.TestCase
TestExchange.settings = settings(max_examples=100, stateful_step_count=50)
