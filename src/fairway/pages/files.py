"""
Static files in development: Django's handler, without a whole file in memory.

Django reads a file to its end before it sends any of it, since its ASGI handler iterates over what
is asynchronous only. Which files there are, and what is said of one that is missing, stays its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler, StaticFilesHandlerMixin
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from fairway.pages.answers import WHOLE_BYTES

__all__ = ["StaticFiles"]


class StaticFiles(ASGIStaticFilesHandler):
    """
    Serves static files, and hands all other requests to an application.
    """

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """
        Find a file; its parts are read as its reader takes them.
        """
        response: Any = await StaticFilesHandlerMixin.get_response_async(self, request)
        response._resource_closers.append(request.close)  # noqa: SLF001 - as what is overridden does
        if response.streaming and not response.is_async:
            response.block_size = WHOLE_BYTES
            response.streaming_content = _parts(iter(response.streaming_content))
        found: HttpResponseBase = response
        return found


async def _parts(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """
    Read one part after the other, each in a thread of no pool: a file waits for no page.
    """
    read = sync_to_async(lambda: next(parts, b""), thread_sensitive=False)
    while part := await read():
        yield part
