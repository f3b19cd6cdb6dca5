"""
Compressed messages on real sockets: what is agreed, shared, read, and never held.
"""

from __future__ import annotations

import asyncio
import tracemalloc
import zlib
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from fairway import metrics
from fairway.exceptions import LocalProtocolError
from fairway.server.connection import Connection
from fairway.types import Receive, Scope, Send
from fairway.wire.codes import INVALID_PAYLOAD, PROTOCOL_ERROR, TOO_BIG
from fairway.wire.prepared import Prepared
from tests.protocol.harness import SECONDS_MAX, Call, Frame, Puppet, Serve, Served, WebSocket, until
from tests.unit.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame

OFFER = "sec-websocket-extensions: permessage-deflate; client_max_window_bits"
ANSWER = (
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    "; client_max_window_bits=12"
)
WORDS = "all the words that a page repeats, " * 40
RSV1 = 4


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Send back what comes.
    """
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        kind = "text" if event.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: event[kind]})


def deflate(data: bytes) -> bytes:
    """
    A message's payload as a client compresses it.
    """
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed(opcode: int, data: bytes) -> bytes:
    """
    The frame of a client's compressed message.
    """
    return client_frame(opcode, deflate(data), rsv=RSV1)


async def read_message(peer: WebSocket) -> tuple[bool, int, bytes]:
    """
    Read a frame: whether it was compressed, its opcode, and the message.
    """
    first, size = await peer.read(2)
    assert first & 0xB0 == 0x80
    if size > 125:
        size = int.from_bytes(await peer.read(2 if size == 126 else 8), "big")
    payload = await peer.read(size)
    if first & 0x40:
        return True, first & 0x0F, zlib.decompressobj(-12).decompress(payload + b"\0\0\xff\xff")
    return False, first & 0x0F, payload


async def open_with(
    served: Served, app: Puppet, *fields: str
) -> tuple[WebSocket, Call, str | None]:
    """
    Open a WebSocket, and give what was agreed.
    """
    peer = await served.websocket("/", *fields)
    call = await app.call()
    await call.connect()
    response = await peer.response()
    assert response.status == 101
    return peer, call, response.headers.get("sec-websocket-extensions")


@pytest.fixture
async def served(app: Puppet, serve: Serve) -> Served:
    """
    The puppet, served with compression.
    """
    return await serve(app, compress=True)


class TestHandshake:
    """
    What is agreed.
    """

    async def test_off_unless_asked_for(self, app: Puppet, serve: Serve) -> None:
        """
        Without the option an offer is not taken up, and the bit stays an error.
        """
        peer, _, agreed = await open_with(await serve(app), app, OFFER)
        assert agreed is None
        await peer.send(compressed(TEXT, b"x"))
        assert await peer.close_code() == PROTOCOL_ERROR

    async def test_who_does_not_offer_it_gets_none(self, app: Puppet, served: Served) -> None:
        """
        Nor who offers what cannot be kept.
        """
        for field in ("x-nothing: 1", "sec-websocket-extensions: permessage-deflate; later"):
            peer, call, agreed = await open_with(served, app, field)
            assert agreed is None
            await call.send("send", text=WORDS)
            assert await read_message(peer) == (False, TEXT, WORDS.encode())

    async def test_malformed_offers_fail_the_handshake(self, app: Puppet, served: Served) -> None:
        """
        With 400, and the application is not called.
        """
        for value in ("permessage-deflate; =1", "permessage-deflate; a b", '"x"', "a; b=\"'"):
            peer = await served.websocket("/", f"sec-websocket-extensions: {value}")
            assert (await peer.response()).status == 400
        assert app.calls.empty()

    async def test_the_application_cannot_answer_it(self, app: Puppet, served: Served) -> None:
        """
        The field belongs to the handshake.
        """
        await served.websocket("/", OFFER)
        call = await app.call()
        await call.event()
        with pytest.raises(LocalProtocolError, match="belongs to the handshake"):
            await call.send("accept", headers=[(b"Sec-WebSocket-Extensions", b"x")])

    @pytest.mark.parametrize("default", [True, False])
    async def test_an_application_may_decide(
        self, app: Puppet, serve: Serve, default: bool
    ) -> None:
        """
        For one socket, before it accepts.
        """
        peer = await (await serve(app, compress=default)).websocket("/", OFFER)
        call = await app.call()
        with pytest.raises(LocalProtocolError, match="expected compress=True or False, got 'no'"):
            call.extension["configure"](compress="no")  # type: ignore[call-arg]
        call.extension["configure"](compress=not default)  # type: ignore[call-arg]
        await call.connect()
        agreed = (await peer.response()).headers.get("sec-websocket-extensions")
        assert agreed == (None if default else ANSWER)
        with pytest.raises(LocalProtocolError, match="expected configure"):
            call.extension["configure"](compress=default)  # type: ignore[call-arg]


class TestSending:
    """
    What leaves compressed.
    """

    async def test_fan_out_shares_one_frame(self, app: Puppet, served: Served) -> None:
        """
        All who agreed get the same bytes, the others the plain ones.
        """
        opened = [await open_with(served, app, *fields) for fields in ((OFFER,), (OFFER,), ())]
        before = metrics.deflated.value, metrics.prepared.value
        prepared = Prepared(text=WORDS)
        for _, call, _ in opened:
            outbox = call.extension["outbox"]
            assert outbox.offer(prepared)
            assert not outbox.takes_bodies
        told = [await read_message(peer) for peer, _, _ in opened]
        assert [compressed for compressed, _, _ in told] == [True, True, False]
        assert {(opcode, data) for _, opcode, data in told} == {(TEXT, WORDS.encode())}
        assert (metrics.deflated.value, metrics.prepared.value) == (before[0] + 1, before[1] + 2)

    async def test_what_was_offered_before_the_handshake(self, app: Puppet, served: Served) -> None:
        """
        It is held as it is, and in its order.
        """
        peer = await served.websocket("/", OFFER)
        call = await app.call()
        outbox = call.extension["outbox"]
        assert outbox.offer(Prepared(text=WORDS))
        await call.connect()
        assert outbox.offer(Prepared(data=WORDS.encode()))
        await peer.response()
        assert await read_message(peer) == (False, TEXT, WORDS.encode())
        assert await read_message(peer) == (True, BINARY, WORDS.encode())

    async def test_what_the_application_sends(self, app: Puppet, serve: Serve) -> None:
        """
        Within the same bounds; and control frames never.
        """
        served = await serve(app, compress=True, compress_bytes_min=100, compress_bytes_max=500)
        peer, call, agreed = await open_with(served, app, OFFER)
        assert agreed == ANSWER
        for size in (99, 100, 500, 501):
            await call.send("send", text="x" * size)
            await call.send("send", bytes=bytes(size))
            inside = 100 <= size <= 500
            assert await read_message(peer) == (inside, TEXT, b"x" * size)
            assert await read_message(peer) == (inside, BINARY, bytes(size))
        await peer.send(client_frame(PING, b"p" * 125))
        assert await peer.frame() == Frame(PONG, b"p" * 125)
        await call.send("close", code=4000, reason="w" * 120)
        assert (await peer.frame()).code == 4000

    @pytest.mark.parametrize("size", [0, 1, 511, 512, 5000, 65536, 65537, 1 << 20])
    async def test_any_size(self, serve: Serve, size: int) -> None:
        """
        Both ways, with the client that most Python programs have.
        """
        served = await serve(echo, compress=True)
        port = served.sock.getsockname()[1]
        async with asyncio.timeout(SECONDS_MAX), connect(f"ws://127.0.0.1:{port}/") as client:
            assert [extension.name for extension in client.protocol.extensions] == [
                "permessage-deflate"
            ]
            for message in ("é" * (size // 2) + "x" * (size % 2), bytes(size)):
                await client.send(message)
                assert await client.recv() == message


class TestClients:
    """
    Real clients, whatever they ask for.
    """

    @pytest.mark.parametrize(
        "asked",
        [
            {},
            {"client_max_window_bits": None},
            {"client_max_window_bits": 9, "server_max_window_bits": 9},
            {"client_max_window_bits": 15, "server_max_window_bits": 15},
            {"server_no_context_takeover": True, "client_no_context_takeover": True},
            {"server_max_window_bits": 10, "client_max_window_bits": None},
        ],
    )
    async def test_offers(self, serve: Serve, asked: dict[str, Any]) -> None:
        """
        Messages go both ways, in fragments too.
        """
        served = await serve(echo, compress=True)
        port = served.sock.getsockname()[1]
        extensions = [ClientPerMessageDeflateFactory(**asked)]
        url = f"ws://127.0.0.1:{port}/"
        async with (
            asyncio.timeout(SECONDS_MAX),
            connect(url, compression=None, extensions=extensions) as client,
        ):
            assert client.protocol.extensions
            for message in (WORDS, WORDS.encode(), "short", ""):
                await client.send(message)
                assert await client.recv() == message
            await client.send([WORDS, "more", WORDS])
            assert await client.recv() == f"{WORDS}more{WORDS}"
            await client.send([b"1", b"2"])
            assert await client.recv() == b"12"

    @pytest.mark.one_loop
    async def test_nothing_is_held_at_rest(self, app: Puppet, serve: Serve) -> None:
        """
        A socket that has sent and received is within 1 KiB of one that agreed to nothing.
        """

        async def cost(*fields: str) -> float:
            served = await serve(app, compress=True)
            opened = []
            for count in range(40):
                if count == 8:
                    tracemalloc.start()
                peer, call, _ = await open_with(served, app, *fields)
                await call.send("send", text=WORDS)
                await read_message(peer)
                first = client_frame(TEXT, deflate(b"x" * 900)[:5], fin=False, rsv=RSV1)
                last = client_frame(CONTINUATION, deflate(b"x" * 900)[5:])
                await peer.send(first + last if fields else client_frame(TEXT, b"x" * 900))
                assert (await call.event())["text"] == "x" * 900
                opened.append((peer, call))
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return size / 32

        plainly = await cost()
        assert await cost(OFFER) - plainly < 1024


class TestFaults:
    """
    What ends a socket, and what may not cost more than it should.
    """

    @pytest.mark.parametrize(
        ("frames", "code"),
        [
            (client_frame(CONTINUATION, b"", rsv=RSV1), PROTOCOL_ERROR),
            (client_frame(PING, b"", rsv=RSV1), PROTOCOL_ERROR),
            (client_frame(TEXT, b"x", rsv=2), PROTOCOL_ERROR),
            (client_frame(TEXT, b"garbage", rsv=RSV1), INVALID_PAYLOAD),
            (client_frame(TEXT, deflate(b"cut short")[:-3], rsv=RSV1), INVALID_PAYLOAD),
            (compressed(TEXT, b"\xff"), INVALID_PAYLOAD),
            (compressed(BINARY, bytes(100_001)), TOO_BIG),
        ],
    )
    async def test_refused(self, app: Puppet, serve: Serve, frames: bytes, code: int) -> None:
        """
        With the code that says why.
        """
        served = await serve(app, compress=True, message_bytes_max=100_000)
        peer, call, _ = await open_with(served, app, OFFER)
        await peer.send(compressed(BINARY, bytes(100_000)) + frames)
        assert await peer.close_code() == code
        assert (await call.event())["bytes"] == bytes(100_000)
        assert (await call.event())["code"] == code

    async def test_a_bomb_costs_what_a_message_may_have(self, app: Puppet, served: Served) -> None:
        """
        A megabyte that holds a gigabyte.
        """
        stream = zlib.compressobj(9, zlib.DEFLATED, -15)
        block = stream.compress(bytes(1 << 22)) + stream.flush(zlib.Z_FULL_FLUSH)
        payload = block * 256
        assert len(payload) < 1.1 * (1 << 20)
        peer, call, _ = await open_with(served, app, OFFER)
        frame = client_frame(BINARY, payload, rsv=RSV1)
        tracemalloc.start()
        tracemalloc.reset_peak()
        await peer.send(frame)
        assert await peer.close_code() == TOO_BIG
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 << 20
        assert (await call.event())["code"] == TOO_BIG

    async def test_many_bombs_below_the_limit(self, app: Puppet, served: Served) -> None:
        """
        An application that does not read is not flooded: what is inflated counts, and the rest
        waits as it came. Nothing is lost or out of order, and the loop has its turns.
        """
        peer, call, _ = await open_with(served, app, OFFER)
        bombs = [compressed(BINARY, bytes((n,)) * (1 << 20)) for n in range(24)]
        tracemalloc.start()
        sending = asyncio.create_task(peer.send(b"".join(bombs) + client_frame(CLOSE, b"\x0f\xa0")))
        connection: Connection = served.connection
        await until(lambda: connection.reading_paused)
        for _ in range(20):
            await asyncio.sleep(0)
        inbox: Any = call.extension["inbox"]
        assert inbox.unread_bytes <= 4 << 20
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 << 20
        for n in range(24):
            assert (await call.event())["bytes"] == bytes((n,)) * (1 << 20)
        assert (await call.event())["code"] == 4000
        await sending
        assert await peer.close_code() == 4000

    async def test_bombs_behind_the_servers_close(self, app: Puppet, served: Served) -> None:
        """
        The peer's close frame is found behind what nobody wants any more.
        """
        peer, call, _ = await open_with(served, app, OFFER)
        bombs = compressed(BINARY, bytes(1 << 20)) * 30
        await peer.send(bombs)
        await until(lambda: served.connection.reading_paused)
        await call.send("close", code=4001)
        await peer.send(client_frame(CLOSE, b"\x0f\xa1"))
        assert await peer.close_code() == 4001
        assert await peer.rest() == b""
        call.end()
        await until(lambda: not served.worker.connections)

    async def test_a_peer_that_leaves_behind_bombs(self, app: Puppet, served: Served) -> None:
        """
        What was put off dies with the connection.
        """
        peer, call, _ = await open_with(served, app, OFFER)
        await peer.send(compressed(BINARY, bytes(1 << 20)) * 30)
        await until(lambda: served.connection.reading_paused)
        peer.reset()
        await call.event()
        call.end()
        await until(lambda: not served.worker.connections)
