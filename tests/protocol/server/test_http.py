"""
HTTP/1.1 as a client meets it: requests, responses, pipelining, bodies.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from http import HTTPStatus

import pytest

from fairway.exceptions import ClientDisconnected, LocalProtocolError
from fairway.types import Receive, Scope, Send
from tests.protocol.harness import Puppet, Serve, Served, request, until

language: ContextVar[str] = ContextVar("language", default="-")


class TestRequest:
    """
    What the application is told (ASGI HTTP, version 2.5).
    """

    async def test_scope(self, app: Puppet, served: Served) -> None:
        """
        The scope says what was asked for, by whom and of whom.
        """
        peer = await served.connect()
        await peer.send(request("/caf%C3%A9/a%2Fb?x=%20y", "X-Thing: 1", "x-thing: 2"))
        scope = (await app.call()).scope
        assert list(scope.pop("extensions")) == ["fairway"]
        assert scope == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/café/a/b",
            "raw_path": b"/caf%C3%A9/a%2Fb",
            "query_string": b"x=%20y",
            "root_path": "",
            "headers": [(b"host", b"a"), (b"x-thing", b"1"), (b"x-thing", b"2")],
            "client": peer.sock.getsockname(),
            "server": served.sock.getsockname(),
        }

    async def test_state(self, app: Puppet, serve: Serve) -> None:
        """
        Each request gets a copy of its own of what the lifespan left.
        """
        served = await serve(app, state={"pool": 1})
        peer = await served.connect()
        await peer.send(request() + request())
        first = await app.call()
        first.scope["state"]["pool"] = 2
        await first.respond()
        assert (await app.call()).scope["state"] == {"pool": 1}

    async def test_absolute_target(self, app: Puppet, served: Served) -> None:
        """
        A target in absolute form is one without its scheme and host.
        """
        peer = await served.connect()
        await peer.send(request("http://a/b?c=1"))
        scope = (await app.call()).scope
        assert (scope["path"], scope["query_string"]) == ("/b", b"c=1")

    async def test_no_body(self, app: Puppet, served: Served) -> None:
        """
        A request without a body has an empty one.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        assert await call.event() == {"type": "http.request", "body": b"", "more_body": False}

    async def test_declared_body(self, app: Puppet, served: Served) -> None:
        """
        A body of declared length arrives whole, in parts as they come.
        """
        peer = await served.connect()
        await peer.send(request(method="POST", body=b"abc")[:-1])
        call = await app.call()
        assert await call.event() == {"type": "http.request", "body": b"ab", "more_body": True}
        await peer.send(b"c")
        assert await read_body(call.receive) == b"c"

    async def test_chunked_body(self, app: Puppet, served: Served) -> None:
        """
        A chunked body arrives without its chunks.
        """
        peer = await served.connect()
        await peer.send(request("/", "transfer-encoding: chunked", method="POST"))
        call = await app.call()
        await peer.send(b"3\r\nabc\r\n2\r\n")
        await peer.send(b"de\r\n0\r\n\r\n")
        assert await read_body(call.receive) == b"abcde"
        await call.respond(204)
        assert (await peer.response()).status == 204
        assert (await asyncio.gather(peer.get(), answer(app)))[0].status == 200

    async def test_large_body(self, app: Puppet, serve: Serve) -> None:
        """
        An application that does not read holds the client back, in bounded memory.
        """
        served = await serve(app, body_buffer_bytes=65536)
        peer = await served.connect()
        body = bytes(range(256)) * 32768
        sending = asyncio.create_task(peer.send(request(method="PUT", body=body)))
        call = await app.call()
        connection = served.connection
        await until(lambda: connection.reading_paused)
        assert not sending.done()
        exchange = connection.exchange
        assert exchange._inbox.unread_bytes < 65536 + 262144  # type: ignore[union-attr]
        assert await read_body(call.receive) == body
        await sending
        await call.respond(201)
        assert (await peer.response()).status == 201

    async def test_body_not_read(self, app: Puppet, served: Served) -> None:
        """
        An answer before the body has come is delivered whole, and then the connection ends.
        """
        peer = await served.connect()
        await peer.send(request("/", "content-length: 100000000", method="PUT"))
        call = await app.call()
        await call.respond(403, b"no")
        response = await peer.response()
        assert (response.status, response.body) == (403, b"no")
        assert response.headers["connection"] == "close"
        await peer.send(bytes(100000))
        assert await peer.rest() == b""

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_limited_body(self, app: Puppet, serve: Serve, chunked: bool) -> None:
        """
        A body of exactly the limit passes; one byte more is a 413, counted by the server.
        """
        served = await serve(app, body_bytes_max=100)
        peer = await served.connect()
        await peer.send(upload(100, chunked))
        call = await app.call()
        assert len(await read_body(call.receive)) == 100
        await call.respond()
        assert (await peer.response()).status == 200
        await peer.send(upload(101, chunked))
        response = await peer.response()
        assert (response.status, response.headers["connection"]) == (413, "close")
        assert await peer.rest() == b""
        if chunked:
            call = await app.call()
            assert await call.event() == {"type": "http.disconnect"}
            with pytest.raises(ClientDisconnected):
                await call.respond()
        assert app.calls.empty()

    async def test_limited_body_after_head(self, app: Puppet, serve: Serve) -> None:
        """
        Where the answer has begun already, it is cut short instead.
        """
        served = await serve(app, body_bytes_max=100)
        peer = await served.connect()
        await peer.send(upload(101, chunked=True)[:-20])
        call = await app.call()
        await call.send("start", status=200)
        await call.send("body", body=b"abc", more_body=True)
        await peer.read_until(b"abc\r\n")
        await peer.send(upload(101, chunked=True)[-20:])
        assert await peer.rest() == b""

    async def test_torn_body(self, app: Puppet, served: Served) -> None:
        """
        A client that closes in the middle of its body is gone.
        """
        peer = await served.connect()
        await peer.send(request("/", "content-length: 10", method="PUT") + b"abc")
        call = await app.call()
        peer.half_close()
        assert (await call.event())["body"] == b"abc"
        assert await call.event() == {"type": "http.disconnect"}

    async def test_continue(self, app: Puppet, served: Served) -> None:
        """
        100 Continue is sent once the application asks for the body.
        """
        peer = await served.connect()
        await peer.send(request("/", "expect: 100-continue", "content-length: 2", method="PUT"))
        call = await app.call()
        receiving = asyncio.create_task(call.event())
        assert await peer.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        await peer.send(b"ok")
        assert (await receiving)["body"] == b"ok"
        await call.respond(200, b"done")
        assert (await peer.response()).body == b"done"
        assert (await asyncio.gather(peer.get(), answer(app)))[0].status == 200

    async def test_no_continue(self, app: Puppet, served: Served) -> None:
        """
        An answer without a look at the body is the only one.
        """
        peer = await served.connect()
        await peer.send(request("/", "expect: 100-continue", "content-length: 2", method="PUT"))
        await (await app.call()).respond(401)
        assert (await peer.response()).status == 401
        assert await peer.rest() == b""

    @pytest.mark.parametrize("fields", ["upgrade: h2c", "upgrade: websocket", "upgrade: TLS/1.0"])
    async def test_upgrade_with_body(self, app: Puppet, served: Served, fields: str) -> None:
        """
        An upgrade that is not served leaves a request with its body and its headers.
        """
        peer = await served.connect()
        await peer.send(request("/", "connection: Upgrade", fields, method="POST", body=b"abc"))
        call = await app.call()
        assert call.scope["type"] == "http"
        assert (b"upgrade", fields.partition(" ")[2].encode()) in call.scope["headers"]
        assert await read_body(call.receive) == b"abc"
        await call.respond()
        assert (await peer.response()).status == 200
        assert (await asyncio.gather(peer.get(), answer(app)))[0].status == 200

    async def test_underscore(self, app: Puppet, served: Served) -> None:
        """
        A header spelled with underscores cannot pass for a forwarded one; the real one arrives.
        """
        peer = await served.connect()
        await peer.send(request("/", "X_Forwarded_For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2"))
        headers = (await app.call()).scope["headers"]
        assert headers == [(b"host", b"a"), (b"x-forwarded-for", b"2.2.2.2")]


class TestResponse:
    """
    What the client gets for what the application sends.
    """

    async def test_whole(self, app: Puppet, served: Served) -> None:
        """
        A response in one piece has a content-length and leaves the connection open.
        """
        peer = await served.connect()
        response, _ = await asyncio.gather(peer.get(), answer(app, body=b"hello"))
        assert (response.status, response.body) == (200, b"hello")
        assert response.headers["content-length"] == "5"
        assert "connection" not in response.headers
        assert response.headers["date"].endswith("GMT")

    async def test_parts(self, app: Puppet, served: Served) -> None:
        """
        A response of unknown length is chunked; an empty part does not end it.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.send("start", status=200)
        await call.send("body", body=b"ab", more_body=True)
        await peer.read_until(b"\r\n\r\n2\r\nab\r\n")
        await call.send("body", body=b"", more_body=True)
        await call.send("body", body=b"c" * 20, more_body=True)
        await call.send("body")
        assert await peer.read_until(b"0\r\n\r\n") == b"14\r\n" + b"c" * 20 + b"\r\n"
        assert (await asyncio.gather(peer.get(), answer(app)))[0].status == 200

    async def test_declared_parts(self, app: Puppet, served: Served) -> None:
        """
        A declared length is kept, and nothing is chunked.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        headers = [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")]
        await call.send("start", status=200, headers=headers)
        await call.send("body", body=b"ab", more_body=True)
        await call.send("body", body=bytearray(b"c"))
        response = await peer.response()
        assert response.body == b"abc"
        assert "transfer-encoding" not in response.headers

    async def test_nothing_before_body(self, app: Puppet, served: Served) -> None:
        """
        The head waits for the first part of the body, and leaves with it even if that is empty.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.send("start", status=HTTPStatus.ACCEPTED)
        with pytest.raises(BlockingIOError):
            peer.sock.recv(1)
        await call.send("body", more_body=True)
        assert (await peer.read_until(b"\r\n")) == b"HTTP/1.1 202 Accepted"

    async def test_head(self, app: Puppet, served: Served) -> None:
        """
        HEAD gets the headers of GET and no body, however the application sends it.
        """
        peer = await served.connect()
        response, _ = await asyncio.gather(peer.get(method="HEAD"), answer(app, body=b"hello"))
        assert response.headers["content-length"] == "5"
        await peer.send(request(method="HEAD"))
        call = await app.call()
        await call.send("start", status=200, headers=[(b"content-length", b"7")])
        await call.send("body", body=b"abc", more_body=True)
        await call.send("body", body=b"abcdefg")
        response = await peer.response(head=True)
        assert response.headers["content-length"] == "7"
        # Nothing was produced, so how long it would be is not known.
        response, _ = await asyncio.gather(peer.get(method="HEAD"), answer(app, body=b""))
        assert not {"content-length", "transfer-encoding", "connection"} & set(response.headers)
        assert (await asyncio.gather(peer.get(), answer(app, body=b"x")))[0].body == b"x"

    @pytest.mark.parametrize("status", [204, 304])
    async def test_no_body(self, app: Puppet, served: Served, status: int) -> None:
        """
        A status that has no body gets none, and the next response is not taken for it.
        """
        peer = await served.connect()
        response, _ = await asyncio.gather(peer.get(), answer(app, status, b"body"))
        assert response.status == status
        assert "content-length" not in response.headers
        assert (await asyncio.gather(peer.get(), answer(app, body=b"x")))[0].body == b"x"

    async def test_close_by_application(self, app: Puppet, served: Served) -> None:
        """
        ``connection: close`` of the application ends the connection.
        """
        peer = await served.connect()
        response, _ = await asyncio.gather(
            peer.get(), answer(app, headers=((b"Connection", b"Close"),))
        )
        assert response.headers["connection"] == "close"
        assert await peer.rest() == b""

    async def test_close_by_client(self, app: Puppet, served: Served) -> None:
        """
        ``connection: close`` of the client ends the connection; what follows is not served.
        """
        peer = await served.connect()
        await peer.send(request("/", "connection: close") + request("/second"))
        await answer(app)
        assert (await peer.response()).headers["connection"] == "close"
        assert await peer.rest() == b""
        assert app.calls.empty()

    @pytest.mark.parametrize(
        "header",
        [
            (b"x-a", b"1\r\nx-b: 2"),
            (b"x-a", b"1\n2"),
            (b"x-a", b"1\x002"),
            (b"x-a: 1\r\nx-b", b"2"),
            (b"x a", b"1"),
            (b"", b"1"),
        ],
    )
    async def test_injection(
        self, app: Puppet, served: Served, header: tuple[bytes, bytes]
    ) -> None:
        """
        A header that would break out of its line is the application's error; nothing of it leaves.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        with pytest.raises(LocalProtocolError, match="header"):
            await call.respond(headers=(header,))
        call.end()
        response = await peer.response()
        assert response.status == 500
        assert not {"x-a", "x-b", "x a"} & set(response.headers)

    async def test_large_response(self, app: Puppet, served: Served) -> None:
        """
        A large response in one piece arrives whole.
        """
        peer = await served.connect()
        body = bytes(range(256)) * 32768
        response, _ = await asyncio.gather(peer.get(), answer(app, body=body))
        assert response.body == body


class TestPipelining:
    """
    Requests that do not wait for responses (RFC 9112 section 9.3.2).
    """

    async def test_order(self, app: Puppet, served: Served) -> None:
        """
        Twenty requests in one write are served one after the other, in order.
        """
        peer = await served.connect()
        await peer.send(b"".join(request(f"/{number}") for number in range(20)))
        for number in range(20):
            call = await app.call()
            assert app.calls.empty()
            await call.respond(200, call.scope["path"].encode())
            call.end()
            assert (await peer.response()).body == b"/%d" % number

    async def test_bodies(self, app: Puppet, served: Served) -> None:
        """
        A body ends where it ends, and the next request begins there.
        """
        peer = await served.connect()
        chunked = request("/", "transfer-encoding: chunked", method="POST")
        await peer.send(
            request(method="POST", body=b"GET / HTTP/1.1\r\n\r\n")
            + (chunked + b"1\r\na\r\n0\r\n\r\n")
            + request("/last")
        )
        bodies = []
        for _ in range(3):
            call = await app.call()
            bodies.append(await read_body(call.receive))
            await call.respond()
            assert (await peer.response()).status == 200
        assert bodies == [b"GET / HTTP/1.1\r\n\r\n", b"a", b""]

    async def test_far_ahead(self, serve: Serve) -> None:
        """
        Two megabytes of requests at once are read as they are answered, not faster.
        """
        ahead: list[int] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            connection = served.connection
            decoder = connection._decoder
            assert decoder is not None
            ahead.append(len(connection._held) + len(decoder._buffer or b""))
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})

        served = await serve(application)
        peer = await served.connect()
        one = request("/", "x: " + "x" * 1000)
        sending = asyncio.create_task(peer.send(one * 2000))
        for _ in range(2000):
            assert (await peer.response()).status == 204
        await sending
        assert len(ahead) == 2000
        # The bound, and the reads with which it was passed.
        assert max(ahead) <= 65536 + 2 * 262144

    async def test_a_large_body_behind_another_request(self, app: Puppet, served: Served) -> None:
        """
        It is read on though much of it came while the request before was answered.
        """
        peer = await served.connect()
        body = bytes(1_000_000)
        sending = asyncio.create_task(
            peer.send(request("/1") + request("/2", method="POST", body=body))
        )
        first = await app.call()
        await until(lambda: served.connection.reading_paused)
        await first.respond()
        assert (await peer.response()).status == 200
        assert await read_body((await app.call()).receive) == body
        await sending

    async def test_later_request(self, app: Puppet, served: Served) -> None:
        """
        A request that comes while another is served waits its turn, in however many pieces.
        """
        peer = await served.connect()
        await peer.send(request("/1"))
        first = await app.call()
        for byte in request("/2"):
            await peer.send(bytes((byte,)))
        await first.respond()
        second = await app.call()
        assert second.scope["path"] == "/2"
        await second.respond()
        assert [(await peer.response()).status for _ in range(2)] == [200, 200]

    async def test_application_that_goes_on(self, app: Puppet, served: Served) -> None:
        """
        The next request does not wait for what an application does after its response.
        """
        peer = await served.connect()
        await peer.send(request("/1") + request("/2"))
        first = await app.call()
        await first.respond()
        second = await app.call()
        await second.respond()
        first.end()
        second.end()
        assert [(await peer.response()).status for _ in range(2)] == [200, 200]

    async def test_flood(self, app: Puppet, served: Served) -> None:
        """
        Reading pauses while many requests wait for the first, and none is lost.
        """
        peer = await served.connect()
        total = 500
        sending = asyncio.create_task(peer.send(request("/" + "x" * 2000) * total))
        first = await app.call()
        connection = served.connection
        await until(lambda: connection.reading_paused)
        assert len(connection._held) < 65536 + 262144
        await first.respond()
        assert (await peer.response()).status == 200
        for _ in range(total - 1):
            await (await app.call()).respond()
            assert (await peer.response()).status == 200
        await sending

    async def test_reader_that_stands_still(self, app: Puppet, serve: Serve) -> None:
        """
        The next request waits until the client reads its responses: they do not pile up.
        """
        served = await serve(app, send_buffer=4096)
        peer = await served.connect(receive_buffer=4096)
        await peer.send(request("/1") + request("/2"))
        first = await app.call()
        await first.respond(200, bytes(1_000_000))
        await peer.send(request("/3"))
        await asyncio.sleep(0.05)
        assert app.calls.empty()
        assert len((await peer.response()).body) == 1_000_000
        for path in ("/2", "/3"):
            call = await app.call()
            assert call.scope["path"] == path
            await call.respond()
            assert (await peer.response()).status == 200


class TestHalfClose:
    """
    A client that has sent its FIN and still reads.
    """

    async def test_answers(self, app: Puppet, served: Served) -> None:
        """
        It gets every answer it is owed, and then the end, at once.
        """
        peer = await served.connect()
        await peer.send(request("/1") + request("/2"))
        peer.half_close()
        for _ in range(2):
            await answer(app, body=b"x")
            assert (await peer.response()).body == b"x"
        assert await peer.rest() == b""
        await until(lambda: not served.worker.connections)

    async def test_at_rest(self, app: Puppet, served: Served) -> None:
        """
        Between requests it is simply gone.
        """
        peer = await served.connect()
        await asyncio.gather(peer.get(), answer(app))
        peer.half_close()
        assert await peer.rest() == b""

    async def test_half_a_request(self, served: Served) -> None:
        """
        Half a request is owed nothing.
        """
        peer = await served.connect()
        await peer.send(request()[:-2])
        peer.half_close()
        assert await peer.rest() == b""

    async def test_half_a_body_behind_a_request(self, app: Puppet, served: Served) -> None:
        """
        A pipelined request whose body will never be complete ends the connection, once it is begun.
        """
        peer = await served.connect()
        await peer.send(request("/1") + request("/2", method="POST", body=b"whole")[:-1])
        peer.half_close()
        await answer(app, body=b"x")
        assert (await peer.response()).body == b"x"
        call = await app.call()
        while (event := await call.event())["type"] == "http.request":
            assert event["more_body"]
        assert event["type"] == "http.disconnect"
        call.end()
        await until(lambda: not served.worker.connections)


class TestVersion10:
    """
    HTTP/1.0 clients.
    """

    async def test_close(self, app: Puppet, served: Served) -> None:
        """
        The connection ends after the response.
        """
        peer = await served.connect()
        await peer.send(b"GET / HTTP/1.0\r\n\r\n")
        call = await app.call()
        assert call.scope["http_version"] == "1.0"
        await call.respond(200, b"x")
        response = await peer.response()
        assert response.headers["connection"] == "close"
        assert response.body == b"x"
        assert await peer.rest() == b""

    async def test_keep_alive(self, app: Puppet, served: Served) -> None:
        """
        The connection stays if the client asks for it and the length is known.
        """
        peer = await served.connect()
        for _ in range(2):
            await peer.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            await answer(app, body=b"x")
            response = await peer.response()
            assert response.headers["connection"] == "keep-alive"
            assert response.body == b"x"

    async def test_unknown_length(self, app: Puppet, served: Served) -> None:
        """
        A response of unknown length ends with the connection and is never chunked.
        """
        peer = await served.connect()
        await peer.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        call = await app.call()
        await call.send("start", status=200)
        await call.send("body", body=b"ab", more_body=True)
        await call.send("body", body=b"c")
        response = await peer.response()
        assert response.headers["connection"] == "close"
        assert response.body == b"abc"


class TestContext:
    """
    What one request sets in its context no other one sees.
    """

    async def test_isolation(self, serve: Serve) -> None:
        """
        Each request has a fresh context, on one connection and across several.
        """
        seen = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(language.get())
            language.set(scope["path"])
            await send({"type": "http.response.start", "status": 200})
            seen.append(language.get())
            await send({"type": "http.response.body"})

        served = await serve(application)
        for _ in range(2):
            peer = await served.connect()
            await peer.send(request("/de") + request("/fr"))
            await peer.response()
            await peer.response()
        assert seen == ["-", "/de", "-", "/fr"] * 2


async def read_body(receive: Receive) -> bytes:
    """
    The rest of a request's body.
    """
    body = bytearray()
    while True:
        event = await receive()
        assert event["type"] == "http.request"
        body += event["body"]
        if not event["more_body"]:
            return bytes(body)


def upload(size: int, chunked: bool) -> bytes:
    """
    A request with a body of so many bytes.
    """
    if not chunked:
        return request(method="POST", body=bytes(size))
    head = request("/", "transfer-encoding: chunked", method="POST")
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size))


async def answer(
    app: Puppet,
    status: int = 200,
    body: bytes = b"",
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """
    Answer the next request.
    """
    call = await app.call()
    await call.respond(status, body, headers)
    call.end()
