"""
What a plain request gets at the path of a WebSocket: a page at the same route, or a word.

Django's resolver gives the first of both. Where that is the consumer, which could only say that
it wants a WebSocket, a page written at the very same route answers. A page that merely catches
everything does not: else a proxy that drops the upgrade would get that page, and nobody a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch, URLPattern, URLResolver, get_resolver
from django.urls.exceptions import Resolver404

from fairway.consumers.application import upgrade_required
from fairway.routing.callables import consumer_class_of, is_http_consumer

__all__ = ["BESIDE", "CHOSEN", "page_instead", "socket_elsewhere"]

CHOSEN = "fairway.urlconf"
"""
In a request's scope: the URL configuration that ``FAIRWAY["URLCONF"]`` gives it.
"""

BESIDE = "fairway.router"
"""
In a request's scope: the router for WebSockets that the project has beside its pages.
"""


def page_instead(match: ResolverMatch, path: str, urlconf: Any) -> ResolverMatch | None:
    """
    Find what a plain request is for, where Django's resolver gave a WebSocket's consumer.

    Hot path: once per page, which leaves at the first line.

    Args:
        match: What it gave.
        path: The request's path below the mount point.
        urlconf: The request's URL configuration, None for ``ROOT_URLCONF``.

    Returns:
        The page at the same route; None for what was given.
    """
    consumer_class = consumer_class_of(match.func)
    if consumer_class is None or is_http_consumer(match.func):
        return None
    try:
        page: ResolverMatch = _pages(get_resolver(urlconf)).resolve(path)
    except Resolver404:
        page = match
    if page.route == match.route and page is not match:
        return page
    if match.func is consumer_class:
        # Without .as_asgi(), Django would take an instance for the answer.
        match.func = consumer_class.as_asgi()  # type: ignore[attr-defined] # a consumer class
    return None


def socket_elsewhere(request: HttpRequest) -> ResolverMatch | None:
    """
    Find the WebSocket's consumer that a request asks for where Django does not look.

    That is where ``FAIRWAY["URLCONF"]`` leads, or in a router that the project wrote. Django knows
    no view for it; yet a handshake would succeed, and the request has to be told what it lacks.
    """
    scope = getattr(request, "scope", {})
    router = scope.get(BESIDE)
    if router is not None and router.reaches(request.path_info.lstrip("/")):
        return ResolverMatch(_wants_websocket, (), {})
    urlconf = scope.get(CHOSEN)
    if urlconf is None:
        return None
    try:
        match: ResolverMatch = get_resolver(urlconf).resolve(request.path_info)
    except Resolver404:
        return None
    is_socket = consumer_class_of(match.func) is not None and not is_http_consumer(match.func)
    return match if is_socket else None


def _wants_websocket(request: HttpRequest) -> HttpResponse:
    """
    Answer a request for a path of the project's own router.
    """
    return upgrade_required(request)


vars(_wants_websocket).update(csrf_exempt=True, login_required=False)

_without_sockets: WeakKeyDictionary[URLResolver, URLResolver] = WeakKeyDictionary()


def _pages(resolver: URLResolver) -> URLResolver:
    """
    Give a URL configuration without the consumers of WebSockets.
    """
    pages = _without_sockets.get(resolver)
    if pages is None:
        entries = list(_leave_out(resolver.url_patterns))
        pages = _without_sockets[resolver] = URLResolver(resolver.pattern, entries)
    return pages


def _leave_out(entries: Iterable[URLPattern | URLResolver]) -> Iterator[URLPattern | URLResolver]:
    for entry in entries:
        if isinstance(entry, URLResolver):
            inner = list(_leave_out(entry.url_patterns))
            yield URLResolver(
                entry.pattern, inner, entry.default_kwargs, entry.app_name, entry.namespace
            )
        elif consumer_class_of(entry.callback) is None or is_http_consumer(entry.callback):
            yield entry
