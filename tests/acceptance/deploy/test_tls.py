"""
TLS by the server itself, without a proxy.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.acceptance.deploy.conftest import Certificate
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


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_wrong_files(
    site: Project, certificate: Certificate, folder: Path, workers: str
) -> None:
    """
    A missing or foreign file ends it with status 2 and one line, with several workers too.
    """
    flags = ("serve", "--port", "0", "--workers", workers, "--certfile")
    for path in (folder / "missing.pem", folder / "nothing.pem"):
        (folder / "nothing.pem").write_text("nothing")
        status, output = await (await site.manage(*flags, str(path))).ended()
        assert (status, output.count("\n")) == (2, 1), output
        assert f"--certfile {path}" in output
