"""
Where a serving process stands: on its own, or in a seat under a supervisor.

The two differ in where the listening socket comes from, in what signals mean and in
whom they tell that they serve; ``run`` is the same for both. What a supervisor and its
worker say to each other is here too, from the worker's side.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.server import listen
from fairway.server.board import Board, Seat, State
from fairway.server.notify import Notifier, pid_file

if TYPE_CHECKING:
    import asyncio

    from fairway.options import ServerOptions

__all__ = ["DRAIN", "HURRY", "LEAVING", "READY", "WORN", "Alone", "Place", "Seated"]

VARIABLE = "FAIRWAY_WORKER"

READY, WORN, LEAVING = b"r", b"w", b"l"
"""
What a worker tells its supervisor: that it serves, that it has served enough and wants to be
replaced, that it ends because somebody else told it to.
"""

DRAIN, HURRY = b"d", b"h"
"""
What a supervisor tells its worker: to end because another takes its place, to end at once.
"""


class Stoppable(Protocol):
    """
    What a place needs of the server that stands there. Any thread.
    """

    def stop(self, *, drain: float | None = None) -> None:
        """
        Begin the end.
        """

    def hurry(self) -> None:
        """
        End within a second.
        """


class Place(Protocol):
    """
    What a server needs to know of where it stands.

    Attributes:
        seat: Its place among the workers of one server, None on its own.
        speaks: Whether it is this process that says what runs.
        owns_process: Whether the process is there for the server, and may be tuned to it.
    """

    seat: Seat | None
    speaks: bool
    owns_process: bool

    def open(self, options: ServerOptions) -> AbstractContextManager[socket.socket]:
        """
        Give the listening socket for as long as the process lives. Before there is a loop.
        """

    def joined(
        self, loop: asyncio.AbstractEventLoop, server: Stoppable
    ) -> AbstractContextManager[None]:
        """
        Heed signals and whoever is above, for as long as the loop runs.
        """

    def ready(self, address: str) -> None:
        """
        Tell that connections are accepted.
        """

    def leaving(self) -> None:
        """
        Tell that the end has begun.
        """

    def worn(self) -> None:
        """
        Ask to be replaced.
        """


class Alone:
    """
    One process and no supervisor.
    """

    speaks = True
    owns_process = True

    def __init__(self) -> None:
        self.seat: Seat | None = None
        self._notifier = Notifier()

    @contextmanager
    def open(self, options: ServerOptions) -> Iterator[socket.socket]:
        """
        Open the listening socket that the options name, and keep the pid file.

        Raises:
            ConfigurationError: One of them cannot be had.
        """
        self._notifier = Notifier.take(os.environ)
        with listen.bind(options) as sock, pid_file(options.pid_file):
            yield sock

    @contextmanager
    def joined(self, loop: asyncio.AbstractEventLoop, server: Stoppable) -> Iterator[None]:
        """
        End at SIGTERM and SIGINT, where this thread may hear them, and at a second one hurry.
        """
        asked = False

        def on_signal() -> None:
            nonlocal asked
            if asked:
                server.hurry()
            else:
                asked = True
                server.stop()

        if _hears_signals():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, on_signal)
        with self._notifier.watched(loop):
            yield

    def ready(self, address: str) -> None:
        """
        Tell systemd.
        """
        self._notifier.ready(f"Serving on {address}")

    def leaving(self) -> None:
        """
        Tell systemd.
        """
        self._notifier.stopping()

    def worn(self) -> None:
        """
        Go on: nobody could take this process's place.
        """


class Seated:
    """
    A worker's place under a supervisor, which holds the other end of ``control``.

    Attributes:
        seat: The worker's place on the board.
    """

    owns_process = True

    def __init__(
        self, sock: socket.socket, control: socket.socket, seat: Seat, *, speaks: bool
    ) -> None:
        """
        Take a place.

        Args:
            sock: The listening socket, which all workers share.
            control: What connects this worker with its supervisor.
            seat: The worker's place on the board.
            speaks: Whether it is the one that says what runs.
        """
        self.seat: Seat | None = seat
        self.speaks = speaks
        self._sock = sock
        self._control = control
        self._seat = seat
        self._drain: float | None = None
        self._told = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Seated | None:
        """
        Take what a supervisor left out of the environment, so that no child believes it.

        Returns:
            The place; None for a process that no supervisor started.

        Raises:
            ConfigurationError: The variable is there, but not what it tells of.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            given: dict[str, Any] = json.loads(text)
            board = Board.attach(given["board"])
            os.close(given["board"])
            sock, control = _socket(given["listen"]), _socket(given["control"])
            return cls(sock, control, board.seat(given["seat"]), speaks=given["speaks"])
        except (KeyError, OSError, TypeError, ValueError):
            raise ConfigurationError(
                f"{VARIABLE} is set, but no supervisor of Fairway started this process; unset it",
                fault=Fault.FLAGS_CONFLICT,
            ) from None

    @contextmanager
    def open(self, options: ServerOptions) -> Iterator[socket.socket]:
        """
        Give the socket that the supervisor opened.
        """
        self._drain = options.drain
        with self._sock, self._control:
            yield self._sock

    @contextmanager
    def joined(self, loop: asyncio.AbstractEventLoop, server: Stoppable) -> Iterator[None]:
        """
        Heed the supervisor, and drain when it is gone.

        A terminal or systemd sends its signals to the supervisor and to every worker; hence
        workers ignore those of a terminal, and a second SIGTERM means nothing more than the first.
        """
        loop.add_reader(self._control, self._on_control, loop, server)
        if _hears_signals():
            loop.add_signal_handler(signal.SIGTERM, self._on_sigterm, server)
            for number in (signal.SIGINT, signal.SIGHUP):
                loop.add_signal_handler(number, lambda: None)
        try:
            yield
        finally:
            loop.remove_reader(self._control)

    def ready(self, address: str) -> None:
        """
        Tell the other workers and the supervisor.
        """
        self._seat.state = State.READY
        self._tell(READY)

    def leaving(self) -> None:
        """
        Tell the other workers, so that none waits for this one to take connections.
        """
        self._seat.state = State.LEAVING

    def worn(self) -> None:
        """
        Ask the supervisor for a successor.
        """
        self._tell(WORN)

    def _on_control(self, loop: asyncio.AbstractEventLoop, server: Stoppable) -> None:
        """
        Do what the supervisor says; without one, drain.
        """
        try:
            words = self._control.recv(64)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            words = b""
        if HURRY in words:
            server.hurry()
        elif not words:
            loop.remove_reader(self._control)
            server.stop()
        else:
            # A successor serves already, so there is nothing to delay the end for.
            self._told = True
            server.stop(drain=self._drain)

    def _on_sigterm(self, server: Stoppable) -> None:
        """
        Begin the end, once.
        """
        if not self._told:
            self._told = True
            self._tell(LEAVING)
            server.stop()

    def _tell(self, word: bytes) -> None:
        """
        Tell the supervisor something; one that is gone has no use for it.
        """
        with suppress(OSError):
            self._control.send(word)


def _hears_signals() -> bool:
    """
    Whether this is the thread that may handle signals.
    """
    return threading.current_thread() is threading.main_thread()


def _socket(fd: int) -> socket.socket:
    """
    Take an inherited socket over; the application's own child processes do not get it.
    """
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock
