"""
Consumers in the project's own ``urls.py``, found as Django finds views.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from django.urls import LocalePrefixPattern, URLPattern, URLResolver, get_resolver
from django.utils.translation import get_language

from fairway.consumers.readers import OF_WEBSOCKETS, outbox_settings
from fairway.exceptions import RouteNotFound
from fairway.ratelimits.limits import message_limits
from fairway.routing.callables import consumer_class_of, is_http_consumer, is_socket_consumer
from fairway.routing.hosts import Fixed, choose, chooser
from fairway.routing.matching import Match, Route, compile_routes, is_fixed, matches
from fairway.routing.misses import describe
from fairway.routing.surroundings import (
    Undo,
    follows_browser,
    has_surroundings,
    path_below,
    restore,
    surround,
)
from fairway.types import Receive, Scope, Send

__all__ = ["Place", "UrlTree", "UrlconfRouter", "consumer_tree", "enter_place", "enter_route"]


TREE = "fairway_tree"
"""
The attribute of Django's resolver that holds what was read of it.
"""

FOUND_MAX = 1024
FOUND_LENGTH_MAX = 256
"""
How many paths of HTTP consumers are remembered with what they lead to, and of how many characters.
"""


class UrlTree:
    """
    The consumers of one URL configuration.

    Attributes:
        sockets: The routes of WebSocket consumers, below the root.
        requests: The routes of HTTP consumers, below the root.
        localized: Whether it uses ``i18n_patterns``.
        prefixed: Whether these have a prefix for the default language too.
    """

    __slots__ = ("_found", "_is_fixed", "localized", "prefixed", "requests", "sockets")

    def __init__(self, resolver: URLResolver) -> None:
        self.sockets, self.requests = (
            Route(resolver.pattern, {}, None, tuple(compile_routes(resolver.url_patterns, wanted)))
            for wanted in (is_socket_consumer, is_http_consumer)
        )
        locale = _locale_pattern(resolver.url_patterns)
        self.localized = locale is not None
        self.prefixed = locale is None or locale.prefix_default_language
        self._is_fixed = bool(self.requests.children) and is_fixed(resolver.url_patterns)
        self._found: dict[str, Match] = {}

    def find_socket(self, scope: Scope) -> Match:
        """
        Find the consumer for a WebSocket; views are passed over.

        Raises:
            RouteNotFound: No route fits.
        """
        path = path_below(scope)
        match = next(matches((self.sockets,), path), None)
        if match is None:
            raise RouteNotFound(self._describe(scope["path"], path))
        return match

    def _describe(self, shown: str, path: str) -> str:
        """
        Say that a path leads nowhere, and what is probably meant.
        """
        roots = (self.sockets,)
        language = f"/{get_language()}"
        if self.localized and any(matches(roots, language + path)):
            corrected = f"{shown.removesuffix(path)}{language}{path}"
            return f"No route found for path {shown!r}. Did you mean {corrected!r}?"
        return describe(shown, path, roots, lambda other: any(matches(roots, other)))

    def find_http(self, scope: Scope, urlconf: Any) -> Match | None:
        """
        Find the HTTP consumer for a request; None where a page answers, or nobody.

        A page that stands before it in ``urls.py`` wins as it does under Django; that is
        looked at only where a consumer fits, and remembered where it depends on the path alone.

        Hot path: once per request, where there are such consumers.
        """
        path = path_below(scope)
        match = self._found.get(path)
        if match is not None:
            return match
        match = self._look_for_http(path, urlconf)
        if match is not None and self._is_fixed and len(path) <= FOUND_LENGTH_MAX:
            if len(self._found) >= FOUND_MAX:
                self._found.clear()
            self._found[path] = match
        return match

    def _look_for_http(self, path: str, urlconf: Any) -> Match | None:
        """
        Find it as Django does, which costs as much as all else that is done for an answer.
        """
        match = next(matches((self.requests,), path), None)
        if match is None:
            return None
        first = get_resolver(urlconf).resolve(path).func
        wanted = getattr(match.application, "consumer_class", None)
        return match if wanted in {first, getattr(first, "consumer_class", None)} else None


class UrlconfRouter:
    """
    Dispatch by path to the consumers in the project's ``urls.py``.

    Only consumers count and views are passed over, so a page that catches every
    path hides no socket, and one path may hold a page and a consumer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Call the consumer of the first route that fits.

        Raises:
            RouteNotFound: No consumer route fits.
        """
        match, undo = await enter_route(scope)
        try:
            inner = dict(scope, url_route={"args": match.args, "kwargs": match.kwargs})
            return await match.application(inner, receive, send)
        finally:
            restore(undo)

    def load(self) -> None:
        """
        Read the routes now, so that their mistakes show before a socket comes.

        Raises:
            ConfigurationError: ``FAIRWAY["URLCONF"]`` leads nowhere, or a consumer's limits are
                none.
        """
        choosing = chooser()
        tree = consumer_tree(choosing.urlconf if isinstance(choosing, Fixed) else None)
        for consumer_class in _consumer_classes(tree.sockets.children):
            message_limits(consumer_class)
            outbox_settings(consumer_class, OF_WEBSOCKETS)
        for consumer_class in _consumer_classes(tree.requests.children):
            outbox_settings(consumer_class)
        follows_browser()

    def serves_requests(self) -> bool:
        """
        Whether a request may be for a consumer.

        Hot path: once per request.
        """
        return bool(consumer_tree().requests.children) or chooser() is not None


class Place(NamedTuple):
    """
    Where a connection is.

    Attributes:
        tree: The consumers it may be for.
        urlconf: What they were read from, None for ``ROOT_URLCONF``.
        undo: For ``restore()``, once it is over.
    """

    tree: UrlTree
    urlconf: Any
    undo: Undo | None


async def enter_place(scope: Scope) -> Place:
    """
    Set for a connection, in the present context, what Django's handler sets for a request.

    Waits for the project's function in ``FAIRWAY["URLCONF"]`` where that does.

    Raises:
        ConfigurationError: That function gave no URL configuration.
    """
    urlconf = None if chooser() is None else await choose(scope)
    tree = consumer_tree(urlconf)
    if not has_surroundings(scope, urlconf, localized=tree.localized):
        return Place(tree, urlconf, None)
    undo = await surround(scope, urlconf, localized=tree.localized, prefixed=tree.prefixed)
    return Place(tree, urlconf, undo)


async def enter_route(scope: Scope) -> tuple[Match, Undo | None]:
    """
    Do the same for a WebSocket, and find its consumer.

    Returns:
        The route, and what to ``restore()`` at the end.

    Raises:
        RouteNotFound: No consumer route fits; what held before holds again.
    """
    place = await enter_place(scope)
    try:
        return place.tree.find_socket(scope), place.undo
    except RouteNotFound:
        restore(place.undo)
        raise


def consumer_tree(urlconf: Any = None) -> UrlTree:
    """
    Give the consumers of a URL configuration.

    Hot path: once per request and handshake. It is read once for each resolver Django makes of
    it; another ``ROOT_URLCONF`` or ``clear_url_caches()`` brings a new one, and a new reading.

    Args:
        urlconf: As Django's ``get_resolver`` has it.
    """
    resolver = get_resolver(urlconf)
    # Kept where it lives as long as the resolver, and is found at once.
    tree: UrlTree | None = vars(resolver).get(TREE)
    if tree is None:
        tree = vars(resolver)[TREE] = UrlTree(resolver)
    return tree


def _consumer_classes(routes: Iterable[Route]) -> Iterator[Any]:
    """
    Give the class of each route's consumer.
    """
    for route in routes:
        yield from _consumer_classes(route.children)
        consumer_class = consumer_class_of(route.application)
        if consumer_class is not None:
            yield consumer_class


def _locale_pattern(entries: Iterable[URLPattern | URLResolver]) -> LocalePrefixPattern | None:
    """
    Find ``i18n_patterns``, which Django allows at the root alone.
    """
    patterns = (each.pattern for each in entries)
    return next((each for each in patterns if isinstance(each, LocalePrefixPattern)), None)
