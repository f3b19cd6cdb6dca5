"""
Request bodies that come too slowly, or with too much around them.
"""

from __future__ import annotations

import asyncio

import pytest

from fairway import metrics
from fairway.exceptions import ClientDisconnected
from tests.protocol.harness import Peer, Puppet, Serve, Served, request, until, warnings

PACE = {"body_rate_min": 1000, "body_timeout": 0.2}
"""
200 bytes in each fifth of a second.
"""

CHUNKED = request("/", "transfer-encoding: chunked", method="POST")


def announced(size: int = 100_000, *fields: str) -> bytes:
    """
    The head of a request whose body is to come.
    """
    return request("/", f"content-length: {size}", *fields, method="POST")


async def trickle(peer: Peer, data: bytes, seconds: float) -> None:
    """
    Send the same again and again, until the server has had enough.
    """
    try:
        while True:
            await peer.send(data)
            await asyncio.sleep(seconds)
    except OSError:
        pass


class TestPace:
    """
    ``body_rate_min``, behind which a body may be by ``body_timeout``, while the application reads.
    """

    @pytest.mark.parametrize("head", [announced(), CHUNKED], ids=["declared", "chunked"])
    async def test_too_slow(
        self, app: Puppet, serve: Serve, caplog: pytest.LogCaptureFixture, head: bytes
    ) -> None:
        """
        408 and the end of the connection, ``http.disconnect``, one line with an id, one count.
        """
        counted = metrics.refusals.values.get("slow_body", 0)
        served = await serve(app, **PACE)
        peer = await served.connect()
        await peer.send(head)
        call = await app.call()
        sending = asyncio.create_task(trickle(peer, b"1\r\nx\r\n", 0.02))
        while (event := await call.event())["type"] == "http.request":
            assert event["more_body"]
        assert event == {"type": "http.disconnect"} == await call.event()
        response = await peer.response()
        assert (response.status, response.headers["connection"]) == (408, "close")
        with pytest.raises(ClientDisconnected):
            await call.respond()
        assert metrics.refusals.values["slow_body"] == counted + 1
        (record,) = warnings(caplog)
        assert record.getMessage() == (
            "POST / refused with 408: the body comes too slowly [fairway.R513]"
        )
        sending.cancel()

    async def test_nothing_at_all(self, app: Puppet, serve: Serve) -> None:
        """
        A body that is announced and does not come is too slow, within one more time-out.
        """
        served = await serve(app, **PACE)
        peer = await served.connect()
        began = asyncio.get_running_loop().time()
        await peer.send(announced(1))
        assert (await (await app.call()).event())["type"] == "http.disconnect"
        assert 0.2 <= asyncio.get_running_loop().time() - began < 2
        assert (await peer.response()).status == 408

    async def test_fast_enough(self, app: Puppet, serve: Serve) -> None:
        """
        Who keeps the rate may take as long as it likes.
        """
        served = await serve(app, body_rate_min=100, body_timeout=0.1)
        await self.is_read(app, served, [0] + [0.05] * 9)

    async def test_standing_still(self, app: Puppet, serve: Serve) -> None:
        """
        For less than ``body_timeout``, at the start and later, if its rate is enough else.
        """
        served = await serve(app, body_rate_min=100, body_timeout=0.5)
        await self.is_read(app, served, [0.4, *[0.05] * 5] * 2)

    async def test_a_pause_of_the_application_counts_for_nobody(
        self, app: Puppet, serve: Serve
    ) -> None:
        """
        While reading pauses time stands still, and then the client has all of it again.
        """
        served = await serve(app, **PACE, body_buffer_bytes=1024)
        peer = await served.connect()
        body = bytes(5_000_000)
        await peer.send(announced(len(body) + 150))
        call = await app.call()
        first = asyncio.create_task(call.event())
        sending = asyncio.create_task(peer.send(body))
        size = len((await first)["body"])
        await until(lambda: served.connection.reading_paused)
        await asyncio.sleep(0.5)
        reading = asyncio.create_task(self.read(call.receive))
        await sending
        await asyncio.sleep(0.1)
        await peer.send(bytes(150))
        assert size + len(await reading) == len(body) + 150
        await call.respond()
        assert (await peer.response()).status == 200

    async def test_the_application_has_not_asked_yet(self, app: Puppet, serve: Serve) -> None:
        """
        The time begins with its first ``receive``: a client may wait for 100 Continue till then.
        """
        served = await serve(app, **PACE)
        peer = await served.connect()
        await peer.send(announced(3, "expect: 100-continue"))
        call = await app.call()
        await asyncio.sleep(0.4)
        receiving = asyncio.create_task(call.event())
        assert (await peer.response()).status == 100
        await peer.send(b"abc")
        assert (await receiving)["body"] == b"abc"
        await call.respond()
        assert (await peer.response()).status == 200

    async def test_a_body_that_came_with_its_head(self, app: Puppet, serve: Serve) -> None:
        """
        Nothing is due then: the application may take its time.
        """
        served = await serve(app, **PACE, head_timeout=0.1, keep_alive=0.1)
        peer = await served.connect()
        await peer.send(request(method="POST", body=b"abc"))
        call = await app.call()
        assert (await call.event())["body"] == b"abc"
        deadline = served.connection.deadline
        await asyncio.sleep(0.4)
        assert served.connection.deadline >= deadline
        await call.respond()
        assert (await peer.response()).status == 200

    async def test_an_answer_that_has_begun(self, app: Puppet, serve: Serve) -> None:
        """
        It cannot be taken back, so the connection ends without its last chunk.
        """
        served = await serve(app, **PACE)
        peer = await served.connect()
        await peer.send(announced())
        call = await app.call()
        await call.send("start", status=200)
        await call.send("body", body=b"begun", more_body=True)
        assert (await call.event())["type"] == "http.disconnect"
        assert (await peer.rest()).endswith(b"5\r\nbegun\r\n")

    async def test_an_event_stream_beats_meanwhile(self, app: Puppet, serve: Serve) -> None:
        """
        One deadline serves both.
        """
        served = await serve(app, body_timeout=0.3)
        peer = await served.connect()
        await peer.send(announced())
        call = await app.call()
        call.extension["configure"](heartbeat=0.05)  # type: ignore[call-arg] # of streams
        await call.send("start", status=200, headers=[(b"content-type", b"text/event-stream")])
        await call.send("body", body=b"data: 1\n\n", more_body=True)
        assert (await call.event())["type"] == "http.disconnect"
        assert (await peer.rest()).count(b":\n") >= 2

    async def test_any_rate(self, app: Puppet, serve: Serve) -> None:
        """
        0 asks for none.
        """
        served = await serve(app, body_rate_min=0, body_timeout=0.05)
        peer = await served.connect()
        await peer.send(announced(2))
        call = await app.call()
        reading = asyncio.create_task(self.read(call.receive))
        for _ in range(2):
            await asyncio.sleep(0.2)
            await peer.send(b"x")
        assert await reading == b"xx"

    async def is_read(self, app: Puppet, served: Served, pauses: list[float]) -> None:
        """
        Send ten bytes after each pause, and see that all of them are read and answered.
        """
        size = 10 * len(pauses)
        peer = await served.connect()
        await peer.send(announced(size))
        call = await app.call()
        reading = asyncio.create_task(self.read(call.receive))
        for pause in pauses:
            await asyncio.sleep(pause)
            await peer.send(b"x" * 10)
        assert await reading == b"x" * size
        await call.respond()
        assert (await peer.response()).status == 200

    @staticmethod
    async def read(receive: object) -> bytes:
        """
        Read a body to its end.
        """
        body = b""
        more = True
        while more:
            event = await receive()  # type: ignore[operator] # ASGI's
            assert event["type"] == "http.request"
            body += event["body"]
            more = event["more_body"]
        return body


class TestOverhead:
    """
    What is neither body nor its framing: extensions, trailers, and events of single bytes.
    """

    @pytest.mark.parametrize(
        "attack",
        [
            b"1;" + b"x" * 20_000,
            b"1\r\nx\r\n0\r\nx: " + b"x" * 20_000,
            b"0" * 20_000,
            b"1\r\nx\r\n" * 100 + b"0\r\n" + b"a: b\r\n" * 6000,
        ],
        ids=["extension", "trailer", "size", "trailers"],
    )
    @pytest.mark.parametrize("reads", [True, False])
    async def test_too_much(self, app: Puppet, serve: Serve, attack: bytes, reads: bool) -> None:
        """
        The connection ends and the application is told, whether or not it asked for the body.
        """
        served = await serve(app)
        counted = metrics.refusals.values.get("400", 0)
        peer = await served.connect()
        await peer.send(CHUNKED)
        call = await app.call()
        if reads:
            receiving = asyncio.create_task(call.event())
            await asyncio.sleep(0)
        await peer.send(attack)
        assert await peer.rest() == b""
        event = await receiving if reads else await call.event()
        while event["type"] == "http.request":
            event = await call.event()
        assert event == {"type": "http.disconnect"}
        assert metrics.refusals.values["400"] == counted + 1

    async def test_what_passes(self, app: Puppet, served: Served) -> None:
        """
        Tens of thousands of tiny chunks, each with an extension, and 16 KiB of trailers.
        """
        peer = await served.connect()
        chunks = b"1;a=b\r\nx\r\n" * 30_000
        trailers = b"0\r\n" + b"a: b\r\n" * 2_700 + b"\r\n"
        sending = asyncio.create_task(peer.send(CHUNKED + chunks + trailers))
        call = await app.call()
        assert await TestPace.read(call.receive) == b"x" * 30_000
        await sending
        await call.respond()
        assert (await peer.response()).status == 200
        assert (await asyncio.gather(peer.get(), self.answer(app)))[0].status == 204

    @staticmethod
    async def answer(app: Puppet) -> None:
        """
        Answer the next request.
        """
        await (await app.call()).respond(204)

    async def test_single_bytes_are_bounded(self, app: Puppet, serve: Serve) -> None:
        """
        Each part that waits counts for what it takes, so reading pauses after some hundred.
        """
        served = await serve(app)
        peer = await served.connect()
        await peer.send(announced(1000))
        call = await app.call()
        inbox = served.connection.exchange._inbox  # type: ignore[union-attr] # an HTTP exchange's
        sent = 0
        while not served.connection.reading_paused:
            await peer.send(b"x")
            sent += 1
            await until(
                lambda: served.connection.reading_paused or inbox.unread_messages >= sent  # noqa: B023 - awaited here
            )
        assert sent < 300
        await peer.send(bytes(1000 - sent))
        assert len(await TestPace.read(call.receive)) == 1000

    async def test_after_the_answer_nothing_is_parsed(self, app: Puppet, serve: Serve) -> None:
        """
        What is thrown away is not decoded, and not for longer than ``close_timeout``.
        """
        served = await serve(app, close_timeout=0.3)
        peer = await served.connect()
        await peer.send(CHUNKED)
        await (await app.call()).respond()
        sending = asyncio.create_task(trickle(peer, b"1;" + b"x" * 20_000, 0.01))
        assert (await peer.response()).headers["connection"] == "close"
        await until(lambda: not served.worker.connections)
        await sending
