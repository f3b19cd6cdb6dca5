"""
Trusted proxies: who is believed, and what is made of what they say.
"""

from __future__ import annotations

import pytest

from fairway.exceptions import ConfigurationError
from fairway.server.proxies import Proxies
from fairway.server.scope import Address

PEER = ("10.0.0.1", 4000)

PROXIES = Proxies(["10.0.0.0/8", "2001:db8:f::/48"])


def origin(
    forwarded: bytes = b"", scheme: bytes = b"", peer: Address = PEER, *, secure: bool = False
) -> tuple[Address, bool]:
    """
    What one field of each kind makes of a request.
    """
    headers = [(b"host", b"a"), (b"x-forwarded-for", forwarded), (b"x-forwarded-proto", scheme)]
    return PROXIES.origin([field for field in headers if field[1]], peer, secure=secure)


class TestTrust:
    """
    Which peers are believed.
    """

    @pytest.mark.parametrize(
        ("peer", "trusted"),
        [
            (("10.255.0.9", 1), True),
            (("11.0.0.1", 1), False),
            (("2001:db8:f::1", 1), True),
            (("2001:db8:e::1", 1), False),
            (("::ffff:10.0.0.1", 1), True),
            (("::ffff:11.0.0.1", 1), False),
            (("a name", 1), False),
            (None, True),
        ],
    )
    def test_peers(self, peer: Address, trusted: bool) -> None:
        """
        A peer is trusted by its network, as IPv4 where it is that, and behind a Unix socket.
        """
        assert PROXIES.trusts(peer) is trusted

    def test_nobody_by_default(self) -> None:
        """
        Without an entry no address is trusted, not even this machine's.
        """
        assert not Proxies(()).trusts(("127.0.0.1", 1))

    def test_a_link_local_peer(self) -> None:
        """
        The zone in a peer's address is no obstacle.
        """
        assert Proxies(["fe80::/10"]).trusts(("fe80::1%eth0", 1))

    def test_a_star_is_everyone(self) -> None:
        """
        ``*`` trusts both families.
        """
        everyone = Proxies(["*"])
        assert everyone.trusts(("203.0.113.9", 1))
        assert everyone.trusts(("2001:db8::1", 1))

    @pytest.mark.parametrize("entry", ["nginx", "10.0.0.1/8", "10.0.0.0/33", "", "10.0.0.0/8;::1"])
    def test_a_bad_entry_is_named(self, entry: str) -> None:
        """
        What is no address and no network ends the start in one line.
        """
        with pytest.raises(ConfigurationError, match="trusted_proxies: expected") as caught:
            Proxies(["::1", entry])
        assert repr(entry) in str(caught.value)
        assert "\n" not in str(caught.value)


class TestClient:
    """
    Whom a request is from.
    """

    @pytest.mark.parametrize(
        ("forwarded", "client"),
        [
            (b"192.0.2.1", ("192.0.2.1", 0)),
            (b"192.0.2.1:80", ("192.0.2.1", 80)),
            (b"2001:db8::1", ("2001:db8::1", 0)),
            (b"[2001:db8::1]", ("2001:db8::1", 0)),
            (b"[2001:DB8::1]:443", ("2001:db8::1", 443)),
            (b"::ffff:192.0.2.1", ("192.0.2.1", 0)),
            (b"fe80::1%eth0", ("fe80::1", 0)),
            (b"203.0.113.7, 192.0.2.1", ("192.0.2.1", 0)),
            (b"203.0.113.7, 192.0.2.1, 10.0.0.2, 2001:db8:f::1", ("192.0.2.1", 0)),
            (b"203.0.113.7,192.0.2.1,[2001:db8:f::1]:9", ("192.0.2.1", 0)),
            (b"10.0.0.3, 10.0.0.2", ("10.0.0.3", 0)),
            (b"192.0.2.1, ", ("192.0.2.1", 0)),
        ],
    )
    def test_the_right_most_hop_that_is_no_proxy(self, forwarded: bytes, client: Address) -> None:
        """
        Proxies are walked from the nearest on; what stands behind the first stranger is ignored.
        """
        assert origin(forwarded)[0] == client

    @pytest.mark.parametrize(
        "garbage",
        [
            b"unknown",
            b"_hidden",
            b"192.0.2",
            b"[192.0.2.1",
            b"[2001:db8::1]x",
            b"256.1.1.1",
            b"\xff\xfe",
            b"1" * 5000,
            b"<script>",
            b"192.0.2.1:80:90",
        ],
    )
    def test_garbage_ends_the_search(self, garbage: bytes) -> None:
        """
        Behind what is no address nothing is known: the client is the proxy that reported it.
        """
        assert origin(b"192.0.2.1, " + garbage)[0] == PEER
        assert origin(garbage + b", 10.0.0.2")[0] == ("10.0.0.2", 0)

    @pytest.mark.parametrize("port", [b":", b":x", b":99999", b":-1", "\u0663".encode()])
    def test_a_bad_port_is_none(self, port: bytes) -> None:
        """
        The address in brackets holds although its port does not, unless it is no port at all.
        """
        client = origin(b"[2001:db8::1]" + port)[0]
        assert client == (("2001:db8::1", 0) if port[:1] == b":" else PEER)

    def test_no_field(self) -> None:
        """
        A proxy that says nothing is the client itself.
        """
        assert origin()[0] == PEER

    def test_behind_a_unix_socket(self) -> None:
        """
        There is no peer's address, so the client is unknown unless told.
        """
        assert origin(peer=None)[0] is None
        assert origin(b"192.0.2.1", peer=None)[0] == ("192.0.2.1", 0)
        assert origin(b"nonsense", peer=None)[0] is None

    def test_several_fields_are_one_list(self) -> None:
        """
        A field that came twice is read as one, in order.
        """
        headers = [(b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-for", b"192.0.2.1")]
        assert PROXIES.origin(headers, PEER, secure=False)[0] == ("192.0.2.1", 0)

    def test_the_standard_field_is_not_believed(self) -> None:
        """
        ``Forwarded`` comes unchanged from the client through proxies that set the other family.
        """
        headers = [(b"forwarded", b"for=192.0.2.1;proto=https")]
        assert PROXIES.origin(headers, PEER, secure=False) == (PEER, False)


class TestScheme:
    """
    Whether the client came by TLS.
    """

    @pytest.mark.parametrize(
        ("told", "secure"),
        [
            (b"https", True),
            (b"HTTPS", True),
            (b" wss ", True),
            (b"http", False),
            (b"ws", False),
        ],
    )
    def test_as_told(self, told: bytes, secure: bool) -> None:
        """
        The proxy's word holds, whatever our own connection with it is.
        """
        assert origin(scheme=told, secure=not secure)[1] is secure

    @pytest.mark.parametrize("told", [b"", b"gopher", b"https;x", b"\xff", b","])
    def test_garbage_changes_nothing(self, told: bytes) -> None:
        """
        Without a word that means something our own connection counts.
        """
        assert origin(scheme=told, secure=True)[1] is True
        assert origin(scheme=told, secure=False)[1] is False

    def test_one_word_for_several_hops(self) -> None:
        """
        The nearest proxy's word holds where not every proxy wrote one.
        """
        assert origin(b"192.0.2.1, 10.0.0.2", b"https")[1] is True
        assert origin(b"192.0.2.1, 10.0.0.2, 10.0.0.3", b"https, http")[1] is False

    def test_a_word_for_each_hop(self) -> None:
        """
        The one beside the client's address is of the proxy that spoke with it.
        """
        assert origin(b"203.0.113.7, 192.0.2.1, 10.0.0.2", b"http, https, http")[1] is True
