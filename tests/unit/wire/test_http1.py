"""
The stream of one connection: limits at their edge, bodies, pipelining, switching.
"""

from __future__ import annotations

import tracemalloc

import pytest

from fairway.exceptions import RemoteProtocolError
from fairway.wire.http1 import END, Request, RequestDecoder
from tests.unit.wire.requests import (
    body,
    broken_body,
    decode,
    decoder,
    head,
    plain,
    post,
    refusal,
    request,
    run,
)

CHUNKED = post(b"Transfer-Encoding: chunked")


def state(target: RequestDecoder) -> str:
    """
    What a decoder says of the bytes it holds.
    """
    return "pending" if target.has_pending else "started" if target.head_started else "at rest"


def head_of(size: int) -> bytes:
    """
    A head with this many raw bytes before the empty line that ends it.
    """
    short = head(b"X: ")
    return head(b"X: " + b"x" * (size + 4 - len(short)))


class TestHeadLimits:
    """
    Raw bytes and fields: the limit passes, one above is 431.
    """

    @pytest.mark.parametrize("limit", [256, 4096, 65536])
    def test_raw_bytes(self, limit: int) -> None:
        """
        Counted from the first byte of the request line, without the CRLFCRLF at the end.
        """
        exact, above = head_of(limit), head_of(limit + 1)
        assert len(exact) == limit + 4
        assert isinstance(decode(exact, head_bytes_max=limit)[0], Request)
        assert isinstance(decode(exact[:-1], exact[-1:], head_bytes_max=limit)[0], Request)
        assert refusal(above, head_bytes_max=limit) == 431
        assert refusal(above[:-1], head_bytes_max=limit) == 431
        assert refusal(*(bytes((byte,)) for byte in above), head_bytes_max=limit) == 431

    def test_the_request_line_counts(self) -> None:
        """
        A long target is as long as a long field.
        """
        line = b"GET /" + b"x" * (256 - len(b"GET / HTTP/1.1\r\nHost: a")) + b" HTTP/1.1"
        assert isinstance(decode(head(line=line), head_bytes_max=256)[0], Request)
        assert refusal(head(line=line.replace(b"/x", b"/xx")), head_bytes_max=256) == 431

    def test_an_unfinished_head_is_refused_once_it_cannot_fit(self) -> None:
        """
        After limit + 4 bytes without an empty line; until then it may yet end.
        """
        target = decoder(256)
        assert target.receive_data(b"GET /" + b"x" * 254) == []
        assert plain(target.receive_data(b"x")) == [(431, "request head is larger than 256 bytes")]

    def test_what_came_before_counts_for_no_later_head(self) -> None:
        """
        Each pipelined head has the whole limit, after a body as well.
        """
        exact = head_of(256)
        stream = exact + post(b"Content-Length: 300") + b"x" * 300 + exact + exact
        assert len([e for e in decode(stream, head_bytes_max=256) if isinstance(e, Request)]) == 4
        assert len(decode(exact + head_of(257), head_bytes_max=256)) == 2

    def test_fields(self) -> None:
        """
        128 pass, 129 do not, however they are called.
        """
        fields = [b"a:"] * 127
        assert len(decode(head(*fields), head_fields_max=128)) == 1
        assert isinstance(decode(head(*fields), head_fields_max=128)[0], Request)
        assert refusal(head(*fields, b"b: 1"), head_fields_max=128) == 431
        assert refusal(head(*fields, b"a_b: 1"), head_fields_max=128) == 431

    def test_few_large_fields_pass(self) -> None:
        """
        Only lines are counted, not bytes.
        """
        assert isinstance(decode(head(b"a: " + b"x" * 1000), head_fields_max=2)[0], Request)
        assert refusal(head(b"a: " + b"x" * 1000, b"b:"), head_fields_max=2) == 431

    def test_twenty_thousand_fields_are_refused_unread(self) -> None:
        """
        By counting, before any becomes an object (CVE-2025-14550).
        """
        raw = head(*[b"a:"] * 16000)
        tracemalloc.start()
        try:
            status = refusal(raw, head_bytes_max=65536, head_fields_max=128)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert status == 431
        assert peak < 4 * len(raw)


class TestBeginning:
    """
    The first bytes of a request.
    """

    def test_a_tls_hello_is_400_at_once(self) -> None:
        """
        One byte suffices, and the reason helps whoever reads the log.
        """
        assert plain(decode(b"\x16")) == [
            (400, "tls hello on a plain port, which speaks http:// and ws://")
        ]

    @pytest.mark.parametrize(
        "first", [b"\0", b"\n", b" ", b"\x80", b"g", b"{", b"\xff", b"[", b"@"]
    )
    def test_garbage_is_400_at_once(self, first: bytes) -> None:
        """
        A method begins with a capital letter.
        """
        assert refusal(first) == 400
        assert refusal(b"\r\n", first) == 400
        assert refusal(b"\r" + (first if first != b"\n" else b"\r")) == 400

    @pytest.mark.parametrize(
        ("line", "status"),
        [
            (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
            (b"HELO mail.example\r\n", 400),
            (b"GET /\r\n", 400),
            (b"GET / HTTP/2.0\r\n", 505),
        ],
    )
    def test_another_protocol_is_refused_by_its_first_line(self, line: bytes, status: int) -> None:
        """
        It may wait for our answer before it sends more, or for good.
        """
        assert refusal(line) == status
        assert refusal(*(bytes((byte,)) for byte in line)) == status
        assert refusal(b"\r\n", line[:5], line[5:]) == status
        assert decode(line[:-1]) == []

    @pytest.mark.parametrize("first", [b"A", b"Z", b"GET"])
    def test_a_letter_is_waited_for(self, first: bytes) -> None:
        """
        At the edges of the alphabet.
        """
        assert decode(first) == []

    def test_one_empty_line_is_skipped(self) -> None:
        """
        RFC 9112 section 2.2; in one read, in pieces, and between requests.
        """
        raw = head()
        assert request(b"\r\n" + raw).target == b"/"
        assert request(b"\r", b"\n", raw).target == b"/"
        assert len(decode(raw + b"\r\n" + raw + b"\r\n", raw)) == 3

    def test_two_are_not(self) -> None:
        """
        Nobody trickles empty lines for free.
        """
        assert refusal(b"\r\n\r\n") == refusal(b"\r\n", b"\r") == 400

    def test_the_empty_line_is_not_counted(self) -> None:
        """
        The limit is the head's.
        """
        assert isinstance(decode(b"\r\n" + head_of(256), head_bytes_max=256)[0], Request)
        assert refusal(b"\r\n" + head_of(257), head_bytes_max=256) == 431


class TestTornLines:
    """
    CR without LF, LF without CR: 400, as soon as it is here.
    """

    @pytest.mark.parametrize(
        "start",
        [
            b"GET / HTTP/1.1\n",
            b"GET / HTTP/1.1\rH",
            b"GET / HTTP/1.1\r\r\n",
            b"GET /\r",
            b"GET / HTTP/1.1\r\nHost: a\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nb",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        ],
    )
    def test_in_an_unfinished_head(self, start: bytes) -> None:
        """
        In one read or byte by byte; a CR at the end may yet get its LF.
        """
        if start.endswith(b"\r"):
            assert decode(start) == []
            start += b"x"
        expected = [(400, "bare cr or lf in the request head")]
        assert plain(decode(start)) == expected
        assert plain(decode(*(bytes((byte,)) for byte in start))) == expected

    @pytest.mark.parametrize("torn", [b"\n", b"\r", b"\n\n", b"\r\r", b"\n\r"])
    def test_in_a_complete_head(self, torn: bytes) -> None:
        """
        Wherever it stands, and whatever else is wrong.
        """
        for raw in (
            head(b"X: a" + torn + b"b"),
            head(b"X: a" + torn + b"Y: b", host=None),
            head(b"X" + torn + b": a"),
            head(line=b"GET /" + torn + b" HTTP/1.1"),
            head(line=b"GET / HTTP/9.9" + torn),
            head(*[b"a:"] * 20, b"X: " + torn + b"."),
        ):
            assert plain(decode(raw)) == [(400, "bare cr or lf in the request head")]

    def test_before_the_size(self) -> None:
        """
        The verdict does not depend on how the bytes were cut.
        """
        raw = head(b"X: \n" + b"x" * 300)
        assert refusal(raw, head_bytes_max=256) == 400


class TestDeclaredBody:
    """
    Bodies with a length.
    """

    def test_parts_come_as_they_arrive(self) -> None:
        """
        Whole reads are passed on as they are.
        """
        target = decoder()
        events = target.receive_data(post(b"Content-Length: 10") + b"abc")
        assert isinstance(events[0], Request)
        assert not events[0].complete
        assert events[0].content_length == 10
        assert events[1:] == [b"abc"]
        assert target.receive_data(b"") == []
        part = b"defg"
        assert target.receive_data(part)[0] is part
        assert target.receive_data(b"hij") == [b"hij", END]

    def test_a_head_alone_tells_only_the_request(self) -> None:
        """
        So that 100 Continue can be sent.
        """
        assert len(decode(post(b"Content-Length: 10"))) == 1

    def test_the_end_is_exact(self) -> None:
        """
        The byte after it belongs to the next request.
        """
        target = decoder()
        events = target.receive_data(post(b"Content-Length: 3") + b"abcGET")
        assert events[1:] == [b"abc", END]
        assert state(target) == "pending"
        assert target.receive_data(b"") == []
        assert state(target) == "started"

    def test_a_large_body_is_not_held(self) -> None:
        """
        100 MB declared takes no memory before it comes.
        """
        target = decoder()
        target.receive_data(post(b"Content-Length: 104857600"))
        part = bytes(65536)
        tracemalloc.start()
        try:
            for _ in range(1600):
                assert target.receive_data(part)[0] is part
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 65536


class TestChunkedBody:
    """
    Bodies in chunks (RFC 9112 section 7.1).
    """

    @pytest.mark.parametrize(
        ("chunks", "expected"),
        [
            (b"0\r\n\r\n", b""),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"5\r\nhello\r\nA\r\n, world...\r\n0\r\n\r\n", b"hello, world..."),
            (b"005;a=b;c\r\nhello\r\n0;x\r\n\r\n", b"hello"),
            (b"5\r\nhello\r\n0\r\nX: 1\r\nHost: b\r\nConnection: close\r\n\r\n", b"hello"),
            (b"5\r\nhello\r\n0\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b"hello"),
            (b"8\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n\r\n\r\n"),
        ],
    )
    def test_well_formed(self, chunks: bytes, expected: bytes) -> None:
        """
        Extensions and trailers are passed over, empty lines inside a chunk are its own.
        """
        assert body(CHUNKED + chunks) == expected
        assert body(CHUNKED, *(bytes((byte,)) for byte in chunks)) == expected

    @pytest.mark.parametrize(
        "chunks",
        [
            b"5\r\nhelloXX0\r\n\r\n",  # CVE-2025-43859
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"g\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b";a\r\nhello\r\n0\r\n\r\n",
            b"10000000000000000\r\nhello\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\x00\r\nhello\r\n0\r\n\r\n",
            b"0\r\nX\nY: a\r\n\r\n",
            b"0\r\nX : a\r\n\r\n",
            b"0\r\n\n",
            b"0\r\nContent-Length: 9\r\n\r\n",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    )
    def test_malformed_is_400(self, chunks: bytes) -> None:
        """
        Sizes are hexadecimal digits, lines end in CRLF (CVE-2022-24801 and its kin), and no
        trailer speaks about framing.
        """
        assert broken_body(CHUNKED + chunks) == 400
        assert broken_body(CHUNKED, *(bytes((byte,)) for byte in chunks)) == 400

    def test_what_was_good_before_an_error_is_told(self) -> None:
        """
        However the bytes were cut.
        """
        raw = CHUNKED + b"5\r\nhello\r\nX"
        events = plain(decode(raw))
        assert events[1:] == [b"hello", (400, "malformed chunked body")]
        assert plain(decode(*(bytes((byte,)) for byte in raw))) == events

    def test_trailers_change_no_header(self) -> None:
        """
        They come after the application has seen the request.
        """
        events = decode(CHUNKED + b"0\r\nHost: evil\r\nX: 1\r\n\r\n")
        assert isinstance(events[0], Request)
        assert events[0].headers == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]

    def test_the_end_is_exact(self) -> None:
        """
        The next request is found at every cut, however close it follows.
        """
        raw = CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + head(line=b"GET /next HTTP/1.1")
        expected = plain(decode(raw))
        assert [type(event) for event in expected] == [tuple, bytes, type(END), tuple]
        for cut in range(1, len(raw)):
            assert plain(decode(raw[:cut], raw[cut:])) == expected

    @pytest.mark.parametrize("where", ["extension", "trailer", "sizes"])
    def test_overhead_is_bounded(self, where: str) -> None:
        """
        16 KiB and 64 bytes a chunk beyond the body, in extensions, trailers or zeros of a size.
        """
        frame = {
            "extension": (b"1;", b"\r\na\r\n0\r\n\r\n"),
            "trailer": (b"1\r\na\r\n0\r\nX:", b"\r\n\r\n"),
            "sizes": (b"", b"1\r\na\r\n0\r\n\r\n"),
        }[where]
        allowed = 16384 + 2 * 64
        filler = b"0" if where == "sizes" else b"x"
        room = allowed - len(b"".join(frame)) + 1
        assert body(CHUNKED + filler.join((frame[0] + filler * (room - 1), frame[1]))) == b"a"
        assert broken_body(CHUNKED + frame[0] + filler * (room + 1) + frame[1]) == 400

    def test_endless_overhead_is_not_waited_for(self) -> None:
        """
        A trailer that never ends is refused while it comes (CVE-2026-22815).
        """
        target = decoder()
        target.receive_data(CHUNKED + b"0\r\nX: ")
        events = [event for _ in range(10000) for event in target.receive_data(b"xx")]
        assert plain(events) == [(400, "too many bytes of chunk extensions and trailers")]

    def test_shares_do_not_pile_up(self) -> None:
        """
        A hundred thousand tiny chunks pay for themselves and not for a trailer of megabytes.
        """
        target = decoder()
        target.receive_data(CHUNKED)
        for _ in range(100):
            target.receive_data(b"1\r\na\r\n" * 1000)
        target.receive_data(b"0\r\nX: ")
        parts = 0
        while not (events := target.receive_data(b"x" * 1000)):
            parts += 1
        assert plain(events) == [(400, "too many bytes of chunk extensions and trailers")]
        assert 60 < parts < 70

    def test_tiny_chunks_are_paid_by_themselves(self) -> None:
        """
        Any number of one-byte chunks is a body like any other.
        """
        assert body(CHUNKED + b"1\r\na\r\n" * 20000 + b"0\r\n\r\n") == b"a" * 20000


class TestPipelining:
    """
    Several requests on one connection, one at a time.
    """

    def test_a_call_tells_of_one_request(self) -> None:
        """
        The rest waits, raw, until it is asked for.
        """
        target = decoder()
        raw = head(line=b"GET /1 HTTP/1.1") + head(line=b"GET /2 HTTP/1.1") + b"GET"
        for path in (b"/1", b"/2"):
            (event,) = target.receive_data(raw)
            assert isinstance(event, Request)
            assert event.target == path
            assert state(target) == "pending"
            raw = b""
        assert target.receive_data(b"") == []
        assert state(target) == "started"

    def test_twenty_in_one_read(self) -> None:
        """
        With and without bodies, in order (CVE-2024-41671).
        """
        stream = b"".join(
            head(line=f"GET /{n} HTTP/1.1".encode())
            + post(b"Content-Length: 2")
            + b"%02d" % n
            + CHUNKED
            + b"2\r\n%02d\r\n0\r\n\r\n" % n
            for n in range(20)
        )
        events = decode(stream)
        targets = [event.target for event in events if isinstance(event, Request)]
        assert targets == [t for n in range(20) for t in (f"/{n}".encode(), b"/", b"/")]
        bodies = [event for event in events if isinstance(event, bytes)]
        assert bodies == [b"%02d" % n for n in range(20) for _ in range(2)]

    def test_a_thousand_in_one_read_take_linear_work(self) -> None:
        """
        What is left is not copied for each of them.
        """
        raw = head() * 2000
        tracemalloc.start()
        try:
            events = decode(raw)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(events) == 2000
        assert peak < 2000 * 1024

    def test_nothing_counts_after_a_last_request(self) -> None:
        """
        Behind Connection: close nothing is looked at, not even garbage.
        """
        last = head(b"Connection: close")
        target = decoder()
        assert len(target.receive_data(last + b"\x00garbage")) == 1
        assert state(target) == "at rest"
        assert target.receive_data(head()) == []

    def test_nothing_counts_after_the_body_of_a_last_request(self) -> None:
        """
        Which is read to its end.
        """
        last = post(b"Connection: close", b"Content-Length: 3")
        target = decoder()
        assert run(target, last, b"abcGET")[1:] == [b"abc", END]
        assert target.receive_data(head()) == []

    def test_nothing_counts_after_an_error(self) -> None:
        """
        And nothing is held.
        """
        target = decoder()
        first, error = run(target, head() + head(host=None) + head())
        assert isinstance(first, Request)
        assert isinstance(error, RemoteProtocolError)
        assert target.receive_data(head()) == []
        assert state(target) == "at rest"

    def test_a_resting_connection_has_begun_nothing(self) -> None:
        """
        The deadline of a head starts with its first byte.
        """
        target = decoder()
        assert state(target) == "at rest"
        target.receive_data(head())
        assert state(target) == "at rest"
        target.receive_data(b"G")
        assert state(target) == "started"
        target.receive_data(head(line=b"ET / HTTP/1.1"))
        assert state(target) == "at rest"


class TestUpgrade:
    """
    The switch to another protocol.
    """

    HANDSHAKE = head(b"Upgrade: websocket", b"Connection: Upgrade")

    def test_what_follows_is_left_alone(self) -> None:
        """
        Raw, in order, with what comes later.
        """
        target = decoder()
        (event,) = target.receive_data(self.HANDSHAKE + b"\x81\x85")
        assert isinstance(event, Request)
        assert event.upgrade
        assert target.receive_data(b"GET / HTTP/1.1\r\n\r\n") == []
        assert state(target) == "at rest"
        assert target.take_rest() == b"\x81\x85GET / HTTP/1.1\r\n\r\n"
        assert target.take_rest() == b""

    def test_without_a_rest(self) -> None:
        """
        As clients do that wait for the answer.
        """
        target = decoder()
        target.receive_data(self.HANDSHAKE)
        assert target.take_rest() == b""

    def test_after_other_requests(self) -> None:
        """
        On a connection that was kept, pipelined or in pieces.
        """
        target = decoder()
        events = run(target, head() + self.HANDSHAKE[:20], self.HANDSHAKE[20:] + b"rest")
        assert [getattr(event, "upgrade", None) for event in events] == [False, True]
        assert target.take_rest() == b"rest"

    def test_a_handshake_on_a_closing_connection(self) -> None:
        """
        What "close" would say about HTTP says nothing about the switch.
        """
        target = decoder()
        raw = head(b"Upgrade: websocket", b"Connection: Upgrade, close")
        (event,) = target.receive_data(raw + b"rest")
        assert isinstance(event, Request)
        assert event.upgrade
        assert not event.keep_alive
        assert target.take_rest() == b"rest"
