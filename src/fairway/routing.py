"""
From a scope to the application that answers it.

The three routers that projects write down (``ProtocolTypeRouter``, ``URLRouter``,
``ChannelNameRouter``) and the one nobody has to write: ``UrlconfRouter`` finds
consumers in the project's own ``urls.py``. All of them leave their routes as
Django's ``path()`` and ``re_path()`` made them and only read them.

No sessions, users or origins here, and nothing that speaks a protocol.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.exceptions import Resolver404
from django.urls.resolvers import RoutePattern

from fairway.exceptions import RouteNotFound
from fairway.threads import enter, leave
from fairway.types import Receive, Scope, Send

__all__ = [
    "ChannelNameRouter",
    "Match",
    "ProtocolTypeRouter",
    "URLRouter",
    "UrlconfRouter",
    "get_default_application",
    "single_callable",
]

Application = Callable[[Scope, Receive, Send], Awaitable[Any]]


class InnerRouteNotFound(RouteNotFound, Resolver404):
    """
    A nested router has no route; the router around it tries its next one.
    """


class Match(NamedTuple):
    """
    A route that fits a path.

    Attributes:
        application: What to call.
        args: Unnamed groups of the route, outermost first.
        kwargs: Named parts, converted, and the defaults written beside the route.
        remaining: What the route left of the path, for a router further in.
    """

    application: Application
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    remaining: str


class Route(NamedTuple):
    """
    One line of a URL configuration, ready for matching.

    Attributes:
        pattern: Django's pattern; its ``match()`` knows expressions and converters.
        defaults: Keyword arguments written beside the route.
        application: What an endpoint leads to; None for an ``include()``.
        children: The routes of an ``include()``.
    """

    pattern: Any
    defaults: Mapping[str, Any]
    application: Application | None
    children: tuple[Route, ...]


class ProtocolTypeRouter:
    """
    Dispatch by ``scope["type"]``.

    Attributes:
        application_mapping: The application for each type, ready to be called.
    """

    def __init__(self, application_mapping: Mapping[str, Any]) -> None:
        self.application_mapping = {
            kind: single_callable(application, f"ProtocolTypeRouter[{kind!r}]")
            for kind, application in application_mapping.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Call the application for the scope's type.

        Raises:
            ValueError: There is none.
        """
        kind = scope["type"]
        if kind not in self.application_mapping:
            raise ValueError(f"No application configured for scope type {kind!r}")
        entered = enter(page=kind == "http")
        try:
            return await self.application_mapping[kind](scope, receive, send)
        finally:
            leave(entered)


class ChannelNameRouter:
    """
    Dispatch by ``scope["channel"]``, for workers that read named channels.

    Attributes:
        application_mapping: The application for each channel, ready to be called.
    """

    def __init__(self, application_mapping: Mapping[str, Any]) -> None:
        self.application_mapping = {
            name: single_callable(application, f"ChannelNameRouter[{name!r}]")
            for name, application in application_mapping.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Call the application for the scope's channel.

        Raises:
            ValueError: The scope names no channel, or one without an application.
        """
        if "channel" not in scope:
            raise ValueError(
                "ChannelNameRouter got a scope without a 'channel' key. "
                "Did you make sure it's only being used for 'channel' type messages?"
            )
        name = scope["channel"]
        if name not in self.application_mapping:
            raise ValueError(f"No application configured for channel name {name!r}")
        return await self.application_mapping[name](scope, receive, send)


class URLRouter:
    """
    Dispatch by path, to a list of ``path()``, ``re_path()`` and ``include()`` entries.

    Routers nest: an entry may lead to another ``URLRouter``, also with middleware
    between the two. What the outer one leaves of the path is in
    ``scope["path_remaining"]``.

    Attributes:
        routes: The entries as they were given.
    """

    # Says to a router around this one that its route only has to be a prefix.
    _path_routing = True

    def __init__(self, routes: Sequence[URLPattern | URLResolver]) -> None:
        self.routes = routes
        self._compiled = tuple(_compile(routes, lambda callback: True))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Call the application of the first route that fits.

        Raises:
            RouteNotFound: No route fits. A nested router raises one that is a
                ``Resolver404`` too, so that the outer router goes on.
            ValueError: The scope has no path.
        """
        path = self._path(scope)
        outer = scope.get("url_route", {})
        for match in _matches(self._compiled, path):
            inner = dict(
                scope,
                path_remaining=match.remaining,
                url_route={
                    "args": outer.get("args", ()) + match.args,
                    "kwargs": {**outer.get("kwargs", {}), **match.kwargs},
                },
            )
            try:
                return await match.application(inner, receive, send)
            except Resolver404:
                continue
        if "path_remaining" in scope:
            raise InnerRouteNotFound(f"No route found for path {path!r}.")
        raise RouteNotFound(_describe(scope["path"], path, self.reaches))

    def reaches(self, path: str) -> bool:
        """
        Whether a path without its leading slash leads to an application.
        """
        for match in _matches(self._compiled, path):
            router = _nested(match.application)
            if router is None or router.reaches(match.remaining.lstrip("/")):
                return True
        return False

    def _path(self, scope: Scope) -> str:
        """
        Give what is left of the path for this router, without leading slashes.
        """
        path: str | None = scope.get("path_remaining", scope.get("path"))
        if path is None:
            raise ValueError("No 'path' key in connection scope, cannot route URLs")
        if "path_remaining" not in scope and (root_path := scope.get("root_path")):
            if not path.startswith(root_path):
                raise RouteNotFound(f"No route found for path {path!r} outside {root_path!r}.")
            path = path[len(root_path) :]
        return path.lstrip("/")


class UrlconfRouter:
    """
    Dispatch by path to the consumers in the project's ``urls.py``.

    Only consumers count and views are passed over, so a page that catches every
    path hides no socket, and one path may hold a page and a consumer. The tree of
    ``ROOT_URLCONF`` is read once for each resolver Django makes of it; another
    setting or ``clear_url_caches()`` brings a new resolver, and so a new reading.
    """

    def __init__(self) -> None:
        self._compiled: WeakKeyDictionary[URLResolver, Route] = WeakKeyDictionary()
        self._compiled_http: WeakKeyDictionary[URLResolver, Route] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Call the consumer of the first route that fits.

        Raises:
            RouteNotFound: No consumer route fits.
        """
        match = self.resolve(scope)
        inner = dict(scope, url_route={"args": match.args, "kwargs": match.kwargs})
        return await match.application(inner, receive, send)

    def resolve(self, scope: Scope) -> Match:
        """
        Find the consumer for a scope.

        Raises:
            RouteNotFound: No consumer route fits.
        """
        # As ASGIRequest does; a proxy may have taken the prefix off already.
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        root = self._root()
        match = next(_matches((root,), path), None)
        if match is None:
            raise RouteNotFound(
                _describe(scope["path"], path, lambda other: any(_matches((root,), other)))
            )
        return match

    def resolve_http(self, scope: Scope) -> Match | None:
        """
        Find the HTTP consumer for a request; None where a page answers, or nobody.

        Hot path: once per request. A page that stands before it in ``urls.py`` wins as it does
        under Django; that is looked at only where a consumer fits.
        """
        resolver = get_resolver()
        root = self._compiled_http.get(resolver)
        if root is None:
            children = tuple(_compile(resolver.url_patterns, _is_http_consumer))
            root = self._compiled_http[resolver] = Route(resolver.pattern, {}, None, children)
        if not root.children:
            return None
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        match = next(_matches((root,), path), None)
        if match is None:
            return None
        first = resolver.resolve(path).func
        wanted = getattr(match.application, "consumer_class", None)
        return match if wanted in {first, getattr(first, "consumer_class", None)} else None

    def load(self) -> None:
        """
        Read the routes now, so that their mistakes show before a socket comes.
        """
        self._root()

    def _root(self) -> Route:
        """
        Give the consumer routes of the present ``ROOT_URLCONF``.
        """
        resolver = get_resolver()
        root = self._compiled.get(resolver)
        if root is None:
            children = tuple(_compile(resolver.url_patterns, _is_socket_consumer))
            root = self._compiled[resolver] = Route(resolver.pattern, {}, None, children)
        return root


def get_default_application() -> Any:
    """
    Import what ``ASGI_APPLICATION`` names.

    Raises:
        ImproperlyConfigured: The setting, its module or the name in it is missing.
    """
    setting = getattr(settings, "ASGI_APPLICATION", None)
    if not isinstance(setting, str) or "." not in setting:
        raise ImproperlyConfigured("Cannot find ASGI_APPLICATION setting.")
    path, name = setting.rsplit(".", 1)
    try:
        module = import_module(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"Cannot import ASGI_APPLICATION module {path!r}") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise ImproperlyConfigured(
            f"Cannot find {name!r} in ASGI_APPLICATION module {path}"
        ) from error


def single_callable(application: Any, where: str) -> Application:
    """
    Give an application that is called once, with scope, receive and send.

    Consumer classes without ``.as_asgi()`` and the double callables of ASGI 2 are
    wrapped, with a warning; everything else is returned as it came.

    Args:
        application: What a project wrote into a router.
        where: Names the place in the warning.
    """
    if inspect.isclass(application) and hasattr(application, "as_asgi"):
        _deprecate(f"{where}: {application.__name__} lacks .as_asgi()")
        consumer: Application = application.as_asgi()
        return consumer
    if _is_double_callable(application):
        name = getattr(application, "__name__", type(application).__name__)
        _deprecate(f"{where}: {name} is an ASGI 2 application; take scope, receive and send")

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> Any:
            return await application(scope)(receive, send)

        return wrapped
    single: Application = application
    return single


def _deprecate(message: str) -> None:
    warnings.warn(message, DeprecationWarning, stacklevel=2)


def _is_double_callable(application: Any) -> bool:
    """
    Whether an application is to be called with the scope alone.
    """
    if inspect.isclass(application):
        return True
    if inspect.iscoroutinefunction(application):
        return False
    try:
        # What a decorator wraps, such as the class of a consumer, is not what is called.
        inspect.signature(application, follow_wrapped=False).bind(None, None, None)
    except TypeError:
        return True
    except ValueError:  # A built-in tells nothing; Python's present protocol is the better guess.
        return False
    return False


def _consumer_class(callback: Any) -> Any:
    """
    Give the consumer class of a callback found in ``urls.py``; None if it is a view.
    """
    if inspect.isclass(callback) and hasattr(callback, "as_asgi"):
        return callback
    return getattr(callback, "consumer_class", None)


def _is_http_consumer(callback: Any) -> bool:
    """
    Whether a callback found in ``urls.py`` is a consumer of requests.
    """
    return hasattr(_consumer_class(callback), "http_request")


def _is_socket_consumer(callback: Any) -> bool:
    """
    Whether a callback found in ``urls.py`` is a consumer of anything else, or of both.
    """
    consumer_class = _consumer_class(callback)
    return consumer_class is not None and (
        hasattr(consumer_class, "websocket_connect") or not hasattr(consumer_class, "http_request")
    )


def _compile(
    entries: Iterable[URLPattern | URLResolver], wanted: Callable[[Any], bool], prefix: str = ""
) -> Iterator[Route]:
    """
    Read a URL configuration, leaving out what is not wanted and the branches that empties.
    """
    for entry in entries:
        where = f"{prefix}{entry.pattern}"
        if isinstance(entry, URLResolver):
            if children := tuple(_compile(entry.url_patterns, wanted, where)):
                yield Route(entry.pattern, entry.default_kwargs, None, children)
        elif wanted(entry.callback):
            application = single_callable(entry.callback, f"route {where!r}")
            pattern = entry.pattern
            if isinstance(pattern, RoutePattern) and _routes_paths(application):
                # path() takes its route for the whole path; before a router it is a prefix.
                pattern = RoutePattern(str(pattern), name=pattern.name, is_endpoint=False)
            yield Route(pattern, entry.default_args, application, ())


def _routes_paths(application: Any) -> bool:
    """
    Whether an application is, wraps or claims to be a router for the rest of the path.
    """
    claim = getattr(application, "_path_routing", False) is True
    return claim or _nested(application) is not None


def _nested(application: Any) -> URLRouter | None:
    """
    Find the router that an application is, or wraps as middleware.
    """
    while application is not None and not isinstance(application, URLRouter):
        application = getattr(application, "inner", getattr(application, "application", None))
    return application


def _matches(routes: Iterable[Route], path: str) -> Iterator[Match]:
    """
    Find the endpoints that fit a path, in the order they are written.

    Arguments are merged as Django does it: unnamed ones count only where nothing is named.
    """
    for route in routes:
        found = route.pattern.match(path)
        if not found:
            continue
        remaining, args, captured = found
        kwargs = {**captured, **route.defaults}
        if route.application is not None:
            yield Match(route.application, args, kwargs, remaining)
            continue
        for match in _matches(route.children, remaining):
            merged = {**kwargs, **match.kwargs}
            yield match._replace(args=match.args if merged else args + match.args, kwargs=merged)


def _describe(shown: str, path: str, reaches: Callable[[str], bool]) -> str:
    """
    Say that a path leads nowhere, and where it would have led with or without a slash.
    """
    message = f"No route found for path {shown!r}."
    if not path.strip("/"):
        return message
    other = path.removesuffix("/") if path.endswith("/") else f"{path}/"
    if reaches(other):
        corrected = shown.removesuffix("/") if shown.endswith("/") else f"{shown}/"
        message += f" Did you mean {corrected!r}?"
    return message
