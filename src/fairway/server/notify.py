"""
What a server tells whoever started it: systemd's notifications and the pid file.

Both are optional and neither may ever end a server that runs: what cannot be sent
is said once, what cannot be written is found before the application is loaded.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.server import log

if TYPE_CHECKING:
    import asyncio

__all__ = ["Notifier", "pid_file"]


class Notifier:
    """
    Sends ``sd_notify`` messages, if somebody listens for them.

    Attributes:
        watchdog: Seconds between two signs of life, 0 if nobody waits for any.
    """

    def __init__(self, path: str = "", watchdog: float = 0.0) -> None:
        """
        Remember where to send to.

        Args:
            path: The datagram socket; with ``@`` in front an abstract one; empty for nobody.
            watchdog: Seconds between two signs of life, 0 for none.
        """
        # systemd writes the zero byte of an abstract name as "@".
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._failed = False
        self._timer: asyncio.TimerHandle | None = None
        self.watchdog = watchdog if path else 0.0

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Notifier:
        """
        Take what is meant for this process out of the environment, so that no child believes it.
        """
        path = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        addressee = environ.pop("WATCHDOG_PID", "")
        if not microseconds.isdecimal() or addressee not in {"", str(os.getpid())}:
            return cls(path)
        # Half of the time, as sd_watchdog_enabled(3) recommends.
        return cls(path, int(microseconds) / 1_000_000 / 2)

    def ready(self, status: str) -> None:
        """
        Say that the server serves, again after ``reloading``.
        """
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """
        Say that a rolling restart begins.
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """
        Say that the end has begun.
        """
        self._send("STOPPING=1")

    @contextmanager
    def watched(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """
        Give signs of life for as long as a loop turns, if somebody waits for them.
        """

        def beat() -> None:
            self._send("WATCHDOG=1")
            self._timer = loop.call_later(self.watchdog, beat)

        if self.watchdog:
            beat()
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _send(self, *lines: str) -> None:
        """
        Send one message. Never waits, and says only once that it cannot.
        """
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                log.logger.warning("NOTIFY_SOCKET cannot be written to: %s", error)


@contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """
    Keep the process id in a file. Writes it, so not for an event loop's thread.

    Args:
        path: The file, whose previous contents are replaced; None or empty for no file.

    Raises:
        ConfigurationError: It cannot be written.
    """
    if not path:
        yield
        return
    file = Path(path)
    try:
        # A reader never sees an empty file.
        new = file.with_name(f"{file.name}.{os.getpid()}")
        new.write_text(f"{os.getpid()}\n")
        new.replace(file)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        words = (error.strerror or str(error)).lower()
        raise ConfigurationError(
            f"--pid-file {path}: {words}; name a file in a folder this user may write to",
            fault=Fault.ADDRESS_INVALID,
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            if file.read_text() == f"{os.getpid()}\n":
                file.unlink()
