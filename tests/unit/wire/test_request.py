"""
One head: what it says, and every way in which it is refused before an application sees it.
"""

from __future__ import annotations

import pytest

from fairway.wire import request as request_module
from tests.unit.wire.requests import body, decode, head, post, refusal, request


class TestRequestLine:
    """
    Method, target and version (RFC 9112 section 3).
    """

    def test_a_request_of_a_browser(self) -> None:
        """
        Everything a scope needs, names in lower case, values as they came.
        """
        told = request(
            b"GET /chat/?room=1 HTTP/1.1\r\nHost: example.com:8000\r\n"
            b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nX-Empty:\r\nX-Raw:\xe9\x85\r\n\r\n"
        )
        assert (told.method, told.target, told.version) == ("GET", b"/chat/?room=1", "1.1")
        assert told.headers == [
            (b"host", b"example.com:8000"),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"),
            (b"x-empty", b""),
            (b"x-raw", b"\xe9\x85"),
        ]
        assert told.keep_alive
        assert not told.upgrade
        assert not told.expect_continue
        assert told.content_length is None
        assert repr(told) == "<Request GET b'/chat/?room=1' HTTP/1.1>"

    @pytest.mark.parametrize(
        "method",
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"],
    )
    def test_methods(self, method: str) -> None:
        """
        The usual ones, and others that the parser knows.
        """
        assert request(head(line=f"{method} / HTTP/1.1".encode())).method == method

    @pytest.mark.parametrize("target", [b"/", b"*", b"http://example.com/a?b", b"/%00%zz/../a#b"])
    def test_targets_stay_as_they_came(self, target: bytes) -> None:
        """
        What a path means is for the server to say.
        """
        assert request(head(line=b"OPTIONS %b HTTP/1.1" % target)).target == target

    @pytest.mark.parametrize(
        "line",
        [
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET /  HTTP/1.1",
            b"GET /a b HTTP/1.1",
            b"GET\t/ HTTP/1.1",
            b"GET /\ta HTTP/1.1",
            b"GET /\x00 HTTP/1.1",
            b"GET /\x7f HTTP/1.1",
            b"GET /\xc3\xa9 HTTP/1.1",
            b"GET a HTTP/1.1",
            b"GET  HTTP/1.1",
            b"GET /",
            b"GET",
            b"Get / HTTP/1.1",
            b"BREW / HTTP/1.1",
            b"GET / http/1.1",
            b"GET / HTTP/1.1.1",
            b"GET / HTTP/11",
            b"GET / HTP/1.1",
            b"G\xc3\x89T / HTTP/1.1",
        ],
    )
    def test_a_malformed_line_is_400(self, line: bytes) -> None:
        """
        One space each between three parts, in ASCII; HTTP/11 is malformed as a number too.
        """
        assert refusal(head(line=line)) == (505 if line.endswith(b"/11") else 400)

    @pytest.mark.parametrize("version", [b"0.9", b"1.2", b"2", b"2.0", b"3.0", b"10.0", b"9.99"])
    def test_another_version_is_505(self, version: bytes) -> None:
        """
        Only 1.0 and 1.1 are spoken.
        """
        assert refusal(head(line=b"GET / HTTP/" + version)) == 505

    def test_the_preface_of_http2_is_505(self) -> None:
        """
        A client with prior knowledge learns that it was wrong.
        """
        assert refusal(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == 505

    def test_connect_is_501(self) -> None:
        """
        A proxy's business.
        """
        assert refusal(head(line=b"CONNECT a:443 HTTP/1.1")) == 501


class TestFields:
    """
    Header fields (RFC 9112 section 5).
    """

    def test_whitespace_around_a_value_is_stripped(self) -> None:
        """
        Spaces and tabs on both sides, whichever mixture; inside they stay.
        """
        told = request(head(b"a: \t 1\t 2 \t ", b"b:3", b"c: ", b"d:\t"))
        assert told.headers[1:] == [(b"a", b"1\t 2"), (b"b", b"3"), (b"c", b""), (b"d", b"")]

    @pytest.mark.parametrize(
        "field",
        [
            b"a : 1",
            b"a\t: 1",
            b" a: 1",
            b": 1",
            b"a",
            b"a b: 1",
            b"a(: 1",
            b"\xe9: 1",
            b"a: 1\r\n 2",
            b"a: 1\r\n\t2",
            b"a: \x00",
            b"a: 1\x01",
            b"a: \x7f",
            b"a: \x0b1",
            b"a\x85b: 1",
        ],
    )
    def test_malformed_fields_are_400(self, field: bytes) -> None:
        """
        No space before the colon, no folding, no control character.
        """
        assert refusal(head(field)) == 400

    @pytest.mark.parametrize("code", [0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85])
    def test_no_byte_but_crlf_separates_fields(self, code: int) -> None:
        """
        What str.splitlines takes for a line's end makes no header here (CVE-2026-44546).
        """
        raw = head(b"a: 1" + bytes((code,)) + b"x-user: admin")
        events = decode(raw)
        assert len(events) == 1
        assert not any(name == b"x-user" for name, _ in getattr(events[0], "headers", []))

    @pytest.mark.parametrize(
        "name",
        [b"X_Forwarded_For", b"x_forwarded_proto", b"X-Forwarded_Host", b"_", b"Content_Length"],
    )
    def test_names_with_underscores_are_dropped(self, name: bytes) -> None:
        """
        They would be taken for names that a proxy guards (CVE-2026-3902).
        """
        told = request(head(name + b": 1", b"X-Forwarded-For: 2", b"Cookie: a_b=1"))
        assert told.headers == [(b"host", b"a"), (b"x-forwarded-for", b"2"), (b"cookie", b"a_b=1")]

    def test_underscored_framing_frames_nothing(self) -> None:
        """
        Dropped means without effect.
        """
        told = request(post(b"Transfer_Encoding: chunked", b"Content_Length: 5"))
        assert told.headers == [(b"host", b"a")]

    def test_repeated_fields_stay_apart(self) -> None:
        """
        Joining is the application's business.
        """
        told = request(head(b"Cookie: a=1", b"X: 1", b"Cookie: b=2"))
        assert told.headers[1:] == [(b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2")]


class TestRepetition:
    """
    The fields that a client repeats are parsed once, and nobody notices.
    """

    def test_the_target_is_each_requests_own(self) -> None:
        """
        Only the fields are remembered.
        """
        first, second = (request(head(line=b"GET /%d HTTP/1.1" % n)) for n in (1, 2))
        assert (first.target, second.target) == (b"/1", b"/2")

    @pytest.mark.parametrize("name", [b"Cookie", b"AUTHORIZATION", b"Proxy-Authorization"])
    def test_who_somebody_is_is_not_remembered(self, name: bytes) -> None:
        """
        What identifies a user does not outlive its request here.
        """
        secret = b"secret of " + name
        request(head(name + b": " + secret))
        kept = [*request_module._repeated, *request_module._common]
        assert not any(secret in fields for fields in kept)

    @pytest.mark.parametrize("name", [b"Cookie", b"cookie", b"COOKIE"])
    def test_a_cookie_keeps_its_place(self, name: bytes) -> None:
        """
        What stands around it is remembered, and it is each request's own.
        """
        for cookie in (b"a=1", b"a=2", b"a=2"):
            told = request(head(b"V: 1", name + b": " + cookie, b"W: 1"))
            fields = [(b"host", b"a"), (b"v", b"1"), (b"cookie", cookie), (b"w", b"1")]
            assert told.headers == fields
        assert request(head(b"V: 1", b"W: 1")).headers == [fields[0], fields[1], fields[3]]
        assert request(head(b"Cookie: a=1", b"V: 1", b"W: 1")).headers[1] == (b"cookie", b"a=1")

    def test_dropped_fields_move_no_cookie(self) -> None:
        """
        It stands where it came, whatever was dropped before it.
        """
        for cookie in (b"", b"Cookie: a=1", b"Cookie: a=2"):
            fields = [b"X_A: 1", *([cookie] if cookie else []), b"U: 1"]
            names = [name for name, _ in request(head(*fields)).headers]
            assert names == [b"host", *([b"cookie"] if cookie else []), b"u"]

    @pytest.mark.parametrize("cookie", [b"a=\x01", b"a=\x7f", b"a=1\r\n folded", b"a=\x00"])
    def test_a_cookie_is_judged_each_time(self, cookie: bytes) -> None:
        """
        Beside fields that are known, too.
        """
        request(head(b"T: 1", b"Cookie: a=1"))
        assert refusal(head(b"T: 1", b"Cookie: " + cookie)) == 400

    def test_lines_of_many_clients_are_kept_once(self) -> None:
        """
        A scope at rest shares them; what differs from client to client is its own.
        """
        fields = (b"User-Agent: Browser/1", b"Sec-WebSocket-Key: x")
        first, second = (
            request(head(*fields, line=line)).headers
            for line in (b"GET / HTTP/1.1", b"POST / HTTP/1.1")
        )
        assert first[1] is second[1]
        assert first[2] == second[2]
        assert first[2] is not second[2]

    def test_the_headers_are_each_requests_own(self) -> None:
        """
        What one application does to its list, the next request does not see.
        """
        first = request(head(b"X: 1"))
        first.headers.append((b"x-user", b"admin"))
        first.keep_alive = False
        second = request(head(b"X: 1"))
        assert second.headers == [(b"host", b"a"), (b"x", b"1")]
        assert second.keep_alive

    def test_method_and_version_are_told_apart(self) -> None:
        """
        The same fields say other things elsewhere.
        """
        lines = [b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"HEAD / HTTP/1.1", b"GET / HTTP/1.1"]
        told = [request(head(b"Y: 1", line=line)) for line in lines]
        assert [(each.method, each.version, each.keep_alive) for each in told] == [
            ("GET", "1.1", True),
            ("GET", "1.0", False),
            ("HEAD", "1.1", True),
            ("GET", "1.1", True),
        ]

    def test_a_refusal_is_not_forgotten(self) -> None:
        """
        It comes as often as it is asked for, with the reason of the request that earned it.
        """
        for _ in range(3):
            assert refusal(head(host=None)) == 400
            assert refusal(head(b"Z", line=b"GET /a\x7f HTTP/1.1")) == 400

    def test_what_follows_is_not_remembered(self) -> None:
        """
        Bodies and handshakes belong to their own requests.
        """
        raw = head(b"Content-Length: 3")
        assert body(raw + b"abc") == b"abc"
        assert body(raw + b"def") == b"def"


class TestHost:
    """
    Whom a request is for (RFC 9112 section 3.2).
    """

    @pytest.mark.parametrize(
        "host",
        [
            b"a",
            b"example.com",
            b"EXAMPLE.com.",
            b"example.com:443",
            b"example.com:",
            b"my_service:8000",
            b"127.0.0.1",
            b"[::1]",
            b"[::1]:8000",
            b"[::ffff:1.2.3.4]",
            b"[v1.a:b]",
            b"xn--bcher-kva.example",
            b"a%20b",
            b"a,b",  # A sub-delimiter, allowed in a registered name.
            b"x" * 512,
        ],
    )
    def test_well_formed(self, host: bytes) -> None:
        """
        Names, addresses and ports, up to 512 bytes.
        """
        assert request(head(host=host)).headers == [(b"host", host)]

    @pytest.mark.parametrize(
        "host",
        [
            b"",
            b" ",
            b"a b",
            b"a/b",
            b"a?b",
            b"a#b",
            b"a@b",
            b"a\\b",
            b'a"b',
            b"a:b",
            b"a:80:80",
            b":80",
            b"[::1",
            b"::1",
            b"[::1]a",
            b"[]",
            b"[g::1]",
            b"a%zz",
            b"\xe9",
            b"http://a",
            b"x" * 513,
        ],
    )
    def test_malformed_is_400(self, host: bytes) -> None:
        """
        Nothing that could be read as a path or a user; not empty; not endless.
        """
        assert refusal(head(host=host)) == 400

    def test_missing_is_400_in_1_1_only(self) -> None:
        """
        HTTP/1.0 had none.
        """
        assert refusal(head(host=None)) == 400
        assert request(head(host=None, line=b"GET / HTTP/1.0")).headers == []

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    def test_twice_is_400(self, version: bytes) -> None:
        """
        Even with the same value.
        """
        assert refusal(head(b"Host: a", line=b"GET / HTTP/" + version)) == 400


class TestLength:
    """
    How the end of a body is told (RFC 9112 section 6).
    """

    def test_no_length_is_no_body(self) -> None:
        """
        A request without both fields ends with its head, whatever its method.
        """
        assert request(post()).complete

    def test_a_length_of_zero_is_no_body(self) -> None:
        """
        And nothing is waited for.
        """
        assert request(post(b"Content-Length: 0")).content_length == 0
        assert request(post(b"Content-Length: 000")).content_length == 0

    @pytest.mark.parametrize(
        "length",
        [
            b"",
            b"+5",
            b"-5",
            b"5_0",
            b"0x5",
            b"5.0",
            b"5 5",
            b"5, 5",
            b"5,6",
            b"\xb2",
            b"18446744073709551616",
            b"0" * 20 + b"5",
            b"0" * 4400,
        ],
    )
    def test_a_malformed_length_is_400(self, length: bytes) -> None:
        """
        Digits only, and not more than a length has.
        """
        raw = post(b"Content-Length: " + length) + b"abcde"
        assert refusal(raw, head_bytes_max=65536) == 400

    @pytest.mark.parametrize("second", [b"5", b"6"])
    def test_two_lengths_are_400(self, second: bytes) -> None:
        """
        The same twice too.
        """
        assert refusal(post(b"Content-Length: 5", b"Content-Length: " + second)) == 400

    @pytest.mark.parametrize(
        "fields",
        [
            (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
            (b"Transfer-Encoding: chunked", b"Content-Length: 0"),
        ],
    )
    def test_length_and_coding_are_400(self, fields: tuple[bytes, ...]) -> None:
        """
        In either order: whoever is in front may have believed the other one.
        """
        assert refusal(post(*fields) + b"0\r\n\r\n") == 400

    @pytest.mark.parametrize(
        "coding",
        [
            b"",
            b"gzip",
            b"identity",
            b"gzip, chunked",
            b"chunked, gzip",
            b"chunked, chunked",
            b"chunked, identity",
            b"xchunked",
            b"chunkedx",
            b"chunked;a=b",
            b'"chunked"',
            b"\x0bchunked",
            b"chun\x00ked",
            b",chunked",
            b"chunked,",
        ],
    )
    def test_another_coding_is_400(self, coding: bytes) -> None:
        """
        Only the one word is understood (GHSA-w3h3-4rj7-4ph4).
        """
        assert refusal(post(b"Transfer-Encoding: " + coding) + b"0\r\n\r\n") == 400

    def test_two_codings_are_400(self) -> None:
        """
        Doubled is as bad as unknown.
        """
        coding = b"Transfer-Encoding: chunked"
        assert refusal(post(coding, coding) + b"0\r\n\r\n") == 400
        assert refusal(post(coding, b"Transfer-Encoding: gzip") + b"0\r\n\r\n") == 400

    def test_a_coding_in_1_0_is_400(self) -> None:
        """
        RFC 9112 section 6.1: the framing counts as faulty.
        """
        raw = head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n"
        assert refusal(raw) == 400

    @pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED"])
    def test_the_word_in_any_case(self, coding: bytes) -> None:
        """
        RFC 9112 section 7: codings are case-insensitive.
        """
        assert body(post(b"Transfer-Encoding: " + coding) + b"1\r\na\r\n0\r\n\r\n") == b"a"

    @pytest.mark.parametrize(
        ("line", "fields", "expected"),
        [
            (b"POST / HTTP/1.1", [b"Content-Length: 1"], True),
            (b"POST / HTTP/1.1", [b"Transfer-Encoding: chunked"], True),
            (b"POST / HTTP/1.1", [b"Content-Length: 0"], False),
            (b"POST / HTTP/1.1", [], False),
            (b"POST / HTTP/1.0", [b"Content-Length: 1"], False),
        ],
    )
    def test_expectations(self, line: bytes, fields: list[bytes], expected: bool) -> None:
        """
        RFC 9110 section 10.1.1: 100 Continue is owed for a body, in HTTP/1.1.
        """
        for value in (b"100-continue", b"100-Continue"):
            told = decode(head(*fields, b"Expect: " + value, line=line))[0]
            assert getattr(told, "expect_continue", None) is expected
        told = decode(head(*fields, b"Expect: 200-ok", line=line))[0]
        assert getattr(told, "expect_continue", None) is False


class TestConnection:
    """
    What becomes of the connection (RFC 9112 section 9).
    """

    @pytest.mark.parametrize(
        ("version", "fields", "expected"),
        [
            (b"1.1", [], True),
            (b"1.1", [b"Connection: keep-alive"], True),
            (b"1.1", [b"Connection: close"], False),
            (b"1.1", [b"Connection: Close"], False),
            (b"1.1", [b"Connection: keep-alive, close"], False),
            (b"1.1", [b"Connection: keep-alive", b"Connection: x, close"], False),
            (b"1.1", [b"Connection: closed"], True),
            (b"1.0", [], False),
            (b"1.0", [b"Connection: keep-alive"], True),
            (b"1.0", [b"Connection: x,Keep-Alive "], True),
            (b"1.0", [b"Connection: keep-alive, close"], False),
        ],
    )
    def test_keep_alive(self, version: bytes, fields: list[bytes], expected: bool) -> None:
        """
        By version, unless the field says otherwise; close wins.
        """
        assert request(head(*fields, line=b"GET / HTTP/" + version)).keep_alive is expected

    @pytest.mark.parametrize(
        "fields",
        [
            [b"Upgrade: websocket", b"Connection: Upgrade"],
            [b"upgrade: WebSocket", b"connection: keep-alive, upgrade"],
            [b"Upgrade: h2c, websocket", b"Connection: upgrade"],
            [b"Upgrade: h2c", b"Upgrade: websocket", b"Connection: x", b"Connection: upgrade"],
            [b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 0"],
        ],
    )
    def test_a_handshake(self, fields: list[bytes]) -> None:
        """
        A GET without a body that asks for the protocol in both fields.
        """
        told = request(head(*fields))
        assert told.upgrade
        assert (b"upgrade", fields[0].split(b": ")[1]) in told.headers

    @pytest.mark.parametrize(
        "raw",
        [
            head(b"Upgrade: websocket"),
            head(b"Connection: upgrade"),
            head(b"Upgrade: websocket", b"Connection: keep-alive"),
            head(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AA"),
            head(b"Upgrade: websockets", b"Connection: upgrade"),
            head(b"Upgrade: websocket", b"Connection: upgrades"),
            head(b"Upgrade: websocket", b"Connection: upgrade", line=b"GET / HTTP/1.0"),
            head(b"Upgrade: websocket", b"Connection: upgrade", line=b"HEAD / HTTP/1.1"),
            post(b"Upgrade: websocket", b"Connection: upgrade"),
        ],
    )
    def test_no_handshake(self, raw: bytes) -> None:
        """
        Everything else is a request like any other, with its headers as they came.
        """
        told = request(raw)
        assert not told.upgrade
        assert len(told.headers) == raw.count(b"\r\n") - 2

    @pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0", b"x, websocket"])
    def test_a_body_survives_an_upgrade(self, protocol: bytes) -> None:
        """
        Declared or chunked, with a method that has one or a GET that should not.
        """
        for line in (b"POST / HTTP/1.1", b"GET / HTTP/1.1"):
            fields = [b"Upgrade: " + protocol, b"Connection: Upgrade"]
            assert body(head(*fields, b"Content-Length: 3", line=line) + b"abc") == b"abc"
            chunked = head(*fields, b"Transfer-Encoding: chunked", line=line)
            assert body(chunked + b"3\r\nabc\r\n0\r\n\r\n") == b"abc"

    @pytest.mark.parametrize(
        "fields",
        [
            [b"Content-Length: 3", b"Content-Length: 3"],
            [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: gzip"],
            [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        ],
    )
    def test_an_upgrade_hides_no_bad_framing(self, fields: list[bytes]) -> None:
        """
        The framing is judged as if the upgrade had not been asked for.
        """
        for protocol in (b"h2c", b"websocket"):
            upgrade = [b"Connection: upgrade", b"Upgrade: " + protocol]
            assert refusal(post(*fields, *upgrade)) == 400
            assert refusal(head(*upgrade, *fields)) == 400
