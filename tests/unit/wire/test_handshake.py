"""
The opening handshake: what is well formed, and what is answered.
"""

from __future__ import annotations

import pytest
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request as WsprotoRequest

from fairway.exceptions import LocalProtocolError, RemoteProtocolError
from fairway.wire.handshake import (
    Extension,
    Upgrade,
    accept_head,
    check_upgrade,
    read_extensions,
)
from fairway.wire.http1 import RequestDecoder
from fairway.wire.request import Request

KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"sec-websocket-version", b"13")
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def handshake(*headers: tuple[bytes, bytes]) -> Request:
    """
    A request with these headers.
    """
    return Request("GET", b"/", "1.1", [(b"host", b"a"), *headers])


def refusal(*headers: tuple[bytes, bytes]) -> RemoteProtocolError:
    """
    How a handshake with these headers is refused.
    """
    with pytest.raises(RemoteProtocolError) as caught:
        check_upgrade(handshake(*headers))
    return caught.value


class TestCheck:
    """
    RFC 6455 section 4.2.1.
    """

    def test_the_example_of_the_rfc(self) -> None:
        """
        Section 1.3: key and proof.
        """
        assert check_upgrade(handshake(KEY, VERSION)) == Upgrade(ACCEPT, [])

    @pytest.mark.parametrize(
        "key",
        [
            b"",
            b"dGhlIHNhbXBsZSBub25jZQ=",
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZQ===",
            b"dGhlIHNhbXBsZSBub25jZS4=",  # 17 bytes
            b"dGhlIHNhbXBsZSBub25j",  # 15 bytes
            b"dGhlIHNhbXBsZSBub25j_Q==",
            b"dGhlIHNhbXBsZSBub25 ZQ==",
            b"dGhlIHNhbXBsZSBub25jZQ==\n",
            b"\xff" * 24,
        ],
    )
    def test_a_key_of_anything_but_16_bytes_is_400(self, key: bytes) -> None:
        """
        Base64 of exactly 16 bytes, in the standard alphabet.
        """
        assert refusal((b"sec-websocket-key", key), VERSION).status == 400

    def test_a_missing_or_doubled_key_is_400(self) -> None:
        """
        Two keys are none, even when they are the same.
        """
        assert refusal(VERSION).status == 400
        assert refusal(KEY, KEY, VERSION).status == 400

    @pytest.mark.parametrize("version", [b"8", b"12", b"14", b"0", b"", b"13, 8", b"013", b"x"])
    def test_another_version_is_426_with_ours(self, version: bytes) -> None:
        """
        Section 4.2.2: the answer names the version that is spoken.
        """
        error = refusal(KEY, (b"sec-websocket-version", version))
        assert error.status == 426
        assert error.headers == ((b"sec-websocket-version", b"13"),)

    def test_the_version_is_judged_before_the_key(self) -> None:
        """
        Another version may have other keys.
        """
        assert refusal((b"sec-websocket-version", b"8")).status == 426

    def test_a_missing_or_doubled_version_is_400(self) -> None:
        """
        A handshake says it exactly once.
        """
        assert refusal(KEY).status == 400
        assert refusal(KEY, VERSION, VERSION).status == 400

    def test_subprotocols_keep_their_order(self) -> None:
        """
        Over commas and several fields, with empty elements passed over.
        """
        request = handshake(
            KEY,
            (b"sec-websocket-protocol", b"chat.v2, chat.v1"),
            VERSION,
            (b"sec-websocket-protocol", b" ,json ,,\tgraphql-ws"),
        )
        assert check_upgrade(request).subprotocols == ["chat.v2", "chat.v1", "json", "graphql-ws"]

    @pytest.mark.parametrize(
        "offer", [b"\xe9", b"chat, \xf0\x9f\x98\x80", b"a b", b"a\x00b", b"\x7f"]
    )
    def test_a_subprotocol_that_is_no_visible_ascii_is_400(self, offer: bytes) -> None:
        """
        And nothing worse (CVE-2026-42544).
        """
        assert refusal(KEY, VERSION, (b"sec-websocket-protocol", offer)).status == 400

    def test_long_offers_are_read_in_linear_time(self) -> None:
        """
        60 KB of commas and spaces are no work worth mentioning (CVE-2021-32640).
        """
        offer = (b"sec-websocket-protocol", b" ," * 30000 + b"a" + b" " * 1000)
        assert check_upgrade(handshake(KEY, VERSION, offer)).subprotocols == ["a"]


class TestExtensions:
    """
    RFC 6455 section 9.1.
    """

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (b"a", [("a", ())]),
            (b"a; b; c=1", [("a", (("b", None), ("c", "1")))]),
            (b'a;b="c",d', [("a", (("b", "c"),)), ("d", ())]),
            (b'a ; b = "\\1\\5" ', [("a", (("b", "15"),))]),
            (b"a; b; b, a", [("a", (("b", None), ("b", None))), ("a", ())]),
            (b" ,a,,\tb ,", [("a", ()), ("b", ())]),
            (b"", []),
            (b" , ", []),
        ],
    )
    def test_a_list_is_read(self, value: bytes, expected: list[object]) -> None:
        """
        Names, parameters and values, quoted ones too; empty elements are passed over.
        """
        assert list(read_extensions(value)) == expected

    @pytest.mark.parametrize(
        "value",
        [
            b"a b",
            b"a;",
            b";a",
            b"a; b=",
            b"a; =b",
            b"a=b",
            b"a; b=c=d",
            b"a; b c",
            b'"a"',
            b'a; "b"',
            b'a; b="c',
            b'a; b="c d"',
            b'a; b=""',
            b'a; b="c"d',
            b"a;;b",
            b"a, ;b",
            b"a\x00",
            b"\xe9",
            b'a; b="\xe9"',
            b"a/b",
            b"(a)",
        ],
    )
    def test_a_malformed_list_is_400(self, value: bytes) -> None:
        """
        The handshake fails, as section 9.1 says, whoever would care for its extensions.
        """
        error = refusal(KEY, VERSION, (b"sec-websocket-extensions", value))
        assert (error.status, error.reason) == (400, "malformed sec-websocket-extensions")

    def test_several_fields_are_one_list(self) -> None:
        """
        In their order.
        """
        fields = [(b"sec-websocket-extensions", value) for value in (b"a; b", b"c")]
        upgrade = check_upgrade(handshake(fields[0], KEY, VERSION, fields[1]))
        assert upgrade.extensions == (Extension("a", (("b", None),)), Extension("c", ()))

    @pytest.mark.parametrize(
        "value", [b" ," * 30000 + b"a", b"a" + b" " * 60000 + b"b", b'a; b="' + b"\\" * 60000]
    )
    def test_long_lists_are_read_in_linear_time(self, value: bytes) -> None:
        """
        60 KB of commas, spaces or escapes are no work worth mentioning.
        """
        try:
            assert read_extensions(value) == (Extension("a", ()),)
        except RemoteProtocolError as error:
            assert error.status == 400  # noqa: PT017 - one of both ends, and soon


class TestAccept:
    """
    RFC 6455 section 4.2.2.
    """

    def test_the_whole_head(self) -> None:
        """
        Proof, chosen subprotocol and the application's own fields.
        """
        head = accept_head(Upgrade(ACCEPT, ["chat"]), "chat", [(b"set-cookie", b"a=1")])
        assert head == (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            b"sec-websocket-protocol: chat\r\nset-cookie: a=1\r\n\r\n"
        )

    def test_an_extension_that_was_agreed(self) -> None:
        """
        It has a field of its own.
        """
        head = accept_head(Upgrade(ACCEPT, []), None, [], b"permessage-deflate; a")
        assert head.endswith(b"\r\nsec-websocket-extensions: permessage-deflate; a\r\n\r\n")

    def test_without_a_subprotocol_there_is_no_field(self) -> None:
        """
        None chooses none.
        """
        assert b"protocol" not in accept_head(Upgrade(ACCEPT, ["chat"]), None, [])

    @pytest.mark.parametrize("name", ["", "é", "a b", "a,b", "a\r\nx: y", "a\0"])
    def test_a_subprotocol_that_cannot_stand_there(self, name: str) -> None:
        """
        A mistake of the application, and nothing on the wire.
        """
        with pytest.raises(LocalProtocolError, match="expected a subprotocol"):
            accept_head(Upgrade(ACCEPT, []), name, [])

    @pytest.mark.parametrize(
        "name",
        [
            b"Connection",
            b"upgrade",
            b"sec-websocket-accept",
            b"sec-websocket-extensions",
            b"Sec-WebSocket-Protocol",
            b"content-length",
            b"transfer-encoding",
        ],
    )
    def test_fields_of_the_handshake_are_its_own(self, name: bytes) -> None:
        """
        ASGI wants the subprotocol in its place, and the rest would contradict the answer.
        """
        with pytest.raises(LocalProtocolError, match="belongs to the handshake"):
            accept_head(Upgrade(ACCEPT, []), None, [(name, b"x")])

    @pytest.mark.parametrize("field", [(b"x", b"a\r\nb: c"), (b"x\n", b"a"), (b"x", b"\0")])
    def test_fields_cannot_break_their_line(self, field: tuple[bytes, bytes]) -> None:
        """
        As in every response.
        """
        with pytest.raises(LocalProtocolError):
            accept_head(Upgrade(ACCEPT, []), None, [field])


class TestClients:
    """
    Handshakes of other implementations, from their first byte to an open WebSocket.
    """

    @staticmethod
    def answer(data: bytes, subprotocol: str | None) -> bytes:
        """
        What the server sends for what a client sent.
        """
        (request,) = RequestDecoder(head_bytes_max=4096, head_fields_max=32).receive_data(data)
        assert isinstance(request, Request)
        assert request.upgrade
        upgrade = check_upgrade(request)
        assert upgrade.subprotocols == ["v2", "v1"]
        return accept_head(upgrade, subprotocol, [(b"x-extra", b"1")])

    @pytest.mark.parametrize("subprotocol", [None, "v1"])
    def test_websockets(self, subprotocol: str | None) -> None:
        """
        Proof and subprotocol are accepted by websockets.
        """
        offers = [Subprotocol("v2"), Subprotocol("v1")]
        client = ClientProtocol(parse_uri("ws://example.com/chat"), subprotocols=offers)
        client.send_request(client.connect())
        client.receive_data(self.answer(b"".join(client.data_to_send()), subprotocol))
        assert client.handshake_exc is None
        assert client.state is State.OPEN
        assert client.subprotocol == subprotocol

    @pytest.mark.parametrize("subprotocol", [None, "v1"])
    def test_wsproto(self, subprotocol: str | None) -> None:
        """
        And by wsproto.
        """
        client = WSConnection(ConnectionType.CLIENT)
        data = client.send(WsprotoRequest("example.com", "/chat", subprotocols=["v2", "v1"]))
        client.receive_data(self.answer(data, subprotocol))
        (event,) = client.events()
        assert isinstance(event, AcceptConnection)
        assert event.subprotocol == subprotocol
