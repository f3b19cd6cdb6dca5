"""
Consumers under Fairway's own server while the channel layer takes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from asgiref.sync import async_to_sync
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from fairway import metrics
from fairway.consumers import (
    AsyncHttpConsumer,
    AsyncWebsocketConsumer,
    EventStreamConsumer,
    WebsocketConsumer,
    outages,
)
from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.layer import InMemoryChannelLayer
from fairway.layers.notices import Notices
from fairway.testing import WebsocketCommunicator
from tests.integration.consumers.conftest import Open
from tests.protocol import harness


class Member(AsyncWebsocketConsumer):
    """
    Joins a group before it accepts, and sends there what it hears.
    """

    ends: ClassVar[list[int]] = []

    async def connect(self) -> None:
        """
        Join, then accept.
        """
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send to the group where asked to, and answer.
        """
        if text_data == "tell":
            await self.channel_layer.group_send("room", {"type": "said"})
        await self.send(f"done: {text_data}")

    async def disconnect(self, code: int) -> None:
        """
        Note it.
        """
        self.ends.append(code)


class Hasty(Member):
    """
    Accepts before it joins.
    """

    async def connect(self) -> None:
        """
        Accept, then join.
        """
        await self.accept()
        await self.group_add("room")


class Guest(Member):
    """
    Joins nothing.
    """

    async def connect(self) -> None:
        """
        Accept.
        """
        await self.accept()


class Plain(WebsocketConsumer):
    """
    A guest whose handlers run in a thread.
    """

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send to the group where asked to, and answer.
        """
        if text_data == "tell":
            async_to_sync(self.channel_layer.group_send)("room", {"type": "said"})
        self.send(f"done: {text_data}")


class Stream(EventStreamConsumer):
    """
    Streams a group.
    """

    groups: Sequence[str] | None = ("room",)


class Early(AsyncHttpConsumer):
    """
    Sends to a group before it answers.
    """

    async def handle(self, body: bytes) -> None:
        """
        Send, then answer.
        """
        await self.channel_layer.group_send("room", {"type": "said"})
        await self.send_response(200, b"said")


class Late(AsyncHttpConsumer):
    """
    Sends to a group in the middle of its answer.
    """

    async def handle(self, body: bytes) -> None:
        """
        Begin to answer, then send.
        """
        await self.send_headers()
        await self.send_body(b"half", more_body=True)
        await self.channel_layer.group_send("room", {"type": "said"})


@pytest.fixture(autouse=True)
def away(layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Have the channel layer take nothing, of which nobody was told yet.
    """

    async def refuse(*args: Any) -> None:
        raise ChannelLayerUnavailable("the broker is away")

    monkeypatch.setattr(layer, "group_add", refuse)
    monkeypatch.setattr(layer, "group_send", refuse)
    monkeypatch.setattr(outages, "notices", Notices(logging.getLogger("fairway.consumers")))
    monkeypatch.setattr(Member, "ends", [])


def counted(counter: metrics.LabelledCounter, reason: str) -> int:
    """
    Give a count.
    """
    return counter.values.get(reason, 0)


async def test_who_cannot_join_is_refused(
    open_socket: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """The handshake gets 503 and when to come again; one line, a count, and a disconnect."""
    before = counted(metrics.refusals, "layer_unavailable")
    for _ in range(2):
        with pytest.raises(InvalidStatus) as refused:
            await open_socket(Member)
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "2"
    assert counted(metrics.refusals, "layer_unavailable") == before + 2
    assert caplog.messages == [
        "Member is refused with 503: the broker is away [fairway.R404]",
    ]
    assert Member.ends == [1006, 1006]


async def test_who_accepted_before_is_closed(open_socket: Open) -> None:
    """A socket that would hear nothing is closed with 1013, so that its client comes again."""
    socket = await open_socket(Hasty)
    with pytest.raises(ConnectionClosedError) as closed:
        await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013
    await harness.until(lambda: Member.ends == [1013])


@pytest.mark.parametrize("consumer", [Guest, Plain])
async def test_who_cannot_send_stays(
    consumer: Any, open_socket: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler ends, which is counted and said once, and the next message is handled."""
    before = counted(metrics.drops, "unavailable")
    socket = await open_socket(consumer)
    for text in ("tell", "tell", "more"):
        await socket.send(text)
    async with asyncio.timeout(5):
        assert await socket.recv() == "done: more"
    assert counted(metrics.drops, "unavailable") == before + 2
    said = f"a handler of {consumer.__name__} ended early and the connection stays: "
    assert caplog.messages == [f"{said}the broker is away [fairway.R404]"]


@pytest.mark.parametrize("consumer", [Stream, Early])
async def test_requests_that_cannot_be_served_are_refused(
    consumer: Any, layer: InMemoryChannelLayer
) -> None:
    """A stream that cannot join, and a request that cannot send, get 503 as long as they may."""
    served = await harness.serve(consumer.as_asgi())
    try:
        response = await (await served.connect()).get()
        assert response.status == 503
        assert response.headers["retry-after"] == "2"
    finally:
        await served.close()


async def test_an_answer_that_began_is_cut(layer: InMemoryChannelLayer) -> None:
    """Nobody takes half an answer for a whole one."""
    served = await harness.serve(Late.as_asgi())
    try:
        peer = await served.connect()
        await peer.send(harness.request())
        received = await peer.rest()
        assert b"half" in received
        assert not received.endswith(b"0\r\n\r\n")
    finally:
        await served.close()


async def test_tests_see_the_exception() -> None:
    """Elsewhere than under the server, what a consumer meets is raised."""
    communicator = WebsocketCommunicator(Member.as_asgi(), "/")
    with pytest.raises(ChannelLayerUnavailable):
        await communicator.connect()
