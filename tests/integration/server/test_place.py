"""
A worker's place under a supervisor: what it inherits, hears and says.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from fairway.exceptions import ConfigurationError
from fairway.options import ServerOptions
from fairway.server.board import Board, State
from fairway.server.place import DRAIN, HURRY, LEAVING, READY, WORN, Seated


class Heard:
    """
    A server that only notes what its place tells it.
    """

    def __init__(self) -> None:
        self.calls: asyncio.Queue[str] = asyncio.Queue()

    def stop(self, *, drain: float | None = None) -> None:
        """
        Note a drain.
        """
        self.calls.put_nowait(f"stop {drain}")

    def hurry(self) -> None:
        """
        Note a hurry.
        """
        self.calls.put_nowait("hurry")

    async def next(self) -> str:
        """
        What comes next.
        """
        async with asyncio.timeout(5):
            return await self.calls.get()


class Above:
    """
    What a supervisor holds of one worker.
    """

    def __init__(self) -> None:
        self.board = Board.create(4)
        self.board.seat(2).take()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.control, self._theirs = socket.socketpair()
        self.control.settimeout(5)

    def variable(self, **changed: object) -> dict[str, str]:
        """
        The environment of the worker, whose descriptors are its own.
        """
        given = {
            "listen": os.dup(self.listening.fileno()),
            "board": os.dup(self.board.fd),
            "control": self._theirs.detach(),
            "seat": 2,
            "speaks": True,
        }
        return {"FAIRWAY_WORKER": json.dumps({**given, **changed}), "OTHER": "kept"}

    def close(self) -> None:
        """
        Let go of everything.
        """
        for one in (self.board, self.listening, self.control, self._theirs):
            one.close()


@pytest.fixture
def above() -> Iterator[Above]:
    """
    A supervisor with a seat to give.
    """
    above = Above()
    yield above
    above.close()


@pytest.fixture
def place(above: Above) -> Iterator[Seated]:
    """
    The place that the worker takes.
    """
    place = Seated.take(above.variable())
    assert place is not None
    with place.open(ServerOptions(drain=7)):
        yield place


class TestTake:
    """
    From the environment to a place.
    """

    def test_inherited(self, above: Above) -> None:
        """
        The socket, the seat and the connection are taken, and nothing goes on to child processes.
        """
        environ = above.variable()
        place = Seated.take(environ)
        assert environ == {"OTHER": "kept"}
        assert place is not None
        assert place.seat is not None
        assert (place.seat.number, place.speaks) == (2, True)
        with place.open(ServerOptions()) as sock:
            assert sock.getsockname() == above.listening.getsockname()
            assert not sock.getblocking()
            assert not sock.get_inheritable()
            assert not place._control.get_inheritable()

    def test_alone(self) -> None:
        """
        A process that no supervisor started has no place.
        """
        assert Seated.take({}) is None

    @pytest.mark.parametrize("text", ["", "{}", "[]", "1", '{"board": 999}', '{"board": 0}'])
    def test_forged(self, text: str) -> None:
        """
        A variable that no supervisor left is said in one line.
        """
        environ = {"FAIRWAY_WORKER": text}
        with pytest.raises(ConfigurationError, match="FAIRWAY_WORKER is set, but no supervisor"):
            Seated.take(environ)
        assert not environ


class TestJoined:
    """
    While the worker serves.
    """

    async def test_words(self, above: Above, place: Seated) -> None:
        """
        The supervisor hears when it serves and is worn; the board shows its state.
        """
        seat = above.board.seat(2)
        states = [seat.state]
        place.ready("http://127.0.0.1/")
        states.append(seat.state)
        place.worn()
        assert above.control.recv(64) == READY + WORN
        place.leaving()
        assert [*states, seat.state] == [State.STARTING, State.READY, State.LEAVING]

    async def test_orders(self, above: Above, place: Seated) -> None:
        """
        It drains without delay when it has a successor, and hurries when told so.
        """
        server = Heard()
        with place.joined(asyncio.get_running_loop(), server):
            above.control.send(DRAIN)
            assert await server.next() == "stop 7"
            above.control.send(HURRY)
            assert await server.next() == "hurry"
            above.control.send(DRAIN + HURRY)
            assert await server.next() == "hurry"
        assert server.calls.empty()

    async def test_supervisor_gone(self, above: Above, place: Seated) -> None:
        """
        It drains once when the supervisor is gone, and says nothing to nobody.
        """
        server = Heard()
        with place.joined(asyncio.get_running_loop(), server):
            above.control.close()
            assert await server.next() == "stop None"
            place.worn()
            await asyncio.sleep(0)
        assert server.calls.empty()

    async def test_signals(self, above: Above, place: Seated) -> None:
        """
        The first SIGTERM drains, and the supervisor hears of it; others, and a terminal's, do not.
        """
        server = Heard()
        with place.joined(asyncio.get_running_loop(), server):
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert await server.next() == "stop None"
            assert above.control.recv(64) == LEAVING
            os.kill(os.getpid(), signal.SIGTERM)
            above.control.send(HURRY)
            assert await server.next() == "hurry"
        assert server.calls.empty()
