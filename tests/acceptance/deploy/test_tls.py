"""
TLS by the server itself, without a proxy.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.acceptance.deploy.conftest import Certificate, make_certificate
from tests.acceptance.deploy.site import Site
from tests.acceptance.project import Project


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_pages_and_sockets(site: Project, certificate: Certificate, workers: str) -> None:
    """
    Pages and WebSockets are served under https and wss, and one broadcast reaches every worker.
    """
    command = await site.manage(
        *("serve", "--port", "0", "--workers", workers),
        *("--certfile", str(certificate.chain), "--keyfile", str(certificate.key)),
    )
    address = (await command.expect(r"Serving on https://([^/\s]+)/"))[1]
    front = Site(address, tls=certificate.client)
    seen = await front.who()
    assert (seen["scheme"], seen["secure"]) == ("https", True)
    url, options = front.websocket("/ws/chat/lobby/", origin=f"https://{address}")
    peers = [await connect(url, **options) for _ in range(8)]
    await front.get("/say/")
    async with asyncio.timeout(5):
        for peer in peers:
            assert json.loads(await peer.recv()) == {"text": "said"}
    command.process.terminate()
    async with asyncio.timeout(10):
        for peer in peers:
            await peer.wait_closed()
            assert peer.close_code == 1012
    assert (await command.ended())[0] == 0


@pytest.mark.parametrize(("workers", "content"), [("1", None), ("2", "nothing")])
async def test_wrong_file(site: Project, folder: Path, workers: str, content: str | None) -> None:
    """
    A missing or wrong file ends it with status 2 and one line, with several workers too.
    """
    path = folder / "chain.pem"
    if content:
        path.write_text(content)
    flags = ("--port", "0", "--workers", workers, "--certfile", str(path))
    status, output = await (await site.manage("serve", *flags)).ended()
    assert (status, output.count("\n")) == (2, 1), output
    assert f"--certfile {path}" in output


async def test_renewed_certificate(site: Project, certificate: Certificate, folder: Path) -> None:
    """
    After SIGHUP new connections get the certificate that the files hold by then.
    """
    command = await site.manage(
        *("serve", "--port", "0", "--workers", "1"),
        *("--certfile", str(certificate.chain), "--keyfile", str(certificate.key)),
    )
    address = await command.ready()
    await Site(address, tls=certificate.client).who()
    renewed = make_certificate(folder)
    command.process.send_signal(signal.SIGHUP)
    await command.expect("All workers are replaced")
    async with asyncio.timeout(10):
        while True:
            # For a moment the old worker may take what comes before it hears of its end.
            with suppress(ssl.SSLCertVerificationError):
                await Site(address, tls=renewed.client).who()
                break
    assert (await command.stop())[0] == 0
