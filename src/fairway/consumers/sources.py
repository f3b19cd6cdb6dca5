"""
Where a consumer's next event comes from: its peer or the channel layer, one at a time.

Under Fairway's own server one inbox gives both (``ServerSource``). Elsewhere, in tests and
behind middleware that wraps ``receive``, two tasks wait side by side (``TaskSource``). What is
done with an event is in ``base``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

from fairway.consumers.handlers import overrides
from fairway.layers.codec import JSON_MARK, Envelope, Kind
from fairway.types import Message, Outbox, Receive, Send, is_transparent

__all__ = ["ServerSource", "Source", "TaskSource", "await_many_dispatch", "open_source"]

BODY, HANDLER, CLOSE, JSON = Kind.BODY, Kind.HANDLER, Kind.CLOSE, Kind.JSON

DIRECT_UNLESS_OVERRIDDEN = (
    "encode_event",
    "encode_json",
    "http_response_body",
    "send",
    "send_body",
    "send_event",
    "send_json",
    "websocket_close",
    "websocket_send",
)
"""
What a class would see of a message to its socket, and would miss on the direct path.
"""


class Source(Protocol):
    """
    What a consumer awaits.

    Attributes:
        attached: Whether the channel layer knows the inbox, and so by itself what to leave.
        tolerant: Whether a layer message that nobody handles leaves the consumer running.
    """

    attached: bool
    tolerant: bool

    @property
    def next_event(self) -> Callable[[], Awaitable[Any]]:
        """
        Wait for an ASGI event, a dict, or for something to ``unpack``.

        Asking again says that what was given before has been handled.
        """

    def unpack(self, item: Any) -> Message | None:
        """
        Give the message of the channel layer in an item, or None if it went its way already.
        """

    def stop(self) -> None:
        """
        Give up waiting. A second call does nothing.
        """


class ServerSource:
    """
    The inbox that Fairway's server holds for this exchange, joined to the channel layer.

    Event-loop thread only. At rest it costs one object: no task and no queue.
    """

    __slots__ = ("_outbox", "next_event")

    attached = True
    tolerant = True

    def __init__(self, next_event: Callable[[], Awaitable[Any]], outbox: Outbox | None) -> None:
        """
        Wrap the server's ends.

        Args:
            next_event: The inbox's.
            outbox: Where messages to the socket may go without the consumer; None if nowhere.
        """
        self.next_event = next_event
        self._outbox = outbox

    def unpack(self, item: Envelope) -> Message | None:
        """
        See ``Source``.

        A message to the socket itself, which came here only to keep its place behind a
        handler's, goes to the outbox as it is.
        """
        kind = item.kind
        if kind is HANDLER:
            return item.message()
        # A close goes through the consumer in any case: the exchange has to know of it.
        outbox = self._outbox
        if outbox is not None and kind is not CLOSE and (kind is not BODY or outbox.takes_bodies):
            outbox.offer(item.prepared)
            return None
        return _message_in(item)

    def stop(self) -> None:
        """
        See ``Source``: there is nothing to give up.
        """


class Received(NamedTuple):
    """
    What was received from the channel layer: an envelope of ours, another layer's message.
    """

    content: Envelope | Message


class TaskSource:
    """
    Two tasks, one for the peer and one for the channel layer.
    """

    __slots__ = ("_waits", "tolerant")

    attached = False

    def __init__(self, receive: Receive, layer_receive: Receive | None, *, tolerant: bool) -> None:
        """
        Prepare to wait for both, or for the peer alone where there is no channel layer.
        """
        self._waits = Waits([receive] if layer_receive is None else [receive, layer_receive])
        self.tolerant = tolerant

    async def next_event(self) -> Any:
        """
        See ``Source``.
        """
        index, event = await self._waits.next()
        return Received(event) if index else event if isinstance(event, dict) else dict(event)

    def unpack(self, item: Received) -> Message | None:
        """
        See ``Source``.
        """
        content = item.content
        return _message_in(content) if isinstance(content, Envelope) else content

    def stop(self) -> None:
        """
        See ``Source``.
        """
        self._waits.cancel()


class Waits:
    """
    Awaits several callables at once and gives their results one by one, each in its turn.

    What one has given is not asked for again before the next call of ``next``, so nothing
    is taken from a queue too early.
    """

    __slots__ = ("_callables", "_tasks", "_turn")

    def __init__(self, callables: Sequence[Callable[[], Awaitable[Any]]]) -> None:
        self._callables = callables
        self._tasks: list[asyncio.Future[Any] | None] = [None] * len(callables)
        self._turn = 0

    async def next(self) -> tuple[int, Any]:
        """
        Wait for a result and give it with the position of its callable.
        """
        tasks = [task or self._start(index) for index, task in enumerate(self._tasks)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        count = len(tasks)
        order = ((self._turn + step) % count for step in range(count))
        index = next(index for index in order if tasks[index].done())
        self._turn = index + 1
        self._tasks[index] = None
        return index, tasks[index].result()

    def cancel(self) -> None:
        """
        Stop waiting; what a callable raises from now on is its own affair.
        """
        for index, task in enumerate(self._tasks):
            if task is not None:
                self._tasks[index] = None
                task.add_done_callback(_look_away)
                task.cancel()

    def _start(self, index: int) -> asyncio.Future[Any]:
        task = self._tasks[index] = asyncio.ensure_future(self._callables[index]())
        return task


async def await_many_dispatch(
    consumer_callables: Sequence[Callable[[], Awaitable[Any]]],
    dispatch: Callable[[Any], Awaitable[Any]],
) -> None:
    """
    Await several callables at once, for ever, and hand their results to one that is awaited.

    Ends only by an exception of one of them; the others are cancelled then.

    Args:
        consumer_callables: Called again and again, each as soon as its last result is handled.
        dispatch: Called with one result at a time.
    """
    waits = Waits(consumer_callables)
    try:
        while True:
            _, result = await waits.next()
            await dispatch(result)
    finally:
        waits.cancel()


@lru_cache(maxsize=1024)
def _may_be_passed_by(consumer_class: Any) -> bool:
    """
    Whether a message to the socket of such a consumer loses nothing by going there straight.
    """
    direct: bool = consumer_class._fairway_direct  # noqa: SLF001 - kept for this module
    return direct and not overrides(consumer_class, DIRECT_UNLESS_OVERRIDDEN)


def open_source(consumer: Any, receive: Receive, send: Send) -> Source:
    """
    Find out where a consumer's events come from, and connect it to the channel layer there.

    Args:
        consumer: With its scope, channel layer and channel name set.
        receive: The consumer's own.
        send: The consumer's own, which decides whether messages may pass it by.
    """
    layer = consumer.channel_layer
    extensions: Mapping[str, Any] = consumer.scope.get("extensions") or {}
    ends = extensions.get("fairway")
    attach = getattr(layer, "attach", None)
    if ends is None or ends["receive"] is not receive or (layer is not None and attach is None):
        return TaskSource(receive, _layer_receive(consumer), tolerant=ends is not None)
    consumer_class: type = type(consumer)
    direct = is_transparent(send) and _may_be_passed_by(consumer_class)
    inbox, outbox = ends["inbox"], ends["outbox"] if direct else None
    if attach is not None:
        attach(consumer.channel_name, inbox=inbox, outbox=outbox)
    return ServerSource(inbox.next_event, outbox)


def _layer_receive(consumer: Any) -> Callable[[], Awaitable[Any]] | None:
    """
    Say how to wait for the channel layer, if there is one.
    """
    if consumer.channel_layer is None:
        return None
    receive_envelope = getattr(consumer.channel_layer, "receive_envelope", None)
    if receive_envelope is None:
        receive: Callable[[], Awaitable[Any]] = consumer.channel_receive
        return receive
    return partial(receive_envelope, consumer.channel_name)


def _message_in(envelope: Envelope) -> Message:
    """
    Give the message in an envelope, with a mark on what a class may encode its own way.
    """
    message: Message = envelope.message()
    if envelope.kind is JSON:
        message[JSON_MARK] = True
    return message


def _look_away(task: asyncio.Future[Any]) -> None:
    """
    Retrieve the exception of a task nobody waits for, so that the loop does not report it.
    """
    if not task.cancelled():
        task.exception()
