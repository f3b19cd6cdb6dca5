"""
The board: what the workers of one server know of each other, in shared memory.

One seat per worker, with its state, how many connections it holds and the text of
its counters. A seat is written by its worker, apart from what the supervisor sets
before that lives and after it died. Numbers are whole machine words, and samples
carry a checksum, so nothing here takes a lock or waits for another process.
"""

from __future__ import annotations

import enum
import mmap
import os
import tempfile
import zlib
from collections.abc import Iterator

__all__ = ["SAMPLES_BYTES_MAX", "Board", "Seat", "State"]

SAMPLES_BYTES_MAX = 65536
"""
The longest text that one worker may show. Memory is taken only where one was written.
"""

WORD_BYTES = 8
COLUMNS = 5
ATTEMPTS = 50


class State(enum.IntEnum):
    """
    What the process of a seat is doing.
    """

    EMPTY = 0
    STARTING = 1
    READY = 2
    LEAVING = 3


class Board:
    """
    All seats of one server, numbered from 1.

    Attributes:
        fd: The descriptor of the memory, for a process that is to share it; -1 once attached.
        size: How many seats there are.
    """

    def __init__(self, memory: mmap.mmap, fd: int = -1) -> None:
        self.fd = fd
        self.size = len(memory) // (COLUMNS * WORD_BYTES + SAMPLES_BYTES_MAX)
        self._memory = memory
        self._bytes = memoryview(memory)
        self._words = self._bytes[: COLUMNS * WORD_BYTES * self.size].cast("q")
        columns = [self._words[n * self.size :][: self.size] for n in range(COLUMNS)]
        self.states, self.connections, self.pids, self.lengths, self.checksums = columns

    @classmethod
    def create(cls, size: int) -> Board:
        """
        Make a board in new memory, which no name leads to.

        Args:
            size: Seats; all are empty.
        """
        fd = _anonymous_file()
        os.ftruncate(fd, size * (COLUMNS * WORD_BYTES + SAMPLES_BYTES_MAX))
        return cls(mmap.mmap(fd, 0), fd)

    @classmethod
    def attach(cls, fd: int) -> Board:
        """
        Share the board behind an inherited descriptor, which stays the caller's.
        """
        return cls(mmap.mmap(fd, 0))

    def seat(self, number: int) -> Seat:
        """
        Give the place of one worker.

        Raises:
            ValueError: There is no such seat.
        """
        if not 1 <= number <= self.size:
            raise ValueError(f"expected a seat from 1 to {self.size}, got {number}")
        return Seat(self, number)

    def seats(self) -> Iterator[Seat]:
        """
        Give the seats that a worker has.
        """
        for index, state in enumerate(self.states):
            if state != State.EMPTY:
                yield Seat(self, index + 1)

    def read_samples(self, number: int) -> bytes:
        """
        Read what one worker wrote last, whole; empty if it wrote nothing, or died while writing.
        """
        start, index = self._samples_start(number), number - 1
        for _ in range(ATTEMPTS):
            length, checksum = self.lengths[index], self.checksums[index]
            data = bytes(self._bytes[start : start + min(length, SAMPLES_BYTES_MAX)])
            if zlib.crc32(data) == checksum:
                return data
        return b""

    def write_samples(self, number: int, data: bytes) -> None:
        """
        Show a worker's samples to all; a reader never sees half of them.

        Raises:
            ValueError: They are longer than ``SAMPLES_BYTES_MAX``.
        """
        if len(data) > SAMPLES_BYTES_MAX:
            raise ValueError(f"expected at most {SAMPLES_BYTES_MAX} bytes, got {len(data)}")
        start, index = self._samples_start(number), number - 1
        self.checksums[index] = zlib.crc32(data)
        self.lengths[index] = len(data)
        self._bytes[start : start + len(data)] = data

    def close(self) -> None:
        """
        Let go of the memory; seats given out are of no use afterwards.
        """
        columns = (self.states, self.connections, self.pids, self.lengths, self.checksums)
        for view in (*columns, self._words, self._bytes):
            view.release()
        self._memory.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _samples_start(self, number: int) -> int:
        """
        Find the first byte of one worker's samples.
        """
        return COLUMNS * WORD_BYTES * self.size + (number - 1) * SAMPLES_BYTES_MAX


class Seat:
    """
    One worker's place on the board.

    Every method is cheap and waits for nobody.

    Attributes:
        board: Where it is.
        number: Which one it is, from 1.
    """

    __slots__ = ("_index", "board", "number")

    def __init__(self, board: Board, number: int) -> None:
        self.board = board
        self.number = number
        self._index = number - 1

    @property
    def state(self) -> State:
        """
        What its process is doing.
        """
        return State(self.board.states[self._index])

    @state.setter
    def state(self, state: State) -> None:
        self.board.states[self._index] = state

    @property
    def connections(self) -> int:
        """
        How many connections its process holds.
        """
        return self.board.connections[self._index]

    @connections.setter
    def connections(self, count: int) -> None:
        self.board.connections[self._index] = count

    @property
    def pid(self) -> int:
        """
        Its process, 0 for none.
        """
        return self.board.pids[self._index]

    @pid.setter
    def pid(self, pid: int) -> None:
        self.board.pids[self._index] = pid

    def ahead(self) -> bool:
        """
        Whether this worker holds so many connections that the others should take the next ones.

        That is more than a sixteenth, and more than two, above the mean of the ready workers.
        """
        board = self.board
        ready = [
            held
            for state, held in zip(board.states, board.connections, strict=True)
            if state == State.READY
        ]
        if len(ready) < 2:
            return False
        mean = sum(ready) / len(ready)
        return self.connections - mean > max(2, mean / 16)

    def write_samples(self, data: bytes) -> None:
        """
        Show this worker's samples to all; a reader never sees half of them.

        Raises:
            ValueError: They are longer than ``SAMPLES_BYTES_MAX``.
        """
        self.board.write_samples(self.number, data)

    def take(self) -> None:
        """
        Give the seat to a process that starts. Supervisor only.
        """
        self.clear()
        self.state = State.STARTING

    def clear(self) -> None:
        """
        Forget the process that had the seat, with its connections. Supervisor only.
        """
        self.state = State.EMPTY
        self.connections = 0
        self.pid = 0
        self.write_samples(b"")


def _anonymous_file() -> int:
    """
    Open a file of this process alone, that child processes inherit only where told.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fairway-board")
    fd, path = tempfile.mkstemp(prefix="fairway-")
    os.unlink(path)  # noqa: PTH108 - a plain path
    return fd
