"""
One worker process as its supervisor sees it: how it starts, what it says, how it ends.

Which workers there shall be is decided in ``supervisor``. The worker's own side of what
both say to each other is in ``place``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from fairway.server import log, place

if TYPE_CHECKING:
    from fairway.server.board import Seat

__all__ = ["WorkerProcess"]


class WorkerProcess:
    """
    A process that serves, or is about to.

    Event-loop thread only.

    Attributes:
        seat: Its place on the board.
        generation: How many rolling restarts had been asked for when it started.
        serving: Whether it ever said that it serves.
        worn: Whether it asked for a successor.
        leaving: Whether it was told to end, by anybody.
        status: Its exit status, negative for a signal; None while it lives.
        settled: Set once it serves or has ended.
        gone: Set once it no longer takes new work: it leaves or has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        sock: socket.socket,
        seat: Seat,
        *,
        generation: int,
        speaks: bool,
        on_worn: Callable[[], None],
    ) -> None:
        """
        Start it.

        Args:
            command: The program with its arguments.
            environ: Its environment, to which is added what a worker needs.
            sock: The listening socket.
            seat: Its place, which is taken for it.
            generation: How many rolling restarts had been asked for.
            speaks: Whether it says what runs.
            on_worn: Called when it asks for a successor.

        Raises:
            OSError: No process can be started.
        """
        self.seat = seat
        self.generation = generation
        self.serving = False
        self.worn = False
        self.leaving = False
        self.status: int | None = None
        self.settled = asyncio.Event()
        self.gone = asyncio.Event()
        self._on_worn = on_worn
        self._loop = asyncio.get_running_loop()
        self._serving_since = 0.0
        self._fault = ""
        self._kill_timer: asyncio.TimerHandle | None = None
        seat.take()
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        fds = {"listen": sock.fileno(), "board": seat.board.fd, "control": theirs.fileno()}
        given = {**fds, "seat": seat.number, "speaks": speaks}
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - the command this process was given
                    command,
                    env={**environ, place.VARIABLE: json.dumps(given)},
                    pass_fds=tuple(fds.values()),
                    preexec_fn=_ignore_terminal,  # noqa: PLW1509 - there are no threads
                )
        except BaseException:
            self._control.close()
            seat.clear()
            raise
        self.pid = seat.pid = self._process.pid
        self._loop.add_reader(self._control, self._on_control)

    def __str__(self) -> str:
        return f"Worker {self.seat.number} (pid {self.pid})"

    async def wait_settled(self, timeout: float) -> None:
        """
        Wait until it serves or has ended; kill it when that takes too long.
        """
        try:
            await asyncio.wait_for(self.settled.wait(), timeout)
        except TimeoutError:
            self._fault = f"did not begin to serve within {timeout:g} s (start_timeout)"
            self.kill()
            await self.settled.wait()

    def served_seconds(self) -> float:
        """
        Say how long it has served, 0 if it never did.
        """
        return self._loop.time() - self._serving_since if self.serving else 0.0

    def end(self, *, within: float) -> None:
        """
        Tell it that the server ends.

        Args:
            within: Seconds after which it is killed.
        """
        self._leave(within)
        self._process.terminate()

    def retire(self, *, within: float) -> None:
        """
        Tell it that a successor has taken its place.

        Args:
            within: Seconds after which it is killed.
        """
        self._leave(within)
        self._tell(place.DRAIN)

    def hurry(self, *, within: float) -> None:
        """
        Tell it to end at once.

        Args:
            within: Seconds after which it is killed.
        """
        self._leave(within)
        self._tell(place.HURRY)
        if not self.serving:
            # It does not listen to us yet.
            self.kill()

    def kill(self) -> None:
        """
        End it whatever it does.
        """
        self._process.kill()

    def reap(self) -> bool:
        """
        Look whether it has ended, and clear away what it left.

        Returns:
            Whether it has.
        """
        if self.status is None:
            self.status = self._process.poll()
            if self.status is None:
                return False
            if self._kill_timer is not None:
                self._kill_timer.cancel()
            self._loop.remove_reader(self._control)
            self._control.close()
            self.seat.clear()
            self.gone.set()
            self.settled.set()
        return True

    def outcome(self) -> str:
        """
        Say how it ended.
        """
        assert self.status is not None  # noqa: S101 - asked only of those that ended
        if self._fault:
            return f"{self._fault} and was killed"
        if self.status >= 0:
            return f"ended with status {self.status}"
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-self.status).name}"
        return f"was ended by signal {-self.status}"

    def _on_control(self) -> None:
        """
        Hear what it says.
        """
        try:
            words = self._control.recv(64)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            words = b""
        if not words:
            # It ends, which is heard of in another way.
            self._loop.remove_reader(self._control)
        if place.READY in words:
            self.serving = True
            self._serving_since = self._loop.time()
            self.settled.set()
        if place.LEAVING in words:
            self.leaving = True
            self.gone.set()
        if place.WORN in words:
            self.worn = True
            self._on_worn()

    def _leave(self, within: float) -> None:
        """
        Note that it was told to end, and kill it if it does not.
        """
        if self.status is not None:
            return
        self.leaving = True
        self.gone.set()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = self._loop.call_later(within, self._kill_late, within)

    def _kill_late(self, within: float) -> None:
        """
        Kill it, since it did not end in its time.
        """
        log.logger.error("%s did not end within %g s and is killed", self, within)
        self.kill()

    def _tell(self, word: bytes) -> None:
        """
        Tell it something; one that has ended need not hear it.
        """
        with suppress(OSError):
            self._control.send(word)


def _ignore_terminal() -> None:
    """
    Leave Ctrl-C and a closed terminal to the supervisor, from the very first moment.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
