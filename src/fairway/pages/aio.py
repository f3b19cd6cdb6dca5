"""
Pages whose view is asynchronous: it runs on the loop, and ends with its client.

Synchronous middleware and the ORM go to the request's lane, hop by hop, as Django has it.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import IO, Any

from django.core import signals
from django.core.exceptions import RequestAborted
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from fairway.pages.answers import answer_of, send_whole
from fairway.pages.body import read_body
from fairway.pages.handler import Pages, exited, script_prefix
from fairway.pages.hops import Hop
from fairway.pages.streams import UntilGone, close_parts, send_parts
from fairway.types import Receive, Scope, Send

__all__ = ["AsyncPages"]


class AsyncPages(Pages):
    """
    Serves a request on the loop.
    """

    is_async = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send, ends: Any = None) -> None:
        """
        See ``Pages``. A client that leaves cancels its view.
        """
        try:
            body = await read_body(receive)
        except RequestAborted:
            return
        request: HttpRequest | None = None
        response: Any = None
        try:
            set_script_prefix(script_prefix(scope))
            await signals.request_started.asend(sender=self.__class__, scope=scope)
            request, response = self.create_request(scope, body)
            async with UntilGone(receive):
                if request is not None:
                    response = await self._respond(request)
                response._handler_class = self.__class__  # noqa: SLF001 - as in sync
                await self._send(send, receive, response, scope["method"])
        finally:
            await self._end(body, request, response)

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        """
        Run middleware and view.
        """
        try:
            response = await self.get_response_async(request)
            if response.status_code == 404:
                self.note_missing(request)
            return response
        except (SystemExit, KeyboardInterrupt) as error:
            raise exited(error) from error

    async def _send(self, send: Send, receive: Receive, response: Any, method: str) -> None:
        """
        Send a response, whichever kind of body it has.
        """
        if not response.streaming or response.is_async:
            answer = answer_of(response, method)
        else:
            # Its first part is made there already.
            hop = Hop(copy_context(), lambda hop: hop.tell(answer_of(response, method)))
            hop.start()
            await hop.wait()
            if not hop.told:
                hop.raise_error()
            answer = hop.told.pop()
        if answer.is_whole:
            await send_whole(send, answer)
        else:
            await send_parts(send, receive, answer, copy_context(), watched=True)

    async def _end(self, body: IO[bytes], request: HttpRequest | None, response: Any) -> None:
        """
        Close what there is: an asynchronous iterator here, the rest in a thread of the request.
        """

        def end(hop: Hop) -> None:
            body.close()
            if response is None:
                self.finish(request)
            else:
                self.close(response)

        try:
            if response is not None:
                await close_parts(response)
        finally:
            hop = Hop(copy_context(), end)
            hop.start()
            await hop.wait_ended()
