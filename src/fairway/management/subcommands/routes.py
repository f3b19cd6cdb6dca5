"""
``routes``: every route of a consumer, in the application that would be served.
"""

from __future__ import annotations

import argparse
import json as json_format
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.management.subcommands.tables import table

__all__ = ["HELP", "add_arguments", "run"]

HELP = "Show every route of a consumer: path, name, class, and where it is written."


@dataclass(frozen=True, slots=True)
class Row:
    """
    One route.

    Attributes:
        path: As it is written, all of its parts together; the channel for a worker.
        kind: ``websocket``, ``http`` or ``channel``.
        consumer: The class, or whatever else is called.
        name: For ``reverse()``, with its namespaces.
        login_required: Whether it is for users alone.
        where: The module that holds it, or the application that leads to it.
    """

    path: str
    kind: str
    consumer: str
    name: str
    login_required: bool
    where: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add the application, the URL configuration and the form.
    """
    parser.add_argument(
        "application", nargs="?", help="module:name; default: ASGI_APPLICATION, or everything"
    )
    parser.add_argument(
        "--urlconf", help="URL configuration, where FAIRWAY['URLCONF'] chooses one for each host."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON.")


def run(
    say: Callable[[str], Any], *, application: str | None, urlconf: str | None, json: bool, **_: Any
) -> None:
    """
    Show the routes.

    Raises:
        CommandError: There is no project, or its application cannot be loaded.
    """
    known = settings.configured or os.environ.get("DJANGO_SETTINGS_MODULE")
    if application is None and not known:
        raise CommandError(
            "DJANGO_SETTINGS_MODULE is not set, so this is no project. Use manage.py fairway "
            "routes, or name the application: fairway routes module:app",
            returncode=2,
        )
    try:
        rows, notes = _find(application, urlconf)
    except (ConfigurationError, ImproperlyConfigured) as error:
        fault = getattr(error, "fault", Fault.PROJECT_BROKEN)
        raise CommandError(f"{error} [{fault}]", returncode=2) from error
    except Exception as error:
        from fairway.cli import describe_broken

        line = f"{describe_broken(error)} [{Fault.PROJECT_BROKEN}]"
        raise CommandError(line, returncode=2) from error
    if json:
        say(json_format.dumps([asdict(row) for row in rows], indent=2))
        return
    headings = ("PATH", "KIND", "CONSUMER", "NAME", "LOGIN", "WHERE")
    cells = [
        (row.path, row.kind, row.consumer, row.name or "-", _yes(row.login_required), row.where)
        for row in rows
    ]
    for line in table(headings, cells) if rows else ["No route leads to a consumer."]:
        say(line)
    for note in notes:
        say(f"! {note}")


def _find(application: str | None, urlconf: str | None) -> tuple[list[Row], list[str]]:
    """
    Walk through the application that would be served.

    Raises:
        ConfigurationError: It cannot be loaded.
    """
    from fairway.asgi import resolve_application
    from fairway.conf import django_setting

    if urlconf is not None:
        return list(_in_urlconf(urlconf)), []
    spec = application or django_setting("ASGI_APPLICATION", None)
    walk = Walk(str(spec))
    # A router may lead to the same routes for HTTP and for WebSockets.
    rows = dict.fromkeys(walk.through(resolve_application(application).application))
    return list(rows), walk.notes


class Walk:
    """
    Goes from an application through its routers to its consumers.

    Attributes:
        notes: What it could not look into.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self.notes: list[str] = []

    def through(
        self, application: Any, kind: str = "", path: str = "", name: str = ""
    ) -> Iterator[Row]:
        """
        Give the routes behind an application.

        Args:
            application: A router, a consumer, or middleware around one.
            kind: What was asked for on the way, a scope's type.
            path: The path that leads here.
            name: The name of the route that leads here.
        """
        from fairway.asgi import Application
        from fairway.routing import ChannelNameRouter, ProtocolTypeRouter, UrlconfRouter, URLRouter
        from fairway.routing.callables import consumer_class_of

        if isinstance(application, Application | UrlconfRouter):
            yield from (row for row in self._in_project() if kind in row.kind)
        elif isinstance(application, ProtocolTypeRouter):
            for inner_kind, inner in application.application_mapping.items():
                yield from self.through(inner, inner_kind)
        elif isinstance(application, ChannelNameRouter):
            for channel, inner in application.application_mapping.items():
                yield from self.through(inner, "channel", channel)
        elif isinstance(application, URLRouter):
            yield from self._in_router(application.routes, kind, path)
        elif (consumer := consumer_class_of(application)) is not None:
            yield _row(consumer, path or "*", self._where, kind=kind, name=name)
        else:
            yield from self._inside(application, kind, path, name)

    def _inside(self, application: Any, kind: str, path: str, name: str) -> Iterator[Row]:
        """
        Look behind middleware; pages hold no consumers, and what else there is shows nothing.
        """
        from django.core.handlers.base import BaseHandler

        from fairway.asgi import Pages

        names = ("inner", "application", "app")  # Channels', Django's and most others' word for it.
        inner = next(
            (_attributes(application)[name] for name in names if name in _attributes(application)),
            None,
        )
        if inner is not None:
            yield from self.through(inner, kind, path, name)
        elif path:
            yield Row(path, kind or "websocket", _name(application), name, False, self._where)
        elif not isinstance(application, Pages | BaseHandler):
            self.notes.append(
                f"{_name(application)} is no router of Fairway's, and is not looked into."
            )

    def _in_project(self) -> Iterator[Row]:
        """
        Give the routes of the project's URL configuration.
        """
        from fairway.conf import django_setting
        from fairway.routing.hosts import Fixed, chooser

        choosing = chooser()
        urlconf = django_setting("ROOT_URLCONF", None)
        if isinstance(choosing, Fixed):
            urlconf = choosing.urlconf
        elif choosing is not None:
            self.notes.append(
                "FAIRWAY['URLCONF'] chooses a URL configuration for each connection; these are "
                "the routes of ROOT_URLCONF, and --urlconf shows those of another."
            )
        yield from _in_urlconf(urlconf)

    def _in_router(self, entries: Iterable[Any], kind: str, before: str) -> Iterator[Row]:
        """
        Give the routes of a ``URLRouter``.
        """
        for entry, path, name, _ in _entries(entries, before or "/"):
            yield from self.through(entry.callback, kind, path, name)


def _attributes(thing: Any) -> Mapping[str, Any]:
    """
    Give what an object holds itself, not what its class or a proxy makes of a name.
    """
    return getattr(thing, "__dict__", {})


def _in_urlconf(urlconf: Any) -> Iterator[Row]:
    """
    Give the consumers in a URL configuration; views are passed over.
    """
    from django.urls import get_resolver

    from fairway.routing.callables import consumer_class_of

    resolver = get_resolver(urlconf)
    for entry, path, name, where in _entries(resolver.url_patterns, "/", where=_module(urlconf)):
        consumer = consumer_class_of(entry.callback)
        if consumer is not None:
            yield _row(consumer, path, where, name=name)


def _entries(
    entries: Iterable[Any], before: str, names: tuple[str, ...] = (), where: str = ""
) -> Iterator[tuple[Any, str, str, str]]:
    """
    Give each endpoint with its path, its name and the module it is written in.
    """
    from django.urls import URLResolver

    for entry in entries:
        path = before + _text(entry.pattern)
        if isinstance(entry, URLResolver):
            inner = (*names, entry.namespace) if entry.namespace else names
            module = _module(entry.urlconf_name) or where
            yield from _entries(entry.url_patterns, path, inner, module)
        else:
            name = ":".join((*names, entry.name)) if entry.name else ""
            yield entry, path, name, where


def _row(consumer: Any, path: str, where: str, *, kind: str = "", name: str = "") -> Row:
    """
    Describe the route to a consumer.
    """
    if kind in {"", "http", "websocket"}:
        kind = "websocket"
        if hasattr(consumer, "http_request"):
            kind = "http, websocket" if hasattr(consumer, "websocket_connect") else "http"
    login = bool(getattr(consumer, "login_required", False))
    return Row(path, kind, _name(consumer), name, login, where)


def _text(pattern: Any) -> str:
    """
    Write one part of a route, without the marks where an expression begins and ends.
    """
    from django.urls import LocalePrefixPattern

    if isinstance(pattern, LocalePrefixPattern):
        return "<language>/" if pattern.prefix_default_language else "[<language>/]"
    return str(pattern).removeprefix("^").removesuffix("$").removesuffix("\\Z")


def _module(urlconf: Any) -> str:
    """
    Name the module of a URL configuration; nothing for a list of routes.
    """
    if isinstance(urlconf, str):
        return urlconf
    if isinstance(urlconf, ModuleType):
        return urlconf.__name__
    return "" if isinstance(urlconf, list | tuple) else _name(urlconf)


def _name(thing: Any) -> str:
    """
    Name a class or function by where it is defined.
    """
    found = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{found.__module__}.{found.__qualname__}"


def _yes(value: bool) -> str:
    return "yes" if value else "-"
