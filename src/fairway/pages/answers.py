"""
A response of Django's as ASGI messages: its head, and a body that is all there.

What is still to be produced is sent by ``streams``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.http import FileResponse
from django.http.response import HttpResponseBase

from fairway.types import Message, Send

__all__ = ["WHOLE_BYTES", "Answer", "answer_of", "send_whole"]

PART_BYTES = 65536
"""
What is read of a file at a time.
"""

WHOLE_BYTES = 4 * PART_BYTES
"""
A body above that is sent in parts of this size, so that a slow reader is noticed.
"""

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Answer:
    """
    What a view returned, ready to be sent.

    Attributes:
        response: Django's object, to be closed by whoever sends the answer.
        headers: Of the response, cookies included.
        body: All of it, or its first part.
        parts: The rest, if there may be one and it is made in a thread.
        is_async: Whether the body is an asynchronous iterator, of which nothing is here yet.
    """

    response: HttpResponseBase
    headers: Headers
    body: bytes = b""
    parts: Iterator[bytes] | None = None
    is_async: bool = False

    @property
    def is_whole(self) -> bool:
        """
        Whether nothing of it is still to be produced.
        """
        return self.parts is None and not self.is_async

    @property
    def start(self) -> Message:
        """
        The message that begins it.
        """
        status = self.response.status_code
        return {"type": "http.response.start", "status": status, "headers": self.headers}


def answer_of(response: Any, method: str | None) -> Answer:
    """
    Read a response, and produce the first part of a body that is made by an iterator.

    Args:
        response: As a view or middleware returned it.
        method: The request's: nothing is produced for HEAD.
    """
    answer = Answer(response, _headers(response))
    if not response.streaming:
        answer.body = response.content
    elif method == "HEAD" or response.status_code in {204, 304}:
        # Nobody will read it, and it may have no end.
        pass
    elif getattr(response, "is_async", False):
        answer.is_async = True
    else:
        if isinstance(response, FileResponse):
            response.block_size = PART_BYTES
        _produce(answer, iter(response))
    return answer


def _produce(answer: Answer, parts: Iterator[bytes]) -> None:
    """
    Take the first part, which for most files is all.
    """
    first = next(parts, None)
    if first is None:
        return
    answer.body = first
    if str(len(first)) != answer.response.headers.get("Content-Length"):
        answer.parts = parts


def _headers(response: Any) -> Headers:
    """
    Encode the fields of a response, with their case as it is, and its cookies.
    """
    # Its items() look each field up by its name again, in lower case.
    store: dict[str, tuple[str, str]] | None = getattr(response.headers, "_store", None)
    fields = response.items() if store is None else store.values()
    headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in fields]
    if response.cookies:
        headers += [
            (b"Set-Cookie", cookie.OutputString().encode("ascii"))
            for cookie in response.cookies.values()
        ]
    return headers


async def send_whole(send: Send, answer: Answer) -> None:
    """
    Send an answer whose body is all there; waits for the reader of a large one.

    Raises:
        ClientDisconnected: The client has left.
    """
    body = answer.body
    if len(body) <= WHOLE_BYTES:
        await send(answer.start)
        await send({"type": "http.response.body", "body": body})
        return
    if "Content-Length" not in answer.response.headers:
        answer.headers.append((b"Content-Length", b"%d" % len(body)))
    await send(answer.start)
    for at in range(0, len(body), WHOLE_BYTES):
        part = body[at : at + WHOLE_BYTES]
        more = at + WHOLE_BYTES < len(body)
        await send({"type": "http.response.body", "body": part, "more_body": more})
