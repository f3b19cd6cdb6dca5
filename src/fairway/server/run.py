"""
One worker in one process: from options to an exit status.

Settles where to listen, loads the application, runs the loop until a signal or
``stop()``, and drains. Several processes build on this and do not change it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

from fairway.exceptions import ConfigurationError
from fairway.options import ServerOptions, validate
from fairway.server import listen
from fairway.server.lifespan import Lifespan
from fairway.server.worker import Worker

if TYPE_CHECKING:
    import socket
    import ssl

    from fairway.types import ASGIApplication

__all__ = ["Server", "run"]

Hook: TypeAlias = Callable[[asyncio.AbstractEventLoop], Awaitable[None]]

COLLECT_EVERY = 10_000
"""
New objects between two runs of the collector's youngest generation.
"""

ABORT_SECONDS = 0.9
"""
Time that a hurried end may take before the process is simply ended.
"""


class Server:
    """
    Serves an application until it is told to stop.

    ``run()`` blocks; every other method may be called from any thread.

    Attributes:
        started: Set once connections are accepted.
        address: Where it listens, for people; empty before it does.
        port: The TCP port it listens on, 0 for other sockets.
    """

    def __init__(
        self,
        options: ServerOptions,
        load: Callable[[], ASGIApplication],
        on_start: Hook | None = None,
        on_stop: Hook | None = None,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        """
        Remember what to serve.

        Args:
            options: Where to listen, and the limits.
            load: Gives the application; called once, before the loop runs.
            on_start: Awaited on the loop before the application's lifespan starts.
            on_stop: Awaited on the loop after everything has ended.
            on_ready: Called with the address once connections are accepted.
        """
        self._options = options
        self._load = load
        self._on_start = on_start
        self._on_stop = on_stop
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._hurry: asyncio.Event | None = None
        self._drain: float | None = None
        self._stop_asked = False
        self.started = threading.Event()
        self.stopped = threading.Event()
        self.address = ""
        self.port = 0

    def run(self) -> int:
        """
        Serve until stopped.

        Returns:
            The exit status: 0 after a regular end.

        Raises:
            ConfigurationError: The start is not possible as configured.
        """
        options = self._options
        validate(options)
        tls = listen.tls_context(options)
        factory = _loop_factory(options.loop)
        sock = listen.bind(options)
        try:
            application = self._load()
            _relieve_collector()
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(self._main(application, sock, tls))
        finally:
            sock.close()
            self.stopped.set()
        return 0

    def stop(self, *, drain: float | None = None) -> None:
        """
        Begin the end; a second call makes it hurry. Does not wait.

        Args:
            drain: Seconds that connections get, None for what the options say.
        """
        self._stop_asked = True
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._begin_stop, drain)

    def _begin_stop(self, drain: float | None = None) -> None:
        """
        Wake the main coroutine. Event-loop thread only.
        """
        assert self._stop is not None  # noqa: S101 - made before anybody can call this
        assert self._hurry is not None  # noqa: S101 - as above
        if self._stop.is_set():
            self._hurry.set()
        if drain is not None:
            self._drain = drain
        self._stop.set()

    def _on_signal(self) -> None:
        """
        End because a signal says so; at a second one end within a second.
        """
        if self._stop is not None and self._stop.is_set():
            timer = threading.Timer(ABORT_SECONDS, os._exit, (1,))
            timer.daemon = True
            timer.start()
        self._begin_stop()

    async def _main(
        self, application: ASGIApplication, sock: socket.socket, tls: ssl.SSLContext | None
    ) -> None:
        """
        Live through the whole life of the loop.
        """
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        loop = self._loop = asyncio.get_running_loop()
        if self._stop_asked:
            # While the application was being loaded.
            self._stop.set()
        executor = ThreadPoolExecutor(self._options.threads, thread_name_prefix="fairway")
        loop.set_default_executor(executor)
        self._catch_signals(loop)
        try:
            if self._on_start is not None:
                await self._on_start(loop)
            lifespan = Lifespan(application, self._options.lifespan)
            if self._options.lifespan != "off":
                await lifespan.startup()
            worker = Worker(self._options, application, lifespan.state)
            try:
                await worker.serve(sock, tls)
                self._announce(sock, secure=tls is not None)
                await self._stop.wait()
            finally:
                await self._end(worker, lifespan)
        finally:
            if self._on_stop is not None:
                await self._on_stop(loop)

    def _announce(self, sock: socket.socket, *, secure: bool) -> None:
        """
        Say that connections are accepted.
        """
        self.address = listen.describe(sock, secure=secure)
        self.port = listen.port(sock)
        self.started.set()
        if self._on_ready is not None:
            self._on_ready(self.address)

    async def _end(self, worker: Worker, lifespan: Lifespan) -> None:
        """
        Drain, unless hurried, and end the application.
        """
        assert self._hurry is not None  # noqa: S101 - made in _main
        try:
            if self._drain is None and self._options.drain_delay:
                await _first(asyncio.sleep(self._options.drain_delay), self._hurry.wait())
            seconds = self._options.drain if self._drain is None else self._drain
            await _first(worker.drain(seconds), self._hurry.wait())
        finally:
            worker.abort()
            hurried = self._hurry.is_set()
            timeout = self._options.application_close_timeout
            await lifespan.shutdown(ABORT_SECONDS / 2 if hurried else timeout)
            worker.close()

    def _catch_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Handle SIGTERM and SIGINT, where this thread may, until the loop is closed.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal)


def run(
    options: ServerOptions,
    load: Callable[[], ASGIApplication],
    on_start: Hook | None = None,
    on_stop: Hook | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> int:
    """
    Serve an application from the main thread of a process: ``Server`` for commands.

    Returns:
        The exit status: 2 after a wrong configuration, which is printed as one line.
    """
    try:
        return Server(options, load, on_start, on_stop, on_ready).run()
    except ConfigurationError as error:
        print(f"fairway: {error}", file=sys.stderr)  # noqa: T201 - logging may not be set up yet
        return 2


def _relieve_collector() -> None:
    """
    Keep the garbage collector from walking what start-up made, and from walking too often.

    What a request makes dies by its reference counts. With Python's default of one collection
    per 700 new objects, looking for cycles costs a twelfth of a request (measured).
    """
    gc.collect()
    gc.freeze()
    first, *others = gc.get_threshold()
    gc.set_threshold(max(first, COLLECT_EVERY), *others)


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """
    Find the event loop that a name stands for.
    """
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigurationError(
                    "--loop uvloop: uvloop is not installed; install it or use --loop asyncio"
                ) from None
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop


async def _first(*awaitables: Awaitable[object]) -> None:
    """
    Wait for the first of several, and cancel the others; raise what it raised.
    """
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
