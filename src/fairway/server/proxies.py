"""
What trusted proxies say of their clients: address and scheme.

Read are ``X-Forwarded-For`` and ``X-Forwarded-Proto``, from peers in the trusted networks
and from those behind a Unix socket. ``Forwarded`` (RFC 7239) is not: a proxy that sets
the one family of fields hands the other on as its client sent it, so only one may be
believed. Nothing here changes a header, and nothing a client sends can raise.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from fairway.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fairway.server.scope import Address

__all__ = ["Proxies"]

IP: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

Networks: TypeAlias = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

SECURE = {b"https": True, b"wss": True, b"http": False, b"ws": False}

_PORT = re.compile("[0-9]{1,5}")

EVERYONE = ("0.0.0.0/0", "::/0")

HOP_BYTES_MAX = 64
"""
The longest address with brackets, zone and port has fewer.
"""


class Proxies:
    """
    The proxies that are believed.
    """

    __slots__ = ("_networks",)

    def __init__(self, entries: Iterable[str]) -> None:
        """
        Read the addresses and networks; ``*`` stands for everyone.

        Raises:
            ConfigurationError: One of them is neither.
        """
        self._networks: Networks = tuple(
            _network(part) for entry in entries for part in (EVERYONE if entry == "*" else (entry,))
        )

    def trusts(self, peer: Address) -> bool:
        """
        Whether a peer's forwarded headers are believed. None is a peer behind a Unix socket.
        """
        if peer is None:
            return True
        if not self._networks:
            return False
        hop = _hop(peer[0].encode("ascii", "replace"))
        return hop is not None and self._includes(hop[0])

    def origin(
        self, headers: Iterable[tuple[bytes, bytes]], peer: Address, *, secure: bool
    ) -> tuple[Address, bool]:
        """
        Find the client whom trusted proxies speak of, and whether it came by TLS.

        The client is the right-most hop that is no trusted proxy: whatever stands further
        left was only claimed by it. Where all are trusted it is the left-most. What is no
        address ends the search at the proxy that reported it.

        Args:
            headers: Of the request, names in lower case.
            peer: Whom the connection is with, a trusted one.
            secure: Whether that connection has TLS.

        Returns:
            The client, with port 0 where none is told, and whether its scheme is a secure one.
        """
        hops: list[bytes] = []
        schemes: list[bytes] = []
        for name, value in headers:
            if name == b"x-forwarded-for":
                hops += value.split(b",")
            elif name == b"x-forwarded-proto":
                schemes += value.split(b",")
        client, index = self._client(hops, peer)
        if schemes:
            # As many as hops: each proxy wrote one. Else the nearest proxy's word holds.
            told = schemes[index] if len(schemes) == len(hops) else schemes[-1]
            secure = SECURE.get(told.strip().lower(), secure)
        return client, secure

    def _client(self, hops: list[bytes], peer: Address) -> tuple[Address, int]:
        """
        Find the client among the hops, and its index; -1 if it is the peer itself.
        """
        client, index = peer, -1
        for number in range(len(hops) - 1, -1, -1):
            text = hops[number].strip()
            if not text:
                continue
            hop = _hop(text) if len(text) <= HOP_BYTES_MAX else None
            if hop is None:
                break
            address, port = hop
            client, index = (str(address), port), number
            if not self._includes(address):
                break
        return client, index

    def _includes(self, address: IP) -> bool:
        """
        Whether an address is one of the trusted.
        """
        return any(address in network for network in self._networks)


@lru_cache(maxsize=1024)
def _hop(text: bytes) -> tuple[IP, int] | None:
    """
    Read one hop: ``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1``, ``[2001:db8::1]:80``.

    Returns:
        The address, of IPv4 if it is one mapped to IPv6, and the port or 0; None for anything else.
    """
    host, port = text.decode("ascii", "replace"), ""
    if host[:1] == "[":
        host, bracket, port = host[1:].partition("]")
        if not bracket or (port and port[0] != ":"):
            return None
        port = port[1:]
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    try:
        # A zone (%eth0) means something on one machine only.
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address, int(port) if _PORT.fullmatch(port) and int(port) < 65536 else 0


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """
    Read one address or network.
    """
    try:
        return ipaddress.ip_network(entry.strip())
    except ValueError as error:
        raise ConfigurationError(
            f"trusted_proxies: expected an address or a network such as 10.0.0.0/8, got {entry!r} "
            f"({error})"
        ) from None
