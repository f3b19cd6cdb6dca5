"""
Any requests, cut anywhere, served by a slow application to a slow reader: answered in order.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, NamedTuple

import h11
from hypothesis import given, settings, strategies as st

from fairway.types import Receive, Scope, Send
from tests.unit.server.transports import StepLoop, connect


class Sent(NamedTuple):
    """
    One request, and how the application goes about it.
    """

    method: str
    body: bytes
    chunked: bool
    parts: int
    declared: bool
    pauses: int
    reads: bool

    def encode(self, number: int) -> bytes:
        """
        The request's bytes.
        """
        line = f"{self.method} /{number} HTTP/1.1\r\nhost: a\r\n".encode()
        if self.method != "POST":
            return line + b"\r\n"
        if not self.chunked:
            return line + b"content-length: %d\r\n\r\n%b" % (len(self.body), self.body)
        half = len(self.body) // 2
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(part), part)
            for part in (self.body[:half], self.body[half:])
            if part
        )
        return line + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    def answer(self, number: int) -> bytes:
        """
        The body of the response to it.
        """
        body = self.body if self.method == "POST" and self.reads else b""
        return b"%d:" % number + body


requests = st.lists(
    st.builds(
        Sent,
        method=st.sampled_from(["GET", "HEAD", "POST"]),
        body=st.binary(max_size=60),
        chunked=st.booleans(),
        parts=st.integers(1, 3),
        declared=st.booleans(),
        pauses=st.integers(0, 2),
        reads=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


class Application:
    """
    Answers each request with its number and body, in the way that it says.
    """

    def __init__(self, sent: list[Sent]) -> None:
        self.sent = sent
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one request.
        """
        self.running += 1
        number = int(scope["path"][1:])
        how = self.sent[number]
        body = b""
        while how.reads:
            event = await receive()
            body += event["body"]
            if not event["more_body"]:
                break
        for _ in range(how.pauses):
            await asyncio.sleep(0)
        answer = b"%d:" % number + body
        headers = [(b"content-length", b"%d" % len(answer))] if how.declared else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        size = -(-len(answer) // how.parts)
        parts = [answer[start : start + size] for start in range(0, len(answer), size)]
        for index, part in enumerate(parts):
            more = index < len(parts) - 1
            await send({"type": "http.response.body", "body": part, "more_body": more})
        self.running -= 1


@settings(max_examples=150)
@given(
    sent=requests,
    cuts=st.lists(st.integers(0, 600), max_size=12),
    reads=st.lists(st.integers(1, 200), max_size=20),
)
def test_any_requests(sent: list[Sent], cuts: list[int], reads: list[int]) -> None:
    """
    Each request gets its own answer, whole and in order, whatever comes in whichever pieces.

    Where an answer leaves a body unread, the connection ends with it.
    """
    loop = StepLoop()
    try:
        connection, transport = connect(loop, 0, outbox_bytes_max=1024)
        application = connection.worker.application = Application(sent)
        data = b"".join(request.encode(number) for number, request in enumerate(sent))
        edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        steps = [data[start:end] for start, end in pairwise(edges)]
        for index in range(max(len(steps), len(reads))):
            if index < len(steps) and not transport.lost:
                connection.data_received(steps[index])
            loop.turn(2)
            if index < len(reads):
                transport.drain(reads[index])
        for _ in range(10 * len(sent)):
            transport.drain(100_000)
            loop.turn(5)
        check(sent, bytes(transport.wire))
        assert application.running == 0
        assert not connection.worker.late
    finally:
        loop.close()


def check(sent: list[Sent], wire: bytes) -> None:
    """
    Read the responses with another implementation.
    """
    client = h11.Connection(h11.CLIENT)
    client.receive_data(wire)
    unread = False
    for number, request in enumerate(sent):
        client.send(h11.Request(method=request.method, target="/", headers=[("host", "a")]))
        client.send(h11.EndOfMessage())
        response = client.next_event()
        if unread and response is h11.NEED_DATA:
            # The head of the last answer had left before it was clear that this would be the end.
            return
        assert isinstance(response, h11.Response)
        assert response.status_code == 200
        body = b""
        while isinstance(event := next_event(client), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        assert body == (b"" if request.method == "HEAD" else request.answer(number))
        unread = request.method == "POST" and not request.reads
        if (b"connection", b"close") in list(response.headers):
            assert unread
            return
        client.start_next_cycle()


def next_event(client: h11.Connection) -> Any:
    """
    The next event of a response whose head was read.
    """
    return client.next_event()
