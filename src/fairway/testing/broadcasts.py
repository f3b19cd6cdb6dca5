"""
``captured_broadcasts()``: what code under test broadcasts, seen without a server.

A test inside a transaction, as Django's ``TestCase`` is, never sees a commit, so a broadcast that
waits for one would never be sent. Here the end of the block stands for the commit. How a
broadcast is sent, and for whose commit it waits, is in ``broadcasting``.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fairway.broadcasting import captures, is_on_loop
from fairway.layers.codec import Kind, unpack_event

if TYPE_CHECKING:
    from types import TracebackType

    from fairway.broadcasting import Broadcast

__all__ = ["CapturedBroadcast", "captured_broadcasts"]

SENDING_SECONDS = 5.0
"""
Time that the end of a block gives its messages to leave.
"""


@dataclass(frozen=True, slots=True)
class CapturedBroadcast:
    """
    One broadcast that was made inside a block.

    Attributes:
        group: The group's name.
        message: What was given: the object itself, with whatever changed in it since.
        data: What sockets get: a ``str`` or ``bytes``, or for other messages what their JSON says.
        kind: ``"text"``, ``"bytes"`` or ``"json"``.
        exclude: The channel name that gets nothing, or None.
        event: Name of the event that event streams get, or None.
        id: Its id there, or None.
        using: The database that was named, or None.
        layer: Alias of the channel layer.
    """

    group: str
    message: Any
    data: Any
    kind: str
    exclude: str | None = None
    event: str | None = None
    id: str | None = None
    using: str | None = None
    layer: str = "default"


class captured_broadcasts:  # noqa: N801 - used like a function, as Django's capture…
    """
    Take what is broadcast within a block, from any thread of this process.

    ``with captured_broadcasts() as sent:`` gives a list. What would be sent at once is in it at
    once. What waits for a commit gets there when that comes, and what still waits for one at the
    end of the block gets there then; what was rolled back never does.

    Blocks may be nested: the inner one takes what is broadcast in it, and what it executes is
    taken by the outer one, so nothing is sent twice.
    """

    def __init__(self, *, execute: bool = False) -> None:
        """
        Prepare the block. The same object may be entered once at a time.

        Args:
            execute: Send the messages too: at once where they would be, the others at the end of
                the block. Otherwise nothing of it leaves, then or later.
        """
        self.execute = execute
        self._sent: list[CapturedBroadcast] = []
        self._expected: list[tuple[Broadcast, Any]] = []

    def __enter__(self) -> list[CapturedBroadcast]:
        self._sent = []
        self._expected = []
        captures.append(self)
        return self._sent

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Take what still waits for its commit. Waits until it has left, except on an event loop.
        """
        around = captures[: captures.index(self)]
        captures.remove(self)
        leaving: list[Future[None]] = []
        for broadcast, connection in self._expected:
            if broadcast.left or not _waits_in(connection, broadcast):
                continue
            broadcast.left = True
            if self.take(broadcast) and broadcast.goes_past(around):
                future = broadcast.transmit()
                if future is not None:
                    leaving.append(future)
        if leaving and not is_on_loop():
            wait(leaving, SENDING_SECONDS)

    def take(self, broadcast: Broadcast) -> bool:
        """
        See ``broadcasting.Capture``.
        """
        self._sent.append(_described(broadcast))
        return self.execute

    def expect(self, broadcast: Broadcast, connection: Any) -> None:
        """
        See ``broadcasting.Capture``.
        """
        self._expected.append((broadcast, connection))


def _waits_in(connection: Any, broadcast: Broadcast) -> bool:
    """
    Whether a message still waits for a commit: a rollback takes it out of Django's list.
    """
    return any(entry[1] == broadcast.leave for entry in connection.run_on_commit)


def _described(broadcast: Broadcast) -> CapturedBroadcast:
    """
    Say of a broadcast what a test may want to look at.
    """
    kind, data = _read(broadcast)
    return CapturedBroadcast(
        group=broadcast.group,
        message=broadcast.message,
        data=data,
        kind=kind,
        exclude=broadcast.exclude,
        event=broadcast.event,
        id=broadcast.id,
        using=broadcast.using,
        layer=broadcast.layer,
    )


def _read(broadcast: Broadcast) -> tuple[str, Any]:
    """
    Read the payload as sockets do.
    """
    if broadcast.kind is Kind.BINARY:
        return "bytes", broadcast.payload
    if broadcast.kind is Kind.EVENT:
        text, _, _, is_json = unpack_event(broadcast.payload)
    else:
        text, is_json = broadcast.payload.decode(), broadcast.kind is Kind.JSON
    return ("json", json.loads(text)) if is_json else ("text", text)
