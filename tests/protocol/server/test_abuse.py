"""
Floods of what reaches no application, and very many tiny frames at once.
"""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from fairway import metrics
from tests.protocol.harness import Call, Puppet, Serve, Served, WebSocket, until, warnings
from tests.unit.wire.frames import BINARY, CONTINUATION, PING, PONG, TEXT, client_frame

EMPTY = client_frame(CONTINUATION, fin=False)
TINY = client_frame(CONTINUATION, b"x" * 15, fin=False)
SMALL = client_frame(CONTINUATION, b"x" * 16, fin=False)


async def open_slowly_forgiven(
    app: Puppet, serve: Serve, points: int = 50
) -> tuple[Served, WebSocket, Call]:
    """
    Open a WebSocket whose score in effect never decays.
    """
    served = await serve(app, abuse_points_max=points, abuse_points_rate=0.01)
    return served, *await served.open(app)


def points_of(served: Served) -> float:
    """
    The score of the one connection there is, at the rate above.
    """
    left = served.connection.forgiven_at - asyncio.get_running_loop().time()
    return round(left * 0.01, 1)


async def is_open(peer: WebSocket, call: Call) -> None:
    """
    The socket takes messages.
    """
    await peer.text("still here")
    assert (await call.event())["text"] == "still here"


class TestFloods:
    """
    One score per connection; who has too much of it is closed with 1008.
    """

    @pytest.mark.parametrize(
        ("frame", "count", "kind"),
        [
            (client_frame(PING, b"?"), 50, "control_frames"),
            (client_frame(PONG), 50, "control_frames"),
            (EMPTY, 50, "empty_fragments"),
            (TINY, 50 * 16, "tiny_fragments"),
        ],
    )
    async def test_one_too_many(
        self, app: Puppet, serve: Serve, frame: bytes, count: int, kind: str
    ) -> None:
        """
        The limit passes; one more is 1008 for both ends, counted by reason.
        """
        floods, closes = metrics.floods.values, metrics.closes.values
        counted = floods.get(kind, 0), closes.get("1008", 0)
        served, peer, call = await open_slowly_forgiven(app, serve)
        await peer.send(client_frame(TEXT, b"x" * 16, fin=False) + frame * count)
        await until(lambda: points_of(served) == 50)
        assert (floods.get(kind, 0), closes.get("1008", 0)) == counted
        await peer.send(frame)
        assert await peer.close_code() == 1008
        event = await call.event()
        assert (event["type"], event["code"]) == ("websocket.disconnect", 1008)
        assert event["reason"] == f"too many {kind.replace('_', ' ')}"
        assert (floods[kind], closes["1008"]) == (counted[0] + 1, counted[1] + 1)

    async def test_it_is_told_once(
        self, app: Puppet, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        However much follows: it is thrown away unread, until the peer leaves.
        """
        counted = metrics.floods.values.get("control_frames", 0)
        served, peer, call = await open_slowly_forgiven(app, serve)
        await peer.send(client_frame(PING) * 20_000)
        assert await peer.close_code() == 1008
        await peer.send(client_frame(PING) * 20_000 + client_frame(TEXT, b"late"))
        peer.close()
        await until(lambda: not served.worker.connections)
        assert (await call.event())["code"] == (await call.event())["code"] == 1008
        assert metrics.floods.values["control_frames"] == counted + 1
        (record,) = warnings(caplog)
        assert record.getMessage() == (
            "WebSocket / refused with 1008: too many control frames [fairway.R514]"
        )

    async def test_messages_before_it_are_received(self, app: Puppet, serve: Serve) -> None:
        """
        The application gets what came first, then the disconnect.
        """
        _, peer, call = await open_slowly_forgiven(app, serve)
        await peer.send(client_frame(TEXT, b"first") + client_frame(PING) * 100)
        assert (await call.event())["text"] == "first"
        assert (await call.event())["code"] == 1008

    async def test_a_peer_that_does_not_read(self, app: Puppet, serve: Serve) -> None:
        """
        It is ended all the same, in time.
        """
        served = await serve(app, abuse_points_max=50, send_buffer=4096, close_timeout=0.1)
        peer, call = await served.open(app, receive_buffer=4096)
        sending = asyncio.create_task(call.send("send", bytes=bytes(500_000)))
        await until(lambda: not served.connection.sink.writable)
        await peer.send(client_frame(PING) * 1000)
        assert (await call.event())["code"] == 1008
        await until(lambda: not served.worker.connections)
        await asyncio.wait([sending])
        sending.exception()

    async def test_what_passes_by_default(self, app: Puppet, served: Served) -> None:
        """
        A thousand pings at once, a message in 65,536 fragments, any number of tiny messages.
        """
        peer, call = await served.open(app)
        await peer.send(client_frame(PING) * 999 + client_frame(PING, b"!"))
        while (await peer.frame()).payload != b"!":
            pass
        await is_open(peer, call)
        peer, call = await served.open(app)
        fragment = client_frame(CONTINUATION, b"x", fin=False)
        end = client_frame(CONTINUATION, b"x")
        start = client_frame(TEXT, b"x", fin=False)
        await peer.send(start + fragment * 65_534 + end)
        assert len((await call.event())["text"]) == 65_536
        sending = asyncio.create_task(peer.send(client_frame(TEXT) * 20_000))
        for _ in range(20_000):
            assert (await call.event())["text"] == ""
        await sending
        await is_open(peer, call)

    async def test_by_default_a_flood_does_not(self, app: Puppet, served: Served) -> None:
        """
        Whichever kind it is.
        """
        for frame in (client_frame(PING), client_frame(PONG), EMPTY):
            peer, call = await served.open(app)
            begun = client_frame(BINARY, b"x" * 16, fin=False) if frame is EMPTY else b""
            await peer.send(begun + frame * 6000)
            assert await peer.close_code() == 1008
            assert (await call.event())["code"] == 1008

    async def test_small_fragments_are_none(self, app: Puppet, serve: Serve) -> None:
        """
        From 16 bytes on a fragment counts for nothing, and neither does a message's last one.
        """
        _, peer, call = await open_slowly_forgiven(app, serve, points=1)
        start = client_frame(BINARY, b"x" * 16, fin=False)
        await peer.send((start + SMALL * 10 + client_frame(CONTINUATION)) * 50)
        for _ in range(50):
            assert len((await call.event())["bytes"]) == 16 * 11
        await is_open(peer, call)

    async def test_it_is_forgiven(self, app: Puppet, serve: Serve) -> None:
        """
        The score decays steadily: a peer at the limit may go on a moment later.
        """
        served = await serve(app, abuse_points_max=50, abuse_points_rate=1000.0)
        peer, call = await served.open(app)
        loop = asyncio.get_running_loop()
        for _ in range(4):
            await peer.send(client_frame(PING) * 49 + client_frame(PING, b"!"))
            while (await peer.frame()).payload != b"!":
                pass
            await until(lambda: served.connection.forgiven_at <= loop.time())
        await is_open(peer, call)

    async def test_no_limit(self, app: Puppet, serve: Serve) -> None:
        """
        0 lets a peer do as it likes.
        """
        served = await serve(app, abuse_points_max=0)
        peer, call = await served.open(app)
        await peer.send(client_frame(PONG) * 20_000)
        await is_open(peer, call)


class TestManyFrames:
    """
    Tiny frames are small as bytes, and many times that as messages.
    """

    async def test_memory(self, app: Puppet, served: Served) -> None:
        """
        An application that does not receive has some hundred of them at most; the rest waits.
        """
        peer, call = await served.open(app)
        connection = served.connection
        tracemalloc.start()
        try:
            sending = asyncio.create_task(peer.send(client_frame(TEXT, b"x") * 45_000))
            await until(lambda: connection.reading_paused and connection.exchange._rest)  # type: ignore[union-attr] # a WebSocket's
            for _ in range(10):
                await asyncio.sleep(0)
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        inbox = connection.exchange.inbox  # type: ignore[union-attr] # as above
        assert inbox.unread_messages < 1400
        # Without the bytes that this test itself has yet to send.
        assert size < 45_000 * 7 * 2 + 1_000_000
        for _ in range(45_000):
            assert (await call.event())["text"] == "x"
        await sending
        assert not connection.reading_paused

    async def test_order(self, app: Puppet, served: Served) -> None:
        """
        Nothing is lost or out of order where an application keeps up in part.
        """
        peer, call = await served.open(app)
        stream = b"".join(client_frame(TEXT, b"%d" % number) for number in range(5000))
        sending = asyncio.create_task(peer.send(stream))
        for number in range(5000):
            assert (await call.event())["text"] == str(number)
            if number % 500 == 0:
                await asyncio.sleep(0.002)
        await sending

    async def test_control_frames_among_them(self, app: Puppet, served: Served) -> None:
        """
        A ping behind hundreds of unread messages is answered, a close behind them found.
        """
        peer, call = await served.open(app)
        await peer.send(client_frame(TEXT, b"x") * 700 + client_frame(PING, b"?"))
        assert await peer.frame() == (PONG, b"?")
        await peer.send_close(1001)
        assert await peer.close_code() == 1001
        for _ in range(700):
            assert (await call.event())["text"] == "x"
        assert (await call.event())["code"] == 1001

    async def test_all_before_a_close_arrives(self, app: Puppet, served: Served) -> None:
        """
        A peer that sends much and leaves is heard to its end.
        """
        peer, call = await served.open(app)
        sending = asyncio.create_task(peer.send(client_frame(TEXT, b"x") * 10_000))
        await until(lambda: served.connection.reading_paused)
        leaving = asyncio.create_task(self.leave(peer, sending))
        for _ in range(10_000):
            assert (await call.event())["text"] == "x"
        assert (await call.event())["code"] == 1000
        await leaving

    @staticmethod
    async def leave(peer: WebSocket, sending: asyncio.Task[None]) -> None:
        """
        Send a close frame behind everything else.
        """
        await sending
        await peer.send_close()

    async def test_the_end_while_some_are_left(self, app: Puppet, served: Served) -> None:
        """
        The application's own close lets the rest be looked at, for the peer's answer.
        """
        peer, call = await served.open(app)
        answer = (1000).to_bytes(2, "big")
        await peer.send(client_frame(TEXT, b"x") * 5000)
        await until(lambda: served.connection.reading_paused)
        await call.send("close")
        await peer.send(client_frame(0x8, answer))
        assert await peer.close_code() == 1000
        assert await peer.rest() == b""
        await until(lambda: not served.worker.connections)

    async def test_a_peer_gone_while_some_are_left(self, app: Puppet, served: Served) -> None:
        """
        Nothing of the rest is looked at any more.
        """
        peer, call = await served.open(app)
        await peer.send(client_frame(TEXT, b"x") * 5000)
        await until(lambda: served.connection.reading_paused)
        served.connection.transport.abort()
        await until(lambda: not served.worker.connections)
        while (event := await call.event())["type"] == "websocket.receive":
            pass
        assert event["code"] == 1006
