"""
EventStreamCommunicator reads server-sent events as a browser does.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import fairway
from fairway.testing import EventStreamCommunicator, StreamEvent

HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"Content-Type", b"text/event-stream")],
}


class News(fairway.EventStreamConsumer):
    """
    Sends what it is asked for, and then what the group ``news`` gets.
    """

    left: asyncio.Event

    async def connect(self) -> None:
        """
        Say what the reader has seen.
        """
        News.left = asyncio.Event()
        await self.group_add("news")
        await self.accept()
        await self.send_event({"seen": self.last_event_id}, event="hello", id="7")

    async def disconnect(self) -> None:
        """
        Note that the reader has left.
        """
        self.left.set()


def playing(*parts: bytes) -> Any:
    """
    Make an application that sends these pieces of a stream and ends.
    """

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    return application


async def test_reads_a_consumer() -> None:
    """
    Events come one by one, from the consumer and from groups; leaving ends the consumer.
    """
    async with EventStreamCommunicator(News.as_asgi(), "/news/", last_event_id="6") as stream:
        assert stream.status == 200
        assert stream.response_headers["content-type"] == "text/event-stream"
        event = await stream.receive_event()
        assert event == StreamEvent('{"seen":"6"}', "hello", "7")
        assert event.json() == {"seen": "6"}
        assert (stream.last_event_id, stream.retry) == ("7", 3.0)
        assert await stream.receive_nothing(0.01, 0.001)
        await fairway.abroadcast("news", {"a": 1}, event="extra", id="8")
        assert not await stream.receive_nothing()
        assert await stream.receive_event() == StreamEvent('{"a":1}', "extra", "8")
        await fairway.abroadcast("news", {"a": 2})
        assert await stream.receive_json_from() == {"a": 2}
        assert not stream.ended
    assert News.left.is_set()


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_reads_by_the_standard(size: int) -> None:
    """
    However the stream is cut, and whatever ends its lines, the events are those of the standard.
    """
    data = (
        ":comment\n\ndata: one\r\ndata:two\rid: 1\r\n\r\nevent: x\ndata\n\nid\nretry: 250\n"
        "retry: soon\nevent: lost\n\ndata:  Grüße\nid: \0\nother: y\n\ndata: unfinished"
    ).encode()
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    async with EventStreamCommunicator(playing(*parts), "/") as stream:
        assert [event async for event in stream] == [
            StreamEvent("one\ntwo", "message", "1"),
            StreamEvent("", "x", "1"),
            StreamEvent(" Grüße", "message", ""),
        ]
        assert stream.ended
        assert (stream.retry, stream.last_event_id) == (0.25, "")


async def test_the_end_of_a_stream() -> None:
    """
    After its end nothing comes, and waiting for an event says so.
    """
    async with EventStreamCommunicator(playing(b"data: 1\n\n"), "/") as stream:
        assert (await stream.receive_event()).data == "1"
        assert await stream.receive_nothing(0.01, 0.001)
        with pytest.raises(EOFError, match="the stream has ended"):
            await stream.receive_event()


async def test_waiting_in_vain() -> None:
    """
    Nothing within the time is a TimeoutError, however many comments came.
    """
    stream = EventStreamCommunicator(News.as_asgi(), "/")
    assert await stream.connect() == 200
    await stream.receive_event()
    with pytest.raises(TimeoutError):
        await stream.receive_event(timeout=0.01)
    assert stream.future.cancelled()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({**HEAD, "status": 404}, "/a answered with 404"),
        ({**HEAD, "headers": []}, "no content type"),
        ({"type": "websocket.accept"}, "but was 'websocket.accept'"),
    ],
)
async def test_an_answer_that_is_no_stream(message: dict[str, Any], words: str) -> None:
    """
    ``async with`` fails the test with what came instead.
    """

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(message)
        await receive()

    with pytest.raises(AssertionError, match=words):
        async with EventStreamCommunicator(application, "/a?b"):
            pass


async def test_a_message_that_is_no_body() -> None:
    """
    Anything but the body after the head fails the test.
    """

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await send(HEAD)

    async with EventStreamCommunicator(application, "/") as stream:
        with pytest.raises(AssertionError, match=r"Expected type 'http\.response\.body'"):
            await stream.receive_event()


async def test_leaving_before_the_end() -> None:
    """
    disconnect() tells the application, and waits until it has ended.
    """
    stream = EventStreamCommunicator(News.as_asgi(), "/")
    await stream.connect()
    await stream.disconnect()
    assert News.left.is_set()
    assert stream.future.done()
