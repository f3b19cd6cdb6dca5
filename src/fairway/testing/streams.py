"""
Drive a stream of server-sent events in a test: ``EventStreamCommunicator`` plays the browser.

It reads whatever an application answers with ``text/event-stream``, a consumer or a view, by
the grammar of the HTML standard, section 9.2.6. It does not connect anew by itself.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from fairway.testing.communicators import HttpCommunicator

if TYPE_CHECKING:
    from typing import Self

__all__ = ["EventStreamCommunicator", "StreamEvent"]


class StreamEvent(NamedTuple):
    """
    One event, as an ``EventSource`` hands it to a page.

    Attributes:
        data: The text; several lines are joined by line feeds.
        event: The name under which pages listen.
        id: The last id that the stream has named, "" for none.
    """

    data: str
    event: str = "message"
    id: str = ""

    def json(self) -> Any:
        """
        Decode the data.
        """
        return json.loads(self.data)


class EventStreamCommunicator(HttpCommunicator):
    """
    Plays an ``EventSource``: asks for a stream and reads its events one by one.

    ``async with`` connects, and fails the test if the answer is no stream; it leaves at the end.

    Attributes:
        status: Of the answer, once connected.
        response_headers: Of the answer, by lower-case name.
        last_event_id: What a browser would name when it comes back; "" for nothing.
        retry: Seconds after which a browser would come back, None as long as the stream has
            not said.
        ended: Whether the application has ended the stream, and all of it was read.
    """

    def __init__(
        self,
        application: Any,
        path: str,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        *,
        last_event_id: str = "",
        method: str = "GET",
        body: bytes = b"",
        **identity: Any,
    ) -> None:
        """
        Make a request.

        Args:
            application: See ``ApplicationCommunicator``.
            path: Path and query string.
            headers: Header fields to add, lower-case names.
            last_event_id: The id of the last event seen, for a reader that comes back.
            method: The HTTP method.
            body: The whole request body.
            identity: ``user`` or ``client``, see ``ApplicationCommunicator``.
        """
        fields = [(b"accept", b"text/event-stream"), *(headers or [])]
        if last_event_id:
            fields.append((b"last-event-id", last_event_id.encode()))
        super().__init__(application, method, path, body, fields, **identity)
        self.status = 0
        self.response_headers: dict[str, str] = {}
        self.last_event_id = last_event_id
        self.retry: float | None = None
        self._complete = False
        self._events: deque[StreamEvent] = deque()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""
        self._fields: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        status = await self.connect()
        kind = self.response_headers.get("content-type", "no content type")
        if status != 200 or not kind.startswith("text/event-stream"):
            await self._leave()
            raise AssertionError(f"{self.scope['path']} answered with {status} and {kind}")
        return self

    async def __aiter__(self) -> AsyncIterator[StreamEvent]:
        """
        Read until the application ends the stream, a second at most for each event.
        """
        while True:
            try:
                event = await self.receive_event()
            except EOFError:
                return
            yield event

    @property
    def ended(self) -> bool:
        """
        Whether nothing comes any more, and everything was read.
        """
        return self._complete and not self._events

    async def connect(self, timeout: float = 1) -> int:
        """
        Send the request and wait for the head of the answer.

        Returns:
            The status: 200 for a stream.
        """
        await self._send_request()
        start = await self.receive_output(timeout)
        if start["type"] != "http.response.start":
            raise AssertionError(f"Expected type 'http.response.start', but was {start['type']!r}")
        self.status = start["status"]
        headers = start.get("headers", ())
        self.response_headers = {
            name.decode("latin1").lower(): value.decode("latin1") for name, value in headers
        }
        return self.status

    async def receive_event(self, timeout: float = 1) -> StreamEvent:
        """
        Wait for the next event; comments such as heartbeats are passed over.

        Args:
            timeout: Seconds to wait. Running out of them cancels the application.

        Raises:
            EOFError: The application has ended the stream.
            TimeoutError: Nothing came.
            Exception: What the application has failed with, if it has.
        """
        until = monotonic() + timeout
        while not self._events:
            if self._complete:
                raise EOFError("the stream has ended")
            self._take(await self.receive_output(max(0.0, until - monotonic())))
        return self._events.popleft()

    async def receive_json_from(self, timeout: float = 1) -> Any:
        """
        Wait for the next event and decode the JSON in it.
        """
        return (await self.receive_event(timeout)).json()

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """
        Say whether no event comes. Comments and the end of the stream are none.
        """
        until = monotonic() + timeout
        while not self._events:
            if not await super().receive_nothing(0, interval):
                self._take(await self.receive_output())
            elif self._complete or monotonic() >= until:
                return True
            else:
                await asyncio.sleep(interval)
        return False

    async def disconnect(self, timeout: float = 1) -> None:
        """
        Leave, and wait for the application to end.

        Args:
            timeout: Seconds to wait before it is cancelled.
        """
        await self.send_input({"type": "http.disconnect"})
        await self.wait(timeout)

    def _take(self, message: Any) -> None:
        """
        Read what one message holds.
        """
        if message["type"] != "http.response.body":
            raise AssertionError(f"Expected type 'http.response.body', but was {message['type']!r}")
        self._complete = not message.get("more_body", False)
        self._text += self._decode(message.get("body", b""))
        # A CR at the end may be half of a line's end.
        kept = "\r" if self._text.endswith("\r") and not self._complete else ""
        text = self._text.removesuffix(kept) if kept else self._text
        *lines, self._text = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._text += kept
        for line in lines:
            self._take_line(line)

    def _take_line(self, line: str) -> None:
        """
        Read one line: an empty one ends an event.
        """
        if not line:
            fields, self._fields = self._fields, {}
            if "data" in fields:
                name = fields.get("event") or "message"
                self._events.append(StreamEvent(fields["data"], name, self.last_event_id))
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in self._fields:
            self._fields["data"] += f"\n{value}"
        elif name == "id" and "\0" not in value:
            self.last_event_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value) / 1000
        else:
            self._fields[name] = value
