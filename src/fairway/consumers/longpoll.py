"""
``LongPollConsumer``: a request that is answered when there is news.

For clients that can neither WebSocket nor event streams. A client asks again and again, and
names what it has seen last by the cursor of the answer before.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import QueryDict

from fairway import metrics
from fairway.consumers.http import AsyncHttpConsumer
from fairway.layers.codec import EVENT_MARK, JSON_MARK
from fairway.types import Message

__all__ = ["LongPollConsumer"]

HEADERS = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
)


class LongPollConsumer(AsyncHttpConsumer):
    """
    One poll: answers with what groups sent, or with nothing when the time is over.

    The answer is ``{"cursor": ..., "messages": [...]}``. What is published between two polls
    reaches nobody here, so ``missed`` looks it up where the project keeps it; groups are joined
    before, so that nothing falls between the two. Cursors are the ids that
    ``broadcast(..., id=...)`` gave.

    Attributes:
        timeout: Seconds to wait for a message; below what proxies on the way allow.
        gather: Seconds to wait for more behind the first message, so that one answer takes all
            of a burst.
        messages_max: Messages of one answer at most; what is above is left out, and counts as
            not seen only for those who keep ids.
        cursor: What the client has seen last, from the query parameter of that name; None at
            its first poll.
    """

    timeout: float = 25.0
    gather: float = 0.02
    messages_max: int = 100
    cursor: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fairway_news: list[tuple[Any, str | None]] = []
        self._fairway_arrived = asyncio.Event()

    async def connect(self) -> None:
        """
        Join groups that the class cannot name in ``groups``, or answer otherwise.
        """

    async def missed(self, cursor: str | None) -> list[tuple[Any, str | None]]:
        """
        Look up what was published after a cursor.

        Returns:
            Pairs of message and id, the oldest first; none where a project keeps nothing.
        """
        return []

    async def handle(self, body: bytes) -> None:
        """
        Answer now with what was missed, else with what comes.
        """
        query = QueryDict(self.scope.get("query_string", b""))
        self.cursor = query.get("cursor") or None
        self._configure()
        await self.connect()
        if self._fairway_begun:
            return
        news = await self.missed(self.cursor)
        if not news:
            await self._wait_for_news()
            news = self._fairway_news
        await self.answer(news[: self.messages_max])

    async def answer(self, news: list[tuple[Any, str | None]]) -> None:
        """
        Send messages, each with its id, as the answer.
        """
        ids = [id_ for _, id_ in news if id_ is not None]
        content = {
            "cursor": ids[-1] if ids else self.cursor,
            "messages": [message for message, _ in news],
        }
        text = json.dumps(content, cls=DjangoJSONEncoder, separators=(",", ":"))
        await self.send_response(200, text.encode(), headers=HEADERS)

    async def _wait_for_news(self) -> None:
        """
        Wait for the first message and a moment longer, or for the end of the time.
        """
        try:
            async with asyncio.timeout(self.timeout):
                await self._fairway_arrived.wait()
        except TimeoutError:
            return
        if self.gather:
            await asyncio.sleep(self.gather)

    async def _fairway_relay(self, message: Message) -> None:
        """
        Keep what a group sends to sockets.
        """
        if message["type"] == "websocket.close":
            await self._fairway_end_response(message)
            return
        if message["type"] == "http.response.body":
            # A part of a stream, which an answer of its own form has no place for.
            metrics.drops.add("no_handler")
            return
        if len(self._fairway_news) >= self.messages_max:
            metrics.drops.add("full")
            return
        _, id_ = message.get(EVENT_MARK) or (None, None)
        self._fairway_news.append((_content(message), id_))
        self._fairway_arrived.set()

    def _configure(self) -> None:
        """
        Have the server end the poll when it restarts, or when the client has closed.
        """
        ends = (self.scope.get("extensions") or {}).get("fairway")
        if ends is not None:
            ends["configure"](gone_at_eof=True)


def _content(message: Message) -> Any:
    """
    Give what a message holds: a value if it was sent as one, text, or bytes as base64.
    """
    text = message.get("text")
    if text is None:
        return base64.b64encode(message.get("bytes") or b"").decode("ascii")
    return json.loads(text) if JSON_MARK in message else text
