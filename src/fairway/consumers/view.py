"""
An HTTP consumer as a Django view: how a request gets to it, and its answer back.

This is the way under other servers, and wherever Django's own handler finds the route; behind
Django's middleware, with its session and user. What the consumer sends becomes a response of
Django's, so nothing goes around Django here: events of groups pass through the consumer.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from fairway.exceptions import ClientDisconnected, ClientFault, LocalProtocolError
from fairway.security.handshake import request_refusal
from fairway.types import ASGIApplication, Message, Scope

__all__ = ["respond"]

logger = logging.getLogger("fairway.consumers")

# Held while they run, as the loop itself holds its tasks only weakly.
_running: set[asyncio.Task[None]] = set()

NEEDS_ASGI = "This address answers with a stream, which needs an ASGI server.\n"


async def respond(
    application: ASGIApplication, request: HttpRequest, args: Any, kwargs: dict[str, Any]
) -> HttpResponseBase:
    """
    Run a consumer for a request of Django's and give its answer.

    Args:
        application: What ``as_asgi()`` returned.
        request: Of either of Django's handlers.
        args: Unnamed groups of the route.
        kwargs: Named parts of the route.
    """
    scope = await _scope_of(request)
    refused = request_refusal(scope)
    if refused is not None:
        return HttpResponse(refused.words, content_type="text/plain", status=refused.status)
    scope["url_route"] = {"args": args, "kwargs": kwargs}
    exchange = ViewExchange(request.body)
    exchange.start(application, scope)
    try:
        start, first = await exchange.head()
    except ClientFault as error:
        return HttpResponse(f"{error.reason}\n", content_type="text/plain", status=error.status)
    except BaseException:
        exchange.leave()
        raise
    if not first.get("more_body", False):
        exchange.leave()
        return _with_head(HttpResponse(first.get("body", b"")), start)
    if not hasattr(request, "scope"):
        # Django would gather an endless answer to its end before it sends any of it.
        exchange.leave()
        return HttpResponse(NEEDS_ASGI, content_type="text/plain", status=501)
    return _with_head(StreamingHttpResponse(Parts(exchange, first)), start)


class ViewExchange:
    """
    Plays the server of one consumer: one part of the answer is under way at a time.
    """

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._left = asyncio.Event()
        self._sent: asyncio.Queue[Message] = asyncio.Queue(1)
        self._task: asyncio.Task[None]

    def start(self, application: ASGIApplication, scope: Scope) -> None:
        """
        Run the consumer in a task, which may outlive its answer.
        """
        self._task = asyncio.ensure_future(_run(application, scope, self.receive, self.send))
        _running.add(self._task)
        self._task.add_done_callback(_ended)

    async def receive(self) -> Message:
        """
        Give the request, then the news that nobody listens any more.
        """
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """
        Take a message of the consumer; waits until the one before was taken on.
        """
        put = asyncio.ensure_future(self._sent.put(message))
        left = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait([put, left], return_when=asyncio.FIRST_COMPLETED)
            if not put.done():
                raise ClientDisconnected("the peer has gone")
        finally:
            put.cancel()
            left.cancel()

    def leave(self) -> None:
        """
        Tell the consumer that nobody listens any more.
        """
        self._left.set()

    async def head(self) -> tuple[Message, Message]:
        """
        Wait for the start of the answer and the first part of its body.
        """
        start = await self.next()
        if start["type"] != "http.response.start":
            raise LocalProtocolError(f"expected 'http.response.start', got {start['type']!r}")
        return start, await self.next()

    async def next(self) -> Message:
        """
        Wait for the consumer's next message, or raise what it failed with.
        """
        if self._sent.empty() and not self._task.done():
            got = asyncio.ensure_future(self._sent.get())
            try:
                await asyncio.wait([got, self._task], return_when=asyncio.FIRST_COMPLETED)
                if got.done():
                    return got.result()
            finally:
                got.cancel()
        if not self._sent.empty():
            return self._sent.get_nowait()
        self._task.result()
        raise LocalProtocolError("the consumer returned without completing its response")


class Parts:
    """
    The parts of a body that goes on, as Django iterates over them.

    Django does not close what it iterates over when its client leaves, but cancels it, calls
    ``close()`` in some thread, or simply forgets it; so all of these are taken for the end.
    """

    def __init__(self, exchange: ViewExchange, first: Message) -> None:
        self._exchange = exchange
        self._first: Message | None = first
        self._more = True
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> bytes:
        try:
            while self._more:
                part, self._first = self._first or await self._exchange.next(), None
                self._more = part.get("more_body", False)
                if part.get("body"):
                    body: bytes = part["body"]
                    return body
        except BaseException:
            self._exchange.leave()
            raise
        self._exchange.leave()
        raise StopAsyncIteration

    def close(self) -> None:
        """
        Tell the consumer that nobody listens any more. From any thread.
        """
        with suppress(RuntimeError):
            # Raised where the loop has ended, and the consumer with it.
            self._loop.call_soon_threadsafe(self._exchange.leave)

    __del__ = close


async def _run(application: ASGIApplication, scope: Scope, receive: Any, send: Any) -> None:
    """
    Make a coroutine of any application.
    """
    await application(scope, receive, send)


def _ended(task: asyncio.Task[None]) -> None:
    """
    Forget a consumer that has ended. What it failed with concerns whoever waits for it.
    """
    _running.discard(task)
    if not task.cancelled():
        task.exception()


async def _scope_of(request: HttpRequest) -> Scope:
    """
    Make the scope of a request, with what Django's middleware found out.
    """
    inherited: Scope | None = getattr(request, "scope", None)
    scope: Scope = dict(inherited) if inherited is not None else _scope_of_wsgi(request)
    # The server's ends are for who owns the whole exchange.
    scope["extensions"] = {}
    scope["cookies"] = request.COOKIES
    if hasattr(request, "session"):
        scope["session"] = request.session
    if hasattr(request, "auser"):
        scope["user"] = await request.auser()
    elif hasattr(request, "user"):
        scope["user"] = request.user
    return scope


def _scope_of_wsgi(request: HttpRequest) -> Scope:
    """
    Make a scope from what a WSGI server says.
    """
    meta = request.META
    headers = [
        (name.lower().encode("latin1"), value.encode("latin1", "replace"))
        for name, value in request.headers.items()
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": meta.get("SERVER_PROTOCOL", "HTTP/1.1").removeprefix("HTTP/"),
        "method": request.method,
        "scheme": meta.get("wsgi.url_scheme", "http"),
        "path": request.path,
        "query_string": meta.get("QUERY_STRING", "").encode("latin1", "replace"),
        "root_path": meta.get("SCRIPT_NAME", ""),
        "headers": headers,
        "client": (meta.get("REMOTE_ADDR", ""), 0),
        "server": (meta.get("SERVER_NAME", ""), int(meta.get("SERVER_PORT") or 0)),
    }


def _with_head(response: Any, start: Message) -> HttpResponseBase:
    """
    Give a response of Django's the status and the fields that the consumer chose.
    """
    response.status_code = start["status"]
    del response["content-type"]
    for name, value in start.get("headers", ()):
        key, text = name.decode("latin1"), value.decode("latin1")
        if key.lower() == "set-cookie":
            response.cookies.load(text)
        elif key in response:
            response[key] = f"{response[key]}, {text}"
        else:
            response[key] = text
    answer: HttpResponseBase = response
    return answer
