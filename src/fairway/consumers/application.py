"""
What ``as_asgi()`` returns: one callable that is an ASGI application and a Django view.

A consumer is routed in ``urls.py`` like a view, so a plain request may reach it. It is told
that this address wants a WebSocket, in the answer and in one line of the log, since the
usual cause is a proxy that drops the upgrade. Routes are found elsewhere.
"""

from __future__ import annotations

import functools
import inspect
import logging
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

from django.apps import apps
from django.http import HttpRequest, HttpResponse
from django.utils.log import log_response

from fairway.consumers.handlers import overrides
from fairway.consumers.view import respond
from fairway.faults import Fault

__all__ = ["application_of", "shortcut"]

logger = logging.getLogger("fairway.consumers")

_SHOWN_MAX = 50  # Characters of a header that go into the log.

UPGRADE_REQUIRED = """\
This address speaks WebSocket, and the request came without an upgrade.

If a WebSocket client sent it, a proxy on the way is the usual cause: it has to speak HTTP/1.1
to the server and pass the headers "Upgrade: websocket" and "Connection: Upgrade" on.
"""


class EveryDatabase(set[str]):
    """
    Contains every alias: the view needs a transaction on no database, whichever there are.
    """

    def __contains__(self, alias: object) -> bool:
        return True


def application_of(
    consumer_class: type[Any], initkwargs: dict[str, Any]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """
    Make the callable for a consumer class.

    Args:
        consumer_class: Its instances are made one per scope.
        initkwargs: What each is made with.

    Returns:
        An async function, since that is what servers and Django know both to be. Called with
        scope, receive and send, it runs a consumer. Called with a request, it answers 426, or
        what a consumer of requests answers.
    """
    make = _maker(consumer_class, initkwargs)

    async def application(scope: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(scope, HttpRequest):
            if hasattr(consumer_class, "http_request"):
                return await respond(application, scope, args, kwargs)
            return upgrade_required(scope)
        return await make(scope)(scope, *args, **kwargs)

    def begin(scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        running: Coroutine[Any, Any, None] = make(scope)(scope, receive, send)
        return running

    functools.update_wrapper(application, consumer_class, updated=())
    # What Channels' has, and what Django's own middleware and handlers ask a view for.
    vars(application).update(
        consumer_class=consumer_class,
        consumer_initkwargs=initkwargs,
        csrf_exempt=True,
        login_required=False,
        _non_atomic_requests=EveryDatabase(),
        # asgiref's hint, for those who would judge by the signature: it is the class's now.
        _asgi_single_callable=True,
        # With whom it stands for: functools.wraps() copies it to what wraps the application.
        _fairway_begin=(application, begin),
    )
    return application


def shortcut(application: Any) -> Callable[..., Any]:
    """
    Give what runs a consumer as its application does, without the coroutine of that one.

    A socket would hold it for as long as it rests. What is no ``as_asgi()`` is given as it is.
    """
    owner, begin = getattr(application, "_fairway_begin", (None, None))
    return begin if begin is not None and owner is application else application  # type: ignore[no-any-return] # either is callable


def upgrade_required(request: HttpRequest) -> HttpResponse:
    """
    Answer a plain request for a WebSocket (RFC 9110 section 15.5.22), and log it.
    """
    response = HttpResponse(UPGRADE_REQUIRED, content_type="text/plain; charset=utf-8", status=426)
    # The standard library's WSGI server dies of headers that only a server may set (PEP 3333).
    if not str(request.META.get("SERVER_SOFTWARE", "")).startswith("WSGIServer"):
        response["Upgrade"] = "websocket"
        response["Connection"] = "Upgrade"
    log_response(
        *_why_plain(request),
        response=response,
        request=request,
        logger=logger,
        level="warning",
    )
    return response


def _why_plain(request: HttpRequest) -> tuple[str, ...]:
    """
    Say why a request for a WebSocket's path is a plain one, as far as its headers tell.

    Returns:
        A line with placeholders, and what goes into them: Django escapes what clients sent.
    """
    upgrade, connection = (request.headers.get(name, "") for name in ("Upgrade", "Connection"))
    shown, fault = request.method or "request", Fault.UPGRADE_MISSING
    if upgrade.lower() != "websocket":
        text = "wants a WebSocket and got a plain %s: does a proxy drop the Upgrade header?"
    elif "upgrade" not in connection.lower():
        text = "wants a WebSocket and got 'Connection: %s': a proxy has to pass 'upgrade' on there"
        shown = connection[:_SHOWN_MAX]
    else:
        installed = apps.is_installed("fairway")
        fix = "use manage.py serve" if installed else "put 'fairway' into INSTALLED_APPS"
        text = f"wants a WebSocket and came to a server that speaks none (%s): {fix}"
        shown, fault = _server_of(request), Fault.SERVER_WITHOUT_WEBSOCKETS
    return f"%s {text} [{fault}]", request.path, shown


def _server_of(request: HttpRequest) -> str:
    """
    Name the server as it does itself, else the protocol between it and Django.
    """
    name = request.META.get("SERVER_SOFTWARE")
    return str(name) if name else type(request).__name__.removesuffix("Request")


def _maker(consumer_class: type[Any], initkwargs: dict[str, Any]) -> Callable[[Any], Any]:
    """
    Say how a consumer is made for a scope.

    That is with the scope, in the manner of Channels 2, if its constructor insists on it. One of
    a project's own finds ``self.scope`` in any case, which was there in Channels 2 alone.
    """
    if not overrides(consumer_class, ("__init__",)):
        return lambda scope: consumer_class(**initkwargs)
    takes_scope = not _fits(consumer_class, **initkwargs) and _fits(
        consumer_class, None, **initkwargs
    )
    if takes_scope:
        warnings.warn(
            f"{consumer_class.__qualname__}.__init__() takes the scope, as in Channels 2. "
            "Use self.scope in connect() instead; it is set before.",
            DeprecationWarning,
            stacklevel=4,
        )

    def make(scope: Any) -> Any:
        arguments = [scope] if takes_scope else []
        consumer = consumer_class.__new__(consumer_class, *arguments, **initkwargs)
        consumer.scope = scope
        consumer.__init__(*arguments, **initkwargs)
        return consumer

    return make


def _fits(consumer_class: type[Any], *args: Any, **kwargs: Any) -> bool:
    """
    Whether a class may be called with some arguments.
    """
    try:
        inspect.signature(consumer_class).bind(*args, **kwargs)
    except TypeError:
        return False
    return True
