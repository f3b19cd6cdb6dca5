"""
The acceptor on a loop whose time and descriptors the test holds: when it pauses, and until when.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import ssl
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway import metrics
from fairway.server import accept
from fairway.server.accept import Acceptor


class Timer:
    """
    A call that is due at some time.
    """

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """
        Do not call.
        """
        self.cancelled = True


class Waiter:
    """
    What the beginning of a connection awaits.
    """

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Any], None]] = []
        self.error: Exception | None = None
        self.is_done = False

    def __await__(self) -> Generator[Waiter, None, None]:
        yield self
        if self.error is not None:
            raise self.error

    def done(self) -> bool:
        """
        Whether the wait is over.
        """
        return self.is_done

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """
        Call once the wait is over.
        """
        self.callbacks.append(callback)

    def finish(self, error: Exception | None = None) -> None:
        """
        End the wait.
        """
        self.is_done, self.error = True, error
        for callback in self.callbacks:
            callback(self)


class Loop:
    """
    A loop that runs what is due when told so.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.reader: Callable[[], None] | None = None
        self.timers: list[Timer] = []
        self.taken: list[socket.socket] = []
        self.waiters: list[Waiter] = []
        self.reported: list[dict[str, Any]] = []
        self.slow = False
        self.broken: Exception | None = None

    def time(self) -> float:
        """
        Give the test's time.
        """
        return self.now

    def add_reader(self, sock: socket.socket, call: Callable[[], None]) -> None:
        """
        Watch the one socket there is.
        """
        assert self.reader is None
        self.reader = call

    def remove_reader(self, sock: socket.socket) -> None:
        """
        Watch no more.
        """
        assert self.reader is not None
        self.reader = None

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """
        Remember a call.
        """
        self.timers.append(Timer(self.now + seconds, call))
        return self.timers[-1]

    def call_soon(self, call: Callable[[], None]) -> Timer:
        """
        Remember a call for the end of the turn.
        """
        return self.call_later(0, call)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """
        Remember what nobody expected.
        """
        self.reported.append(context)

    async def connect_accepted_socket(self, make: Callable[[], Any], sock: Any, **tls: Any) -> None:
        """
        Make a protocol for a connection, and wait as a TLS handshake does if told to be slow.
        """
        if self.broken is not None:
            raise self.broken
        make()
        self.taken.append(sock)
        waiter = Waiter()
        waiter.is_done = not self.slow
        self.waiters.append(waiter)
        await waiter

    def turn(self, seconds: float = 0.0) -> None:
        """
        Let time pass, then run one turn: what the socket has, then what is due.
        """
        self.now += seconds
        if self.reader is not None:
            self.reader()
        due = [timer for timer in self.timers if timer.at <= self.now + 1e-9]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            if not timer.cancelled:
                timer.call()

    def pending(self) -> int:
        """
        Count the calls that are still to come.
        """
        return sum(not timer.cancelled for timer in self.timers)


class Listening:
    """
    A listening socket with as many connections as the test says.
    """

    family = socket.AF_INET
    type = socket.SOCK_STREAM

    def __init__(self) -> None:
        self.waiting = 0
        self.error: OSError | None = None
        self.accepts = 0
        self.closed = False
        self._own = socket.socket()

    def listen(self, backlog: int) -> None:
        """
        Listen already.
        """

    def fileno(self) -> int:
        """
        Give a descriptor that may be duplicated.
        """
        return self._own.fileno()

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """
        Give a connection, or the error the test wants.
        """
        self.accepts += 1
        if self.error is not None:
            raise self.error
        if not self.waiting:
            raise BlockingIOError
        self.waiting -= 1
        return socket.socket(), ("192.0.2.1", 5000)

    def close(self) -> None:
        """
        Note that nobody listens any more.
        """
        self.closed = True
        self._own.close()


class Seat:
    """
    A place among other workers.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.is_ahead = False

    def ahead(self) -> bool:
        """
        Say what the test wants.
        """
        return self.is_ahead


class Stage:
    """
    An acceptor and everything around it.
    """

    def __init__(self, **settings: Any) -> None:
        self.loop = Loop()
        self.sock = Listening()
        self.peers: list[Any] = []
        self.acceptor = Acceptor(self.loop, self.sock, self.make, **settings)  # type: ignore[arg-type] # stand-ins
        # What the kernel would say of its queue.
        self.acceptor._more = lambda: self.sock.waiting > 0  # type: ignore[method-assign]
        self.acceptor.start()

    def make(self, peer: Any) -> Any:
        """
        Make a protocol.
        """
        self.peers.append(peer)
        return asyncio.Protocol()

    def arrive(self, count: int) -> None:
        """
        Let so many connections come, and take all.
        """
        self.sock.waiting = count
        while self.sock.waiting and self.loop.reader:
            self.loop.turn()

    @property
    def accepting(self) -> bool:
        """
        Whether connections are taken at present.
        """
        return self.loop.reader is not None

    def end(self) -> None:
        """
        Close what is open.
        """
        self.acceptor.close()
        for sock in self.loop.taken:
            sock.close()


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    """
    Sets stages up and clears them away.
    """
    stages: list[Stage] = []

    def make(**settings: Any) -> Stage:
        stages.append(Stage(**settings))
        return stages[-1]

    yield make
    for one in stages:
        one.end()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """
    Sets the number of descriptors that the process may have.
    """

    def change(count: int) -> None:
        monkeypatch.setattr(accept, "descriptor_limit", lambda: count)

    return change


MakeStage = Callable[..., Stage]


class TestTaking:
    """
    How connections are taken while nothing speaks against it.
    """

    def test_protocols_know_where_their_connection_comes_from(self, stage: MakeStage) -> None:
        """
        Each connection gets a protocol of its own, made with the peer's address.
        """
        here = stage()
        here.arrive(3)
        assert here.peers == [("192.0.2.1", 5000)] * 3
        assert here.acceptor.open == 3

    def test_a_lone_connection_is_taken_without_trying_for_more(self, stage: MakeStage) -> None:
        """
        Accepting in vain has its price.
        """
        here = stage()
        here.arrive(1)
        assert here.sock.accepts == 1

    def test_at_most_four_are_taken_in_a_turn(self, stage: MakeStage) -> None:
        """
        The others wait for the next turn, so that the connections that exist get theirs.
        """
        here = stage()
        here.sock.waiting = 9
        taken = []
        for _ in range(3):
            here.loop.turn()
            taken.append(here.acceptor.open)
        assert taken == [4, 8, 9]
        assert here.sock.accepts == 9

    @pytest.mark.parametrize("error", [InterruptedError, ConnectionAbortedError, BlockingIOError])
    def test_nothing_to_take_is_no_fault(self, stage: MakeStage, error: type[OSError]) -> None:
        """
        Where another worker was faster or the client has gone, accepting goes on.
        """
        here = stage()
        here.sock.error = error()
        here.loop.turn()
        assert here.accepting

    def test_a_connection_that_ends_is_counted_out(self, stage: MakeStage) -> None:
        """
        The seat shows what is open, up and down.
        """
        seat = Seat()
        here = stage(seat=seat)
        here.arrive(3)
        assert seat.connections == 3
        here.acceptor.left()
        assert (here.acceptor.open, seat.connections) == (2, 2)

    def test_a_connection_that_cannot_be_opened_is_reported(self, stage: MakeStage) -> None:
        """
        What nobody expected goes to the loop's exception handler, and the next one is served.
        """
        here = stage()
        here.loop.broken = RuntimeError("no memory")
        here.arrive(1)
        assert [context["exception"] for context in here.loop.reported] == [here.loop.broken]
        here.loop.broken = None
        here.arrive(1)
        assert (here.acceptor.open, here.accepting) == (1, True)

    def test_a_stopped_acceptor_takes_nothing(self, stage: MakeStage) -> None:
        """
        A call that was on its way when accepting ended finds nothing to do.
        """
        here = stage()
        readable = here.loop.reader
        assert readable is not None
        here.acceptor.stop()
        here.sock.waiting = 1
        readable()
        assert (here.sock.accepts, here.sock.closed) == (0, True)


class TestHandshakes:
    """
    Connections that have yet to become some: those with TLS.
    """

    def test_one_at_its_handshake_is_open(self, stage: MakeStage) -> None:
        """
        It counts from the beginning, for it holds a descriptor.
        """
        here = stage(tls=ssl.create_default_context())
        here.loop.slow = True
        here.arrive(2)
        here.loop.turn()
        assert here.acceptor.open == 2
        here.loop.waiters[0].finish()
        assert here.acceptor.open == 2

    def test_one_that_fails_is_counted_and_counted_out(self, stage: MakeStage) -> None:
        """
        A client's fault costs one count and no traceback.
        """
        before = metrics.refusals.values.get("handshake", 0)
        here = stage(tls=ssl.create_default_context())
        here.loop.slow = True
        here.arrive(1)
        here.loop.turn()
        here.loop.waiters[0].finish(ssl.SSLError(1, "no shared cipher"))
        assert here.acceptor.open == 0
        assert metrics.refusals.values["handshake"] == before + 1
        assert here.loop.reported == []

    def test_the_end_cuts_handshakes_off(self, stage: MakeStage) -> None:
        """
        After ``stop`` a handshake may finish, after ``close`` nothing is left to go on.
        """
        here = stage(tls=ssl.create_default_context())
        here.loop.slow = True
        here.arrive(2)
        here.loop.turn()
        here.acceptor.stop()
        here.loop.waiters[0].finish()
        here.acceptor.close()
        here.loop.waiters[1].finish()
        assert here.loop.reported == []


class TestAhead:
    """
    A worker with more than its share leaves the next connections to the others.
    """

    def test_it_steps_back_at_once(self, stage: MakeStage) -> None:
        """
        The turn that brings it ahead is the last for now.
        """
        seat = Seat()
        here = stage(seat=seat)
        seat.is_ahead = True
        here.arrive(5)
        assert (here.acceptor.open, here.accepting) == (4, False)

    def test_it_looks_every_20_ms(self, stage: MakeStage) -> None:
        """
        Once it is no longer ahead it takes part again.
        """
        seat = Seat()
        here = stage(seat=seat)
        seat.is_ahead = True
        here.arrive(1)
        here.loop.turn(0.021)
        assert not here.accepting
        seat.is_ahead = False
        here.loop.turn(0.01)
        assert not here.accepting
        here.loop.turn(0.011)
        assert here.accepting

    def test_it_takes_part_again_after_half_a_second(self, stage: MakeStage) -> None:
        """
        The others may hang: whoever is ahead has one turn every 500 ms.
        """
        seat = Seat()
        here = stage(seat=seat)
        seat.is_ahead = True
        here.sock.waiting = 10
        here.loop.turn()
        turns = 0
        while not here.accepting:
            here.loop.turn(0.02)
            turns += 1
        assert turns in (25, 26)
        here.loop.turn()
        assert (here.acceptor.open, here.accepting) == (8, False)

    def test_stopping_while_back_leaves_no_timer(self, stage: MakeStage) -> None:
        """
        Nothing looks any more once accepting has ended.
        """
        seat = Seat()
        here = stage(seat=seat)
        seat.is_ahead = True
        here.arrive(1)
        here.loop.turn()
        here.acceptor.stop()
        assert here.loop.pending() == 0
        here.loop.turn(1)
        assert not here.accepting


class TestFull:
    """
    What cannot be served waits in the kernel's queue, and nothing spins.
    """

    def test_connections_max_is_kept(self, stage: MakeStage) -> None:
        """
        As many as the option says are taken, the next when one has ended.
        """
        here = stage(connections_max=3)
        here.sock.waiting = 5
        for _ in range(5):
            here.loop.turn()
        assert (here.acceptor.open, here.accepting) == (3, False)
        here.acceptor.left()
        here.loop.turn()
        assert here.accepting
        here.loop.turn()
        assert (here.acceptor.open, here.accepting) == (3, False)

    def test_many_that_end_at_once_cause_one_look(self, stage: MakeStage) -> None:
        """
        The looks of one turn are one.
        """
        here = stage(connections_max=3)
        here.arrive(3)
        here.loop.turn()
        for _ in range(3):
            here.acceptor.left()
        assert here.loop.pending() == 1

    def test_while_full_it_looks_every_100_ms(
        self, stage: MakeStage, limit: Callable[[int], None]
    ) -> None:
        """
        A limit that is raised meanwhile is found without any connection ending.
        """
        limit(4)
        here = stage()
        here.arrive(2)
        assert (here.acceptor.open, here.accepting) == (1, False)
        here.loop.turn(0.101)
        assert not here.accepting
        limit(1 << 20)
        here.loop.turn(0.101)
        assert here.accepting

    def test_a_reserve_is_left_to_the_application(
        self, stage: MakeStage, limit: Callable[[int], None]
    ) -> None:
        """
        Connections stop a quarter below the limit, so that files and databases can be opened.
        """
        taken = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
        free = max(taken) + 1 - len(taken)  # Numbers below the highest, which are given out first.
        limit((max(taken) + 21) * 4 // 3)
        here = stage()
        here.arrive(free + 40)
        assert not here.accepting
        assert 15 <= here.acceptor.open <= free + 21
        os.close(os.dup(0))

    def test_each_that_ends_lets_one_in(
        self, stage: MakeStage, limit: Callable[[int], None]
    ) -> None:
        """
        However the ends are spread over the turns: the reserve is not used up bit by bit.
        """
        taken = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
        limit((max(taken) + 21) * 4 // 3)
        here = stage()
        here.arrive(max(taken) + 40)
        held = here.acceptor.open
        here.sock.waiting = 100
        for _ in range(10):
            here.loop.taken.pop(0).close()
            here.acceptor.left()
            for _ in range(4):
                here.loop.turn()
            assert (here.acceptor.open, here.accepting) == (held, False)

    def test_a_limit_lowered_meanwhile_is_found(
        self, stage: MakeStage, limit: Callable[[int], None]
    ) -> None:
        """
        It is read anew every few connections.
        """
        here = stage()
        here.arrive(1)
        limit(4)
        here.arrive(40)
        assert (here.acceptor.open, here.accepting) == (accept.LIMIT_LOOK_ACCEPTS, False)

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
    def test_a_kernel_that_cannot_is_asked_ten_times_a_second(
        self, stage: MakeStage, number: int
    ) -> None:
        """
        Without descriptors or memory accepting pauses, and goes on as soon as it can.
        """
        here = stage()
        here.sock.waiting = 1
        here.sock.error = OSError(number, os.strerror(number))
        for _ in range(100):
            here.loop.turn(0.01)
        assert 9 <= here.sock.accepts <= 11
        here.sock.error = None
        for _ in range(11):
            here.loop.turn(0.01)
        assert here.acceptor.open == 1

    def test_a_process_without_descriptors_waits_for_one(
        self, stage: MakeStage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Before it accepts it tries whether there is a descriptor.
        """
        here = stage(connections_max=10)
        here.sock.error = OSError(errno.EMFILE, "too many open files")
        here.loop.turn()

        def fail(fd: int) -> int:
            raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(os, "dup", fail)
        here.loop.turn(0.11)
        assert not here.accepting
        monkeypatch.undo()
        here.loop.turn(0.11)
        assert here.accepting

    def test_it_is_said_once_in_ten_seconds_and_counted_each_time(
        self, stage: MakeStage, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        The line names the limit and how many connections there are.
        """
        caplog.set_level(logging.WARNING, "fairway.server")
        before = metrics.accept_pauses.values.get("full", 0)
        here = stage(connections_max=2)
        here.arrive(2)
        for _ in range(5):
            here.loop.turn()
            here.acceptor.left()
            here.loop.turn()
            here.arrive(1)
        assert metrics.accept_pauses.values["full"] == before + 6
        (line,) = [record.getMessage() for record in caplog.records]
        assert line == (
            "with 2 connections open no more are accepted for now: connections_max is 2"
        )
        here.loop.now += 10
        here.acceptor.left()
        here.loop.turn()
        here.arrive(1)
        assert len(caplog.records) == 2


class TestLimit:
    """
    The process's own limit on descriptors.
    """

    def test_it_is_raised_to_what_is_allowed(self) -> None:
        """
        The soft limit becomes the hard one.
        """
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
        try:
            accept.raise_descriptor_limit()
            assert accept.descriptor_limit() == before[1]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    def test_none_is_a_large_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Where there is no limit, none is in the way.
        """
        infinity = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        monkeypatch.setattr(resource, "getrlimit", lambda kind: infinity)
        assert accept.descriptor_limit() == accept.NO_LIMIT
