"""
Client and scheme as trusted proxies tell them, from requests on real sockets.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.protocol.harness import Puppet, Serve, request

FIELDS = ("x-forwarded-for: 203.0.113.7, [2001:db8::1]:77", "x-forwarded-proto: https")


@pytest.fixture
def unix() -> Iterator[socket.socket]:
    """
    A listening Unix socket.
    """
    with TemporaryDirectory(dir="/tmp") as directory, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(Path(directory, "s")))
        sock.listen()
        yield sock


class TestTrusted:
    """
    A proxy on this machine that is trusted.
    """

    async def test_requests(self, serve: Serve, app: Puppet) -> None:
        """
        Each request names its own client, on one connection; the headers stay as they were.
        """
        served = await serve(app, trusted_proxies=("127.0.0.0/8",))
        peer = await served.connect()
        seen = []
        for fields in (FIELDS, ("x-forwarded-for: 192.0.2.9",), ()):
            await peer.send(request("/", *fields))
            call = await app.call()
            seen.append((call.scope["client"], call.scope["scheme"]))
            given = [b"%s: %s" % field for field in call.scope["headers"]]
            assert [field.encode() for field in fields] == given[1:]
            await call.respond()
            await peer.response()
        assert seen == [
            (("2001:db8::1", 77), "https"),
            (("192.0.2.9", 0), "http"),
            (peer.sock.getsockname(), "http"),
        ]

    async def test_handshakes(self, serve: Serve, app: Puppet) -> None:
        """
        A WebSocket that came to the proxy by TLS is ``wss``.
        """
        served = await serve(app, trusted_proxies=("127.0.0.1",))
        await served.websocket("/", *FIELDS)
        scope = (await app.call()).scope
        assert (scope["client"], scope["scheme"]) == (("2001:db8::1", 77), "wss")

    async def test_the_access_log(
        self, serve: Serve, app: Puppet, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Its lines name the client and not the proxy.
        """
        caplog.set_level("INFO", "fairway.access")
        served = await serve(app, trusted_proxies=("127.0.0.1",), access_log=True)
        peer = await served.connect()
        await peer.send(request("/page", *FIELDS))
        await (await app.call()).respond()
        await peer.response()
        assert [record.getMessage() for record in caplog.records] == ["2001:db8::1 GET /page 200"]


class TestUntrusted:
    """
    Anybody else.
    """

    @pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8", "::1")])
    async def test_is_not_believed(
        self, serve: Serve, app: Puppet, trusted: tuple[str, ...]
    ) -> None:
        """
        The client is the peer, the scheme the connection's; the headers stay for the application.
        """
        served = await serve(app, trusted_proxies=trusted)
        peer = await served.connect()
        await peer.send(request("/", *FIELDS))
        scope = (await app.call()).scope
        assert (scope["client"], scope["scheme"]) == (peer.sock.getsockname(), "http")
        assert (b"x-forwarded-proto", b"https") in scope["headers"]


class TestUnixSocket:
    """
    Behind a Unix socket there is a proxy, which is always trusted.
    """

    @pytest.mark.parametrize(
        ("fields", "client", "scheme"),
        [(FIELDS, ("2001:db8::1", 77), "https"), ((), None, "http")],
    )
    async def test_its_word_holds(
        self,
        serve: Serve,
        app: Puppet,
        unix: socket.socket,
        fields: tuple[str, ...],
        client: Any,
        scheme: str,
    ) -> None:
        """
        Without its word the client is unknown.
        """
        served = await serve(app, sock=unix)
        peer = await served.connect(family=socket.AF_UNIX)
        await peer.send(request("/", *fields))
        scope = (await app.call()).scope
        assert (scope["client"], scope["scheme"]) == (client, scheme)
        assert scope["server"] == (unix.getsockname(), None)


class TestServer:
    """
    The address that a client reached.
    """

    async def test_of_a_socket_that_listens_everywhere(self, serve: Serve, app: Puppet) -> None:
        """
        It is the connection's own, since the listening socket does not know.
        """
        sock = socket.create_server(("0.0.0.0", 0))
        served = await serve(app, sock=sock)
        peer = await served.connect(address=("127.0.0.1", sock.getsockname()[1]))
        await peer.send(request())
        assert (await app.call()).scope["server"] == ("127.0.0.1", sock.getsockname()[1])
