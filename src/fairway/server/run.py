"""
One worker in one process: from options to an exit status.

Gets its listening socket from its place, loads the application, runs the loop until a
signal, a supervisor or ``stop()`` ends it, and drains.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.options import ServerOptions, validate
from fairway.server import listen
from fairway.server.lifespan import Lifespan
from fairway.server.place import Alone
from fairway.server.proxies import Proxies
from fairway.server.worker import Worker

if TYPE_CHECKING:
    import socket
    import ssl

    from fairway.server.place import Place
    from fairway.types import ASGIApplication

__all__ = ["Server", "end_soon", "loop_factory"]

Hook: TypeAlias = Callable[[asyncio.AbstractEventLoop], Awaitable[None]]

COLLECT_EVERY = 10_000
"""
New objects between two runs of the collector's youngest generation.
"""

SWITCH_SECONDS = 0.001
"""
How long a thread that computes keeps the loop waiting at least.
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
        place: Place | None = None,
    ) -> None:
        """
        Remember what to serve.

        Args:
            options: Where to listen, and the limits.
            load: Gives the application; called once, before the loop runs.
            on_start: Awaited on the loop before the application's lifespan starts.
            on_stop: Awaited on the loop after everything has ended.
            on_ready: Called with the address once connections are accepted.
            place: Where the process stands among others; None for on its own.
        """
        self._options = options
        self._load = load
        self._on_start = on_start
        self._on_stop = on_stop
        self._on_ready = on_ready
        self._place: Place = Alone() if place is None else place
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
        # Each worker makes its own: this is to find mistakes before the application is loaded.
        Proxies(options.trusted_proxies)
        factory = loop_factory(options.loop)
        with self._place.open(options) as sock:
            try:
                application = self._load()
                if self._place.owns_process:
                    _relieve_collector()
                    _favour_loop()
                with asyncio.Runner(loop_factory=factory) as runner:
                    runner.run(self._main(application, sock, tls))
            finally:
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

    def hurry(self) -> None:
        """
        End within a second, whatever connections and threads do. Does not wait.
        """
        end_soon()
        self.stop()
        self.stop()

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
        with self._place.joined(loop, self):
            try:
                if self._on_start is not None:
                    await self._on_start(loop)
                await self._serve(application, sock, tls)
            finally:
                if self._on_stop is not None:
                    await self._on_stop(loop)

    async def _serve(
        self, application: ASGIApplication, sock: socket.socket, tls: ssl.SSLContext | None
    ) -> None:
        """
        Serve from the application's start to its end.
        """
        assert self._stop is not None  # noqa: S101 - made in _main
        lifespan = Lifespan(application, self._options.lifespan)
        if self._options.lifespan != "off":
            await lifespan.startup()
        worker = Worker(self._options, application, lifespan.state, self._place.seat)
        worker.requests_max = _jittered(self._options.max_requests)
        worker.on_worn = self._place.worn
        try:
            await worker.serve(sock, tls)
            worker.ready = True
            self._announce(sock, secure=tls is not None)
            await self._stop.wait()
        finally:
            await self._end(worker, lifespan)

    def _announce(self, sock: socket.socket, *, secure: bool) -> None:
        """
        Say that connections are accepted.
        """
        self.address = listen.describe(sock, secure=secure)
        self.port = listen.port(sock)
        self.started.set()
        if self._on_ready is not None:
            self._on_ready(self.address)
        self._place.ready(self.address)

    async def _end(self, worker: Worker, lifespan: Lifespan) -> None:
        """
        Drain, unless hurried, and end the application.
        """
        assert self._hurry is not None  # noqa: S101 - made in _main
        worker.ready = False
        try:
            self._place.leaving()
            if self._drain is None and self._options.drain_delay:
                await _first(asyncio.sleep(self._options.drain_delay), self._hurry.wait())
            seconds = self._options.drain if self._drain is None else self._drain
            await _first(worker.drain(seconds), self._hurry.wait())
        finally:
            await worker.cut_off()
            hurried = self._hurry.is_set()
            timeout = self._options.application_close_timeout
            await lifespan.shutdown(ABORT_SECONDS / 2 if hurried else timeout)
            worker.close()


def _jittered(requests: int) -> int:
    """
    Vary a number by up to a tenth, so that workers started together are not replaced together.
    """
    return round(requests * random.uniform(0.9, 1.1))  # noqa: S311 - no secret


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


def _favour_loop() -> None:
    """
    Have threads that compute hand the interpreter over sooner.

    With Python's default of 5 ms, eight pages that compute let a socket wait for 50 ms; with this,
    for 7 ms. Handing over so often costs a page something, so ``threads.gauge`` has as few threads
    work at a time as get as much done.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))


def end_soon() -> None:
    """
    End this process within a second, whatever still runs in it.
    """
    timer = threading.Timer(ABORT_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """
    Find the event loop that a name stands for.
    """
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigurationError(
                    "--loop uvloop: uvloop is not installed; install it or use --loop asyncio",
                    fault=Fault.FLAGS_CONFLICT,
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
