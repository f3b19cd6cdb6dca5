"""
How the server finds out that a WebSocket's peer has fallen silent.
"""

from __future__ import annotations

import pytest

from fairway import metrics
from tests.protocol.harness import Puppet, Serve, Served, WebSocket, until
from tests.unit.wire.frames import BINARY, PING, PONG, TEXT, client_frame

INTERVAL = 0.1


@pytest.fixture
async def pinging(app: Puppet, serve: Serve) -> Served:
    """
    The puppet, served with a short interval between pings.
    """
    return await serve(app, ping_interval=INTERVAL)


async def test_silent_peer(app: Puppet, pinging: Served) -> None:
    """
    A peer that leaves two pings without a byte is cut off, and its application gets 1006.
    """
    silent = metrics.closes.values.get("silent", 0)
    peer, call = await pinging.open(app)
    assert (await call.event())["code"] == 1006
    assert await peer.rest() == client_frame(PING, mask=False) * 2
    assert metrics.closes.values["silent"] == silent + 1


@pytest.mark.parametrize(
    "sign",
    [client_frame(PONG), client_frame(TEXT, b"x"), b"\x81"],
    ids=["pong", "message", "piece"],
)
async def test_any_byte_is_life(app: Puppet, pinging: Served, sign: bytes) -> None:
    """
    Any byte counts, be it a pong, a message or a piece of a frame.
    """
    peer, call = await pinging.open(app)
    exchange = pinging.connection.exchange
    await missed(peer, exchange)
    await peer.send(sign)
    assert (await peer.frame()).opcode == PING
    assert exchange._missed == 0  # type: ignore[union-attr] # a WebSocket's
    assert call.extension["outbox"].state.name == "OPEN"  # type: ignore[attr-defined] # as above


async def test_peer_pings(app: Puppet, pinging: Served) -> None:
    """
    A ping of the peer is answered with its payload.
    """
    peer, _ = await pinging.open(app)
    await peer.send(client_frame(PING, b"12345"))
    assert await peer.frame() == (PONG, b"12345")


async def test_while_reading_is_paused(app: Puppet, serve: Serve) -> None:
    """
    While the server does not read, pings are sent and none counts as missed.
    """
    served = await serve(app, ping_interval=0.06, receive_bytes=1000, receive_ahead_bytes=0)
    peer, call = await served.open(app)
    await peer.send(client_frame(BINARY, bytes(2000)))
    connection = served.connection
    await until(lambda: connection.reading_paused)
    for _ in range(5):
        assert (await peer.frame()).opcode == PING
    assert len((await call.event())["bytes"]) == 2000
    assert not connection.reading_paused
    assert (await call.event())["code"] == 1006


async def test_reset_while_reading_is_paused(app: Puppet, serve: Serve) -> None:
    """
    A peer that has reset the connection meanwhile is found by the ping that is written.
    """
    served = await serve(app, ping_interval=0.06, receive_bytes=1000, receive_ahead_bytes=0)
    peer, call = await served.open(app)
    await peer.send(client_frame(BINARY, bytes(2000)))
    connection = served.connection
    await until(lambda: connection.reading_paused)
    peer.reset()
    await until(lambda: not served.worker.connections)
    assert len((await call.event())["bytes"]) == 2000
    assert (await call.event())["code"] == 1006


async def test_off(app: Puppet, serve: Serve) -> None:
    """
    An interval of 0 sends none.
    """
    served = await serve(app, ping_interval=0)
    await served.open(app)
    assert served.connection.deadline == float("inf")


async def test_not_before_accept(app: Puppet, serve: Serve) -> None:
    """
    How long an application takes to accept is its own business; pings begin after that.
    """
    served = await serve(app, ping_interval=0.05, head_timeout=0.05, keep_alive=0.05)
    silent = await served.connect()
    peer = await served.websocket()
    call = await app.call()
    assert await silent.rest() == b""
    await call.connect()
    assert (await peer.response()).status == 101
    assert (await peer.frame()).opcode == PING


async def missed(peer: WebSocket, exchange: object) -> None:
    """
    Wait until the peer has missed its first ping.
    """
    await until(lambda: exchange._missed == 1)  # type: ignore[attr-defined] # a WebSocket's
    assert [(await peer.frame()).opcode for _ in range(2)] == [PING, PING]
