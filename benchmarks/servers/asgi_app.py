"""
A plain ASGI application, to measure a server without any framework.

``GET`` anywhere answers 13 bytes; a WebSocket anywhere is accepted and its text echoed. One at
``/members`` may say ``publish <bytes> <burst>``, which is sent to all there and to all readers of
``/events`` by a plain loop that awaits each ``send()``, as an application without groups would.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

HEAD: Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
}
BODY: Event = {"type": "http.response.body", "body": b"Hello, world!"}
STREAM: Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")],
}

MEMBERS: dict[object, Send] = {}
STREAMS: dict[object, Send] = {}


async def application(scope: Event, receive: Receive, send: Send) -> None:
    """
    Serve one connection or request.
    """
    if scope["type"] == "websocket":
        await (member if scope["path"] == "/members" else echo)(receive, send)
    elif scope["type"] == "http":
        if scope["path"] == "/events":
            await stream(receive, send)
            return
        await send(HEAD)
        await send(BODY)
    else:
        await lifespan(receive, send)


async def echo(receive: Receive, send: Send) -> None:
    """
    Accept, then send each text back until the peer is gone.
    """
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


async def member(receive: Receive, send: Send) -> None:
    """
    Be one of the members until the peer is gone, and publish what it says.
    """
    me = object()
    await receive()
    await send({"type": "websocket.accept"})
    MEMBERS[me] = send
    try:
        while (event := await receive())["type"] == "websocket.receive":
            _, size, burst = event["text"].split()
            for _ in range(int(burst)):
                await publish("x" * int(size))
    finally:
        del MEMBERS[me]


async def publish(text: str) -> None:
    """
    Send one message to all members and readers.
    """
    message = {"type": "websocket.send", "text": text}
    for send in list(MEMBERS.values()):
        await send(message)
    body = f"data: {text}\n\n".encode()
    part = {"type": "http.response.body", "body": body, "more_body": True}
    for send in list(STREAMS.values()):
        await send(part)


async def stream(receive: Receive, send: Send) -> None:
    """
    Be a reader of events until the peer is gone.
    """
    me = object()
    await send(STREAM)
    await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
    STREAMS[me] = send
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        del STREAMS[me]


async def lifespan(receive: Receive, send: Send) -> None:
    """
    Start and stop at once, as there is nothing to prepare.
    """
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
