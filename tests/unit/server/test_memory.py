"""
What a connection leaves behind: nothing, and that without the garbage collector.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from fairway.server import log
from fairway.server.connection import Connection
from fairway.server.exchange import HttpExchange
from fairway.server.inbox import Inbox
from fairway.server.outbox import Outbox
from fairway.server.websocket import WebSocketExchange
from fairway.types import ASGIApplication, Receive, Scope, Send
from tests.protocol.harness import handshake, request
from tests.unit.server.transports import StepLoop, connect
from tests.unit.wire.frames import CLOSE, TEXT, client_frame

KINDS = (Connection, HttpExchange, WebSocketExchange, Inbox, Outbox)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Answer a request.
    """
    await receive()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"x"})


async def wait(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Wait for the client to leave.
    """
    while not (await receive())["type"].endswith(".disconnect"):
        pass


async def listen(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Accept, and read until the peer leaves.
    """
    await receive()
    await send({"type": "websocket.accept"})
    await wait(scope, receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Refuse the handshake.
    """
    await receive()
    await send({"type": "websocket.close"})


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Fail.
    """
    raise ValueError


@pytest.fixture
def loop() -> Iterator[StepLoop]:
    """
    A loop without a collector.
    """
    loop = StepLoop()
    gc.collect()
    gc.disable()
    yield loop
    gc.enable()
    loop.close()


@pytest.mark.parametrize(
    ("application", "data"),
    [
        (answer, [request(), request()]),
        (answer, [request(method="POST", body=b"abc")]),
        (wait, [request()]),
        (fail, [request()]),
        (listen, [handshake(), client_frame(TEXT, b"x"), client_frame(CLOSE, b"\x03\xe8")]),
        (listen, [handshake(), client_frame(TEXT, b"x")]),
        (refuse, [handshake()]),
        (fail, [handshake()]),
        (answer, [b"garbage"]),
        (answer, [request()[:10]]),
    ],
    ids=[
        "request",
        "body",
        "disconnect",
        "failure",
        "closed",
        "lost",
        "refused",
        "failed-handshake",
        "garbage",
        "half-a-request",
    ],
)
def test_nothing_is_left(
    loop: StepLoop,
    monkeypatch: pytest.MonkeyPatch,
    application: ASGIApplication,
    data: list[bytes],
) -> None:
    """
    Once peer and application have gone, so have their objects.
    """
    # What is logged would keep its traceback for pytest's report.
    monkeypatch.setattr(log.logger, "disabled", True)
    count = counter()
    connection, transport = connect(loop, 100_000)
    connection.worker.application = application
    for part in data:
        connection.data_received(part)
        loop.turn(3)
    transport.abort()
    loop.turn(3)
    connection.worker.close()
    del connection, transport
    assert count() == 0


def counter() -> Callable[[], int]:
    """
    Counts the objects of a connection that are there more than now.
    """

    def count() -> int:
        return sum(type(thing) in KINDS for thing in gc.get_objects())

    before = count()
    return lambda: count() - before
