"""
Pages whose view is synchronous: middleware, view and clean-up in one hop to a thread.

The loop reads what comes and sends what goes; the thread does everything that Django does under
WSGI, and tells the loop its answer before it cleans up.
"""

from __future__ import annotations

from contextvars import Context, copy_context
from functools import partial
from typing import IO, Any

from django.core import signals
from django.core.exceptions import RequestAborted
from django.http import HttpRequest
from django.urls import set_script_prefix

from fairway.pages.answers import Answer, answer_of, send_whole
from fairway.pages.body import read_body
from fairway.pages.busy import is_crowded, refuse
from fairway.pages.handler import Pages, exited, script_prefix
from fairway.pages.hops import Hop
from fairway.pages.streams import close_parts, send_parts
from fairway.types import Receive, Scope, Send

__all__ = ["SyncPages"]


SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""
Methods that change nothing (RFC 9110 section 9.2.1).
"""


class SyncPages(Pages):
    """
    Serves a request in one hop to a thread of its lane.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send, ends: Any = None) -> None:
        """
        See ``Pages``. A view whose client leaves is run to its end, and its answer thrown away.

        One that nobody reads any more when its turn comes is not begun, if it only reads.
        """
        try:
            body = await read_body(receive)
        except RequestAborted:
            return
        if is_crowded():
            # Others came while this one sent its body.
            body.close()
            await refuse(send)
            return
        context = copy_context()
        hop = Hop(context, partial(self._answer, scope, body, ends))
        hop.orphaned = partial(self._close_orphan, context)
        hop.start()
        try:
            await hop.wait()
        finally:
            if not hop.begun:
                # Deserted before, so nobody will close it.
                body.close()
        if not hop.told:
            hop.raise_error()
            return
        answer: Answer = hop.told.pop()
        if answer.is_whole:
            try:
                await send_whole(send, answer)
            finally:
                if not hop.ended:
                    await hop.wait_ended()
            return
        try:
            await send_parts(send, receive, answer, context)
        finally:
            try:
                await close_parts(answer.response)
            finally:
                await self.close_in_thread(answer.response, context)

    def _answer(self, scope: Scope, body: IO[bytes], ends: Any, hop: Hop) -> None:
        """
        Answer a request, and clean up unless the answer is still to be produced. In a thread.
        """
        if ends is not None and ends["gone"] and scope["method"] in SAFE:
            body.close()
            return
        request: HttpRequest | None = None
        response: Any
        try:
            set_script_prefix(script_prefix(scope))
            signals.request_started.send(sender=self.__class__, scope=scope)
            request, response = self.create_request(scope, body)
            if request is not None:
                response = self.get_response(request)
                if response.status_code == 404:
                    self.note_missing(request)
        except BaseException as error:
            body.close()
            self.finish(request)
            if isinstance(error, Exception):
                raise
            raise exited(error) from error
        response._handler_class = self.__class__  # noqa: SLF001 - the sender of request_finished
        try:
            answer = answer_of(response, scope["method"])
        except BaseException:
            body.close()
            self.close(response)
            raise
        hop.tell(answer)
        if answer.is_whole:
            if request is None:
                body.close()
            self.close(response)

    def _close_orphan(self, context: Context, answer: Answer) -> None:
        """
        Close an answer that nobody waits for any more, if that was left to whoever sends it.
        """
        if not answer.is_whole:
            # The thread that told of it may still be in the context itself.
            Hop(context.copy(), lambda hop: self.close(answer.response)).start()
