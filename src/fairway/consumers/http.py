"""
``AsyncHttpConsumer``: one HTTP request, with a handler that may take its time.

Methods and signatures are Channels'. What is Fairway's: ``handle()`` runs in a task of its own,
so that group messages have their handlers called meanwhile, and a client that leaves ends it.
Event streams and long polls, which stand on this, are in ``sse`` and ``longpoll``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import CoroutineType
from typing import Any, ClassVar

from django.conf import settings

from fairway import metrics
from fairway.consumers.base import UNAUTHENTICATED, AsyncConsumer
from fairway.consumers.sources import Source, open_source
from fairway.exceptions import ClientDisconnected, StopConsumer
from fairway.faults import Fault
from fairway.types import Message, Receive, Send
from fairway.wire import codes

__all__ = ["AsyncHttpConsumer", "Headers", "pairs_of"]

logger = logging.getLogger("fairway.consumers")

Headers = Mapping[bytes, bytes] | Mapping[str, str] | Iterable[tuple[bytes | str, bytes | str]]

LAST: Message = {"type": "http.disconnect"}


class AsyncHttpConsumer(AsyncConsumer):
    """
    One HTTP request, with methods that are coroutines.

    A subclass overrides ``handle``. It may also join groups and have handlers for their
    messages: these run while ``handle`` does, and after it as long as a response that has
    begun is not complete.

    Attributes:
        body: The parts of the request's body so far.
        body_bytes_max: Bytes of body above which the answer is 413; None for Django's
            ``DATA_UPLOAD_MAX_MEMORY_SIZE``.
        groups: Groups this consumer is in from the start, set by the class.
    """

    # Text is no response by itself, so it takes the way through the consumer.
    _fairway_direct: ClassVar[bool] = False
    _fairway_begun = False
    _fairway_complete = False
    _fairway_body_bytes = 0
    # Where handle() runs.
    _fairway_source: HandlerSource

    body_bytes_max: int | None = None
    groups: Sequence[str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.body: list[bytes] = []

    async def send(self, message: Message) -> None:
        """
        Send an ASGI message.

        Raises:
            ClientDisconnected: The client has left.
        """
        kind = message["type"]
        await self.base_send(message)
        if kind == "http.response.start":
            self._fairway_begun = True
        elif kind == "http.response.body" and not message.get("more_body", False):
            self._fairway_complete = True

    async def send_headers(self, *, status: int = 200, headers: Headers | None = None) -> None:
        """
        Begin the response. It leaves together with the first part of its body.

        Args:
            status: 200 to 599.
            headers: A mapping or pairs, names and values as bytes or text.
        """
        pairs = pairs_of(headers)
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def send_body(self, body: bytes, *, more_body: bool = False) -> None:
        """
        Send a part of the response's body; waits while the client reads too slowly.

        Args:
            body: May be empty.
            more_body: Whether the response goes on.

        Raises:
            ClientDisconnected: The client has left. Not to be caught: it ends ``handle``.
        """
        assert isinstance(body, bytes), "Body is not bytes"  # noqa: S101 - Channels' own words
        await self.send({"type": "http.response.body", "body": body, "more_body": more_body})

    async def send_response(self, status: int, body: bytes, **kwargs: Any) -> None:
        """
        Send a whole response.

        Args:
            status: 200 to 599.
            body: The whole body.
            kwargs: ``headers``, as ``send_headers`` has them.
        """
        await self.send_headers(status=status, **kwargs)
        await self.send_body(body)

    async def handle(self, body: bytes) -> None:
        """
        Answer the request, by ``send_response`` or by ``send_headers`` and ``send_body``.

        A client that leaves before its answer is complete cancels this, as it does with an
        async view of Django's; what must be finished in any case is to be shielded
        (``asyncio.shield``) or left to a task.

        Args:
            body: The whole body of the request.
        """
        raise NotImplementedError("Subclasses of AsyncHttpConsumer must provide a handle() method.")

    async def disconnect(self) -> None:
        """
        Clean up. Runs once at the end of every consumer, however it came.
        """

    async def http_request(self, message: Message) -> None:
        """
        Handle a part of the request's body; once all is there, begin with ``handle()``.
        """
        part = message.get("body", b"")
        self.body.append(part)
        self._fairway_body_bytes += len(part)
        # A look at the settings is not to be had for nothing.
        if part and await self.__refuse_large():
            raise StopConsumer
        if not message.get("more_body"):
            for group in self.groups or ():
                await self.group_add(group)
            await self._fairway_begin(b"".join(self.body))

    async def http_disconnect(self, message: Message) -> None:
        """
        Handle the end: ``disconnect()``, outside of all groups already.
        """
        await self.disconnect()
        raise StopConsumer

    async def _fairway_begin(self, body: bytes) -> None:
        """
        Have the whole request handled.
        """
        self._fairway_source.run(self.handle(body))

    def _fairway_open_source(self, receive: Receive, send: Send) -> Source:
        """
        See ``AsyncConsumer``: events come between those of ``handle()``.

        Everything begins here, as one instance may serve one request after another.
        """
        self.body = []
        self._fairway_body_bytes = 0
        self._fairway_begun = self._fairway_complete = False
        self._fairway_source = HandlerSource(open_source(self, receive, send), self)
        return self._fairway_source

    async def _fairway_relay(self, message: Message) -> None:
        """
        Send what a group sends to sockets as a part of a body that goes on.
        """
        if message["type"] == "http.response.body":
            await self.send(message)
        elif message["type"] == "websocket.close":
            await self._fairway_end_response(message)
        else:
            text = message.get("text")
            await self.send_body(
                message["bytes"] if text is None else text.encode(), more_body=True
            )

    async def _fairway_end_response(self, message: Message) -> None:
        """
        End the response as a ``websocket.close`` says; one that has not begun is refused.
        """
        if not self._fairway_begun and message.get("code") == codes.UNAUTHENTICATED:
            for part in UNAUTHENTICATED:
                await self.send(part)
        elif not self._fairway_begun:
            await self.send_response(403, b"")
        elif not self._fairway_complete:
            await self.send_body(b"")

    async def __refuse_large(self) -> bool:
        """
        Answer 413 to a body that is larger than it may be.
        """
        limit = self.body_bytes_max
        if limit is None:
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if limit is None or self._fairway_body_bytes <= limit:
            return False
        metrics.refusals.add("413")
        logger.warning(
            "%s refused with 413: the body has more than %d bytes. "
            "Hint: body_bytes_max of the class, or DATA_UPLOAD_MAX_MEMORY_SIZE. [%s]",
            type(self).__qualname__,
            limit,
            Fault.REQUEST_MALFORMED,
        )
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        with suppress(ClientDisconnected):
            await self.send_response(413, b"The body is too large.\n", headers=headers)
        await self.disconnect()
        return True


class HandlerSource:
    """
    A source of events that also runs ``handle()``, and ends when that and the response have.

    Implements ``Source``. No task waits besides those of ``handle()`` and of the consumer: who
    awaits an event while ``handle()`` ends is woken as ``asyncio.timeout`` does it.
    """

    __slots__ = ("_consumer", "_inner", "_interrupted", "_task", "_waiting", "attached", "tolerant")

    def __init__(self, inner: Source, consumer: AsyncHttpConsumer) -> None:
        self._inner = inner
        self._consumer = consumer
        self._task: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._interrupted = False
        self.attached = inner.attached
        self.tolerant = inner.tolerant

    @property
    def unpack(self) -> Callable[[Any], Message | None]:
        """
        See ``Source``.
        """
        return self._inner.unpack

    def run(self, handling: Any) -> None:
        """
        Begin with ``handle()``.
        """
        if type(handling) is CoroutineType:
            # A given name saves asyncio from making one up.
            self._task = asyncio.get_running_loop().create_task(handling, name="fairway handle")
        else:
            self._task = asyncio.ensure_future(handling)
        self._task.add_done_callback(self._wake)

    def stop(self) -> None:
        """
        See ``Source``: ``handle()`` is not waited for any more.
        """
        if self._task is not None:
            self._task.cancel()
            self._task.add_done_callback(_look_away)
        self._inner.stop()
        # Each refers to the other: all that a request held would wait for the garbage collector.
        vars(self._consumer).pop("_fairway_source", None)

    async def next_event(self) -> Any:
        """
        See ``Source``; what is given last is a disconnect, whether there was one or not.
        """
        while True:
            task = self._task
            if task is not None and task.done():
                self._task = None
                # Whatever it failed with is the consumer's failure.
                if _result(task) or not self._consumer._fairway_begun:  # noqa: SLF001 - kept for this class
                    return LAST
            if self._task is None and self._consumer._fairway_complete:  # noqa: SLF001 - kept for this class
                return LAST
            event = await self._next_unless_woken()
            if event is None:
                continue
            if isinstance(event, dict) and event.get("type") == "http.disconnect":
                await self._end_handling()
            return event

    async def _next_unless_woken(self) -> Any:
        """
        Wait for an event, or give None once ``handle()`` has ended.
        """
        if self._task is None:
            return await self._inner.next_event()
        waiting = self._waiting = asyncio.current_task()
        assert waiting is not None  # noqa: S101 - a consumer runs in a task
        try:
            return await self._inner.next_event()
        except asyncio.CancelledError:
            if self._interrupted and not waiting.uncancel():
                return None
            raise
        finally:
            self._waiting = None
            self._interrupted = False

    async def _end_handling(self) -> None:
        """
        Let ``handle()`` end: by itself if it has answered, else it is cancelled.
        """
        task, self._task = self._task, None
        if task is None:
            return
        task.remove_done_callback(self._wake)
        if not self._consumer._fairway_complete:  # noqa: SLF001 - as above
            task.cancel()
        if not task.done():
            try:
                await asyncio.wait([task])
            finally:
                task.cancel()
        _result(task)

    def _wake(self, task: asyncio.Task[None]) -> None:
        """
        Wake who waits for an event.
        """
        if self._waiting is not None:
            self._interrupted = True
            self._waiting.cancel()


def pairs_of(headers: Headers | None) -> list[tuple[bytes, bytes]]:
    """
    Give header fields as ASGI wants them, in bytes.
    """
    pairs: Any = headers.items() if isinstance(headers, Mapping) else headers or ()
    return [(_encoded(name), _encoded(value)) for name, value in pairs]


def _encoded(part: bytes | str) -> bytes:
    """
    Encode a name or value as HTTP does.
    """
    return part.encode("latin-1") if isinstance(part, str) else part


def _result(task: asyncio.Task[None]) -> bool:
    """
    Say whether the consumer ends with its ``handle()``; raises what that has failed with.
    """
    if task.cancelled():
        return True
    try:
        task.result()
    except (ClientDisconnected, StopConsumer):
        return True
    return False


def _look_away(task: asyncio.Future[Any]) -> None:
    """
    Retrieve the exception of a task nobody waits for.
    """
    if not task.cancelled():
        task.exception()
