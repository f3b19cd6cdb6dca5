"""
The process above the workers of one server: its socket, its signals and its end.

``become_supervisor`` replaces the process of a command by a fresh one, ``python -m
fairway.server.supervisor``, so that it never holds the application. This process opens
the listening socket and starts the command again for each worker (``crew``). It serves
nothing and reads nothing of its clients.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.options import ServerOptions
from fairway.server import listen, log
from fairway.server.crew import Crew
from fairway.server.notify import Notifier, pid_file

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

__all__ = ["Supervisor", "become_supervisor", "main"]

VARIABLE = "FAIRWAY_SUPERVISOR"

HURRY_SECONDS = 0.7
"""
Time that a hurried worker gets to end by itself.
"""


class Supervisor:
    """
    Keeps the workers of one server running.

    Event-loop thread only.
    """

    def __init__(
        self,
        options: ServerOptions,
        command: Sequence[str],
        environ: Mapping[str, str],
        sock: socket.socket,
        notifier: Notifier,
    ) -> None:
        """
        Remember what to run.

        Args:
            options: How many workers, and the times that starting and ending may take.
            command: What starts one worker.
            environ: The environment of a worker.
            sock: The listening socket.
            notifier: Tells systemd.
        """
        self._drain_delay = options.drain_delay
        self._sock = sock
        self._notifier = notifier
        self._crew = Crew(options, command, environ, sock, notifier)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._has_terminal = _has_terminal()
        self._ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    async def run(self) -> int:
        """
        Supervise until a signal ends it.

        Returns:
            The exit status: 0 after a regular end, the first worker's if that could not start.
        """
        self._catch_signals(asyncio.get_running_loop())
        with self._notifier.watched(asyncio.get_running_loop()):
            living = asyncio.ensure_future(self._crew.work())
            stopping = asyncio.ensure_future(self._stop.wait())
            try:
                await asyncio.wait((living, stopping), return_when=asyncio.FIRST_COMPLETED)
                status = living.result() if living.done() else 0
            finally:
                for task in (living, stopping):
                    task.cancel()
                await asyncio.gather(living, stopping, return_exceptions=True)
                await self._end()
        return status

    async def _end(self) -> None:
        """
        End all workers: in their time, or within a second of a second signal.
        """
        self._notifier.stopping()
        self._crew.end()
        # Until then there are workers that accept; later nobody would.
        closing = asyncio.get_running_loop().call_later(self._drain_delay, self._sock.close)
        ended = asyncio.ensure_future(self._crew.wait_ended())
        hurried = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((ended, hurried), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            self._crew.hurry(HURRY_SECONDS)
        await ended
        hurried.cancel()
        closing.cancel()

    def _catch_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Handle every signal that means something to a supervisor.
        """
        loop.add_signal_handler(signal.SIGCHLD, self._crew.reap)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        # What came since this process began to replace another is heard now.
        _mask_signals(signal.SIG_UNBLOCK)

    def _on_signal(self) -> None:
        """
        End, and hurry at the second time.
        """
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _on_hangup(self) -> None:
        """
        Replace all workers; but a terminal that was closed means the end, except under nohup.
        """
        if self._has_terminal and not _has_terminal():
            self._has_terminal = False
            going_on = self._ignores_hangup
            log.logger.info("The terminal was closed; %s", "going on" if going_on else "ending")
            if not going_on:
                self._on_signal()
            return
        self._crew.renew()


def become_supervisor(options: ServerOptions) -> NoReturn:
    """
    Replace this process, which has loaded settings and much else, by a supervisor.

    The process id stays, and so do the descriptors that this process inherited. Workers are
    started as this process was: same arguments, same folder, same environment.

    Raises:
        ConfigurationError: The interpreter is not to be found.
    """
    environ = _original_environ()
    path = environ.get("PYTHONPATH")
    command = [sys.executable, *sys.orig_argv[1:]]
    home = str(Path(__file__).parents[2])
    if Path(home).name not in {"site-packages", "dist-packages"}:
        # It may have been found in a way that a fresh interpreter knows nothing of.
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, (path, home)))
    environ[VARIABLE] = json.dumps({"options": asdict(options), "command": command, "path": path})
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    _return()
    arguments = [sys.executable, "-P", "-m", "fairway.server.supervisor"]
    # Until the supervisor has handlers a signal would end it without a word.
    _mask_signals(signal.SIG_BLOCK)
    try:
        os.execve(sys.executable, arguments, environ)  # noqa: S606 - our own interpreter
    except OSError as error:
        _mask_signals(signal.SIG_UNBLOCK)
        raise ConfigurationError(
            f"workers: Python cannot be started as {sys.executable!r} ({error.strerror}); "
            "start the command with the full path of an interpreter",
            fault=Fault.FLAGS_CONFLICT,
        ) from None


def main() -> int:
    """
    Supervise as the process was told that this one replaced.
    """
    logging.basicConfig(format=log.FORMAT, level=logging.INFO)
    return log.exit_status(_supervise)


def _supervise() -> int:
    """
    Open what the options name and run a supervisor.

    Raises:
        ConfigurationError: Something cannot be had, or nobody said what to supervise.
    """
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        raise ConfigurationError(
            "start it with: fairway module:app --workers N", fault=Fault.UNKNOWN_FLAG
        )
    given: dict[str, Any] = json.loads(text)
    if given["path"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = given["path"]
    options = ServerOptions(**given["options"])
    notifier = Notifier.take(os.environ)
    with listen.bind(options) as sock, pid_file(options.pid_file):
        supervisor = Supervisor(options, given["command"], dict(os.environ), sock, notifier)
        return asyncio.run(supervisor.run())


def _original_environ() -> dict[str, str]:
    """
    Give the environment that this process was started with.

    A project may read a file of settings into its environment, and a value that is there wins
    over the file; workers that inherited it would never see the file change.
    """
    with suppress(OSError):
        entries = Path("/proc/self/environ").read_bytes().rstrip(b"\0").split(b"\0")
        # A program that changes its title in the process list writes over this place.
        if all(b"=" in entry for entry in entries):
            return dict(os.fsdecode(entry).split("=", 1) for entry in entries)
    return dict(os.environ)


def _return() -> None:
    """
    Go back to the folder that this process was started in, which a project may have left.

    The command line names its program from there.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    # Python puts the folder before the name that was given, and changes nothing else.
    if script is not None and script.endswith(f"{os.sep}{sys.argv[0]}"):
        with suppress(OSError):
            os.chdir(script.removesuffix(sys.argv[0]))


def _mask_signals(how: int) -> None:
    """
    Hold back what a supervisor is told by others, or let it through.
    """
    signal.pthread_sigmask(how, {signal.SIGHUP, signal.SIGINT, signal.SIGTERM})


def _has_terminal() -> bool:
    """
    Whether this process can be hung up on.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
