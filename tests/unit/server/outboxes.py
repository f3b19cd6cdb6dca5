"""
Open outboxes whose loop and peers are a test's to move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fairway.options import ServerOptions
from fairway.server.outbox import Flusher, Outbox
from fairway.server.overflow import POLICIES
from tests.unit.wire.frames import BINARY, client_frame

__all__ = ["Peer", "Turns", "frame", "open_peers"]


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
        self.write: Callable[[bytes], None] = self.writes.append
        self.ends: list[tuple[int, str]] = []
        make: type[Outbox] = POLICIES[options.overflow]
        self.held = 0
        self.outbox = make(flusher, options, self)
        self.outbox.open(self, writable=True)

    def end(self, code: int, reason: str = "") -> None:
        """
        Note an end, as the exchange.
        """
        self.ends.append((code, reason))

    def get_write_buffer_size(self) -> int:
        """
        Count what is held, as the transport.
        """
        return self.held

    def is_closing(self) -> bool:
        """
        Stay open, as the transport.
        """
        return False


def open_peers(turns: Turns, count: int, **options: Any) -> list[Peer]:
    """
    Make open outboxes that share one flusher.
    """
    chosen = ServerOptions(**options)
    flusher = Flusher(turns, chosen)  # type: ignore[arg-type] # as much of a loop as it needs
    return [Peer(flusher, chosen) for _ in range(count)]


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """
    A frame of the server.
    """
    return client_frame(opcode, payload, mask=False)
