"""
What a WebSocket exchange thinks of its peer, without a clock and without a kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairway.server.websocket import WebSocketExchange
from tests.protocol.harness import handshake
from tests.unit.server.transports import StepLoop, StepTransport, connect
from tests.unit.wire.frames import PONG, client_frame


class Opened:
    """
    An accepted WebSocket whose kernel takes what the test lets it.
    """

    def __init__(self, loop: StepLoop) -> None:
        self.loop = loop
        self.connection, self.transport = connect(loop, 1000, ping_interval=25)
        self.connection.data_received(handshake())
        loop.turn()
        exchange = self.connection.exchange
        assert isinstance(exchange, WebSocketExchange)
        self.exchange = exchange
        loop.task(exchange.send({"type": "websocket.accept"}))
        self.transport.room = 0

    def ping(self) -> None:
        """
        Let the time of the next ping come.
        """
        self.exchange._ping(0)
        self.loop.turn(2)

    def send(self, size: int) -> None:
        """
        Have the application send a message.
        """
        self.loop.task(self.exchange.send({"type": "websocket.send", "bytes": bytes(size)}))
        self.loop.turn(2)


@pytest.fixture
def opened() -> Iterator[Opened]:
    """
    An accepted WebSocket.
    """
    loop = StepLoop()
    opened = Opened(loop)
    yield opened
    if not opened.transport.lost:
        opened.transport.abort()
        loop.turn()
    loop.close()


def is_lost(transport: StepTransport) -> bool:
    """
    Whether it is; a call, since a type checker does not know that it changes by itself.
    """
    return transport.lost


class TestPing:
    """
    Two missed pings, and what does not count as missed.
    """

    def test_two_missed(self, opened: Opened) -> None:
        """
        The handshake was a sign of life; two pings without any later the peer is given up.
        """
        opened.transport.room = 1000
        opened.ping()
        opened.ping()
        assert not is_lost(opened.transport)
        opened.ping()
        assert is_lost(opened.transport)
        assert opened.transport.wire.endswith(b"\x89\x00\x89\x00")

    def test_any_byte(self, opened: Opened) -> None:
        """
        Any byte in between begins the count anew.
        """
        for _ in range(3):
            opened.ping()
            opened.ping()
            opened.connection.data_received(client_frame(PONG)[:1])
        assert not is_lost(opened.transport)

    def test_slow_reader(self, opened: Opened) -> None:
        """
        A peer that is busy reading what is on its way lives; one that stands still does not.
        """
        opened.send(100_000)
        opened.ping()
        for _ in range(5):
            opened.ping()
            opened.transport.drain(1000)
            opened.ping()
        opened.ping()
        assert not is_lost(opened.transport)
        opened.ping()
        assert is_lost(opened.transport)

    def test_no_pings_behind_messages(self, opened: Opened) -> None:
        """
        While the transport is full, no pings pile up in it.
        """
        opened.send(100_000)
        pending = opened.exchange.outbox.pending_bytes
        opened.ping()
        opened.ping()
        assert opened.exchange.outbox.pending_bytes == pending

    def test_paused(self, opened: Opened) -> None:
        """
        While we do not read, nothing is missed, and pings are still written.
        """
        opened.transport.room = 1000
        opened.connection.pause_reading()
        for _ in range(5):
            opened.ping()
        assert not is_lost(opened.transport)
        assert opened.transport.wire.endswith(b"\x89\x00" * 5)
