"""
How many WebSocket routes an application has, for the lines of a start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fairway.routing.hosts import Fixed, chooser
from fairway.routing.matching import Route, nested_router
from fairway.routing.routers import ProtocolTypeRouter, URLRouter
from fairway.routing.urlconf import consumer_tree

__all__ = ["count_in_urlconf", "count_of"]


def count_in_urlconf() -> int | None:
    """
    Count the WebSocket consumers in the project's ``urls.py``; None if that varies by host.
    """
    choosing = chooser()
    if choosing is not None and not isinstance(choosing, Fixed):
        return None
    urlconf = None if choosing is None else choosing.urlconf
    return _count([consumer_tree(urlconf).sockets])


def count_of(application: Any) -> int | None:
    """
    Count the routes of a router that a project wrote; None where they cannot be seen.
    """
    if isinstance(application, ProtocolTypeRouter):
        application = application.application_mapping.get("websocket")
    router = nested_router(application)
    return _count(router.compiled) if isinstance(router, URLRouter) else None


def _count(routes: Iterable[Route]) -> int:
    """
    Count endpoints, those of nested routers too.
    """
    number = 0
    for route in routes:
        inner = count_of(route.application) if route.application is not None else None
        if route.application is None:
            number += _count(route.children)
        else:
            number += 1 if inner is None else inner
    return number
