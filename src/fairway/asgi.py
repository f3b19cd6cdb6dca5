"""
The applications a server runs: everything, or pages alone; and which of all is meant.

``application`` serves pages and the consumers found in ``urls.py``, behind the Host and
Origin rule, with session and user; ``pages`` serves HTTP alone, for a project that
writes its own ``ProtocolTypeRouter``. Both are built on first use, so importing this
module needs no settings. ``resolve_application()`` says what a command is to serve.
"""

from __future__ import annotations

import copy
import pkgutil
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import django
from django.apps import apps
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

from fairway.auth import identify
from fairway.conf import django_setting
from fairway.consumers.application import shortcut
from fairway.consumers.hints import describe
from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.ratelimits import admit_address, connect_limits
from fairway.routing import Match, ProtocolTypeRouter, UrlconfRouter
from fairway.routing.census import count_in_urlconf, count_of
from fairway.routing.matching import PathRouter, nested_router
from fairway.routing.surroundings import restore
from fairway.routing.twins import BESIDE, CHOSEN
from fairway.routing.urlconf import enter_place, enter_route
from fairway.security import admit, admit_request
from fairway.sessions import OwnSession, read_cookies
from fairway.threads import enter, leave
from fairway.types import ASGIApplication, Receive, Scope, Send

__all__ = [
    "Application",
    "Pages",
    "Resolution",
    "application",
    "describe_routes",
    "import_application",
    "pages",
    "resolve_application",
]


class Pages:
    """
    HTTP alone: Django's pages, and its static files in development.

    Args:
        static: Whether static files are served: None for as ``DEBUG`` says, True for
            always, False for never; in any case only with ``django.contrib.staticfiles``.
    """

    def __init__(self, *, static: bool | None = None) -> None:
        self._static = static
        self._handler: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one request, with the threads of pages.
        """
        entered = enter(page=True)
        try:
            await self.build()(scope, receive, send)
        finally:
            leave(entered)

    def build(self) -> ASGIApplication:
        """
        Set Django up and load its middleware, once.
        """
        if self._handler is None:
            django.setup(set_prefix=False)
            # All of Django's handlers comes with it: not before there is a project.
            from fairway.pages import PageHandler

            self._handler = with_static_files(PageHandler(), self._static)
        handler: ASGIApplication = self._handler
        return handler


class PagesBeside(Pages):
    """
    Pages beside a router for WebSockets that the project wrote.

    A plain request for a path of that router is told what it lacks.
    """

    def __init__(self, sockets: PathRouter, *, static: bool | None = None) -> None:
        super().__init__(static=static)
        self._sockets = sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one request.
        """
        scope[BESIDE] = self._sockets
        await super().__call__(scope, receive, send)


class Application:
    """
    Pages, and the consumers found in ``urls.py``.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._router = UrlconfRouter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one connection.

        A WebSocket goes past Host and Origin, route, session and user to its consumer. All in this
        coroutine and one scope, which is the outermost and so this application's to change: a
        socket may rest for days on what is held here. The route comes before the user, so that a
        path nobody has costs no query.

        Raises:
            RouteNotFound: No consumer has the path of a WebSocket.
            ValueError: The scope has a type that is not served here.
        """
        kind = scope["type"]
        if kind == "http":
            consumers = self._router.serves_requests()
            if not (consumers and await self._http_consumer(scope, receive, send)):
                await self._pages(scope, receive, send)
            return
        if kind != "websocket":
            await self._other(kind, receive, send)
            return
        if not await admit(scope, receive, send):
            return
        if connect_limits() and not await admit_address(scope, receive, send):
            return
        entered = enter()
        undo = None
        try:
            match, undo = await enter_route(scope)
            scope["url_route"] = {"args": match.args, "kwargs": match.kwargs}
            await identify(scope)
            consumer = shortcut(match.application)
            del match  # A socket at rest needs it no more.
            await consumer(scope, receive, send)
        finally:
            leave(entered)
            restore(undo)

    def build(self) -> Application:
        """
        Set Django up and read the routes, so that their mistakes show before serving.
        """
        self._pages.build()
        self._router.load()
        return self

    async def _http_consumer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """
        Look for an HTTP consumer and have it answer.

        Returns:
            Whether there is one; else a page answers, outside of what was set for the consumer.
        """
        place = await enter_place(scope)
        try:
            match = place.tree.find_http(scope, place.urlconf)
            if match is not None:
                await self._answer(match, scope, receive, send)
            elif place.urlconf is not None:
                scope[CHOSEN] = place.urlconf
            return match is not None
        finally:
            restore(place.undo)

    async def _answer(self, match: Match, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Host and Origin, session and user, consumer: without Django's middleware, as sockets.
        """
        if not await admit_request(scope, receive, send):
            return
        if connect_limits() and not await admit_address(scope, receive, send):
            return
        # A match may be remembered, so its arguments are not the consumer's to change.
        scope["url_route"] = {"args": match.args, "kwargs": match.kwargs.copy()}
        scope["cookies"] = read_cookies(scope)
        # Saves what the consumer changes in the session, as the response starts.
        session = OwnSession(scope, send)
        entered = enter()
        try:
            await identify(scope)
            await shortcut(match.application)(scope, receive, session.send)
        finally:
            leave(entered)

    async def _other(self, kind: str, receive: Receive, send: Send) -> None:
        """
        Build at start-up where the server asks, and answer.
        """
        if kind != "lifespan":
            raise ValueError(f"No application configured for scope type {kind!r}")
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.startup":
                await self._start(send)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _start(self, send: Send) -> None:
        """
        Build, and tell the server if that fails: else it takes lifespan for unsupported.
        """
        try:
            self.build()
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            await send({"type": "lifespan.startup.failed", "message": message})
            raise


pages = Pages()
application = Application(pages)


class Resolution(NamedTuple):
    """
    What a command is to serve.

    Attributes:
        application: The application, ready.
        notes: What start-up has to say about the choice, one line each.
    """

    application: ASGIApplication
    notes: list[str]


def resolve_application(spec: str | None = None, *, static: bool | None = None) -> Resolution:
    """
    Find what to serve: what was asked for, else ``ASGI_APPLICATION``, else everything.

    Django's own ``ASGIHandler`` knows no WebSockets, so ``application`` takes its place,
    and inside a ``ProtocolTypeRouter`` ``pages`` does. Hence ``asgi.py`` may stay as
    ``startproject`` wrote it.

    Args:
        spec: ``module:name``, from the command line; None to go by the settings.
        static: Whether static files are served, as for ``Pages``.

    Raises:
        ConfigurationError: What is named cannot be imported or called.
    """
    everything = Application(Pages(static=static))
    named_by = "application" if spec else "ASGI_APPLICATION"
    spec = spec or getattr(settings, "ASGI_APPLICATION", None)
    if spec is None:
        return Resolution(everything.build(), [])
    given = import_application(spec, named_by)
    if given is application:
        return Resolution(everything.build(), [])
    if type(given) is ASGIHandler:
        note = (
            f"{spec} is Django's own handler; fairway.asgi.application serves in its place "
            f"[{Fault.DJANGO_HANDLER_REPLACED}]"
        )
        return Resolution(everything.build(), [note])
    if given is pages:
        return Resolution(_pages(static), [])
    if isinstance(given, ProtocolTypeRouter):
        return _with_pages(given, spec, static)
    return Resolution(with_static_files(given, static), [])


def describe_routes(found: Any) -> list[str]:
    """
    Say in a line for people how many WebSocket routes an application has, where that can be seen.
    """
    while isinstance(getattr(found, "application", None), Application | ProtocolTypeRouter):
        found = found.application  # What serves static files stands around it.
    if isinstance(found, Application):
        number, where = count_in_urlconf(), f" in {django_setting('ROOT_URLCONF', '')}"
    else:
        number, where = count_of(found), ""
    if number is None:
        return []
    return [f"{number} WebSocket route{'' if number == 1 else 's'}{where}, served by Fairway"]


def with_static_files(inner: Any, static: bool | None) -> Any:
    """
    Put Django's static files in front of an application, where they are to be served.
    """
    # Not ready means that the application is none of Django's.
    if static is False or not apps.ready or not apps.is_installed("django.contrib.staticfiles"):
        return inner
    if not (static or settings.DEBUG):
        return inner
    from fairway.pages.files import StaticFiles

    return StaticFiles(inner)


def import_application(spec: str, named_by: str = "application") -> Any:
    """
    Import an application by name.

    Args:
        spec: ``module:name`` or ``module.name``.
        named_by: The setting or argument that holds it, for the messages.

    Raises:
        ConfigurationError: It cannot be imported or called; one line, with the nearest name.
    """
    subject = f"{named_by} {spec!r}"
    path, _, name = spec.partition(":") if ":" in spec else spec.rpartition(".")
    if not path or not name or "/" in path or path.endswith(".py"):
        meant = f"{path.removesuffix('.py').strip('./').replace('/', '.')}:{name}"
        hint = f"; did you mean {meant!r}?" if path and name else ""
        raise ConfigurationError(
            f"{subject}: expected 'module:name' or 'module.name'{hint}",
            fault=Fault.APPLICATION_NOT_FOUND,
        )
    module = _import_module(path, subject)
    value: Any = module
    for part in name.split("."):
        if value is module and f"{path}.{part}" in _modules_in(path):
            _import_module(f"{path}.{part}", subject)
        if not hasattr(value, part):
            hint = _nearest(part, (each for each in dir(value) if not each.startswith("_")))
            raise ConfigurationError(
                f"{subject}: {path} has no {part!r}{hint}", fault=Fault.APPLICATION_NOT_FOUND
            )
        value = getattr(value, part)
    if isinstance(value, ModuleType) and callable(getattr(value, "application", None)):
        raise ConfigurationError(
            f"{subject}: this is a module; did you mean '{value.__name__}:application'?",
            fault=Fault.APPLICATION_NOT_FOUND,
        )
    if not callable(value) or type(value).__module__ == "django.core.handlers.wsgi":
        hint = "; did you mean that of asgi.py?" if callable(value) else ""
        raise ConfigurationError(
            f"{subject}: expected an ASGI application, got {type(value).__name__}{hint}",
            fault=Fault.APPLICATION_NOT_FOUND,
        )
    return value


def _pages(static: bool | None, sockets: PathRouter | None = None) -> Pages:
    """
    Make pages alone, with their mistakes shown before serving.
    """
    made = Pages(static=static) if sockets is None else PagesBeside(sockets, static=static)
    made.build()
    return made


def _with_pages(router: ProtocolTypeRouter, spec: str, static: bool | None) -> Resolution:
    """
    Give a project's router our pages, where it has Django's handler or none for HTTP.
    """
    http = router.application_mapping.get("http")
    if http is None:
        notes = [f"{spec} has no 'http'; fairway.asgi.pages serves pages."]
    elif type(http) is ASGIHandler:
        note = f"{spec} has Django's own handler for 'http'; fairway.asgi.pages serves pages"
        notes = [f"{note} [{Fault.DJANGO_HANDLER_REPLACED}]"]
    elif http is pages:
        notes = []
    else:
        return Resolution(with_static_files(router, static), [])
    # A copy: the project may use its own in tests, or under another server.
    changed = copy.copy(router)
    ours = _pages(static, nested_router(router.application_mapping.get("websocket")))
    changed.application_mapping = {**router.application_mapping, "http": ours}
    return Resolution(changed, notes)


def _import_module(path: str, subject: str) -> ModuleType:
    """
    Import a project's module, turning whatever goes wrong into one line.
    """
    try:
        return import_module(path)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{path}.".startswith(f"{missing}."):
            hint = _nearest(missing, _modules_in(missing.rpartition(".")[0]))
            raise ConfigurationError(
                f"{subject}: there is no module {missing!r}{hint}",
                fault=Fault.APPLICATION_NOT_FOUND,
            ) from error
        raise ConfigurationError(
            f"{subject}: importing {path} failed in {describe(error)}",
            fault=Fault.APPLICATION_BROKEN,
        ) from error


def _modules_in(package: str) -> list[str]:
    """
    Name the modules of a package that is imported; none in a module. "" is for what is in none.
    """
    where = getattr(sys.modules[package], "__path__", []) if package else None
    prefix = f"{package}." if package else ""
    return [f"{prefix}{each.name}" for each in pkgutil.iter_modules(where)]


def _nearest(wrong: str, names: Iterable[str]) -> str:
    """
    Ask whether a similar name was meant; an empty text if there is none.

    Names of modules are compared by their last part, which is what is wrong.
    """
    parent, dot, last = wrong.rpartition(".")
    known = [name.rpartition(".")[2] for name in names]
    close = [*get_close_matches(last, known, 1), *(name for name in known if name.startswith(last))]
    return f"; did you mean '{parent}{dot}{close[0]}'?" if close else ""
