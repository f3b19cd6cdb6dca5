"""
A URL configuration made ready for matching, and what fits a path.

Routes stay as Django's ``path()`` and ``re_path()`` made them; they are only read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from django.urls import URLPattern, URLResolver
from django.urls.exceptions import Resolver404
from django.urls.resolvers import RegexPattern, RoutePattern

from fairway.exceptions import RouteNotFound
from fairway.routing.callables import Application, single_callable

__all__ = [
    "InnerRouteNotFound",
    "Match",
    "PathRouter",
    "Route",
    "compile_routes",
    "is_fixed",
    "matches",
    "nested_router",
]

CONVERTERS = "django.urls.converters"
"""
Where Django's own converters live, which know nothing but the text they convert.
"""


class InnerRouteNotFound(RouteNotFound, Resolver404):
    """
    A nested router has no route; the router around it tries its next one.
    """


class PathRouter:
    """
    Routes what is left of a path; a route that leads to one only has to be a prefix.
    """

    # Channels' own word for it, which routers of others may carry too.
    _path_routing = True

    def reaches(self, path: str) -> bool:
        """
        Whether a path without its leading slash leads to an application.
        """
        raise NotImplementedError


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


def compile_routes(
    entries: Iterable[URLPattern | URLResolver], wanted: Callable[[Any], bool], prefix: str = ""
) -> Iterator[Route]:
    """
    Read a URL configuration, leaving out what is not wanted and the branches that empties.
    """
    for entry in entries:
        where = f"{prefix}{entry.pattern}"
        if isinstance(entry, URLResolver):
            if children := tuple(compile_routes(entry.url_patterns, wanted, where)):
                yield Route(entry.pattern, entry.default_kwargs, None, children)
        elif wanted(entry.callback):
            application = single_callable(entry.callback, f"route {where!r}")
            pattern = entry.pattern
            if isinstance(pattern, RoutePattern) and _routes_paths(application):
                # path() takes its route for the whole path; before a router it is a prefix.
                # Not str(pattern), which would settle the language of a translated route.
                route: str = vars(pattern)["_route"]
                pattern = RoutePattern(route, name=pattern.name, is_endpoint=False)
            yield Route(pattern, entry.default_args, application, ())


def is_fixed(entries: Iterable[URLPattern | URLResolver]) -> bool:
    """
    Whether a path always leads to the same place: by no language and no converter of a project's.
    """
    for entry in entries:
        if type(entry) not in {URLPattern, URLResolver} or not _is_plain(entry.pattern):
            return False
        if isinstance(entry, URLResolver) and not is_fixed(entry.url_patterns):
            return False
    return True


def _is_plain(pattern: Any) -> bool:
    """
    Whether a pattern is Django's own, of a text that is not translated.
    """
    names = {RoutePattern: "_route", RegexPattern: "_regex"}
    name = names.get(type(pattern))
    return (
        name is not None
        and type(vars(pattern).get(name)) is str
        and all(type(one).__module__ == CONVERTERS for one in pattern.converters.values())
    )


def _routes_paths(application: Any) -> bool:
    """
    Whether an application is, wraps or claims to be a router for the rest of the path.
    """
    claim = getattr(application, "_path_routing", False) is True
    return claim or nested_router(application) is not None


def nested_router(application: Any) -> PathRouter | None:
    """
    Find the router that an application is, or wraps as middleware.
    """
    while application is not None and not isinstance(application, PathRouter):
        application = getattr(application, "inner", getattr(application, "application", None))
    return application


def matches(routes: Iterable[Route], path: str) -> Iterator[Match]:
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
        for match in matches(route.children, remaining):
            merged = {**kwargs, **match.kwargs}
            yield match._replace(args=match.args if merged else args + match.args, kwargs=merged)
