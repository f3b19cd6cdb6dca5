"""
systemd's notifications on a real socket, and the pid file.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairway.exceptions import ConfigurationError
from fairway.server.notify import Notifier, pid_file


@pytest.fixture
def address() -> Iterator[str]:
    """
    A path short enough for a socket.
    """
    folder = tempfile.mkdtemp(prefix="fw", dir="/tmp")
    yield f"{folder}/notify"
    shutil.rmtree(folder)


@pytest.fixture
def heard(address: str) -> Iterator[socket.socket]:
    """
    What systemd listens on.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(5)
        yield sock


class TestNotifier:
    """
    ``sd_notify``.
    """

    def test_messages(self, address: str, heard: socket.socket) -> None:
        """
        Each is one datagram, in the words of sd_notify(3).
        """
        notifier = Notifier(address)
        notifier.ready("Serving")
        notifier.reloading()
        notifier.stopping()
        assert heard.recv(4096) == b"READY=1\nSTATUS=Serving"
        word, microseconds = heard.recv(4096).split(b"\n")
        assert word == b"RELOADING=1"
        assert microseconds.startswith(b"MONOTONIC_USEC=")
        assert heard.recv(4096) == b"STOPPING=1"

    def test_abstract(self) -> None:
        """
        A name that begins with @ is one of Linux's abstract sockets.
        """
        name = f"fairway-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(f"\0{name}")
            sock.settimeout(5)
            Notifier(f"@{name}").stopping()
            assert sock.recv(4096) == b"STOPPING=1"

    def test_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        Without systemd nothing is sent, and nothing said.
        """
        Notifier.take({}).ready("Serving")
        assert not caplog.records

    def test_unreachable(self, address: str, caplog: pytest.LogCaptureFixture) -> None:
        """
        A socket that nobody listens on is reported once, and ends nothing.
        """
        notifier = Notifier(address)
        notifier.ready("Serving")
        notifier.stopping()
        assert [record.getMessage() for record in caplog.records] == [
            "NOTIFY_SOCKET cannot be written to: [Errno 2] No such file or directory"
        ]

    def test_full(self, address: str, heard: socket.socket) -> None:
        """
        A listener that reads nothing holds nobody up.
        """
        notifier = Notifier(address)
        for _ in range(2_000):
            notifier.stopping()
        assert heard.recv(4096) == b"STOPPING=1"

    @pytest.mark.parametrize(
        ("variables", "seconds"),
        [
            ({"WATCHDOG_USEC": "3000000"}, 1.5),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0),
            ({"WATCHDOG_USEC": "soon"}, 0),
            ({}, 0),
        ],
    )
    def test_environment(self, variables: dict[str, str], seconds: float) -> None:
        """
        What is meant for this process is taken, and nothing is left for its children.
        """
        environ = {"NOTIFY_SOCKET": "/run/notify", **variables, "OTHER": "kept"}
        assert Notifier.take(environ).watchdog == seconds
        assert environ == {"OTHER": "kept"}

    async def test_watchdog(self, address: str, heard: socket.socket) -> None:
        """
        Signs of life come for as long as the loop turns, and end with it.
        """
        heard.setblocking(False)
        loop = asyncio.get_running_loop()
        notifier = Notifier(address, watchdog=0.01)
        with notifier.watched(loop):
            for _ in range(3):
                async with asyncio.timeout(5):
                    assert await loop.sock_recv(heard, 4096) == b"WATCHDOG=1"
        assert notifier._timer is not None
        assert notifier._timer.cancelled()


class TestPidFile:
    """
    ``--pid-file``.
    """

    def test_kept(self, tmp_path: Path) -> None:
        """
        It holds the process id and one line's end, whatever was in it, and goes with the process.
        """
        path = tmp_path / "pid"
        path.write_text("99999999\n")
        with pid_file(str(path)):
            assert path.read_text() == f"{os.getpid()}\n"
        assert list(tmp_path.iterdir()) == []

    def test_none(self) -> None:
        """
        Without a path there is none.
        """
        with pid_file(None):
            pass

    def test_taken_over(self, tmp_path: Path) -> None:
        """
        A file that names another process by now is that one's.
        """
        path = tmp_path / "pid"
        with pid_file(str(path)):
            path.write_text("1\n")
        assert path.read_text() == "1\n"

    def test_removed(self, tmp_path: Path) -> None:
        """
        A file that somebody removed is not missed.
        """
        path = tmp_path / "pid"
        with pid_file(str(path)):
            path.unlink()

    @pytest.mark.parametrize(
        ("name", "said"), [("no/pid", "no such file or directory"), ("", "is a directory")]
    )
    def test_wrong(self, tmp_path: Path, name: str, said: str) -> None:
        """
        A file that cannot be written is said, with what to do, and nothing is left behind.
        """
        path = tmp_path / "folder" / name
        (tmp_path / "folder").mkdir()
        with (
            pytest.raises(ConfigurationError, match=f"--pid-file .*: {said}; name a file in"),
            pid_file(str(path)),
        ):
            pass
        assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
        assert list((tmp_path / "folder").iterdir()) == []
