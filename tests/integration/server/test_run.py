"""
The whole life of a server in one process: hooks, start, stop, and everything that can go wrong.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from fairway.logs import StderrHandler
from fairway.options import ServerOptions
from fairway.server import Server, run as run_module
from fairway.server.log import exit_status
from fairway.server.worker import Worker
from fairway.types import ASGIApplication, Receive, Scope, Send

SECONDS_MAX = 10


class Life:
    """
    What happened, in order.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.loops: list[asyncio.AbstractEventLoop] = []

    async def on_start(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Note the start.
        """
        self.events.append("on_start")
        self.loops.append(loop)

    async def on_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Note the end.
        """
        self.events.append("on_stop")

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer requests and go along with the lifespan.
        """
        if scope["type"] != "lifespan":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": scope["path"].encode()})
            return
        for phase in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{phase}"
            self.events.append(phase)
            await send({"type": f"lifespan.{phase}.complete"})

    def load(self) -> ASGIApplication:
        """
        Note the loading.
        """
        self.events.append("load")
        return self.application


@pytest.fixture
def life() -> Life:
    """
    What happens to one server.
    """
    return Life()


@pytest.fixture(autouse=True)
def collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Garbage collector and threads of this process stay as the other tests need them.
    """
    monkeypatch.setattr(run_module, "_relieve_collector", lambda: None)
    monkeypatch.setattr(run_module, "_favour_loop", lambda: None)


Start = Callable[..., Server]


@pytest.fixture
def start(life: Life) -> Iterator[Start]:
    """
    Runs servers in threads until the test ends.
    """
    running: list[tuple[Server, threading.Thread]] = []

    def start_server(**options: Any) -> Server:
        server = Server(
            ServerOptions(port=0, **options),
            life.load,
            life.on_start,
            life.on_stop,
            life.events.append,
        )
        thread = threading.Thread(target=server.run)
        running.append((server, thread))
        thread.start()
        assert server.started.wait(SECONDS_MAX)
        return server

    yield start_server
    for server, thread in running:
        server.stop(drain=0)
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()


def get(server: Server, path: str = "/") -> bytes:
    """
    Make a request on a connection of its own.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS_MAX)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


class TestLife:
    """
    From loading to the end.
    """

    @pytest.mark.parametrize(
        ("loop", "kind"),
        [
            ("asyncio", asyncio.SelectorEventLoop),
            ("uvloop", uvloop.Loop),
            ("auto", uvloop.Loop),
        ],
    )
    def test_order(self, life: Life, start: Start, loop: str, kind: type) -> None:
        """
        Everything happens once and in order, on the loop that was chosen.
        """
        server = start(loop=loop)
        assert server.address == f"http://127.0.0.1:{server.port}/"
        assert get(server, "/page") == b"/page"
        server.stop()
        assert server.stopped.wait(SECONDS_MAX)
        assert life.events == [
            "load",
            "on_start",
            "startup",
            server.address,
            "shutdown",
            "on_stop",
        ]
        assert isinstance(life.loops[0], kind)
        with pytest.raises(ConnectionRefusedError):
            get(server)

    def test_lifespan_off(self, life: Life, start: Start) -> None:
        """
        Without lifespan the application is not asked.
        """
        server = start(lifespan="off")
        assert get(server) == b"/"
        server.stop()
        assert server.stopped.wait(SECONDS_MAX)
        assert "startup" not in life.events

    def test_inherited_socket(self, start: Start) -> None:
        """
        A socket of the parent process is served.
        """
        with socket.create_server(("127.0.0.1", 0)) as parent:
            server = start(fd=os.dup(parent.fileno()))
            assert server.port == parent.getsockname()[1]
            assert get(server) == b"/"

    def test_delay(self, start: Start) -> None:
        """
        Between the signal and the end of accepting there may be a delay, cut short by a second one.
        """
        server = start(drain_delay=60)
        server.stop()
        assert get(server) == b"/"
        server.stop()
        assert server.stopped.wait(SECONDS_MAX)

    def test_drain_zero(self, life: Life, start: Start) -> None:
        """
        Without time to drain the application's end is still awaited.
        """
        server = start()
        server.stop(drain=0)
        assert server.stopped.wait(SECONDS_MAX)
        assert life.events[-2:] == ["shutdown", "on_stop"]

    def test_every_answer_has_its_line(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What was answered up to the very end is in the access log, once.
        """
        said = io.StringIO()
        monkeypatch.setattr(sys, "stderr", said)
        logger = logging.getLogger("tests.access.end")
        monkeypatch.setattr(logger, "propagate", False)
        monkeypatch.setattr(logger, "handlers", [StderrHandler()])
        monkeypatch.setattr(logger, "level", logging.INFO)
        server = start(access_log=True, access_logger="tests.access.end")
        answered: list[str] = []

        def ask(name: int) -> None:
            with suppress(OSError, http.client.HTTPException):
                for number in range(1000):
                    path = f"/{name}-{number}"
                    assert get(server, path) == path.encode()
                    answered.append(path)

        threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 20:
            time.sleep(0.001)
        server.stop(drain=0)
        assert server.stopped.wait(SECONDS_MAX)
        for thread in threads:
            thread.join()
        logged = re.findall(
            r"(?m)^.* INFO tests\.access\.end: 127\.0\.0\.1 GET (\S+) 200$", said.getvalue()
        )
        assert len(logged) == len(set(logged))
        assert set(answered) <= set(logged)

    def test_stop_while_loading(self, life: Life) -> None:
        """
        A stop that comes before there is a loop is not forgotten.
        """

        def load() -> ASGIApplication:
            server.stop()
            return life.application

        server = Server(ServerOptions(port=0), load)
        assert server.run() == 0
        assert life.events == ["startup", "shutdown"]

    def test_broken_drain(self, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A drain that fails is not silent, and costs the application its end no more than the hooks.
        """

        async def fail(self: Worker, seconds: float) -> None:
            raise ValueError("drain")

        monkeypatch.setattr(Worker, "drain", fail)
        server = Server(
            ServerOptions(port=0), life.load, on_stop=life.on_stop, on_ready=lambda _: server.stop()
        )
        with pytest.raises(ValueError, match="drain"):
            server.run()
        assert life.events == ["load", "startup", "shutdown", "on_stop"]

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_broken_announcement(self, life: Life, loop: str) -> None:
        """
        Whoever cannot be told the address ends the server, in good order.
        """

        def say(address: str) -> None:
            raise BrokenPipeError

        server = Server(ServerOptions(port=0, loop=loop), life.load, on_ready=say)
        with pytest.raises(BrokenPipeError):
            server.run()
        assert life.events == ["load", "startup", "shutdown"]


class TestFailingStart:
    """
    A start that does not succeed: exit status 2 and one line.
    """

    def test_lifespan(self, life: Life, capsys: pytest.CaptureFixture[str]) -> None:
        """
        An application that says that its start failed ends the server's; the hooks are undone.
        """

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        server = Server(ServerOptions(port=0), lambda: application, life.on_start, life.on_stop)
        assert exit_status(server.run) == 2
        line = "fairway: the application's start failed: no database [fairway.R111]\n"
        assert capsys.readouterr().err == line
        assert life.events == ["on_start", "on_stop"]

    def test_missing_uvloop(
        self, life: Life, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Uvloop is needed only by who asks for it.
        """
        monkeypatch.setitem(sys.modules, "uvloop", None)
        assert exit_status(Server(ServerOptions(loop="uvloop"), life.load).run) == 2
        assert capsys.readouterr().err == (
            "fairway: --loop uvloop: uvloop is not installed; install it or use --loop asyncio "
            "[fairway.R103]\n"
        )
        assert run_module.loop_factory("auto") is asyncio.new_event_loop

    def test_load(self, life: Life) -> None:
        """
        An exception of the application's own code comes out as it is, and frees the port.
        """

        def load() -> ASGIApplication:
            raise ZeroDivisionError

        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with pytest.raises(ZeroDivisionError):
            Server(ServerOptions(port=port), load).run()
        socket.create_server(("127.0.0.1", port)).close()


def test_worn_at_different_times() -> None:
    """
    Workers that started together are worn at different times, a tenth earlier or later at most.
    """
    numbers = {run_module._jittered(1000) for _ in range(100)}
    assert 900 <= min(numbers) < max(numbers) <= 1100
    assert (run_module._jittered(1), run_module._jittered(0)) == (1, 0)
