"""
The site file of the documentation in a real nginx, in front of a real project.
"""

from __future__ import annotations

import asyncio
import json
import signal
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.acceptance.deploy.conftest import Certificate
from tests.acceptance.deploy.site import Nginx, Site
from tests.acceptance.project import Command, Project

SOURCE = "127.0.0.2"
"""
An address of this machine that clients come from, so that nobody takes them for the proxy.
"""


async def serve_unix(site: Project, folder: Path, *flags: str) -> tuple[Command, str]:
    """
    Serve on a Unix socket, and give what nginx calls it.
    """
    path = folder / "web.sock"
    command = await site.manage("serve", "--uds", str(path), *flags)
    await command.expect(f"Serving on unix:{path}")
    return command, f"unix:{path}"


async def serve_tcp(site: Project, *flags: str) -> tuple[Command, str]:
    """
    Serve on a TCP port, and give what nginx calls it.
    """
    command = await site.manage("serve", "--port", "0", *flags)
    return command, await command.ready()


async def socket_sees(site: Site, **options: Any) -> dict[str, Any]:
    """
    Open a WebSocket, see that it echoes, and give what its consumer sees of the client.
    """
    url, options = site.websocket("/ws/who/", **options)
    async with asyncio.timeout(5), connect(url, **options) as peer:
        found: dict[str, Any] = json.loads(await peer.recv())
        await peer.send('{"echo": 1}')
        assert json.loads(await peer.recv()) == {"echo": 1}
    return found


async def talk(site: Site) -> None:
    """
    Let one user of a room hear another, and then both hear a page.
    """
    url, options = site.websocket("/ws/chat/lobby/")
    async with (
        asyncio.timeout(10),
        connect(url, **options) as ada,
        connect(url, **options) as grace,
    ):
        await ada.send('{"text": "hello"}')
        assert json.loads(await grace.recv()) == {"text": "hello"}
        assert (await site.get("/say/"))[0] == 200
        for peer in (ada, grace):
            assert json.loads(await peer.recv()) == {"text": "said"}


async def follow(site: Site) -> None:
    """
    Read a stream of events, each of which is made only after the one before has arrived.
    """
    host, _, port = site.address.partition(":")
    head = f"GET /events/ HTTP/1.1\r\nHost: {site.address}\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    with closing(writer):
        writer.write(head.encode())
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            for number in range(3):
                await reader.readuntil(f"data: {number}\n\n".encode())
                assert (await site.get("/another/"))[0] == 200
            assert (await reader.read()).endswith(b"0\r\n\r\n")
    await writer.wait_closed()


@pytest.mark.parametrize(("workers", "kind"), [("1", "tcp"), ("2", "unix")])
async def test_everything_passes(
    site: Project, nginx: Nginx, folder: Path, kind: str, workers: str
) -> None:
    """
    Pages, WebSockets, broadcasts and streams of events pass, over TCP and over a Unix socket.
    """
    flags = ("--workers", workers)
    if kind == "tcp":
        _, upstream = await serve_tcp(site, *flags)
    else:
        _, upstream = await serve_unix(site, folder, *flags)
    front = Site(await nginx.start(upstream), source=SOURCE)
    assert (await front.who())["headers"]["host"] == front.address
    await socket_sees(front, origin=f"http://{front.address}")
    await talk(front)
    await follow(front)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_client_behind_trusted_proxy(
    site: Project, nginx: Nginx, folder: Path, kind: str
) -> None:
    """
    Pages and consumers see the client's address, whatever the client claims, and every header.
    """
    flags = ("--trusted-proxies", "127.0.0.1")
    _, upstream = await (serve_tcp(site, *flags) if kind == "tcp" else serve_unix(site, folder))
    front = Site(await nginx.start(upstream), source=SOURCE)
    seen = await front.who(X_Forwarded_For="192.0.2.6")
    assert (seen["client"], seen["scheme"], seen["secure"]) == (SOURCE, "http", False)
    assert seen["headers"]["x-forwarded-for"] == f"192.0.2.6, {SOURCE}"
    seen = await socket_sees(front, additional_headers={"X-Forwarded-For": "192.0.2.6"})
    assert (seen["client"], seen["scheme"]) == (SOURCE, "ws")


async def test_scheme_behind_trusted_proxy(
    site: Project, nginx: Nginx, folder: Path, certificate: Certificate
) -> None:
    """
    Behind TLS of the proxy pages are secure, consumers see wss, and an https Origin is the own.
    """
    _, upstream = await serve_unix(site, folder)
    address = await nginx.start(upstream, certificate=certificate.both)
    front = Site(address, tls=certificate.client)
    seen = await front.who()
    assert (seen["scheme"], seen["secure"]) == ("https", True)
    assert (await socket_sees(front, origin=f"https://{address}"))["scheme"] == "wss"
    url, options = front.websocket("/ws/who/", origin=f"http://{address}")
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, **options)
    assert refused.value.response.status_code == 403


async def test_nobody_trusted(site: Project, nginx: Nginx) -> None:
    """
    Forwarded headers change nothing unless the peer is trusted; the application still gets them.
    """
    _, upstream = await serve_tcp(site)
    claims = {"X_Forwarded_For": "192.0.2.6", "X_Forwarded_Proto": "https"}
    for front in (Site(upstream, source=SOURCE), Site(await nginx.start(upstream), source=SOURCE)):
        seen = await front.who(**claims)
        proxied = front.address != upstream
        assert seen["client"] == ("127.0.0.1" if proxied else SOURCE)
        assert (seen["scheme"], seen["secure"]) == ("http", False)
        assert seen["headers"]["x-forwarded-for"].startswith("192.0.2.6")
        assert seen["headers"]["x-forwarded-proto"] == ("http" if proxied else "https")


async def test_stranger_is_not_the_proxy(site: Project) -> None:
    """
    With a proxy trusted, a peer from elsewhere that claims to be one is not believed.
    """
    _, address = await serve_tcp(site, "--trusted-proxies", "127.0.0.1")
    claims = {"X_Forwarded_For": "192.0.2.6", "X_Forwarded_Proto": "https"}
    stranger = await Site(address, source=SOURCE).who(**claims)
    assert (stranger["client"], stranger["scheme"]) == (SOURCE, "http")
    proxy = await Site(address, source="127.0.0.1").who(**claims)
    assert (proxy["client"], proxy["scheme"]) == ("192.0.2.6", "https")


async def test_probes(site: Project, nginx: Nginx, folder: Path) -> None:
    """
    Probes answer through the proxy whatever the Host; figures are shown on this machine alone.
    """
    _, upstream = await serve_tcp(site, "--workers", "2", "--metrics-path", "/-/metrics")
    front = Site(await nginx.start(upstream))
    for path in ("/-/health", "/-/ready"):
        for place in (front, Site(upstream)):
            assert (await place.get(path, Host="anything.invalid"))[0] == 200
    await front.who()
    status, figures = await Site(upstream).get("/-/metrics")
    assert status == 200
    assert b'fairway_requests_total{worker="2"}' in figures
    assert (await front.get("/-/metrics"))[0] == 404


async def test_upgrade_forgotten(site: Project, nginx: Nginx, folder: Path) -> None:
    """
    A site file without the lines for upgrades gives 426 and a line that names the proxy.
    """
    command, upstream = await serve_unix(site, folder)
    lines = ("proxy_http_version", "proxy_set_header Upgrade", "proxy_set_header Connection")
    front = Site(await nginx.start(upstream, without=lines))
    with pytest.raises(InvalidStatus) as refused:
        await connect(front.websocket("/ws/who/")[0])
    assert refused.value.response.status_code == 426
    assert b"a proxy on the way is the usual cause" in (refused.value.response.body or b"")
    await command.expect(
        "/ws/who/ wants a WebSocket and got a plain GET: does a proxy drop the Upgrade header?"
    )


@pytest.mark.parametrize("mode", ["660", None])
async def test_unix_socket_mode(site: Project, folder: Path, mode: str | None) -> None:
    """
    The file of a Unix socket has the mode asked for, else one that lets every proxy in.
    """
    await serve_unix(site, folder, *(("--uds-mode", mode) if mode else ()))
    assert stat.S_IMODE((folder / "web.sock").stat().st_mode) == int(mode or "666", 8)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_unix_socket_again(site: Project, nginx: Nginx, folder: Path, workers: str) -> None:
    """
    A server takes the path of one that was killed, behind the same nginx, and of none that lives.
    """
    command, upstream = await serve_unix(site, folder, "--workers", workers)
    front = Site(await nginx.start(upstream))
    await front.who()
    second = await site.manage("serve", "--uds", str(folder / "web.sock"), "--workers", workers)
    status, output = await second.ended()
    assert (status, output.count("\n")) == (2, 1)
    assert "another program listens there" in output
    await command.kill()
    await serve_unix(site, folder, "--workers", workers)
    await front.who()


async def test_rolling_restart(site: Project, nginx: Nginx, folder: Path) -> None:
    """
    While all workers are replaced, no request through nginx fails and WebSockets are told 1012.
    """
    command, upstream = await serve_unix(site, folder, "--workers", "2")
    front = Site(await nginx.start(upstream))
    over = asyncio.Event()

    async def ask() -> int:
        count = 0
        while not over.is_set():
            await front.who()
            count += 1
        return count

    url, _ = front.websocket("/ws/who/")
    async with connect(url) as peer:
        async with asyncio.TaskGroup() as clients:
            asking = [clients.create_task(ask()) for _ in range(4)]
            command.process.send_signal(signal.SIGHUP)
            await command.expect("All workers are replaced")
            async with asyncio.timeout(10):
                await peer.wait_closed()
            over.set()
        assert peer.close_code == 1012
    assert all(client.result() > 10 for client in asking)
