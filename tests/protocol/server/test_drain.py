"""
How a worker ends: everything is told, in good order and in bounded time.
"""

from __future__ import annotations

import asyncio

import pytest

from fairway.exceptions import ClientDisconnected
from fairway.server import worker as worker_module
from fairway.server.outbox import OutboxState
from tests.protocol.harness import Puppet, Served, handshake, request, until, warnings


async def test_websockets(app: Puppet, served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """
    WebSockets get what is queued and 1012; the drain ends as soon as all are gone.
    """
    peer, call = await served.open(app)
    await call.send("send", text="queued")
    draining = asyncio.create_task(served.worker.drain(5))
    assert (await peer.frame()).payload == b"queued"
    assert (await peer.frame()).payload == b"\x03\xf4the server restarts"
    event = await call.event()
    assert (event["code"], event["reason"]) == (1012, "the server restarts")
    with pytest.raises(ClientDisconnected):
        await call.send("send", text="x")
    await peer.send_close(1012)
    assert await peer.rest() == b""
    assert not draining.done()
    call.end()
    await draining
    assert not warnings(caplog)


async def test_at_rest(served: Served) -> None:
    """
    Connections between requests are closed, and no new ones are accepted.
    """
    peer = await served.connect()
    await until(lambda: served.worker.connections)
    await served.worker.drain(5)
    assert await peer.rest() == b""
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the system has it
        await (await served.connect()).get()


async def test_request_of_a_newcomer(app: Puppet, served: Served) -> None:
    """
    Who was accepted just before the drain gets an answer to the request that comes after it.
    """
    peer = await served.connect()
    await until(lambda: served.worker.connections)
    draining = asyncio.create_task(served.worker.drain(20))
    await asyncio.sleep(0)
    await peer.send(request())
    call = await app.call()
    await call.respond(200, b"x")
    response = await peer.response()
    assert (response.body, response.headers["connection"]) == (b"x", "close")
    assert await peer.rest() == b""
    peer.close()
    call.end()
    await draining


async def test_handshake_of_a_newcomer(app: Puppet, served: Served) -> None:
    """
    A WebSocket that is about to open when the drain begins opens, and is told 1012.
    """
    peer = await served.websocket()
    await until(lambda: served.worker.connections)
    draining = asyncio.create_task(served.worker.drain(20))
    await asyncio.sleep(0)
    call = await app.call()
    await call.connect()
    assert (await peer.response()).status == 101
    assert (await peer.frame()).code == 1012
    await peer.send_close(1012)
    assert await peer.rest() == b""
    peer.close()
    call.end()
    await draining


async def test_request(app: Puppet, served: Served) -> None:
    """
    A request being answered may finish; its connection ends with it, pipelined ones with it.
    """
    peer = await served.connect()
    await peer.send(request() + request())
    call = await app.call()
    draining = asyncio.create_task(served.worker.drain(5))
    await asyncio.sleep(0)
    await call.respond(200, b"x")
    response = await peer.response()
    assert (response.body, response.headers["connection"]) == (b"x", "close")
    assert await peer.rest() == b""
    peer.close()
    call.end()
    await draining
    assert app.calls.empty()


async def test_handshake(app: Puppet, served: Served) -> None:
    """
    A handshake that the application has not answered yet is refused with 503.
    """
    peer = await served.websocket()
    call = await app.call()
    draining = asyncio.create_task(served.worker.drain(5))
    assert (await peer.response()).status == 503
    assert (await call.event())["type"] == "websocket.connect"
    assert (await call.event())["code"] == 1006
    call.end()
    peer.close()
    await draining


async def test_late_handshake(app: Puppet, served: Served) -> None:
    """
    A handshake that comes while the worker ends is refused with 503.
    """
    peer = await served.connect()
    await peer.send(handshake()[:-2])
    await until(lambda: served.worker.connections and served.connection._decoder.head_started)  # type: ignore[union-attr] # it is there
    served.worker.stopping, served.worker.admitting = True, False
    await peer.send(b"\r\n")
    assert (await peer.response()).status == 503
    assert app.calls.empty()


async def test_late_request(app: Puppet, served: Served) -> None:
    """
    A request that comes while the worker ends is the last of its connection.
    """
    peer = await served.connect()
    await until(lambda: served.worker.connections)
    served.worker.stopping = True
    await peer.send(request())
    await (await app.call()).respond()
    assert (await peer.response()).headers["connection"] == "close"


async def test_work_after_response(app: Puppet, served: Served) -> None:
    """
    The drain waits for what an application does after its response.
    """
    peer = await served.connect()
    await peer.send(request("/", "connection: close"))
    call = await app.call()
    await call.respond()
    await peer.rest()
    peer.close()
    draining = asyncio.create_task(served.worker.drain(5))
    await until(lambda: not served.worker.connections)
    assert not draining.done()
    call.end()
    await draining


async def test_in_time(app: Puppet, served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """
    What does not end in time is cut off, and one line says how much.
    """
    peer, call = await served.open(app)
    await served.worker.drain(0.1)
    assert await peer.close_code() == 1012
    assert await peer.rest() == b""
    await until(lambda: call.cancelled)
    (record,) = warnings(caplog)
    assert record.getMessage() == (
        "1 connections and 0 applications were still there and were cut off"
    )


async def test_ending_by_itself(app: Puppet, served: Served) -> None:
    """
    An application that ends when its peer is cut off is not cancelled.
    """
    _, call = await served.open(app)
    draining = asyncio.create_task(served.worker.drain(0.1))
    assert (await call.event())["code"] == 1012
    await until(lambda: not served.worker.connections)
    call.end()
    await draining
    assert not call.cancelled


async def test_paced(app: Puppet, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    WebSockets are told in batches, evenly over the given time, and not all at once.
    """
    for _ in range(7):
        await served.open(app)
    exchanges = [connection.exchange for connection in served.worker.connections]
    pauses = []

    async def pause(seconds: float) -> None:
        told = sum(exchange.outbox.state is OutboxState.CLOSING for exchange in exchanges)  # type: ignore[union-attr] # all are WebSockets
        pauses.append((told, seconds))

    monkeypatch.setattr(worker_module, "PACE_CONNECTIONS_MIN", 1)
    monkeypatch.setattr(asyncio, "sleep", pause)
    await served.worker._restart(0.2)
    monkeypatch.undo()
    # Four batches, 50 ms apart, fit into the time.
    assert pauses == [(2, 0.05), (4, 0.05), (6, 0.05)]
