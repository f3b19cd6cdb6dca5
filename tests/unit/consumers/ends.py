"""
A server's ends of one WebSocket with nothing behind them, and a channel layer that takes notes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from fairway.exceptions import ClientDisconnected
from fairway.layers.layer import InMemoryChannelLayer
from fairway.types import Message
from fairway.wire.prepared import Prepared

__all__ = ["FakeInbox", "FakeOutbox", "FakeServer", "NotingLayer"]


class NotingLayer(InMemoryChannelLayer):
    """
    A channel layer that notes the channels it gave and forgot.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.detached: set[str] = set()

    async def new_channel(self, prefix: str = "specific") -> str:
        """
        Note a name.
        """
        self.names.append(await super().new_channel(prefix))
        return self.names[-1]

    def detach(self, channel: str) -> None:
        """
        Note that a channel is forgotten.
        """
        super().detach(channel)
        self.detached.add(channel)

    @property
    def all_gone(self) -> bool:
        """
        Whether nothing is left of any channel.
        """
        return self.detached == set(self.names) and not self.groups and not self.channels


class FakeInbox:
    """
    An inbox without limits; says when its reader has handled everything.
    """

    def __init__(self) -> None:
        self.idle = True
        self.capacity = 100
        self.at_rest = asyncio.Event()
        self._events: deque[Any] = deque()
        self._more = asyncio.Event()

    def put(self, item: Any) -> bool:
        """
        Add a layer message.
        """
        self.idle = False
        self.push(item)
        return True

    def push(self, event: Any) -> None:
        """
        Add an event of the peer.
        """
        self._events.append(event)
        self._more.set()
        self.at_rest.clear()

    async def next_event(self) -> Any:
        """
        Wait for the next of either.
        """
        if all(isinstance(event, dict) for event in self._events):
            self.idle = True
        while not self._events:
            self.at_rest.set()
            await self._more.wait()
            self._more.clear()
        return self._events.popleft()


class FakeOutbox:
    """
    An outbox that keeps what it is offered.
    """

    pending_bytes = 0
    takes_bodies = False

    def __init__(self) -> None:
        self.clear = False
        self.offered: list[str | bytes | None] = []
        self.closed: list[tuple[int, str]] = []

    def offer(self, prepared: Prepared) -> bool:
        """
        Keep one message.
        """
        self.offered.append(prepared.text if prepared.data is None else prepared.data)
        return True

    @staticmethod
    def offer_all(outboxes: Iterable[FakeOutbox], prepared: Prepared) -> list[FakeOutbox]:
        """
        Keep it in those that are clear.
        """
        return [each for each in outboxes if not (each.clear and each.offer(prepared))]

    def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Keep the close code.
        """
        self.closed.append((code, reason))


class FakeServer:
    """
    Runs one application with the extension of Fairway's server.

    Attributes:
        scope: May be changed until `start`.
        sent: The messages the application sent.
        gone: Set to have `send` raise ClientDisconnected.
    """

    def __init__(self, **scope: Any) -> None:
        self.inbox = FakeInbox()
        self.outbox = FakeOutbox()
        self.sent: list[Message] = []
        self.gone = False
        self._news = asyncio.Event()
        self.receive = self.inbox.next_event
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/",
            "headers": [],
            "subprotocols": [],
            "extensions": {
                "fairway": {
                    "outbox": self.outbox,
                    "inbox": self.inbox,
                    "receive": self.receive,
                    "configure": None,
                }
            },
            **scope,
        }
        self.task: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        """
        Keep what the application sends.
        """
        if self.gone:
            raise ClientDisconnected("gone")
        self.sent.append(message)
        self._news.set()

    send.fairway_transparent = True  # type: ignore[attr-defined] # functions take attributes

    async def start(self, application: Callable[..., Any], **ends: Any) -> None:
        """
        Run an application up to where it has handled the handshake.
        """
        arguments = {"receive": self.receive, "send": self.send, **ends}
        self.inbox.push({"type": "websocket.connect"})
        self.task = asyncio.ensure_future(application(self.scope, *arguments.values()))
        await self.rest()

    async def text(self, text: str) -> None:
        """
        Have one message of the peer handled.
        """
        self.inbox.push({"type": "websocket.receive", "text": text})
        await self.rest()

    async def rest(self) -> None:
        """
        Wait until everything is handled, or the application has ended.
        """
        assert self.task is not None
        resting = asyncio.ensure_future(self.inbox.at_rest.wait())
        await asyncio.wait([self.task, resting], return_when=asyncio.FIRST_COMPLETED)
        resting.cancel()

    async def has_sent(self, text: str) -> None:
        """
        Wait until the application has sent a text.
        """
        while text not in self.texts:
            self._news.clear()
            await self._news.wait()

    async def end(self, code: int = 1000) -> None:
        """
        Let the peer leave, and wait for the application to end; raises what it raised.
        """
        self.inbox.push({"type": "websocket.disconnect", "code": code, "reason": ""})
        assert self.task is not None
        await self.task

    @property
    def texts(self) -> list[str]:
        """
        The text messages sent so far.
        """
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]
