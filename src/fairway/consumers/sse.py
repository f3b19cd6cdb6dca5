"""
``EventStreamConsumer``: server-sent events, one consumer for each ``EventSource``.

It is written like a WebSocket's consumer: ``connect()`` accepts, groups reach the reader
without a handler, ``disconnect()`` is last. What an event looks like is known in ``wire.sse``.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, WeakSet

from django.core.serializers.json import DjangoJSONEncoder

from fairway.consumers.http import AsyncHttpConsumer, Headers, pairs_of
from fairway.consumers.readers import outbox_settings
from fairway.exceptions import ClientDisconnected
from fairway.layers.codec import EVENT_MARK
from fairway.types import Message, is_transparent
from fairway.wire.sse import BINARY_EVENT, HEARTBEAT, encode_event, encode_retry

__all__ = ["EventStreamConsumer"]

HEAD = (
    (b"content-type", b"text/event-stream"),
    # no-transform: a proxy that compresses holds events back until a block is full.
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class EventStreamConsumer(AsyncHttpConsumer):
    """
    One reader of server-sent events, with methods that are coroutines.

    Attributes:
        heartbeat: Seconds between two comments that keep proxies from taking the stream for
            dead, and find readers that are; 0 for none.
        retry: Seconds after which the reader comes back when the stream has ended; None
            leaves it to the browser.
        last_event_id: The id of the last event that the reader has seen, None for none; from the
            header ``Last-Event-ID``, or from a query parameter of the name ``last_event_id``.
    """

    _fairway_direct: ClassVar[bool] = True

    heartbeat: float = 15.0
    retry: float | None = 3.0
    last_event_id: str | None = None

    async def connect(self) -> None:
        """
        Decide on the request: ``accept()`` it, as this does, or ``close()`` to refuse it.
        """
        await self.accept()

    async def accept(self, headers: Headers | None = None) -> None:
        """
        Begin the stream. The reader learns at once that it is open.

        Args:
            headers: Header fields to add to the answer.
        """
        given = pairs_of(headers)
        names = {name.lower() for name, _ in given}
        self._configure()
        await self.send_headers(headers=[*(one for one in HEAD if one[0] not in names), *given])
        first = HEARTBEAT if self.retry is None else encode_retry(self.retry)
        await self.send_body(first, more_body=True)
        if self.scope["method"] == "HEAD":
            # The same head, without a length, and its answer does not go on.
            await self.send_body(b"")

    async def send_event(self, data: Any, event: str | None = None, id: str | None = None) -> None:  # noqa: A002 - the field's own word
        """
        Send one event; waits while the reader reads too slowly.

        Args:
            data: A ``str``, sent as it is, or anything that ``encode_event`` takes.
            event: The name under which the page listens; None for ``message``.
            id: What the reader brings as ``last_event_id`` when it comes back.

        Raises:
            LocalProtocolError: The name or id holds a line break or NUL.
            TypeError: The data is bytes, or no JSON.
        """
        if isinstance(data, bytes | bytearray | memoryview):
            raise TypeError("an event holds text: decode the bytes, or encode them as base64")
        text = data if isinstance(data, str) else await self.encode_event(data)
        await self.send_body(encode_event(text, event=event, id=id), more_body=True)

    @classmethod
    async def encode_event(cls, data: Any) -> str:
        """
        Encode what is no text, as JSON.
        """
        return json.dumps(data, cls=DjangoJSONEncoder, separators=(",", ":"), ensure_ascii=False)

    async def close(self, status: int = 204) -> None:
        """
        End the stream, after which the reader comes back; or refuse the request.

        Args:
            status: What a request is refused with that was not accepted: 204, or anything but
                200, tells the reader not to come back.
        """
        if not self._fairway_begun:
            await self.send_response(status, b"")
        elif not self._fairway_complete:
            await self.send_body(b"")

    async def _fairway_begin(self, body: bytes) -> None:
        """
        See ``AsyncHttpConsumer``: there is no ``handle()``, and so no task.
        """
        self.last_event_id = _last_event_id(self.scope)
        await self.connect()

    async def _fairway_relay(self, message: Message) -> None:
        """
        Pass what a group sends to sockets on as an event.
        """
        if message["type"] == "websocket.close":
            await self._fairway_end_response(message)
        elif message["type"] == "http.response.body":
            await self.send(message)
        elif message.get("text") is not None:
            event, id_ = message.get(EVENT_MARK) or (None, None)
            await self.send_event(message["text"], event, id_)
        else:
            data = base64.b64encode(message.get("bytes") or b"").decode("ascii")
            await self.send_event(data, BINARY_EVENT)

    def _configure(self) -> None:
        """
        Leave the heartbeat to the server where it is Fairway's, else have it sent from here.

        Not to the server if somebody changes what is sent on its way: a compressed stream
        would break of a comment that is not.
        """
        ends = (self.scope.get("extensions") or {}).get("fairway")
        if ends is not None and is_transparent(self.base_send):
            outbox = outbox_settings(type(self))
            ends["configure"](heartbeat=self.heartbeat, gone_at_eof=True, **outbox)
        elif self.heartbeat:
            Pulse.of_loop(self.heartbeat).streams.add(self)


class Pulse:
    """
    Heartbeats of the streams of one loop under a server that knows of none: one timer for all.

    Attributes:
        streams: Whose heart is to beat.
    """

    _pulses: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, Pulse]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.streams: WeakSet[EventStreamConsumer] = WeakSet()
        self._seconds = seconds
        self._beats: set[asyncio.Task[None]] = set()
        loop.call_later(seconds, self._beat)

    @classmethod
    def of_loop(cls, seconds: float) -> Pulse:
        """
        Give the pulse of the running loop that beats so often.
        """
        loop = asyncio.get_running_loop()
        pulses = cls._pulses.setdefault(loop, {})
        if seconds not in pulses:
            pulses[seconds] = cls(loop, seconds)
        return pulses[seconds]

    def _beat(self) -> None:
        """
        Begin one beat of all streams, each in a task that lasts as long as the beat.
        """
        loop = asyncio.get_running_loop()
        if not self.streams:
            # The next stream starts another: nothing ticks in a process without streams.
            self._pulses[loop].pop(self._seconds, None)
            return
        for stream in self.streams:
            task = loop.create_task(_beat_one(stream))
            self._beats.add(task)
            task.add_done_callback(self._beats.discard)
        loop.call_later(self._seconds, self._beat)


async def _beat_one(stream: EventStreamConsumer) -> None:
    """
    Let one heart beat; a stream that is over is found here at the latest.
    """
    try:
        if not stream._fairway_complete:  # noqa: SLF001 - one mechanism in two classes
            await stream.send_body(HEARTBEAT, more_body=True)
    except (ClientDisconnected, OSError):
        stream._fairway_complete = True  # noqa: SLF001 - as above


def _last_event_id(scope: Any) -> str | None:
    """
    Read what the reader has seen last. A page that begins anew can name it in the address only.
    """
    from django.http import QueryDict

    for name, value in scope["headers"]:
        if name == b"last-event-id":
            # The standard has browsers encode it as UTF-8.
            return str(value, "utf-8", "replace")
    query = QueryDict(scope.get("query_string", b""))
    found = query.get("last_event_id")
    return None if found is None else str(found)
