"""
How an application's mistakes and its end are answered over HTTP, and who hears of them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fairway.exceptions import ClientDisconnected, ClientFault, LocalProtocolError, RouteNotFound
from fairway.types import Receive, Scope, Send
from tests.protocol.harness import Puppet, Serve, Served, request, until, warnings


class TestFailure:
    """
    Exceptions and ends that come too early.
    """

    async def test_before_start(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        An exception is a 500 without its words and one record with its traceback.
        """
        peer = await served.connect()
        await peer.send(request("/page"))
        (await app.call()).end(ValueError("secret"))
        response = await peer.response()
        assert (response.status, response.body) == (500, b"500 Internal Server Error\n")
        (record,) = warnings(caplog)
        assert record.getMessage() == "GET /page: the application raised ValueError [fairway.R304]"
        assert record.exc_info

    async def test_before_body(self, app: Puppet, served: Served) -> None:
        """
        A head that was not sent yet gives way to the 500, whatever it said.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.send("start", status=204, headers=[(b"content-length", b"3")])
        call.end(ValueError())
        response = await peer.response()
        assert (response.status, response.body) == (500, b"500 Internal Server Error\n")

    @pytest.mark.parametrize("error", [None, ValueError(), ClientFault("gone")])
    async def test_in_body(
        self,
        app: Puppet,
        served: Served,
        caplog: pytest.LogCaptureFixture,
        error: Exception | None,
    ) -> None:
        """
        A body that is not completed gets no final chunk, so the client knows.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.send("start", status=200)
        await call.send("body", body=b"abc", more_body=True)
        call.end(error)
        assert (await peer.rest()).endswith(b"\r\n\r\n3\r\nabc\r\n")
        assert len(warnings(caplog)) == 1

    async def test_without_answer(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Returning without an answer is a 500 and one line.
        """
        peer = await served.connect()
        await peer.send(request())
        (await app.call()).end()
        assert (await peer.response()).status == 500
        (record,) = warnings(caplog)
        assert record.getMessage() == (
            "GET /: the application returned without completing its response [fairway.R307]"
        )

    @pytest.mark.parametrize("awaitable", [True, False])
    async def test_plain_callable(self, serve: Serve, awaitable: bool) -> None:
        """
        Any callable that gives something to await will do, and one that raises is answered for.
        """

        def application(scope: Scope, receive: Receive, send: Send) -> Any:
            if not awaitable:
                raise ValueError
            return asyncio.ensure_future(answer(send))

        async def answer(send: Send) -> None:
            await send({"type": "http.response.start", "status": 201})
            await send({"type": "http.response.body"})

        peer = await (await serve(application)).connect()
        assert (await peer.get()).status == (201 if awaitable else 500)

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            (RouteNotFound("no route matches /x"), 404),
            (ClientFault("line 1\nline 2", status=409), 409),
            (ClientFault("x", status=200), 500),
        ],
    )
    async def test_client_fault(
        self,
        app: Puppet,
        served: Served,
        caplog: pytest.LogCaptureFixture,
        fault: ClientFault,
        status: int,
    ) -> None:
        """
        A client's fault is answered with its status, one line and no traceback.
        """
        peer = await served.connect()
        await peer.send(request("/x"))
        (await app.call()).end(fault)
        assert (await peer.response()).status == status
        (record,) = warnings(caplog)
        assert record.exc_info is None
        assert "\n" not in record.getMessage()

    async def test_after_response(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        An exception after the response is only recorded; the connection lives on.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.respond()
        call.end(ValueError())
        assert (await peer.response()).status == 200
        await until(lambda: warnings(caplog))
        await peer.send(request())
        await (await app.call()).respond()
        assert (await peer.response()).status == 200


class TestLength:
    """
    A content-length of the application that does not hold.
    """

    async def test_more(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        What is beyond it is cut and logged, and the connection ends.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.respond(200, b"abcdef", ((b"content-length", b"3"),))
        response = await peer.response()
        assert (response.body, response.headers["connection"]) == (b"abc", "close")
        assert await peer.rest() == b""
        (record,) = warnings(caplog)
        assert "sent more body than its content-length of 3 bytes" in record.getMessage()

    async def test_more_in_parts(self, app: Puppet, served: Served) -> None:
        """
        The same holds when only a later part goes beyond it.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.send("start", status=200, headers=[(b"content-length", b"3")])
        await call.send("body", body=b"ab", more_body=True)
        await call.send("body", body=b"cd")
        assert (await peer.response()).body == b"abc"
        assert await peer.rest() == b""

    async def test_less(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        What is missing is logged, and the connection ends, so the client knows.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.respond(200, b"abc", ((b"content-length", b"10"),))
        assert (await peer.rest()).endswith(b"\r\n\r\nabc")
        (record,) = warnings(caplog)
        assert "ended 7 bytes before its content-length" in record.getMessage()

    @pytest.mark.parametrize("value", [b"-1", b"1x", b"", b"1, 1"])
    async def test_malformed(self, app: Puppet, served: Served, value: bytes) -> None:
        """
        A content-length that is no number is the application's error.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        with pytest.raises(LocalProtocolError, match="content-length"):
            await call.respond(200, b"", ((b"content-length", value),))


class TestOrder:
    """
    Messages that the state does not allow; ``tests/unit`` goes through all of them.
    """

    async def test_wrong_order(self, app: Puppet, served: Served) -> None:
        """
        The error names what was expected and what came, and harms nothing.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        with pytest.raises(LocalProtocolError) as caught:
            await call.send("body")
        assert str(caught.value) == (
            "expected 'http.response.start' before http.response.start, got 'http.response.body'"
        )
        await call.respond(200, b"x")
        assert (await peer.response()).body == b"x"
        with pytest.raises(LocalProtocolError, match=r"expected nothing more after the last"):
            await call.send("body")

    @pytest.mark.parametrize("status", [100, 600, "200", None])
    async def test_bad_status(self, app: Puppet, served: Served, status: Any) -> None:
        """
        A status that is none is refused, and a better one may follow.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        with pytest.raises(LocalProtocolError, match="from 200 to 599"):
            await call.send("start", status=status)
        await call.respond(201)
        assert (await peer.response()).status == 201

    @pytest.mark.parametrize("body", ["text", None, 5])
    async def test_bad_body(self, app: Puppet, served: Served, body: Any) -> None:
        """
        A body that is not bytes is refused by name.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.send("start", status=200)
        with pytest.raises(LocalProtocolError, match="expected bytes in 'body', got"):
            await call.send("body", body=body)
        await call.send("body", body=memoryview(b"better"))
        assert (await peer.response()).body == b"better"

    async def test_headers_as_text(self, app: Puppet, served: Served) -> None:
        """
        Headers that are not bytes are the application's error, answered with a 500.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        with pytest.raises(LocalProtocolError, match="as bytes"):
            await call.respond(headers=(("x-a", "1"),))  # type: ignore[arg-type] # on purpose
        call.end()
        assert (await peer.response()).status == 500


class TestDisconnect:
    """
    A peer that leaves during its request.
    """

    async def test_receive(self, app: Puppet, served: Served) -> None:
        """
        The application receives the disconnect, as often as it asks.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.event()
        waiting = asyncio.create_task(call.event())
        await asyncio.sleep(0)
        peer.reset()
        assert await waiting == {"type": "http.disconnect"}
        assert await call.event() == {"type": "http.disconnect"}

    async def test_send(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Sending raises ClientDisconnected, an OSError, of which nobody hears when it gets out.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        peer.reset()
        await until(lambda: served.worker.late)
        with pytest.raises(ClientDisconnected) as caught:
            await call.send("start", status=200)
        assert isinstance(caught.value, OSError)
        call.end(caught.value)
        await until(lambda: not served.worker.late)
        assert not warnings(caplog)

    async def test_in_response(self, app: Puppet, served: Served) -> None:
        """
        The same holds in the middle of a response.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.send("start", status=200)
        await call.send("body", body=b"x", more_body=True)
        peer.reset()
        await until(lambda: served.worker.late)
        with pytest.raises(ClientDisconnected):
            await call.send("body", body=b"x", more_body=True)

    async def test_after_response(self, app: Puppet, served: Served) -> None:
        """
        After its response an application receives the disconnect at once.
        """
        peer = await served.connect()
        await peer.send(request())
        call = await app.call()
        await call.respond()
        assert (await call.event())["type"] == "http.request"
        assert (await call.event())["type"] == "http.disconnect"
        assert (await peer.response()).status == 200

    async def test_late_application(
        self, app: Puppet, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        An application that outlives its peer for too long is cancelled, with one line.
        """
        served = await serve(app, application_close_timeout=0.1)
        peer = await served.connect()
        await peer.send(request("/slow"))
        call = await app.call()
        peer.reset()
        await until(lambda: call.cancelled)
        await until(lambda: not served.worker.late)
        (record,) = warnings(caplog)
        assert record.getMessage().startswith("GET /slow: the application did not end within 0.1 s")

    async def test_late_application_that_does_not_hear(
        self, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        One that goes on as if nothing had been said is told again; one that took note is left in
        peace, and neither has a second line.
        """
        told: dict[str, int] = {}
        ended: list[str] = []

        async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
            path, task = scope["path"], asyncio.current_task()
            assert task is not None
            while told.setdefault(path, 0) < 3:
                try:
                    await asyncio.sleep(0.5 if told.get(path) else 60)
                    break
                except asyncio.CancelledError:
                    told[path] += 1
                    if path == "/heard":
                        task.uncancel()
            ended.append(path)

        served = await serve(deaf, application_close_timeout=0.1)
        peers = []
        for path in ("/deaf", "/heard"):
            peer = await served.connect()
            peers.append(peer)
            await peer.send(request(path))
            await until(lambda: len(told) == len(peers))
            peer.reset()
        await until(lambda: len(ended) == 2)
        assert told == {"/deaf": 3, "/heard": 1}
        assert len([each for each in warnings(caplog) if "did not end" in each.getMessage()]) == 2

    async def test_work_after_response(self, app: Puppet, serve: Serve) -> None:
        """
        What an application does after its response is its own affair, whatever its peer does.
        """
        served = await serve(app, application_close_timeout=0.05)
        peer = await served.connect()
        await peer.send(request("/", "connection: close"))
        call = await app.call()
        await call.respond()
        await peer.rest()
        peer.close()
        other = await served.connect()
        await other.send(request())
        late = await app.call()
        other.reset()
        await until(lambda: late.cancelled)
        assert not call.cancelled
        call.end()
        await until(lambda: not served.worker.late)


class TestAccessLog:
    """
    One line per response, where it is wanted.
    """

    async def test_lines(self, app: Puppet, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
        """
        Every kind of answer has its line, and no path can forge another one.
        """
        caplog.set_level(logging.INFO)
        served = await serve(app, access_log=True, access_logger="tests.access")
        peer = await served.connect()
        await peer.send(request("/a%0Ab"))
        await (await app.call()).respond(201)
        await peer.response()
        await peer.send(request("/fails"))
        (await app.call()).end(ValueError())
        await peer.response()
        await served.open(app, "/ws")
        refused = await served.websocket("/no")
        await (await app.call()).send("close")
        await refused.response()
        lines = [
            (record.getMessage(), record.status_code)  # type: ignore[attr-defined] # by extra
            for record in caplog.records
            if record.name == "tests.access"
        ]
        assert lines == [
            (r"127.0.0.1 GET /a\nb 201", 201),
            ("127.0.0.1 GET /fails 500", 500),
            ("127.0.0.1 WebSocket /ws 101", 101),
            ("127.0.0.1 WebSocket /no 403", 403),
        ]

    async def test_off(self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture) -> None:
        """
        By default there is none.
        """
        caplog.set_level(logging.INFO)
        peer = await served.connect()
        await peer.send(request())
        await (await app.call()).respond()
        await peer.response()
        assert not caplog.records
