"""
Requests that are refused before the application hears of them, and every deadline of HTTP.
"""

from __future__ import annotations

import pytest

from fairway import metrics
from tests.protocol.harness import Puppet, Serve, Served, request, until


class TestRefusals:
    """
    The rows of the limits that concern HTTP/1.1.
    """

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
            (request("/", "content-length: 1", "transfer-encoding: chunked"), 400),
            (request("/", "content-length: 1", "content-length: 1"), 400),
            (request("/", "transfer-encoding: chunked", "transfer-encoding: chunked"), 400),
            (request("/", "transfer-encoding: gzip"), 400),
            (request("/", "x: a\nb"), 400),
            (request("/", "x: a\rb"), 400),
            (b"GET / HTTP/1.1\r\nhost: a\n", 400),
            (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
            (b"\x16\x03\x01\x02\x00\x01\x00", 400),
            (b"\x00garbage", 400),
            (b"get / HTTP/1.1\r\n", 400),
        ],
    )
    async def test_malformed(self, app: Puppet, served: Served, data: bytes, status: int) -> None:
        """
        What is no proper request is answered, and the connection ends.
        """
        peer = await served.connect()
        count = metrics.refusals.values.get(str(status), 0)
        await peer.send(data)
        response = await peer.response()
        assert response.status == status
        assert response.headers["connection"] == "close"
        assert await peer.rest() == b""
        assert metrics.refusals.values[str(status)] == count + 1
        assert app.calls.empty()

    async def test_head_size(self, app: Puppet, serve: Serve) -> None:
        """
        A head of exactly the limit passes; one byte more is a 431.
        """
        served = await serve(app, head_bytes_max=1024)
        plain = len(request("/", "x: ")) - 4
        for extra, status in ((1024 - plain, 200), (1025 - plain, 431)):
            peer = await served.connect()
            await peer.send(request("/", "x: " + "y" * extra))
            if status == 200:
                await (await app.call()).respond()
            assert (await peer.response()).status == status

    async def test_fields(self, app: Puppet, served: Served) -> None:
        """
        128 fields pass; one more is a 431.
        """
        for count, status in ((127, 200), (128, 431)):
            peer = await served.connect()
            await peer.send(request("/", *[f"x{number}: 1" for number in range(count)]))
            if status == 200:
                await (await app.call()).respond()
            assert (await peer.response()).status == status

    async def test_after_request(self, app: Puppet, served: Served) -> None:
        """
        A request before it is answered first; a HEAD before it costs the refusal nothing.
        """
        peer = await served.connect()
        await peer.send(request(method="HEAD") + b"garbage\r\n\r\n")
        await (await app.call()).respond(200, b"x")
        assert (await peer.response(head=True)).status == 200
        response = await peer.response()
        assert (response.status, response.body) == (400, b"400 Bad Request\n")
        assert await peer.rest() == b""

    async def test_in_body(self, app: Puppet, served: Served) -> None:
        """
        A body that breaks off its rules ends the connection, and the application hears of it.
        """
        peer = await served.connect()
        await peer.send(request("/", "transfer-encoding: chunked", method="POST"))
        call = await app.call()
        await peer.send(b"1\r\nab\r\n")
        assert await peer.rest() == b""
        events = [await call.event() for _ in range(2)]
        assert events[-1] == {"type": "http.disconnect"}

    async def test_client_that_goes_on(self, served: Served) -> None:
        """
        A refusal is delivered whole to a client that goes on sending.
        """
        peer = await served.connect()
        await peer.send(request("/", "x: " + "y" * 100_000) + bytes(300_000))
        assert (await peer.response()).status == 431
        await peer.send(bytes(300_000))
        assert await peer.rest() == b""


class TestDeadlines:
    """
    Connections on which nothing goes on.
    """

    async def test_no_task(self, app: Puppet, served: Served) -> None:
        """
        A connection without a request has no task, nor has one between two requests.
        """
        from asyncio import all_tasks

        before = len(all_tasks())
        peers = [await served.connect() for _ in range(10)]
        await until(lambda: len(served.worker.connections) == 10)
        assert len(all_tasks()) == before
        for peer in peers:
            await peer.send(request())
            call = await app.call()
            await call.respond()
            call.end()
            assert (await peer.response()).status == 200
        await until(lambda: len(all_tasks()) == before)
        assert len(served.worker.connections) == 10

    async def test_silence(self, serve: Serve, app: Puppet) -> None:
        """
        A connection that says nothing is closed without a word.
        """
        served = await serve(app, head_timeout=0.1)
        peer = await served.connect()
        assert await peer.rest() == b""
        await until(lambda: not served.worker.connections)

    async def test_slow_head(self, serve: Serve, app: Puppet) -> None:
        """
        The deadline of a head is for all of it: single bytes do not move it.
        """
        served = await serve(app, head_timeout=0.15, close_timeout=0.1)
        peer = await served.connect()
        await peer.send(b"GET / HT")
        await until(lambda: served.worker.connections)
        deadline = served.connection.deadline
        await peer.send(b"TP/1.1\r\n")
        assert served.connection.deadline == deadline
        response = await peer.response()
        assert (response.status, response.headers["connection"]) == (408, "close")
        # A client that does not close either is cut off.
        await until(lambda: not served.worker.connections)

    async def test_slow_second_head(self, serve: Serve, app: Puppet) -> None:
        """
        The deadline holds for the head of each request.
        """
        served = await serve(app, head_timeout=0.15)
        peer = await served.connect()
        await peer.send(request() + b"GET /")
        await (await app.call()).respond()
        assert (await peer.response()).status == 200
        assert (await peer.response()).status == 408

    async def test_keep_alive(self, serve: Serve, app: Puppet) -> None:
        """
        A connection between requests is closed after its time, not after that of a head.
        """
        served = await serve(app, head_timeout=0.05, keep_alive=0.3)
        peer = await served.connect()
        await peer.send(request())
        await (await app.call()).respond()
        assert (await peer.response()).status == 200
        now = served.worker.loop.time()
        assert await peer.rest() == b""
        assert served.worker.loop.time() - now > 0.25

    async def test_slow_application(self, serve: Serve, app: Puppet) -> None:
        """
        An application may take its time, whatever the deadlines say.
        """
        served = await serve(app, head_timeout=0.05, keep_alive=0.05)
        slow = await served.connect()
        await slow.send(request())
        call = await app.call()
        silent = await served.connect()
        assert await silent.rest() == b""
        await call.respond()
        assert (await slow.response()).status == 200

    async def test_slow_reader_of_the_last_response(self, serve: Serve, app: Puppet) -> None:
        """
        The end waits for a reader that is slow, and not for one that stands still.
        """
        served = await serve(app, close_timeout=0.1, send_buffer=4096)
        peer = await served.connect(receive_buffer=4096)
        await peer.send(request("/", "connection: close"))
        call = await app.call()
        await call.respond(200, bytes(300_000))
        call.end()
        connection = served.connection
        for _ in range(3):
            deadline = connection.deadline
            await peer.read(30_000)
            await until(lambda: connection.deadline > deadline)  # noqa: B023 - awaited here
        await until(lambda: not served.worker.connections)
