"""
Scripts in processes of their own, spoken to by lines and ended by their number.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Self

NOBODY = 65534
"""
The user id of ``nobody``.
"""

BEGIN = """
    import asyncio, os, socket, sys, threading, time, zlib
    from pathlib import Path
    from fairway.exceptions import ChannelFull, ChannelLayerUnavailable, ConfigurationError
    from fairway.layers.brokers.ipc import rendezvous
    from fairway.layers.brokers.ipc.queues import SQLiteQueues
    from fairway.layers.brokers.ipc.rendezvous import check_peer, open_directory

    def become_nobody():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)

    def say(*values):
        os.write(1, (" ".join(map(str, values)) + "\\n").encode())  # Whole, from any thread.

    path = Path(sys.argv[1])
"""
"""
What each script begins with: names imported while it may still read them, and its path.
"""


class Child:
    """
    A process that runs a script; killed at the end of the ``with`` block at the latest.
    """

    def __init__(self, path: Path, script: str, *arguments: object) -> None:
        """
        Start a script, whose ``path`` is the one given and ``sys.argv[2:]`` the arguments.
        """
        source = textwrap.dedent(BEGIN) + textwrap.dedent(script)
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, str(path), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": "."},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def hear(self, timeout: float = 10) -> str:
        """
        Wait for the next line; empty once the process has ended.
        """
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        assert ready, f"no line came within {timeout} s"
        return self.process.stdout.readline().decode().rstrip("\n")

    def rest(self) -> list[str]:
        """
        Wait for the end, and give the lines that were left.
        """
        assert self.process.stdout is not None
        lines = self.process.stdout.read().decode().splitlines()
        assert self.process.wait(10) == 0
        return lines

    def said(self) -> list[str]:
        """
        Give the whole lines that one which was killed had said.
        """
        assert self.process.stdout is not None
        *lines, _ = self.process.stdout.read().decode().split("\n")
        return lines

    def tell(self, line: object = "") -> None:
        """
        Send a line.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def signal(self, number: int) -> None:
        """
        Send a signal, if it still runs.
        """
        if self.process.poll() is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """
        End it at once, and wait until it is over.
        """
        self.signal(signal.SIGKILL)
        self.process.wait()
