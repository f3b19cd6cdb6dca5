"""
Accepting connections: how many at a time, and when not.

An acceptor watches the listening socket itself, since no event loop's own server can
pause: it steps back while its worker holds more than its share, and while the process
is full. What pauses is accepting alone, so connections wait in the kernel's queue
and those that exist are not touched. What happens on a connection is not known here.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from fairway import metrics
from fairway.server import log

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable, Coroutine

    _Taken = tuple[int, Callable[[], None], Coroutine[Any, Any, Any]]

__all__ = ["BACKLOG", "Acceptor", "Seat", "descriptor_limit", "raise_descriptor_limit"]

BACKLOG = 2048

ACCEPTS_PER_TURN = 4
"""
Connections taken in one turn of the loop, so that those that exist get theirs.
"""

AHEAD_LOOK_SECONDS = 0.02
AHEAD_SECONDS_MAX = 0.5
"""
Time after which a worker takes part again although it is ahead: the others may hang.
"""

FULL_LOOK_SECONDS = 0.1
LOG_SECONDS = 10.0

RESERVE = 128
"""
Descriptors left to the application, where a quarter of all is not less.
"""

LIMIT_LOOK_ACCEPTS = 16
"""
Connections after which the limit is read anew: it may change while the process lives.
"""

NO_LIMIT = 1 << 31

_IDLE = (BlockingIOError, InterruptedError, ConnectionAbortedError)
"""
Nothing to accept: another worker was faster, or the client has left already.
"""


class Seat(Protocol):
    """
    What an acceptor needs of its worker's place among others, see ``board.Seat``.
    """

    connections: int

    def ahead(self) -> bool:
        """
        Whether this worker holds more than its share.
        """


class Acceptor:
    """
    Takes connections from a listening socket and gives each a protocol.

    Event-loop thread only; nothing here waits.

    Attributes:
        open: Connections taken that have not ended, those at their TLS handshake included.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        make: Callable[[Any], asyncio.BaseProtocol],
        *,
        tls: ssl.SSLContext | None = None,
        handshake_timeout: float | None = None,
        connections_max: int = 0,
        seat: Seat | None = None,
    ) -> None:
        """
        Remember what to accept; ``start`` begins.

        Args:
            loop: The loop of the connections.
            sock: A listening socket that does not block.
            make: Gives the protocol for a connection from an address.
            tls: Makes them TLS connections.
            handshake_timeout: Seconds that a TLS handshake may take.
            connections_max: Connections open at a time; 0 for what the limit on descriptors allows.
            seat: The worker's place among others.
        """
        self._loop = loop
        self._sock = sock
        self._make = make
        self._tls: dict[str, Any] = (
            {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": handshake_timeout}
        )
        self._connections_max = connections_max
        self._seat = seat
        self.open = 0
        self._address: Any = None
        self._opening: set[Coroutine[Any, Any, Any]] = set()
        self._begun: list[tuple[Coroutine[Any, Any, Any], asyncio.Future[Any]]] = []
        self._poll = select.poll()
        self._fd_max = 0
        self._until_limit_look = 0
        self._tight_above = NO_LIMIT
        self._full = False
        self._ahead_until = 0.0
        self._timer: asyncio.Handle | None = None
        self._logged_at = -LOG_SECONDS
        self._stopped = False
        self._take = self._take_socket
        if type(loop).__module__.partition(".")[0] == "uvloop":
            self._accepted = _Accepted(sock)
            self._take = self._take_descriptor

    def start(self) -> None:
        """
        Begin to accept.

        Raises:
            NotImplementedError: The loop cannot watch sockets (Windows' own).
        """
        # A socket that was inherited may have a short queue.
        self._sock.listen(BACKLOG)
        self._read_limit()
        self._poll.register(self._sock, select.POLLIN)
        self._loop.add_reader(self._sock, self._on_readable)

    def stop(self) -> None:
        """
        Accept no more, and let go of the listening socket; connections at their handshake go on.
        """
        if not self._stopped:
            self._stopped = True
            if self._timer is None:
                self._loop.remove_reader(self._sock)
            else:
                self._timer.cancel()
            self._sock.close()

    def close(self) -> None:
        """
        Stop, and cut off connections at their handshake.
        """
        self.stop()
        opening = [*self._opening, *(coroutine for coroutine, _ in self._begun)]
        self._opening.clear()
        self._begun.clear()
        for coroutine in opening:
            coroutine.close()

    def left(self) -> None:
        """
        Note that a connection has ended.
        """
        self.open -= 1
        if self._seat is not None:
            self._seat.connections = self.open
        if self._full and self._timer is not None:
            # Its descriptor is closed once this turn of the loop is over.
            self._timer.cancel()
            self._timer = self._loop.call_soon(self._look)

    # -- hot path: once per connection

    def _on_readable(self) -> None:
        """
        Take what waits, a few at most.
        """
        if self._stopped:
            return
        taken = 0
        try:
            while True:
                fd, close, coroutine = self._take()
                taken += 1
                self._open(coroutine, close)
                # To ask first costs a tenth of accepting in vain (measured).
                if self._is_full(fd) or taken == ACCEPTS_PER_TURN or not self._more():
                    break
        except _IDLE:
            pass
        except OSError as error:
            self._fill(_words(error))
        if taken:
            # Behind the calls of connection_made, which were scheduled first.
            self._loop.call_soon(self._finish)
            if self._seat is not None:
                self._seat.connections = self.open
                if self._timer is None and self._seat.ahead():
                    self._step_back()

    def _more(self) -> bool:
        """
        Whether another connection waits.
        """
        return bool(self._poll.poll(0))

    def _take_socket(self) -> _Taken:
        """
        Take one connection, on any loop.
        """
        sock, self._address = self._sock.accept()
        begin = self._loop.connect_accepted_socket
        return sock.fileno(), sock.close, begin(self._protocol, sock, **self._tls)

    def _take_descriptor(self) -> _Taken:
        """
        Take one connection on uvloop, which needs no socket object: half the price (measured).
        """
        accepted = self._accepted
        accepted.fd, self._address = self._sock._accept()  # type: ignore[attr-defined] # noqa: SLF001 - as above
        begin: Any = self._loop.connect_accepted_socket
        return accepted.fd, accepted.discard, begin(self._protocol, accepted, **self._tls)

    def _protocol(self) -> asyncio.BaseProtocol:
        """
        Make the protocol of the connection that was taken last.
        """
        return self._make(self._address)

    def _open(self, coroutine: Coroutine[Any, Any, Any], close: Callable[[], None]) -> None:
        """
        Run a connection's beginning up to its one wait: without a task, which costs more.
        """
        self.open += 1
        try:
            self._begun.append((coroutine, coroutine.send(None)))
        except Exception as error:  # noqa: BLE001 - the next connection may be better
            close()
            self._failed(error)

    def _finish(self) -> None:
        """
        Let the beginnings end whose connection is made; the others wait for their handshake.
        """
        begun, self._begun = self._begun, []
        for coroutine, future in begun:
            if future.done():
                self._go_on(coroutine)
            else:
                self._wait(coroutine, future)

    def _wait(self, coroutine: Coroutine[Any, Any, Any], future: asyncio.Future[Any]) -> None:
        """
        Go on once a handshake is over.
        """
        self._opening.add(coroutine)
        future.add_done_callback(partial(self._on_handshake, coroutine))

    def _on_handshake(self, coroutine: Coroutine[Any, Any, Any], _: asyncio.Future[Any]) -> None:
        """
        Go on, unless all were cut off meanwhile.
        """
        if coroutine in self._opening:
            self._opening.discard(coroutine)
            self._go_on(coroutine)

    def _go_on(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """
        Run a connection's beginning on, which ends unless it waits again.
        """
        try:
            self._wait(coroutine, coroutine.send(None))
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001 - whatever a handshake may raise
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """
        Note that a connection ended before it was one.
        """
        if isinstance(error, OSError):
            metrics.refusals.add("handshake")
            log.logger.info("a TLS handshake failed: %s", log.printable(str(error)))
        else:
            context = {"message": "a connection could not be opened", "exception": error}
            self._loop.call_exception_handler(context)
        self.left()

    # -- when not to accept

    def _is_full(self, fd: int) -> bool:
        """
        Pause if the connection just taken was the last for now.

        The kernel gives the lowest number that is free, so the number of its descriptor
        says how many are open, whatever else the process has opened. Only a high number does:
        a low one that has just been given back says nothing of those above. So where it was
        tight, what comes next is asked for, else each end of a connection would let two in.
        """
        if self._connections_max:
            if self.open < self._connections_max:
                return False
            self._fill(f"connections_max is {self._connections_max}")
            return True
        self._until_limit_look -= 1
        if self._until_limit_look <= 0:
            self._read_limit()
        if fd < self._fd_max and (self.open <= self._tight_above or self._has_room()):
            return False
        self._tight_above = self.open * 3 // 4
        self._fill("the limit on open files is near; raise it with ulimit -n or LimitNOFILE")
        return True

    def _read_limit(self) -> None:
        """
        Read which descriptor is the last that a connection may have.
        """
        self._until_limit_look = LIMIT_LOOK_ACCEPTS
        limit = descriptor_limit()
        self._fd_max = limit - min(RESERVE, limit // 4)

    def _fill(self, reason: str) -> None:
        """
        Pause until there is room: a connection ends, or a limit is raised.
        """
        self._full = True
        self._pause(FULL_LOOK_SECONDS)
        metrics.accept_pauses.add("full")
        now = self._loop.time()
        if now >= self._logged_at + LOG_SECONDS:
            self._logged_at = now
            log.logger.warning(
                "with %d connections open no more are accepted for now: %s", self.open, reason
            )

    def _step_back(self) -> None:
        """
        Leave the next connections to the other workers.
        """
        self._ahead_until = self._loop.time() + AHEAD_SECONDS_MAX
        self._pause(AHEAD_LOOK_SECONDS)
        metrics.accept_pauses.add("ahead")

    def _pause(self, seconds: float) -> None:
        """
        Accept nothing for so long, then look.
        """
        if self._timer is None:
            self._loop.remove_reader(self._sock)
        else:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """
        Accept again if nothing speaks against it any more.
        """
        if self._stopped:
            return
        if self._full and not self._has_room():
            self._timer = self._loop.call_later(FULL_LOOK_SECONDS, self._look)
        elif not self._full and self._still_ahead():
            self._timer = self._loop.call_later(AHEAD_LOOK_SECONDS, self._look)
        else:
            self._full = False
            self._timer = None
            self._loop.add_reader(self._sock, self._on_readable)

    def _still_ahead(self) -> bool:
        """
        Whether it is still for the other workers to accept.
        """
        assert self._seat is not None  # noqa: S101 - only then is anybody ahead
        return self._seat.ahead() and self._loop.time() < self._ahead_until

    def _has_room(self) -> bool:
        """
        Whether one more connection may be taken.
        """
        if self._connections_max and self.open >= self._connections_max:
            return False
        try:
            fd = os.dup(self._sock.fileno())
        except OSError:
            return False
        os.close(fd)
        self._read_limit()
        return fd < self._fd_max or self._connections_max > 0


class _Accepted:
    """
    A descriptor in the clothes of a socket, for uvloop: it takes the descriptor over at once.

    Attributes:
        fd: The descriptor taken last.
    """

    __slots__ = ("family", "fd", "type")

    def __init__(self, sock: socket.socket) -> None:
        # Plain numbers: those of a socket object are made into members of an enum on each look.
        self.family = int(sock.family)
        self.type = int(sock.type)
        self.fd = -1

    def fileno(self) -> int:
        """
        Give the descriptor.
        """
        return self.fd

    def close(self) -> None:
        """
        Do nothing: uvloop has closed the descriptor itself.
        """

    def discard(self) -> None:
        """
        Close the descriptor, which uvloop did not take.
        """
        with suppress(OSError):
            os.close(self.fd)


def descriptor_limit() -> int:
    """
    Give the number of descriptors that this process may have open at present.
    """
    if sys.platform == "win32":
        return NO_LIMIT
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return NO_LIMIT if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> None:
    """
    Raise this process's own limit on descriptors to what it is allowed.
    """
    if sys.platform != "win32":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _words(error: OSError) -> str:
    """
    Say why nothing could be accepted, and what helps.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE):
        whose = "this process" if error.errno == errno.EMFILE else "this machine"
        return f"{whose} has no descriptor left; raise the limit on open files"
    return (error.strerror or str(error)).lower()
