"""
The real server in a thread of the test's own process.

Nothing is imitated: the server, its channel layer and its threads are those of ``manage.py
serve``. Only what belongs to a process is left out: signals, log set-up, the tuning of the
garbage collector. What test cases and pytest make of it lives in their modules.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.http import HttpRequest
from django.test import modify_settings
from django.views.static import serve

from fairway.asgi import resolve_application, with_static_files
from fairway.cli import life_of, make_threads
from fairway.conf import resolve_server_options
from fairway.pages.files import StaticFiles
from fairway.server import Server, listen
from fairway.server.place import Alone
from fairway.testing.databases import SharedDatabases, SharedLedger

if TYPE_CHECKING:
    import socket
    from typing import Self

    from fairway.options import ServerOptions
    from fairway.threads import Threads
    from fairway.types import ASGIApplication

    Wrapper: TypeAlias = Callable[[Any], Any]

__all__ = ["LiveServer"]

START_SECONDS = 30.0
"""
Time for the application to be loaded and its lifespan to begin.
"""

DRAIN_SECONDS = 1.0
"""
Time that clients which are still connected get at the end.
"""

STOP_SECONDS = 20.0
"""
Time for the thread to end, application and all.
"""


class LiveServer:
    """
    Serves an application on a free port for as long as a ``with`` or ``async with`` block lasts.

    In the test's own process, so what the test changes, patches and broadcasts counts in the
    server too. Databases in memory are shared with the test; then one thread does all synchronous
    work of the server, so that no two of its transactions meet. ``start`` and ``stop`` wait,
    and belong to the thread whose databases the test uses.

    Attributes:
        host: The name under which clients reach it.
        port: The port, 0 until it has started.
    """

    def __init__(
        self,
        application: Any = None,
        *,
        host: str = "localhost",
        port: int = 0,
        static: bool | Wrapper = True,
        **options: Any,
    ) -> None:
        """
        Prepare; nothing happens before ``start``.

        Args:
            application: An ASGI application, a consumer class, or ``module:name``. None is what
                ``manage.py serve`` would serve.
            host: Where to listen; may be used in addition to ``ALLOWED_HOSTS`` meanwhile.
            port: A port; 0 for a free one.
            static: Whether static and media files are served, whatever ``DEBUG`` says. A
                callable is given the application and returns what serves them.
            options: Options of the server by their field's name, in the place of the settings'.
        """
        self.host = host
        self.port = port
        self._wanted_port = port
        self._application = application
        self._static = static
        self._options = options
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._undo = ExitStack()

    @property
    def url(self) -> str:
        """
        Where pages are, without a slash at the end.
        """
        return self._url("http")

    @property
    def ws_url(self) -> str:
        """
        Where WebSockets are, without a slash at the end.
        """
        return self._url("ws")

    def start(self) -> None:
        """
        Start, and wait until connections are accepted.

        Raises:
            Exception: Whatever kept it from starting.
            TimeoutError: It did not start within half a minute.
        """
        self._prepare(SharedDatabases() if apps.ready else None)
        try:
            self._launch()
        except BaseException:
            self._abandon()
            raise

    def stop(self) -> None:
        """
        Close what is connected (1012), end the application and wait for the thread's end.

        Does nothing if it does not run.

        Raises:
            Exception: Whatever ended it before.
            RuntimeError: It did not end in time.
        """
        try:
            self._finish()
        finally:
            self._undo.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        # On a loop Django has other connections than in the thread of the test's own queries.
        databases = await sync_to_async(SharedDatabases)() if apps.ready else None
        self._prepare(databases)
        try:
            await asyncio.to_thread(self._launch)
        except BaseException:
            await asyncio.to_thread(self._abandon)
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        # The clients may live on this loop, and have to answer the end.
        try:
            await asyncio.to_thread(self._finish)
        finally:
            self._undo.close()

    def __str__(self) -> str:
        return self.url

    def __add__(self, path: str) -> str:
        return self.url + path

    def _prepare(self, databases: SharedDatabases | None) -> None:
        """
        Make the server, and change what the test and the server have in common.
        """
        if self._thread is not None:
            raise RuntimeError(f"the live server runs already, at {self.url}")
        options = self._resolve()
        with ExitStack() as undo:
            if databases is not None:
                databases.share()
                undo.callback(databases.unshare)
                undo.enter_context(modify_settings(ALLOWED_HOSTS={"append": [self.host]}))
            threads = _threads(options, databases)
            begin, end = life_of(threads)
            ready = threading.Event()
            self._error = None
            self._ready = ready
            self._server = Server(
                options,
                self._load,
                on_start=begin,
                on_stop=end,
                on_ready=lambda _: ready.set(),
                place=Beside(),
            )
            self._thread = threading.Thread(
                target=self._run,
                args=(self._server, databases, ready),
                name="fairway-live",
                daemon=True,
            )
            self._undo = undo.pop_all()

    def _launch(self) -> None:
        """
        Start the thread and wait for the server to begin or fail.
        """
        thread, server = self._thread, self._server
        assert thread is not None  # noqa: S101 - made in _prepare
        assert server is not None  # noqa: S101 - as above
        thread.start()
        if not self._ready.wait(START_SECONDS):
            raise TimeoutError(f"the live server did not start within {START_SECONDS:g} s")
        error, self._error = self._error, None
        if error is not None:
            raise error
        self.port = server.port

    def _abandon(self) -> None:
        """
        End what has not begun as it should.
        """
        with suppress(Exception):
            self.stop()

    def _finish(self) -> None:
        """
        End the server and its thread.
        """
        thread, server = self._thread, self._server
        if thread is None or server is None:
            return
        self._thread = self._server = None
        self.port = self._wanted_port
        server.stop(drain=DRAIN_SECONDS)
        thread.join(STOP_SECONDS)
        if thread.is_alive():
            raise RuntimeError(
                f"the live server did not end within {STOP_SECONDS:g} s; something in the "
                "application does not return"
            )
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(
        self, server: Server, databases: SharedDatabases | None, ready: threading.Event
    ) -> None:
        """
        Be the thread.
        """
        try:
            if databases is not None:
                databases.use_here()
            server.run()
        except BaseException as error:  # noqa: BLE001 - it is the test's
            self._error = error
        finally:
            if databases is not None:
                databases.leave_here()
                databases.close_opened()
            ready.set()

    def _load(self) -> ASGIApplication:
        """
        Find the application, and put files in front of it.
        """
        application = self._application
        static = self._static if isinstance(self._static, bool) else False
        if application is None or isinstance(application, str):
            application = resolve_application(application, static=static).application
        else:
            if inspect.isclass(application) and hasattr(application, "as_asgi"):
                application = application.as_asgi()
            application = with_static_files(application, static)
        if callable(self._static):
            application = self._static(application)
        elif static and apps.ready and settings.MEDIA_ROOT and settings.MEDIA_URL.strip("/"):
            application = MediaFilesHandler(application)
        found: ASGIApplication = application
        return found

    def _resolve(self) -> ServerOptions:
        """
        Put the options together.
        """
        # Browsers and tests take the name for the address of version 4 as well as 6.
        host = "127.0.0.1" if self.host == "localhost" else self.host
        flags = {"access_log": False, **self._options, "host": host, "port": self._wanted_port}
        return replace(resolve_server_options(flags)[0], uds=None, fd=None)

    def _url(self, scheme: str) -> str:
        """
        Give the address under a scheme, or the safe one that belongs to it.
        """
        server = self._server
        secure = server is not None and server.address.startswith("https:")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}{'s' if secure else ''}://{host}:{self.port}"


class Beside(Alone):
    """
    A place beside others in a process that belongs to none of them.
    """

    speaks = False
    owns_process = False

    @contextmanager
    def open(self, options: ServerOptions) -> Iterator[socket.socket]:
        """
        Open the listening socket, and nothing else that a process has once.
        """
        with listen.bind(options) as sock:
            yield sock


class MediaFilesHandler(StaticFiles):
    """
    Serves uploaded files, as Django's own live server does.
    """

    def get_base_url(self) -> str:
        """
        Say where they are.
        """
        return settings.MEDIA_URL

    def serve(self, request: HttpRequest) -> Any:
        """
        Give one file, or a 404.
        """
        path = self.file_path(request.path).lstrip("/")
        return serve(request, path, document_root=settings.MEDIA_ROOT)


def _threads(options: ServerOptions, databases: SharedDatabases | None) -> Threads:
    """
    Make the server's threads: one for everything where it shares the test's connections.
    """
    if databases is None or not databases.connections:
        return make_threads(options)
    threads = make_threads(replace(options, threads=1), SharedLedger.maker(databases))
    threads.pages = threads.consumers
    return threads
