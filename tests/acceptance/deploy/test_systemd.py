"""
What systemd does with a service: it passes sockets on, and is told how the service is.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.acceptance.deploy.site import Site
from tests.acceptance.project import Command, Project

ACTIVATE = 'export LISTEN_FDS=1 LISTEN_PID=${PID:-$$}; exec 3<&"$0" "$@"'
"""
What an activator does, in bash: the socket becomes descriptor 3, then the service takes its place.
"""


async def activate(
    project: Project, sock: socket.socket, *flags: str, **environment: str
) -> Command:
    """
    Start the project on a socket that listens already.

    Args:
        project: What to serve.
        sock: Passed on as systemd does it.
        flags: For ``serve``.
        environment: ``PID`` names another process in LISTEN_PID.
    """
    fd = sock.fileno()
    return await project.start(
        *("bash", "-c", ACTIVATE, str(fd), sys.executable, "manage.py", "serve", *flags),
        fds=(fd,),
        environment=environment,
    )


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """
    A socket that listens before anybody serves.
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


class Manager:
    """
    The end of the socket that systemd listens on for what services tell.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def told(self, wanted: str) -> dict[str, str]:
        """
        Wait for a message with some line, and give its variables.
        """
        async with asyncio.timeout(15):
            while True:
                data = await asyncio.get_running_loop().sock_recv(self.sock, 4096)
                lines = data.decode().splitlines()
                if wanted in lines:
                    return dict(line.split("=", 1) for line in lines)


@contextmanager
def manager(address: str) -> Iterator[Manager]:
    """
    Listen for what services tell.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(address.replace("@", "\0", 1))
        yield Manager(sock)


class TestSocketActivation:
    """
    ``LISTEN_FDS`` and ``LISTEN_PID``, sd_listen_fds(3).
    """

    @pytest.mark.parametrize("workers", ["1", "2"])
    async def test_own_socket(self, site: Project, sock: socket.socket, workers: str) -> None:
        """
        It serves on the socket passed on, and no worker's environment tells of it.
        """
        command = await activate(site, sock, "--workers", workers)
        address = "{}:{}".format(*sock.getsockname())
        assert await command.ready() == address
        assert (await Site(address).who())["inherited"] == []
        assert (await command.stop())[0] == 0

    async def test_client_before_the_service(self, site: Project, sock: socket.socket) -> None:
        """
        Who connects before the service is up waits, and who connects between two services too.
        """
        address = "{}:{}".format(*sock.getsockname())
        for _ in range(2):
            asking = asyncio.create_task(Site(address).who())
            command = await activate(site, sock)
            assert (await asking)["scheme"] == "http"
            assert (await command.stop())[0] == 0

    async def test_unix_socket(self, site: Project, folder: Path) -> None:
        """
        A Unix socket passed on is served, and its file is left to whoever made it.
        """
        path = folder / "web.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            sock.listen()
            command = await activate(site, sock)
            await command.expect(f"Serving on unix:{path}")
            assert (await command.stop())[0] == 0
        assert path.exists()

    @pytest.mark.parametrize("workers", ["1", "2"])
    async def test_socket_of_another_process(
        self, site: Project, sock: socket.socket, workers: str
    ) -> None:
        """
        Variables meant for another process are ignored, and not passed on.
        """
        command = await activate(site, sock, "--port", "0", "--workers", workers, PID="1")
        address = await command.ready()
        assert address != "{}:{}".format(*sock.getsockname())
        assert (await Site(address).who())["inherited"] == []
        assert (await command.stop())[0] == 0


class TestNotify:
    """
    ``NOTIFY_SOCKET``, sd_notify(3).
    """

    @pytest.mark.parametrize(("workers", "kind"), [("1", "abstract"), ("2", "path")])
    async def test_life(self, site: Project, folder: Path, workers: str, kind: str) -> None:
        """
        Ready is said when it serves, stopping at its end, by the process that was started.
        """
        address = str(folder / "notify") if kind == "path" else f"@{folder.name}"
        flags = ("--port", "0", "--workers", workers)
        with manager(address) as systemd:
            command = await site.manage("serve", *flags, NOTIFY_SOCKET=address)
            await systemd.told("READY=1")
            front = Site(await command.ready())
            assert (await front.who())["inherited"] == []
            command.process.send_signal(signal.SIGTERM)
            await systemd.told("STOPPING=1")
            assert (await command.ended())[0] == 0

    async def test_reload(self, site: Project, folder: Path) -> None:
        """
        A rolling restart says that it reloads and when, and then that it is ready again.
        """
        address = str(folder / "notify")
        flags = ("serve", "--port", "0", "--workers", "2")
        with manager(address) as systemd:
            command = await site.manage(*flags, NOTIFY_SOCKET=address)
            await systemd.told("READY=1")
            url, _ = Site(await command.ready()).websocket("/ws/who/")
            async with connect(url) as peer:
                before = json.loads(await peer.recv())["pid"]
                asked = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                command.process.send_signal(signal.SIGHUP)
                said = await systemd.told("RELOADING=1")
                assert int(said["MONOTONIC_USEC"]) >= asked
                status = (await systemd.told("READY=1"))["STATUS"]
                assert "with 2 workers" in status
                assert str(before) not in re.findall(r"\d+", status.partition("pids")[2])
                async with asyncio.timeout(5):
                    with pytest.raises(ConnectionClosed):
                        await peer.recv()
                assert peer.close_code == 1012
            assert (await command.stop())[0] == 0

    @pytest.mark.parametrize("workers", ["1", "2"])
    async def test_watchdog(self, site: Project, folder: Path, workers: str) -> None:
        """
        A watchdog is told in time, again and again, that the service lives.
        """
        address = str(folder / "notify")
        with manager(address) as systemd:
            command = await site.manage(
                *("serve", "--port", "0", "--workers", workers),
                NOTIFY_SOCKET=address,
                WATCHDOG_USEC="400000",
            )
            await systemd.told("READY=1")
            for _ in range(3):
                async with asyncio.timeout(0.4 * 5):
                    await systemd.told("WATCHDOG=1")
            front = Site(await command.ready())
            assert (await front.who())["inherited"] == []
            assert (await command.stop())[0] == 0

    async def test_nobody_listens(self, site: Project, folder: Path) -> None:
        """
        A notify socket that is gone keeps nobody from serving.
        """
        command = await site.manage("serve", "--port", "0", NOTIFY_SOCKET=str(folder / "missing"))
        assert (await Site(await command.ready()).who())["pid"] == command.process.pid
        assert (await command.stop())[0] == 0
