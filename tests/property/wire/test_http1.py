"""
HTTP/1.1 requests under random cuts and damage, and against h11.

h11 is asked about valid requests only: it is laxer where ours must be strict (bare
LF, an empty Host, underscores in names). One valid thing is left out: llhttp, and so
ours, refuses a tab behind the value of a field that frames the body.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import h11
from hypothesis import given, settings, strategies as st

from fairway.exceptions import LocalProtocolError, RemoteProtocolError
from fairway.wire.http1 import (
    END,
    LAST_CHUNK,
    Request,
    RequestDecoder,
    encode_chunk,
    encode_head,
)
from tests.unit.wire.requests import plain, run

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789!#$%&'*+.^`|~-", min_size=1, max_size=12)
# Names that frame a request, or that ours leaves out, are put in on purpose and not by chance.
NAMES = TOKEN.filter(
    lambda name: (
        name.lower()
        not in {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"}
    )
)
VALUES = st.lists(
    st.text("".join(map(chr, [*range(0x21, 0x7F), *range(0xA0, 0x100)])), min_size=1, max_size=8),
    max_size=3,
).map(" ".join)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
TARGETS = st.text("".join(map(chr, range(0x21, 0x7F))), max_size=20).map("/".__add__)
CUTS = st.lists(st.integers(0, 1 << 20), max_size=8)


class Sent(NamedTuple):
    """
    One request as it was made up.
    """

    method: str
    target: str
    version: str
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def told(self) -> tuple[str, bytes, str, list[tuple[bytes, bytes]], bytes]:
        """
        What a decoder should make of it.
        """
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.fields]
        return self.method, self.target.encode(), self.version, fields, self.body


@st.composite
def bodies(draw: st.DrawFn) -> tuple[list[tuple[str, str]], bytes, bytes]:
    """
    The fields that announce a body, the body, and its bytes on the wire.
    """
    kind = draw(st.sampled_from(["none", "declared", "chunked"]))
    if kind == "none":
        return [], b"", b""
    parts = draw(st.lists(st.one_of(st.binary(max_size=30), st.just(b"\r\n\r\n")), max_size=4))
    body = b"".join(parts)
    if kind == "declared":
        return [("Content-Length", str(len(body)))], body, body
    trailer = draw(st.sampled_from([b"", b"X: 1\r\n", b"X: 1\r\nY:\r\n"]))
    extension = draw(st.sampled_from([b"", b";a", b";a=b"]))
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part)
    coding = draw(st.sampled_from(["chunked", "Chunked"]))
    return [("Transfer-Encoding", coding)], body, chunks + b"0\r\n" + trailer + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> tuple[Sent, bytes]:
    """
    A valid request that keeps its connection, and its bytes.
    """
    announced, body, wire = draw(bodies())
    fields = [("Host", draw(st.sampled_from(["a", "example.com:80", "[::1]"]))), *announced]
    fields = draw(st.permutations([*fields, *draw(FIELDS)]))
    sent = Sent(draw(METHODS), draw(TARGETS), "1.1", list(fields), body)
    space, trailing = draw(st.sampled_from(["", " ", "\t "])), draw(st.sampled_from(["", " "]))
    lines = [f"{sent.method} {sent.target} HTTP/1.1"]
    lines += [f"{name}:{space}{value}{trailing}" for name, value in fields]
    return sent, "\r\n".join([*lines, "", ""]).encode("latin-1") + wire


PIPELINES = st.lists(requests(), min_size=1, max_size=4)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """
    The data in pieces, some of them empty.
    """
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def decoder(head_bytes_max: int = 4096, head_fields_max: int = 10) -> RequestDecoder:
    """
    A decoder whose limits valid requests keep.
    """
    return RequestDecoder(head_bytes_max=head_bytes_max, head_fields_max=head_fields_max)


def by_us(chunks: list[bytes]) -> list[tuple[object, ...]]:
    """
    Each request with its body, as our decoder tells them.
    """
    told: list[tuple[object, ...]] = []
    body, open_request = b"", False
    for event in run(decoder(), *chunks):
        assert not isinstance(event, RemoteProtocolError), event
        if isinstance(event, Request):
            assert not open_request
            told.append((event.method, event.target, event.version, event.headers, b""))
            body, open_request = b"", not event.complete
        elif event is END:
            told[-1] = (*told[-1][:4], body)
            open_request = False
        else:
            assert open_request
            body += event
    assert not open_request
    return told


def by_h11(stream: bytes, oracle: h11.Connection | None = None) -> list[tuple[object, ...]]:
    """
    The same by h11, which wants each request answered before it looks at the next.
    """
    oracle = oracle or h11.Connection(h11.SERVER)
    oracle.receive_data(stream)
    told: list[tuple[object, ...]] = []
    while True:
        event = oracle.next_event()
        if isinstance(event, h11.Request):
            version = event.http_version.decode()
            headers = [(bytes(name), bytes(value)) for name, value in event.headers]
            told.append((event.method.decode(), event.target, version, headers, b""))
        elif isinstance(event, h11.Data):
            told[-1] = (*told[-1][:4], bytes(told[-1][4]) + bytes(event.data))  # type: ignore[call-overload]  # A body.
        elif isinstance(event, h11.EndOfMessage):
            oracle.send(h11.Response(status_code=204, headers=[]))
            oracle.send(h11.EndOfMessage())
            oracle.start_next_cycle()
        else:
            return told


class TestValidRequests:
    """
    What is sent is what is told.
    """

    @given(PIPELINES, CUTS)
    def test_pipelines_come_out_as_they_went_in(
        self, pipeline: list[tuple[Sent, bytes]], places: list[int]
    ) -> None:
        """
        Every request with its body, however many in a row and however cut.
        """
        stream = b"".join(wire for _, wire in pipeline)
        assert by_us(cut(stream, places)) == [sent.told for sent, _ in pipeline]

    @given(PIPELINES)
    def test_h11_agrees(self, pipeline: list[tuple[Sent, bytes]]) -> None:
        """
        On method, target, version, fields in their order, and bodies.
        """
        stream = b"".join(wire for _, wire in pipeline)
        ours = by_us([stream])
        # h11 gives the name of the coding in lower case.
        lowered = [
            (
                *request[:3],
                [
                    (name, value.lower() if name == b"transfer-encoding" else value)
                    for name, value in request[3]  # type: ignore[attr-defined]  # The headers.
                ],
                request[4],
            )
            for request in ours
        ]
        assert lowered == by_h11(stream)

    @given(PIPELINES)
    def test_what_h11_sends(self, pipeline: list[tuple[Sent, bytes]]) -> None:
        """
        Requests in another's writing are understood.
        """
        wire, expected = b"", []
        for sent, _ in pipeline:
            client = h11.Connection(h11.CLIENT)
            method, target, version, fields, body = sent.told
            request = h11.Request(method=method, target=target, headers=fields)
            wire += client.send(request) or b""
            if body:
                wire += client.send(h11.Data(data=body)) or b""
            wire += client.send(h11.EndOfMessage()) or b""
            expected.append((method, target, version, body))
        told = [(m, t, v, body) for m, t, v, _, body in by_us([wire])]
        assert told == expected


@st.composite
def chunked(draw: st.DrawFn) -> tuple[bytes, bytes, int]:
    """
    A chunked body, its bytes on the wire with whatever may surround it, and the number of chunks.
    """
    spaces = st.sampled_from(["", "", " ", "\t"])
    values = st.one_of(
        TOKEN, st.text("abc =;,%", max_size=8).map('"{}"'.format), st.just("a" * 9000)
    )
    extensions = st.lists(
        st.tuples(TOKEN, st.one_of(st.none(), values)).map(
            lambda pair: f";{pair[0]}" if pair[1] is None else f";{pair[0]}={pair[1]}"
        ),
        max_size=2,
    ).map("".join)
    parts = draw(
        st.lists(
            st.one_of(st.binary(min_size=1, max_size=3), st.just(b"\r\n\r\n"), st.just(b"0" * 300)),
            max_size=6,
        )
    )
    parts *= draw(st.sampled_from([1, 1, 1, 200]))
    extension, form = draw(extensions), draw(st.sampled_from(["%x", "%X", "000%x"]))
    trailer_values = st.one_of(VALUES, st.just("b" * 9000))
    trailers = draw(st.lists(st.tuples(NAMES, spaces, trailer_values), max_size=3))
    wire = "".join(
        f"{form % len(part)}{extension}\r\n{part.decode('latin-1')}\r\n" for part in parts
    )
    wire += f"0{draw(extensions)}\r\n"
    wire += "".join(f"{name}:{space}{value}\r\n" for name, space, value in trailers) + "\r\n"
    return b"".join(parts), wire.encode("latin-1"), len(parts) + 1


class TestChunks:
    """
    Chunked bodies with extensions and trailers, up to and above what these may cost.
    """

    HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"

    @settings(max_examples=50)
    @given(chunked(), CUTS)
    def test_h11_agrees(self, sent: tuple[bytes, bytes, int], places: list[int]) -> None:
        """
        On the body and on where it ends, unless too much surrounds it; never on more than that.
        """
        body, wire, chunks = sent
        overhead = len(wire) - len(body)
        pieces = cut(self.HEAD + wire + self.NEXT, places)
        events = run(decoder(), *pieces)
        if isinstance(events[-1], RemoteProtocolError):
            assert overhead > 16384
            assert events[-1].reason == "too many bytes of chunk extensions and trailers"
            assert b"".join(part for part in events if isinstance(part, bytes)) in body
            return
        assert overhead <= 16384 + 64 * chunks
        told = by_us(pieces)
        assert [(request[1], request[4]) for request in told] == [(b"/", body), (b"/next", b"")]
        oracle = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        assert [request[4] for request in by_h11(self.HEAD + wire + self.NEXT, oracle)] == [
            body,
            b"",
        ]

    @settings(max_examples=60)
    @given(
        chunked(), st.integers(0, 1 << 20), st.sampled_from([b"\r", b"\n", b" ", b"\0", b"x", b""])
    )
    def test_damage_is_no_other_body(
        self, sent: tuple[bytes, bytes, int], place: int, patch: bytes
    ) -> None:
        """
        What we accept of a damaged body, h11 reads as the same or refuses.
        """
        wire = bytearray(sent[1])
        place %= len(wire)
        wire[place : place + 1] = patch
        stream = self.HEAD + bytes(wire)
        events = run(decoder(), stream)
        if END not in events:
            return
        ours = b"".join(part for part in events if isinstance(part, bytes))
        oracle = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        oracle.receive_data(stream)
        theirs = b""
        try:
            while type(event := oracle.next_event()) is not h11.EndOfMessage:
                assert event is not h11.NEED_DATA
                theirs += bytes(event.data) if isinstance(event, h11.Data) else b""
        except h11.RemoteProtocolError:
            return
        assert ours == theirs


class TestAnyBytes:
    """
    Damage is refused the same way however it is cut, and raises nothing.
    """

    @staticmethod
    def damage(stream: bytes, wounds: list[tuple[int, int, bytes]]) -> bytes:
        """
        The stream with some bytes replaced by others.
        """
        damaged = bytearray(stream)
        for place, size, patch in wounds:
            start = place % (len(damaged) + 1)
            damaged[start : start + size] = patch
        return bytes(damaged)

    PATCHES = st.one_of(
        st.binary(max_size=3),
        st.sampled_from(
            [
                b"\r",
                b"\n",
                b"\r\n",
                b"\r\n\r\n",
                b"\r\nHost: b\r\n",
                b"\r\nContent-Length: 3\r\n",
                b"\r\nTransfer-Encoding: chunked\r\n",
                b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
                b"\r\nConnection: close\r\n",
                b" HTTP/1.0",
                b"\x00",
                b"GET / HTTP/1.1\r\n",
            ]
        ),
    )
    WOUNDS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 4), PATCHES), max_size=3)

    @given(PIPELINES, WOUNDS, CUTS, st.sampled_from([60, 200, 4096]), st.sampled_from([2, 10]))
    def test_any_cuts_give_the_same_events(
        self,
        pipeline: list[tuple[Sent, bytes]],
        wounds: list[tuple[int, int, bytes]],
        places: list[int],
        head_bytes_max: int,
        head_fields_max: int,
    ) -> None:
        """
        Requests, bodies, refusals with their reason, and what is left behind a switch.
        """
        stream = self.damage(b"".join(wire for _, wire in pipeline), wounds)
        whole, pieces = (decoder(head_bytes_max, head_fields_max) for _ in range(2))
        expected = plain(run(whole, stream))
        assert plain(run(pieces, *cut(stream, places))) == expected
        assert pieces.take_rest() == whole.take_rest()
        single = decoder(head_bytes_max, head_fields_max)
        assert plain(run(single, *(bytes((byte,)) for byte in stream))) == expected

    @given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
    def test_garbage_raises_nothing(self, garbage: bytes, places: list[int]) -> None:
        """
        Whatever comes, events come out, and an error only as the last.
        """
        events = run(decoder(), *cut(b"POST /" + garbage, places))
        assert not any(isinstance(event, RemoteProtocolError) for event in events[:-1])

    @given(st.binary(max_size=100), CUTS)
    def test_garbage_as_chunks_raises_nothing(self, garbage: bytes, places: list[int]) -> None:
        """
        Inside a body too, and a body that ends is followed by END.
        """
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        events = run(decoder(), *cut(head + garbage, places))
        assert isinstance(events[0], Request)
        assert plain(events) == plain(run(decoder(), head + garbage))

    @given(requests(), WOUNDS, st.sampled_from([b"h2c", b"websocket"]))
    def test_an_upgrade_hides_nothing(
        self, sent: tuple[Sent, bytes], wounds: list[tuple[int, int, bytes]], protocol: bytes
    ) -> None:
        """
        The parser stops at one; what it finds, and what is found after it, stays the same.
        """
        line, _, rest = self.damage(sent[1], wounds).partition(b"\r\n")
        fields = b"\r\nUpgrade: " + protocol + b"\r\nConnection: upgrade\r\n"
        asked, without = (
            run(decoder(head_fields_max=20), line + named + rest)[:1]
            for named in (fields, fields.replace(b"Upgrade:", b"Nothing:"))
        )
        for event in asked + without:
            if isinstance(event, Request):
                event.headers, event.upgrade = [], False
            elif isinstance(event, RemoteProtocolError):
                event.reason = ""  # llhttp or we may be the first to see it.
        assert plain(asked) == plain(without)

    @given(PIPELINES, st.integers(0, 1 << 20), st.sampled_from([b"\r", b"\n"]))
    def test_no_torn_line_passes(
        self, pipeline: list[tuple[Sent, bytes]], place: int, torn: bytes
    ) -> None:
        """
        A CR or LF put anywhere into a head, except beside its kind, is refused.
        """
        head = pipeline[0][1].partition(b"\r\n\r\n")[0]
        place = 1 + place % (len(head) - 1)
        stream = head[:place] + torn + head[place:] + b"\r\n\r\n"
        (event,) = run(decoder(), stream)
        assert isinstance(event, RemoteProtocolError)
        assert event.status == 400


class TestResponses:
    """
    What is encoded is understood, or refused before it is sent.
    """

    @given(st.integers(200, 599), FIELDS)
    def test_heads(self, status: int, fields: list[tuple[str, str]]) -> None:
        """
        A client reads status and fields as they were given.
        """
        headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(encode_head(status, headers, b"server: x\r\n"))
        response = client.next_event()
        assert isinstance(response, h11.Response)
        assert response.status_code == status
        told = [(bytes(name), bytes(value)) for name, value in response.headers]
        assert told == [(b"server", b"x"), *((name.lower(), value) for name, value in headers)]

    @given(st.binary(max_size=12), st.binary(max_size=12))
    def test_nothing_passed_as_a_field_becomes_two(self, name: bytes, value: bytes) -> None:
        """
        Either it is refused, or it makes exactly one line.
        """
        try:
            head = encode_head(200, [(name, value)])
        except LocalProtocolError:
            return
        assert head == b"HTTP/1.1 200 OK\r\n" + name + b": " + value + b"\r\n\r\n"
        assert head.count(b"\r") == head.count(b"\n") == 3

    @given(st.lists(st.binary(max_size=50), max_size=5))
    def test_chunks(self, parts: list[bytes]) -> None:
        """
        Chunks are what our own decoder, and hence llhttp, reads.
        """
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        stream = head + b"".join(encode_chunk(part) for part in parts) + LAST_CHUNK
        assert by_us([stream])[0][4] == b"".join(parts)
