"""
Which handler serves a request: by its view, before any middleware has run.

The view is looked up in ``urls.py`` only if that has an asynchronous one at all. Middleware may
still lead elsewhere (``request.urlconf``), so the choice is a guess: each handler serves views of
either kind, and a wrong guess costs time, not correctness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from asgiref.sync import ThreadSensitiveContext, iscoroutinefunction
from django.conf import settings
from django.http import Http404
from django.urls import LocalePrefixPattern, URLPattern, URLResolver, get_resolver
from django.utils.module_loading import import_string

from fairway.conf import resolve_options
from fairway.options import PageOptions
from fairway.pages.aio import AsyncPages
from fairway.pages.busy import is_crowded, refuse
from fairway.pages.handler import Pages
from fairway.pages.sync import SyncPages
from fairway.routing.hosts import choose, chooser
from fairway.routing.surroundings import path_below
from fairway.threads.mapping import present
from fairway.types import Receive, Scope, Send

__all__ = ["PageHandler"]


class PageHandler:
    """
    Django's pages: an ASGI application in the place of Django's own handler.

    Loads the middleware on being made, once for each kind of handler that is needed: the one
    for synchronous views alone where ``urls.py`` has no others.
    """

    def __init__(self) -> None:
        mode = resolve_options(PageOptions)[0].pages
        if mode == "auto" and any(_is_async_only(path) for path in settings.MIDDLEWARE):
            mode = "async"
        self._mode = mode
        self._views = AsyncViews()
        if mode == "async" or (mode == "auto" and self._views.exist()):
            self._async  # noqa: B018 - loads its middleware
        if mode != "async":
            self._sync  # noqa: B018 - as above

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one request, or refuse it if too many wait for a thread.

        Hot path: once per page.

        Raises:
            ValueError: The scope is not one of HTTP.
        """
        if scope["type"] != "http":
            raise ValueError(f"Pages are HTTP, and this is {scope['type']!r}")
        if is_crowded():
            await refuse(send)
            return
        if self._mode == "sync":
            handler: Pages = self._sync
        elif self._mode == "async" or await self._views.lead(scope):
            handler = self._async
            _watch_eof(scope)
        else:
            handler = self._sync
        # Without the server's ends: a request of Django's refers to itself, and would hold all of
        # the exchange until the garbage collector comes.
        ends = scope.get("extensions", {}).get("fairway")
        scope = {**scope, "extensions": {}}
        if present.get(None) is not None:
            await handler(scope, receive, send, ends)
        else:
            # Under another server: a thread for each page, as under Django's own handler.
            async with ThreadSensitiveContext():
                await handler(scope, receive, send)

    @cached_property
    def _sync(self) -> Pages:
        return SyncPages()

    @cached_property
    def _async(self) -> Pages:
        return AsyncPages()


class Branch(NamedTuple):
    """
    A line of a URL configuration below which there is an asynchronous view.

    Attributes:
        pattern: Django's, which knows how to match.
        children: What is below an ``include()``; none for a view.
    """

    pattern: Any
    children: tuple[Branch, ...]


class AsyncViews:
    """
    The asynchronous views of the project's URL configurations.
    """

    def __init__(self) -> None:
        self._trees: WeakKeyDictionary[URLResolver, tuple[Branch, ...]] = WeakKeyDictionary()

    def exist(self) -> bool:
        """
        Whether a request may be for one, as far as can be said now.
        """
        try:
            return bool(self._tree(get_resolver()))
        except Exception:  # noqa: BLE001 - each request will meet the same, and say so
            return False

    async def lead(self, scope: Scope) -> bool:
        """
        Whether a request's view is asynchronous, as far as can be said before its middleware.

        Whatever goes wrong here will go wrong where Django looks the view up, and is told there.
        """
        try:
            urlconf = None if chooser() is None else await choose(scope)
            resolver = get_resolver(urlconf)
            tree = self._tree(resolver)
            return bool(tree) and _leads(resolver, tree, path_below(scope))
        except Exception:  # noqa: BLE001 - see above
            return False

    def _tree(self, resolver: URLResolver) -> tuple[Branch, ...]:
        """
        Give the branches with asynchronous views; each configuration is read once.
        """
        tree = self._trees.get(resolver)
        if tree is None:
            tree = self._trees[resolver] = tuple(_branches(resolver.url_patterns))
        return tree


def _leads(resolver: URLResolver, tree: tuple[Branch, ...], path: str) -> bool:
    """
    Whether the first view that fits a path is asynchronous.
    """
    rest = path.removeprefix("/")
    if _fits([each for each in tree if not _is_localized(each)], rest):
        try:
            return _is_async(resolver.resolve(path).func)
        except Http404:
            return False
    # Not asked again of the resolver: the language would have to be set, and loaded, for that.
    code, _, below = rest.partition("/")
    languages = {each.lower() for each, _ in settings.LANGUAGES}
    if code.lower() not in languages:
        below = rest
    return any(_fits(each.children, below) for each in tree if _is_localized(each))


def _branches(entries: Iterable[URLPattern | URLResolver]) -> Iterator[Branch]:
    """
    Read a URL configuration, leaving out what has no asynchronous view, or a translated route.
    """
    for entry in entries:
        if _is_translated(entry.pattern):
            continue
        if isinstance(entry, URLResolver):
            if children := tuple(_branches(entry.url_patterns)):
                yield Branch(entry.pattern, children)
        elif _is_async(entry.callback):
            yield Branch(entry.pattern, ())


def _is_localized(branch: Branch) -> bool:
    """
    Whether this is ``i18n_patterns``, which Django allows at the root alone.
    """
    return isinstance(branch.pattern, LocalePrefixPattern)


def _is_translated(pattern: Any) -> bool:
    """
    Whether a route differs from language to language.
    """
    values = vars(pattern)
    return not isinstance(values.get("_route", values.get("_regex", "")), str)


def _fits(branches: Iterable[Branch], path: str) -> bool:
    """
    Whether one of the branches fits a path without its leading slash.
    """
    for pattern, children in branches:
        found = pattern.match(path)
        if found and (not children or _fits(children, found[0])):
            return True
    return False


def _is_async(callback: Any) -> bool:
    """
    Whether Django would await a view.

    Consumers of sockets do not count: their only answer to a request is a short one.
    """
    consumer_class = getattr(callback, "consumer_class", None)
    if consumer_class is not None and not hasattr(consumer_class, "http_request"):
        return False
    return iscoroutinefunction(callback)


def _is_async_only(path: str) -> bool:
    """
    Whether a middleware has no synchronous form.
    """
    try:
        return not getattr(import_string(path), "sync_capable", True)
    except ImportError:  # Loading the middleware says so, and better.
        return False


def _watch_eof(scope: Scope) -> None:
    """
    Have the server take the end of a client's sending for its leaving.

    Clients that close a connection send nothing else, and other ASGI servers take it so. A
    synchronous view could not be ended anyhow, so there a half-closed client gets its answer.
    """
    ends = scope.get("extensions", {}).get("fairway")
    if ends is not None:
        ends["configure"](gone_at_eof=True, lasting=False)
