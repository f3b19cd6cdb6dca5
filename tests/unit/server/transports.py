"""
A transport and a loop that a test moves step by step, for exchanges without any kernel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fairway.options import ServerOptions
from fairway.server.connection import Connection
from fairway.server.worker import Worker
from fairway.types import Receive, Scope, Send

T = TypeVar("T")


class StepLoop:
    """
    An event loop that runs one turn at a time.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def turn(self, count: int = 1) -> None:
        """
        Run what is ready, so many times.
        """
        for _ in range(count):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """
        Start a task and run its first step.
        """
        task = self.loop.create_task(coroutine)
        self.turn()
        return task

    def close(self) -> None:
        """
        Cancel what still runs and close the loop.
        """
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.turn(3)
        self.loop.close()


class StepTransport:
    """
    A transport whose kernel takes as many bytes as the test lets it.

    Attributes:
        wire: What the kernel has taken.
        room: How many more bytes it takes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, room: int) -> None:
        self.loop = loop
        self.room = room
        self.wire = bytearray()
        self.lost = False
        self._buffer = bytearray()
        self._closing = False
        self._paused = False
        self._protocol: Connection

    def attach(self, protocol: Connection) -> None:
        """
        Connect.
        """
        self._protocol = protocol
        protocol.connection_made(self)  # type: ignore[arg-type] # as much of one as is needed

    def write(self, data: bytes) -> None:
        """
        Give the kernel what it takes and keep the rest.
        """
        assert not self.lost
        self._buffer += data
        self._pump()
        if self._buffer and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def drain(self, count: int) -> None:
        """
        Let the kernel take so many bytes more.
        """
        if self.lost:
            return
        self.room += count
        self._pump()
        if not self._buffer and self._paused:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._buffer:
            self._lose()

    def close(self) -> None:
        """
        Close once the buffer is empty.
        """
        self._closing = True
        if not self._buffer:
            self.loop.call_soon(self._lose)

    def abort(self) -> None:
        """
        Close at once.
        """
        self._closing = True
        self._buffer.clear()
        self.loop.call_soon(self._lose)

    def is_closing(self) -> bool:
        """
        Whether it is.
        """
        return self._closing

    def get_write_buffer_size(self) -> int:
        """
        What the kernel has not taken.
        """
        return len(self._buffer)

    def get_extra_info(self, name: str) -> Any:
        """
        Nothing is known.
        """
        return None

    def can_write_eof(self) -> bool:
        """
        Not this one, to keep things simple.
        """
        return False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """
        The limits it has anyway.
        """
        assert (high, low) == (0, 0)

    def pause_reading(self) -> None:
        """
        The test is the one who would have to stop.
        """

    def resume_reading(self) -> None:
        """
        As above.
        """

    def _pump(self) -> None:
        taken = min(self.room, len(self._buffer))
        self.wire += self._buffer[:taken]
        del self._buffer[:taken]
        self.room -= taken

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._protocol.connection_lost(None)
            # As real transports do.
            del self._protocol


async def stand_by(scope: Scope, receive: Receive, send: Send) -> None:
    """
    An application that leaves its ends to the test.
    """
    await asyncio.get_running_loop().create_future()


def connect(loop: StepLoop, room: int, **options: Any) -> tuple[Connection, StepTransport]:
    """
    Make a connection of a worker of its own.
    """

    async def make() -> Worker:
        return Worker(ServerOptions(**options), stand_by, None)

    connection = Connection(loop.loop.run_until_complete(make()))
    transport = StepTransport(loop.loop, room)
    transport.attach(connection)
    return connection, transport
