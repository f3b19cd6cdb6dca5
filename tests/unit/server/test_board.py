"""
The board: seats in shared memory, who is ahead of the others, samples that are whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fairway.server.board import SAMPLES_BYTES_MAX, Board, State


@pytest.fixture
def board() -> Iterator[Board]:
    """
    A board with six seats.
    """
    board = Board.create(6)
    yield board
    board.close()


def occupy(board: Board, *held: int, state: State = State.READY) -> None:
    """
    Fill the first seats with workers that hold so many connections.
    """
    for number, connections in enumerate(held, 1):
        seat = board.seat(number)
        seat.take()
        seat.pid = 1000 + number
        seat.state = state
        seat.connections = connections


def test_new_board_is_empty(board: Board) -> None:
    """
    Nobody has a seat on a new board, and no seat shows anything.
    """
    assert list(board.seats()) == []
    assert board.size == 6
    seat = board.seat(6)
    assert (seat.state, seat.connections, seat.pid) == (State.EMPTY, 0, 0)
    assert board.read_samples(6) == b""


def test_shared(board: Board) -> None:
    """
    What one process writes, another one that attached to the same memory reads.
    """
    other = Board.attach(board.fd)
    occupy(other, 3, 5)
    other.seat(2).write_samples(b"two")
    assert [(seat.number, seat.pid, seat.connections) for seat in board.seats()] == [
        (1, 1001, 3),
        (2, 1002, 5),
    ]
    assert board.read_samples(2) == b"two"
    other.close()


def test_not_inherited(board: Board) -> None:
    """
    Child processes get the memory only where they are told so.
    """
    assert not os.get_inheritable(board.fd)


def test_without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system has no memory files, a temporary file that has lost its name does.
    """
    monkeypatch.delattr(os, "memfd_create", raising=False)
    board = Board.create(2)
    board.seat(1).pid = 7
    other = Board.attach(board.fd)
    assert other.seat(1).pid == 7
    other.close()
    board.close()


@pytest.mark.parametrize("number", [0, -1, 7])
def test_no_such_seat(board: Board, number: int) -> None:
    """
    A number outside the board is refused with the numbers there are.
    """
    with pytest.raises(ValueError, match=f"from 1 to 6, got {number}"):
        board.seat(number)


@pytest.mark.parametrize(
    ("held", "ahead"),
    [
        ((0, 0), [False, False]),
        ((4, 0), [False, False]),  # 2 above the mean of 2.
        ((5, 0), [True, False]),
        ((100, 100, 100, 110), [False, False, False, True]),
        ((160, 160, 160, 173), [False] * 4),  # 9.75 above 163.25, whose sixteenth is 10.2.
        ((160, 160, 160, 175), [False, False, False, True]),
        ((1000,), [False]),
    ],
)
def test_ahead(board: Board, held: tuple[int, ...], ahead: list[bool]) -> None:
    """
    A worker is ahead with more than a sixteenth, and more than two, above the mean; never alone.
    """
    occupy(board, *held)
    assert [seat.ahead() for seat in board.seats()] == ahead


@pytest.mark.parametrize("state", [State.STARTING, State.LEAVING])
def test_only_ready_workers_count(board: Board, state: State) -> None:
    """
    Workers that start or leave do not take connections, so nobody is ahead of them.
    """
    occupy(board, 50, 0, 0)
    for number in (2, 3):
        board.seat(number).state = state
    assert not board.seat(1).ahead()


def test_clear(board: Board) -> None:
    """
    A worker that died leaves neither connections nor samples behind.
    """
    occupy(board, 10, 10)
    board.seat(1).write_samples(b"one")
    board.seat(1).clear()
    assert [seat.number for seat in board.seats()] == [2]
    assert board.read_samples(1) == b""
    assert board.seat(1).connections == 0


def test_samples_are_replaced(board: Board) -> None:
    """
    Longer and shorter samples take the place of the earlier ones, up to the limit.
    """
    seat = board.seat(1)
    for data in (b"a" * SAMPLES_BYTES_MAX, b"b", b"c" * 100, b""):
        seat.write_samples(data)
        assert board.read_samples(1) == data
    with pytest.raises(ValueError, match=f"at most {SAMPLES_BYTES_MAX} bytes, got"):
        seat.write_samples(b"d" * (SAMPLES_BYTES_MAX + 1))


def test_neighbours_keep_their_samples(board: Board) -> None:
    """
    Full samples of one seat touch no other.
    """
    for number in (1, 3):
        board.seat(number).write_samples(b"x" * SAMPLES_BYTES_MAX)
    board.seat(2).write_samples(b"y" * SAMPLES_BYTES_MAX)
    assert board.read_samples(1) == board.read_samples(3) == b"x" * SAMPLES_BYTES_MAX


def test_half_written_samples(board: Board) -> None:
    """
    Samples of a worker that died while writing them are not shown.
    """
    board.seat(1).write_samples(b"whole")
    board.checksums[0] += 1
    assert board.read_samples(1) == b""
