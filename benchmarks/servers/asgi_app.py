"""
A plain ASGI application, to measure a server without any framework.

``GET`` anywhere answers 13 bytes; a WebSocket anywhere is accepted and its text echoed.
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


async def application(scope: Event, receive: Receive, send: Send) -> None:
    """
    Serve one connection or request.
    """
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "http":
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


async def lifespan(receive: Receive, send: Send) -> None:
    """
    Start and stop at once, as there is nothing to prepare.
    """
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
