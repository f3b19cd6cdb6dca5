"""
The three routers that projects write down, under Channels' names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.urls import URLPattern, URLResolver
from django.urls.exceptions import Resolver404

from fairway.exceptions import RouteNotFound
from fairway.routing.callables import single_callable
from fairway.routing.matching import (
    InnerRouteNotFound,
    PathRouter,
    compile_routes,
    matches,
    nested_router,
)
from fairway.routing.misses import describe
from fairway.threads import enter, leave
from fairway.types import Receive, Scope, Send

__all__ = ["ChannelNameRouter", "ProtocolTypeRouter", "URLRouter"]


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


class URLRouter(PathRouter):
    """
    Dispatch by path, to a list of ``path()``, ``re_path()`` and ``include()`` entries.

    Routers nest: an entry may lead to another ``URLRouter``, also with middleware
    between the two. What the outer one leaves of the path is in
    ``scope["path_remaining"]``.

    Attributes:
        routes: The entries as they were given.
        compiled: The same, ready for matching.
    """

    def __init__(self, routes: Sequence[URLPattern | URLResolver]) -> None:
        self.routes = routes
        self.compiled = tuple(compile_routes(routes, lambda callback: True))

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
        for match in matches(self.compiled, path):
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
        raise RouteNotFound(describe(scope["path"], path, self.compiled, self.reaches))

    def reaches(self, path: str) -> bool:
        """
        See ``PathRouter``.
        """
        for match in matches(self.compiled, path):
            router = nested_router(match.application)
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
