"""
Whatever a client writes into forwarded headers.
"""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given, strategies as st

from fairway.server.proxies import Proxies

PEER = ("10.0.0.1", 4000)

PROXIES = Proxies(["10.0.0.0/8", "::1"])

pieces = st.sampled_from(
    [b"10.0.0.2", b"192.0.2.1", b"::1", b"[::1]", b":80", b",", b" ", b"%", b"[", b"]", b"unknown"]
)
values = st.one_of(st.binary(max_size=200), st.lists(pieces, max_size=20).map(b"".join))
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@given(st.lists(values, max_size=3), st.lists(values, max_size=3), st.booleans())
def test_nothing_raises_and_a_client_is_an_address(
    hops: list[bytes],
    schemes: list[bytes],
    secure: bool,
) -> None:
    """
    The client is the peer or something that reads as an address and a port.
    """
    headers = [(b"x-forwarded-for", value) for value in hops]
    headers += [(b"x-forwarded-proto", value) for value in schemes]
    client, _ = PROXIES.origin(headers, PEER, secure=secure)
    assert client is not None
    ip_address(client[0])
    assert client[1] is not None
    assert 0 <= client[1] < 65536


@given(st.lists(values, max_size=5), addresses)
def test_a_client_cannot_choose_its_address(claims: list[bytes], address: str) -> None:
    """
    Behind one trusted proxy, what a client wrote in front of its address changes nothing.
    """
    written = b",".join([*claims, address.encode()])
    alone = PROXIES.origin([(b"x-forwarded-for", address.encode())], PEER, secure=False)[0]
    both = PROXIES.origin([(b"x-forwarded-for", written)], PEER, secure=False)[0]
    if not PROXIES.trusts(alone):
        assert both == alone
