"""
What both handlers of pages do alike: requests made and refused, signals sent, responses closed.

As Django's own ASGI handler does it, whose behaviour is the measure; ``sync`` and ``aio`` decide
where a view runs.
"""

from __future__ import annotations

import logging
import sys
from contextvars import Context
from functools import cached_property
from os import SEEK_END
from typing import IO, Any

from django.core import signals
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch
from django.urls.exceptions import Resolver404

from fairway.faults import Fault
from fairway.pages.hops import Hop
from fairway.pages.static import note_missing, unserved_path
from fairway.routing.twins import page_instead, socket_elsewhere
from fairway.types import Receive, Scope, Send

__all__ = ["PageRequest", "Pages", "exited", "script_prefix"]

logger = logging.getLogger("django.request")
script_prefix = get_script_prefix


class PageRequest(ASGIRequest):
    """
    A request of Django's, with what is said under WSGI where ASGI has nothing.
    """

    def __init__(self, scope: Scope, body: IO[bytes]) -> None:
        super().__init__(scope, body)
        if not scope.get("client"):
            # Behind a Unix socket; middleware counts on both.
            self.META["REMOTE_ADDR"] = self.META["REMOTE_HOST"] = ""
        server = scope.get("server")
        if server and server[1] is None:
            self.META["SERVER_PORT"] = "443" if scope.get("scheme") == "https" else "80"
        if "HTTP_TRANSFER_ENCODING" in self.META and "CONTENT_LENGTH" not in self.META:
            # In chunks. Django takes a form of unknown length for an empty one.
            self.META["CONTENT_LENGTH"] = str(body.seek(0, SEEK_END))
            body.seek(0)


def exited(error: BaseException) -> RuntimeError:
    """
    Make what stands for an exception that would end the loop, and all connections with it.
    """
    return RuntimeError(f"A page raised {type(error).__name__}. [{Fault.PAGE_EXITED}]")


class Pages(BaseHandler):
    """
    What the two kinds of handlers share.
    """

    is_async = False

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware(is_async=self.is_async)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, ends: Any = None) -> None:
        """
        Serve one request.

        Args:
            scope: As in ASGI, without the server's ends.
            receive: As in ASGI.
            send: As in ASGI.
            ends: The server's ends, under a Fairway server.
        """
        raise NotImplementedError

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        """
        Find the view, as Django does, and what Fairway's own routes have to say to that.
        """
        try:
            match: ResolverMatch = super().resolve_request(request)
        except Resolver404:
            socket = socket_elsewhere(request)
            if socket is None:
                raise
            request.resolver_match = socket
            return socket
        page = page_instead(match, request.path_info, getattr(request, "urlconf", None))
        if page is not None:
            request.resolver_match = match = page
        return match

    def create_request(
        self, scope: Scope, body: IO[bytes]
    ) -> tuple[PageRequest, None] | tuple[None, HttpResponse]:
        """
        Make Django's request, or the answer to one that cannot be made.
        """
        try:
            return PageRequest(scope, body), None
        except UnicodeDecodeError:
            logger.warning(
                "Bad Request (UnicodeDecodeError)",
                exc_info=sys.exc_info(),
                extra={"status_code": 400},
            )
            return None, HttpResponseBadRequest()
        except RequestDataTooBig:
            return None, HttpResponse("413 Payload too large", status=413)

    @cached_property
    def _unserved_path(self) -> str | None:
        return unserved_path()

    def note_missing(self, request: HttpRequest) -> None:
        """
        Look whether what was not found is a static file. In a thread, or on the loop.
        """
        prefix = self._unserved_path
        if prefix is None or request.resolver_match is not None:
            return
        if request.path.startswith(prefix):
            note_missing(request.path, prefix)

    def close(self, response: HttpResponseBase) -> None:
        """
        Let go of a response and what belongs to it; ``request_finished`` is sent. In a thread.
        """
        try:
            response.close()
        except Exception:
            # The answer may have left already.
            logger.exception("Closing a response failed. [%s]", Fault.PAGE_CLOSE_FAILED)

    def finish(self, request: HttpRequest | None) -> None:
        """
        Do the same for a request without a response. In a thread.
        """
        if request is not None:
            request.close()
        signals.request_finished.send(sender=self.__class__)

    async def close_in_thread(self, response: HttpResponseBase, context: Context) -> None:
        """
        Close a response in a thread of its request.
        """

        def close(hop: Hop) -> None:
            self.close(response)

        hop = Hop(context, close)
        hop.start()
        await hop.wait_ended()
