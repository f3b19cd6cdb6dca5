"""
A WebSocket as a client meets it: handshake, messages, pings, closing.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from fairway import metrics
from fairway.exceptions import ClientDisconnected, ClientFault, InvalidJSON, LocalProtocolError
from fairway.types import Receive, Scope, Send, is_transparent
from fairway.wire.prepared import Prepared
from tests.protocol.harness import KEY, Peer, Puppet, Serve, Served, request, until, warnings
from tests.unit.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame

MIB = 1048576

user: ContextVar[str] = ContextVar("user", default="-")


class TestHandshake:
    """
    RFC 6455 section 4.2, and what the application is told.
    """

    async def test_scope(self, app: Puppet, served: Served) -> None:
        """
        The scope says what was asked for; the extension holds the server's own ends.
        """
        peer = await served.websocket("/ws/%C3%A9?x=1", "sec-websocket-protocol: b, a")
        call = await app.call()
        scope = dict(call.scope)
        extensions = scope.pop("extensions")
        assert (b"sec-websocket-version", b"13") in scope.pop("headers")
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/ws/é",
            "raw_path": b"/ws/%C3%A9",
            "query_string": b"x=1",
            "root_path": "",
            "subprotocols": ["b", "a"],
            "client": peer.sock.getsockname(),
            "server": served.sock.getsockname(),
        }
        assert extensions["websocket.http.response"] == {}
        assert set(extensions["fairway"]) == {"outbox", "inbox", "receive", "configure"}
        assert extensions["fairway"]["receive"] is call.receive
        assert is_transparent(call._send)

    async def test_accept(self, app: Puppet, served: Served) -> None:
        """
        The answer proves that the key was read, and carries what the application adds.
        """
        peer = await served.websocket("/", "sec-websocket-protocol: chat, v2")
        call = await app.call()
        assert await call.event() == {"type": "websocket.connect"}
        await call.send("accept", subprotocol="v2", headers=[(b"x-a", b"1")])
        response = await peer.response()
        assert response.status == 101
        assert response.headers["upgrade"] == "websocket"
        assert response.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert response.headers["sec-websocket-protocol"] == "v2"
        assert response.headers["x-a"] == "1"

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ([f"sec-websocket-key: {KEY}"], 400),
            (["sec-websocket-version: 13"], 400),
            (["sec-websocket-version: 13", "sec-websocket-key: c2hvcnQ="], 400),
            (["sec-websocket-version: 13", *[f"sec-websocket-key: {KEY}"] * 2], 400),
            (["sec-websocket-version: 8", f"sec-websocket-key: {KEY}"], 426),
        ],
    )
    async def test_malformed(
        self, app: Puppet, served: Served, fields: list[str], status: int
    ) -> None:
        """
        A handshake that is not one is refused before the application hears of it.
        """
        peer = await served.connect()
        response = await peer.get("/", "upgrade: websocket", "connection: upgrade", *fields)
        assert response.status == status
        assert response.headers["connection"] == "close"
        assert response.headers.get("sec-websocket-version") == ("13" if status == 426 else None)
        assert await peer.rest() == b""
        assert app.calls.empty()

    async def test_after_request(self, app: Puppet, served: Served) -> None:
        """
        A handshake may follow another request on the connection, even pipelined.
        """
        peer = await served.websocket("/ws", before=request("/page"))
        page = await app.call()
        await page.respond()
        call = await app.call()
        await call.connect()
        assert len(served.worker.late) == 1
        page.end()
        await until(lambda: not served.worker.late)
        assert [(await peer.response()).status for _ in range(2)] == [200, 101]
        await call.send("send", text="hi")
        assert (await peer.frame()).payload == b"hi"

    @pytest.mark.parametrize("message", [{}, {"code": 4000, "reason": "no"}])
    async def test_refused(self, app: Puppet, served: Served, message: dict[str, Any]) -> None:
        """
        ``websocket.close`` before accepting is a 403, and the application's socket ends with 1006.
        """
        peer = await served.websocket()
        call = await app.call()
        await call.event()
        await call.send("close", **message)
        response = await peer.response()
        assert (response.status, response.headers["connection"]) == (403, "close")
        for _ in range(2):
            assert await call.event() == {
                "type": "websocket.disconnect",
                "code": 1006,
                "reason": "",
            }
        with pytest.raises(LocalProtocolError, match=r"nothing more after websocket\.close"):
            await call.send("accept")
        assert await peer.rest() == b""

    async def test_refused_with_response(self, app: Puppet, served: Served) -> None:
        """
        An application may refuse with a response of its own (``websocket.http.response``).
        """
        peer = await served.websocket()
        call = await app.call()
        await call.send(
            "http.response.start",
            status=401,
            headers=[(b"www-authenticate", b"Basic"), (b"Content-Length", b"99")],
        )
        await call.send("http.response.body", body=b"log in")
        response = await peer.response()
        assert (response.status, response.body) == (401, b"log in")
        assert response.headers["www-authenticate"] == "Basic"
        assert (await call.event())["type"] == "websocket.connect"
        assert (await call.event())["code"] == 1006
        assert await peer.rest() == b""

    async def test_refused_with_parts(self, app: Puppet, served: Served) -> None:
        """
        Such a response may come in parts.
        """
        peer = await served.websocket()
        call = await app.call()
        await call.send("http.response.start", status=404)
        await call.send("http.response.body", body=b"a", more_body=True)
        with pytest.raises(LocalProtocolError, match=r"got 'websocket\.accept'"):
            await call.send("accept")
        await call.send("http.response.body", body=b"b")
        assert (await peer.response()).body == b"ab"

    @pytest.mark.parametrize(
        "message",
        [
            {"headers": [(b"x-a", b"1\r\nx-b: 2")]},
            {"headers": [(b"sec-websocket-protocol", b"chat")]},
            {"subprotocol": "a\r\nb"},
            {"subprotocol": "é"},
        ],
    )
    async def test_injection(self, app: Puppet, served: Served, message: dict[str, Any]) -> None:
        """
        What would break out of its line is the application's error, and the peer gets a 500.
        """
        peer = await served.websocket()
        call = await app.call()
        with pytest.raises(LocalProtocolError):
            await call.send("accept", **message)
        call.end()
        response = await peer.response()
        assert response.status == 500
        assert "x-b" not in response.headers

    @pytest.mark.parametrize("status", [101, 600, None])
    async def test_bad_status(self, app: Puppet, served: Served, status: Any) -> None:
        """
        A status that is none is refused, and a better one may follow.
        """
        peer = await served.websocket()
        call = await app.call()
        with pytest.raises(LocalProtocolError, match="from 200 to 599"):
            await call.send("http.response.start", status=status)
        await call.send("close")
        assert (await peer.response()).status == 403

    async def test_frames_after_refusal(self, app: Puppet, served: Served) -> None:
        """
        What the peer sends behind a refused handshake is read and forgotten.
        """
        peer = await served.websocket()
        call = await app.call()
        await call.send("http.response.start", status=404)
        await call.send("http.response.body", body=b"no", more_body=True)
        await peer.send(client_frame(TEXT, b"x") * 1000)
        await call.send("http.response.body")
        await peer.send(client_frame(TEXT, b"x") * 1000)
        assert (await peer.response()).body == b"no"
        assert await peer.rest() == b""
        assert [(await call.event())["type"] for _ in range(2)] == [
            "websocket.connect",
            "websocket.disconnect",
        ]

    async def test_injection_in_refusal(self, app: Puppet, served: Served) -> None:
        """
        The same holds for a refusal of the application's own.
        """
        peer = await served.websocket()
        call = await app.call()
        await call.send("http.response.start", status=404, headers=[(b"x-a", b"1\n2")])
        with pytest.raises(LocalProtocolError):
            await call.send("http.response.body", body=b"")
        call.end()
        assert (await peer.response()).status == 500

    async def test_early_frames(self, app: Puppet, served: Served) -> None:
        """
        What a hasty client sends behind its handshake is kept until it is answered.
        """
        peer = await served.websocket(early=client_frame(TEXT, b"1"))
        call = await app.call()
        await peer.text("2")
        await call.connect()
        await peer.text("3")
        assert [(await call.event())["text"] for _ in range(3)] == ["1", "2", "3"]

    async def test_early_close(self, app: Puppet, served: Served) -> None:
        """
        A client that closes before it is accepted is gone as soon as that happens.
        """
        peer = await served.websocket(early=client_frame(CLOSE, b"\x03\xe9"))
        call = await app.call()
        await call.connect()
        with pytest.raises(ClientDisconnected):
            await call.send("send", text="late")
        assert (await call.event())["code"] == 1001
        assert (await peer.response()).status == 101
        assert await peer.rest() == b"\x88\x02\x03\xe9"

    async def test_early_flood(self, app: Puppet, serve: Serve) -> None:
        """
        Reading pauses when too much comes before the handshake is answered.
        """
        served = await serve(app, receive_bytes=1024)
        peer = await served.websocket(early=client_frame(BINARY, bytes(1024)))
        call = await app.call()
        connection = served.connection
        await until(lambda: connection.reading_paused)
        await call.connect()
        assert len((await call.event())["bytes"]) == 1024
        await peer.text("on")
        assert (await call.event())["text"] == "on"

    async def test_gone_before_answer(self, app: Puppet, served: Served) -> None:
        """
        A client that leaves before it is answered leaves an application that may say so.
        """
        peer = await served.websocket()
        call = await app.call()
        peer.reset()
        assert (await call.event())["type"] == "websocket.connect"
        assert (await call.event())["code"] == 1006
        with pytest.raises(ClientDisconnected, match=r"will not get 'websocket\.accept'"):
            await call.send("accept")

    async def test_gone_unanswered(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        A client that leaves while the application waits for messages was forgotten, and is logged.
        """
        peer = await served.websocket("/ws")
        call = await app.call()
        assert (await call.event())["type"] == "websocket.connect"
        waiting = asyncio.create_task(call.event())
        await asyncio.sleep(0)
        peer.reset()
        assert (await waiting)["code"] == 1006
        (record,) = warnings(caplog)
        assert record.getMessage() == (
            "WebSocket /ws: the client left without an answer: connect() has to call accept() or "
            "close() [fairway.R309]"
        )


class TestMessages:
    """
    Messages both ways.
    """

    async def test_both_ways(self, app: Puppet, served: Served) -> None:
        """
        Text and binary arrive as what they are, in order.
        """
        peer, call = await served.open(app)
        await peer.text("héllo")
        await peer.send(client_frame(BINARY, b"\x00\xff"))
        assert await call.event() == {"type": "websocket.receive", "text": "héllo"}
        assert await call.event() == {"type": "websocket.receive", "bytes": b"\x00\xff"}
        await call.send("send", text="wörld")
        await call.send("send", bytes=b"\xff", text=None)
        await call.send("send", text="")
        assert await peer.frame() == (TEXT, "wörld".encode())
        assert await peer.frame() == (BINARY, b"\xff")
        assert await peer.frame() == (TEXT, b"")

    async def test_fragments(self, app: Puppet, served: Served) -> None:
        """
        A fragmented message arrives whole, whatever control frames lie in between.
        """
        peer, call = await served.open(app)
        await peer.send(client_frame(TEXT, b"ab", fin=False) + client_frame(PING, b"?"))
        assert await peer.frame() == (PONG, b"?")
        await peer.send(client_frame(CONTINUATION, b"cd"))
        assert (await call.event())["text"] == "abcd"

    async def test_neither(self, app: Puppet, served: Served) -> None:
        """
        A message without content is the application's error and harms nothing.
        """
        peer, call = await served.open(app)
        with pytest.raises(LocalProtocolError, match="'text' or 'bytes'"):
            await call.send("send")
        await call.send("send", text="x")
        assert (await peer.frame()).payload == b"x"

    @pytest.mark.parametrize("fragments", [1, 3])
    async def test_size(self, app: Puppet, served: Served, fragments: int) -> None:
        """
        A message of exactly 1 MiB passes, whole or in fragments; one byte more ends with 1009.
        """
        peer, call = await served.open(app)
        for size in (MIB, MIB + 1):
            part = -(-size // fragments)
            for index in range(fragments):
                payload = bytes(min(part, size - index * part))
                opcode = CONTINUATION if index else BINARY
                await peer.send(client_frame(opcode, payload, fin=index == fragments - 1))
            if size == MIB:
                assert len((await call.event())["bytes"]) == MIB
        assert await peer.close_code() == 1009
        assert (await call.event())["code"] == 1009

    async def test_declared_size(self, app: Puppet, served: Served) -> None:
        """
        A message that is too large is refused on its header.
        """
        peer, _ = await served.open(app)
        await peer.send(b"\x82\xff" + (MIB + 1).to_bytes(8, "big"))
        assert await peer.close_code() == 1009

    async def test_largest_out(self, app: Puppet, served: Served) -> None:
        """
        What the application sends has no limit.
        """
        peer, call = await served.open(app)
        data = bytes(range(256)) * 16384
        frame, _ = await asyncio.gather(peer.frame(), call.send("send", bytes=data))
        assert frame == (BINARY, data)

    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            (client_frame(TEXT, b"x", mask=False), 1002),
            (client_frame(TEXT, b"x", rsv=4), 1002),
            (client_frame(0x3, b"x"), 1002),
            (client_frame(CONTINUATION, b"x"), 1002),
            (client_frame(PING, b"x" * 126), 1002),
            (client_frame(CLOSE, b"x"), 1002),
            (client_frame(CLOSE, b"\x03\xed"), 1002),
            (client_frame(TEXT, b"\xff"), 1007),
            (client_frame(TEXT, b"\xff", fin=False), 1007),
        ],
    )
    async def test_broken(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture, frame: bytes, code: int
    ) -> None:
        """
        What breaks the protocol ends the connection with its code, and one line says why.
        """
        peer, call = await served.open(app)
        await call.send("send", text="before")
        await peer.send(client_frame(TEXT, b"ok") + frame + client_frame(TEXT, b"ignored"))
        assert (await peer.frame()).payload == b"before"
        assert await peer.close_code() == code
        assert await peer.rest() == b""
        assert (await call.event())["text"] == "ok"
        for _ in range(2):
            event = await call.event()
            assert (event["type"], event["code"]) == ("websocket.disconnect", code)
        with pytest.raises(ClientDisconnected):
            await call.send("send", text="x")
        (record,) = warnings(caplog)
        assert record.getMessage().startswith(f"WebSocket / refused with {code}: ")
        assert record.exc_info is None


class TestClosing:
    """
    Every way in which a WebSocket ends (RFC 6455 section 7).
    """

    @pytest.mark.parametrize(("code", "seen"), [(1000, 1000), (4999, 4999), (None, 1005)])
    async def test_by_peer(self, app: Puppet, served: Served, code: int | None, seen: int) -> None:
        """
        A close frame is echoed behind what is queued, and the application gets its code.
        """
        peer, call = await served.open(app)
        await peer.text("last")
        await call.send("send", text="queued")
        await peer.send_close(code)
        assert (await peer.frame()).payload == b"queued"
        assert await peer.close_code() == seen
        assert await peer.rest() == b""
        assert (await call.event())["text"] == "last"
        for _ in range(2):
            event = await call.event()
            assert event == {"type": "websocket.disconnect", "code": seen, "reason": ""}
        with pytest.raises(ClientDisconnected):
            await call.send("send", text="x")
        with pytest.raises(ClientDisconnected):
            await call.send("close")

    async def test_by_peer_with_reason(self, app: Puppet, served: Served) -> None:
        """
        The peer's reason reaches the application; 1010 of a client is answered without a code.
        """
        peer, call = await served.open(app)
        await peer.send(client_frame(CLOSE, b"\x03\xf2why"))
        assert await peer.close_code() == 1005
        event = await call.event()
        assert (event["code"], event["reason"]) == (1010, "why")

    async def test_by_application(self, app: Puppet, served: Served) -> None:
        """
        The application's close leaves behind what is queued; it gets one disconnect with its code.
        """
        peer, call = await served.open(app)
        await call.send("send", text="queued")
        await call.send("close", code=4001, reason="bye")
        assert (await peer.frame()).payload == b"queued"
        assert (await peer.frame()).payload == b"\x0f\xa1bye"
        await peer.text("crossed")
        await peer.send_close(4001)
        assert await peer.rest() == b""
        for _ in range(2):
            event = await call.event()
            assert event == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}
        with pytest.raises(LocalProtocolError, match=r"nothing more after websocket\.close"):
            await call.send("send", text="x")

    async def test_crossing_messages(self, app: Puppet, served: Served) -> None:
        """
        After the disconnect nothing else is received, whatever the peer still sends.
        """
        peer, call = await served.open(app)
        await call.send("close")
        assert (await call.event())["type"] == "websocket.disconnect"
        count = metrics.messages_received.value
        await peer.text("late")
        await until(lambda: metrics.messages_received.value > count)
        assert (await call.event())["type"] == "websocket.disconnect"

    async def test_default_code(self, app: Puppet, served: Served) -> None:
        """
        A close without a code is 1000.
        """
        peer, call = await served.open(app)
        await call.send("close", code=None, reason=None)
        assert await peer.close_code() == 1000
        assert (await call.event())["code"] == 1000

    @pytest.mark.parametrize(
        "content", [{"code": 1006}, {"code": 999}, {"code": 5000}, {"reason": "a\r\nb"}]
    )
    async def test_bad_close(self, app: Puppet, served: Served, content: dict[str, Any]) -> None:
        """
        A code that never travels or a torn reason is the application's error; it may try again.
        """
        peer, call = await served.open(app)
        with pytest.raises(LocalProtocolError):
            await call.send("close", **content)
        await call.send("close", code=4000)
        assert await peer.close_code() == 4000

    async def test_by_outbox(self, app: Puppet, served: Served) -> None:
        """
        Whoever closes the outbox ends the exchange: the peer and the application get the code.
        """
        peer, call = await served.open(app)
        outbox = call.extension["outbox"]
        outbox.offer(Prepared(text="before"))
        outbox.close(4401, "logged out")
        outbox.close(4000)
        assert not outbox.offer(Prepared(text="after"))
        with pytest.raises(ClientDisconnected):
            await call.send("send", text="after")
        assert (await peer.frame()).payload == b"before"
        assert (await peer.frame()).payload == b"\x11\x31logged out"
        event = await call.event()
        assert (event["code"], event["reason"]) == (4401, "logged out")
        await peer.send_close(4401)
        assert await peer.rest() == b""

    async def test_by_outbox_before_accept(self, app: Puppet, served: Served) -> None:
        """
        Closed before it is accepted, the handshake is refused.
        """
        peer = await served.websocket()
        call = await app.call()
        await call.event()
        call.extension["outbox"].close(4401)
        assert (await peer.response()).status == 403
        assert (await call.event())["code"] == 1006
        with pytest.raises(ClientDisconnected):
            await call.send("accept")

    @pytest.mark.parametrize("leave", [Peer.reset, Peer.close, Peer.half_close])
    async def test_without_a_word(self, app: Puppet, served: Served, leave: Any) -> None:
        """
        A peer that leaves without a close frame is gone with 1006.
        """
        peer, call = await served.open(app)
        leave(peer)
        for _ in range(2):
            event = await call.event()
            assert event == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        with pytest.raises(ClientDisconnected):
            await call.send("send", text="x")

    async def test_no_answer(self, app: Puppet, serve: Serve) -> None:
        """
        A peer that does not answer the close frame is cut off in time.
        """
        served = await serve(app, close_timeout=0.1)
        peer, call = await served.open(app)
        await call.send("close", code=4000)
        assert await peer.close_code() == 4000
        assert await peer.rest() == b""
        assert (await call.event())["code"] == 4000

    async def test_reader_that_stands_still(self, app: Puppet, serve: Serve) -> None:
        """
        A peer that sends its close frame and reads nothing more is cut off in time.
        """
        served = await serve(app, close_timeout=0.1, send_buffer=4096)
        peer, call = await served.open(app, receive_buffer=4096)
        await call.send("send", bytes=bytes(400_000))
        await peer.send_close()
        assert (await call.event())["code"] == 1000
        await until(lambda: not served.worker.connections)

    async def test_pong_before_close(self, app: Puppet, serve: Serve) -> None:
        """
        Nothing follows the close frame, not even the answer to a ping that came before it.
        """
        served = await serve(app, send_buffer=4096)
        peer, call = await served.open(app, receive_buffer=4096)
        await call.send("send", bytes=bytes(400_000))
        connection = served.connection
        await until(lambda: not connection.sink.writable)
        await peer.send(client_frame(PING, b"?") + client_frame(TEXT, b"x"))
        assert (await call.event())["text"] == "x"
        await call.send("close")
        assert len((await peer.frame()).payload) == 400_000
        assert await peer.frame() == (PONG, b"?")
        assert await peer.close_code() == 1000
        await peer.send_close()
        assert await peer.rest() == b""


class TestApplication:
    """
    How an application's end is answered.
    """

    async def test_error_before_accept(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        An exception before accepting is a 500 and one record with its traceback.
        """
        peer = await served.websocket("/ws")
        (await app.call()).end(ValueError("secret"))
        response = await peer.response()
        assert response.status == 500
        assert b"secret" not in response.body
        assert await peer.rest() == b""
        (record,) = warnings(caplog)
        assert (
            record.getMessage() == "WebSocket /ws: the application raised ValueError [fairway.R304]"
        )
        assert record.exc_info

    async def test_error_after_accept(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        An exception after accepting is 1011 without a word, and one record with its traceback.
        """
        peer, call = await served.open(app)
        await call.send("send", text="before")
        call.end(ValueError("secret"))
        assert (await peer.frame()).payload == b"before"
        assert (await peer.frame()).payload == b"\x03\xf3"
        await peer.send_close(1011)
        assert await peer.rest() == b""
        (record,) = warnings(caplog)
        assert record.exc_info

    async def test_plain_callable(self, serve: Serve) -> None:
        """
        An application that raises before it can be awaited is answered for as well.
        """

        def application(scope: Scope, receive: Receive, send: Send) -> Any:
            raise ValueError

        served = await serve(application)
        assert (await (await served.websocket()).response()).status == 500

    @pytest.mark.parametrize(
        ("fault", "status", "code", "reason"),
        [
            (ClientFault("no such room"), 400, 4400, b"no such room"),
            (ClientFault("x", status=404, code=4404), 404, 4404, b"x"),
            (InvalidJSON("not json\nline 2"), 400, 1007, rb"not json\nline 2"),
            (ClientFault("x", status=4404, code=404), 500, 1011, b"x"),
        ],
    )
    async def test_client_fault(
        self,
        app: Puppet,
        served: Served,
        caplog: pytest.LogCaptureFixture,
        fault: ClientFault,
        status: int,
        code: int,
        reason: bytes,
    ) -> None:
        """
        A client's fault is answered as it says, with one line and no traceback.
        """
        peer = await served.websocket()
        (await app.call()).end(fault)
        assert (await peer.response()).status == status
        peer, call = await served.open(app)
        call.end(fault)
        assert (await peer.frame()).payload == code.to_bytes(2, "big") + reason
        records = warnings(caplog)
        assert len(records) == 2
        assert not any(record.exc_info or "\n" in record.getMessage() for record in records)

    @pytest.mark.parametrize(
        "error",
        [
            ClientDisconnected(),
            ExceptionGroup("tasks", [ClientDisconnected(), ClientDisconnected()]),
        ],
    )
    async def test_client_disconnected(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture, error: Exception
    ) -> None:
        """
        An application that ends because its peer has gone did nothing wrong.
        """
        peer, call = await served.open(app)
        peer.reset()
        await call.event()
        call.end(error)
        await until(lambda: not served.worker.late)
        assert not warnings(caplog)

    async def test_return_before_accept(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Returning without an answer is a 500 and one line.
        """
        peer = await served.websocket()
        (await app.call()).end()
        assert (await peer.response()).status == 500
        (record,) = warnings(caplog)
        assert "returned without accepting" in record.getMessage()

    async def test_return_while_refusing(self, app: Puppet, served: Served) -> None:
        """
        Returning in the middle of a refusal ends it where it is; before its first part it is a 500.
        """
        peer = await served.websocket()
        call = await app.call()
        await call.send("http.response.start", status=404)
        call.end()
        assert (await peer.response()).status == 500
        peer = await served.websocket()
        call = await app.call()
        await call.send("http.response.start", status=404)
        await call.send("http.response.body", body=b"a", more_body=True)
        call.end()
        assert (await peer.rest()).endswith(b"\r\n1\r\na\r\n")

    async def test_return_after_accept(self, app: Puppet, served: Served) -> None:
        """
        Returning from an open WebSocket closes it with 1000.
        """
        peer, call = await served.open(app)
        call.end()
        assert await peer.close_code() == 1000

    async def test_return_after_disconnect(
        self, app: Puppet, served: Served, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Returning after the disconnect is the regular end.
        """
        peer, call = await served.open(app)
        await peer.send_close()
        await peer.rest()
        await call.event()
        call.end()
        await until(lambda: not served.worker.late)
        assert not warnings(caplog)

    async def test_late_application(
        self, app: Puppet, serve: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        An application that outlives its peer for too long is cancelled, with one line.
        """
        served = await serve(app, application_close_timeout=0.1)
        peer, call = await served.open(app, "/slow")
        peer.reset()
        await until(lambda: call.cancelled)
        await until(lambda: not served.worker.late)
        (record,) = warnings(caplog)
        assert record.getMessage() == (
            "WebSocket /slow: the application did not end within 0.1 s of the disconnect "
            "and was cancelled [fairway.R307]"
        )

    async def test_cancelled_receive(self, app: Puppet, served: Served) -> None:
        """
        A cancelled receive loses nothing.
        """
        peer, call = await served.open(app)
        receiving = asyncio.create_task(call.event())
        await asyncio.sleep(0)
        receiving.cancel()
        await peer.text("1")
        await asyncio.gather(receiving, return_exceptions=True)
        assert (await call.event())["text"] == "1"

    async def test_two_receives(self, app: Puppet, served: Served) -> None:
        """
        Receiving twice at once is the application's error, told at once.
        """
        _, call = await served.open(app)
        receiving = asyncio.create_task(call.event())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one after the other"):
            await call.event()
        receiving.cancel()

    async def test_context(self, serve: Serve) -> None:
        """
        A connection has one context for all its messages, which no other one sees.
        """
        seen = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            seen.append(user.get())
            user.set(scope["path"])
            await receive()
            seen.append(user.get())

        served = await serve(application)
        peers = [await served.websocket(path) for path in ("/a", "/b")]
        for peer in peers:
            assert (await peer.response()).status == 101
        for peer in peers:
            await peer.text("x")
            assert await peer.close_code() == 1000
        assert seen == ["-", "-", "/a", "/b"]


class TestConfigure:
    """
    What an application may set before it accepts.
    """

    async def test_limit(self, app: Puppet, served: Served) -> None:
        """
        The limit of the outbox can be set.
        """
        await served.websocket()
        call = await app.call()
        call.extension["configure"](overflow="close", outbox_bytes_max=5)
        assert call.extension["outbox"].bytes_max == 5  # type: ignore[attr-defined]

    async def test_unknown_policy(self, app: Puppet, served: Served) -> None:
        """
        An unknown policy is refused by name.
        """
        await served.websocket()
        call = await app.call()
        with pytest.raises(LocalProtocolError, match="got 'newest'"):
            call.extension["configure"](overflow="newest")

    async def test_too_late(self, app: Puppet, served: Served) -> None:
        """
        After accepting it is too late.
        """
        _, call = await served.open(app)
        with pytest.raises(LocalProtocolError, match=r"before websocket\.accept"):
            call.extension["configure"](outbox_bytes_max=5)

    async def test_peer_gone(self, app: Puppet, served: Served) -> None:
        """
        To say something of a peer that has just left is no mistake of the application.
        """
        peer = await served.websocket()
        call = await app.call()
        peer.reset()
        await until(lambda: not served.worker.connections)
        call.extension["configure"](overflow="latest", outbox_bytes_max=5)
        assert (await call.event())["type"] == "websocket.connect"
        assert (await call.event())["type"] == "websocket.disconnect"
