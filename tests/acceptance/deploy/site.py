"""
A project for deployments: it tells its clients what the server told it, and streams on demand.

Beside it the proxy that stands in front of one, with the site file of the documentation.
"""

from __future__ import annotations

import asyncio
import grp
import json
import os
import pwd
import re
import shutil
import socket
import ssl
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

from tests.acceptance.project import Project

DOCS = Path(__file__).parents[3] / "docs"

VIEWS = """
import os

import fairway
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from chat.consumers import ChatConsumer

def seen(scope):
    return {
        "client": scope["client"] and scope["client"][0],
        "scheme": scope["scheme"],
        "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
        "pid": os.getpid(),
        "inherited": sorted(
            name for name in os.environ
            if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_")) or name == "FAIRWAY_WORKER"
        ),
    }


def who(request):
    return JsonResponse({**seen(request.scope), "secure": request.is_secure()})


class WhoConsumer(fairway.AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send_json(seen(self.scope))

    async def receive_json(self, content):
        await self.send_json(content)


async def events(request):
    # Joined in another worker, maybe, than the one that is asked for more.
    layer = fairway.get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add("more", channel)

    async def stream():
        for number in range(3):
            yield f"data: {number}\\n\\n"
            await layer.receive(channel)

    # What tells nginx to pass each event on at once.
    return StreamingHttpResponse(
        stream(), content_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def another(request):
    await fairway.get_channel_layer().group_send("more", {"type": "more"})
    return HttpResponse()


def say(request):
    fairway.broadcast("chat.lobby", {"text": "said"})
    return HttpResponse()


urlpatterns = [
    path("who/", who),
    path("events/", events),
    path("another/", another),
    path("say/", say),
    path("ws/who/", WhoConsumer.as_asgi()),
    path("ws/chat/<slug:room>/", ChatConsumer.as_asgi()),
]
"""


def program(name: str) -> str:
    """
    Find a program, also where users do not look.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert found, f"{name} is missing; scripts/bootstrap installs it"
    return found


def sample(language: str, start: str) -> str:
    """
    The block of that language in docs/processes.md that begins with some text.
    """
    page = (DOCS / "processes.md").read_text()
    (found,) = (
        block
        for block in re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        if block.startswith(start)
    )
    return str(found)


@dataclass
class Site:
    """
    An address as a client sees it.

    Attributes:
        address: Host and port, with a colon between them.
        tls: What verifies its certificate, None without TLS.
        source: The address a client connects from, None for any.
    """

    address: str
    tls: ssl.SSLContext | None = None
    source: str | None = None

    async def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """
        Get a page: its status and body; underscores in names of headers stand for hyphens.
        """
        return await asyncio.to_thread(self._get, path, headers)

    async def who(self, **headers: str) -> dict[str, Any]:
        """
        Ask a page what it sees of the client.
        """
        status, body = await self.get("/who/", **headers)
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def websocket(self, path: str, **options: Any) -> tuple[str, dict[str, Any]]:
        """
        What to give ``connect`` of the websockets package.
        """
        scheme = "wss" if self.tls else "ws"
        if self.tls:
            options["ssl"] = self.tls
        if self.source:
            options["local_addr"] = (self.source, 0)
        return f"{scheme}://{self.address}{path}", options

    def _get(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        source = (self.source, 0) if self.source else None
        if self.tls:
            connection: HTTPConnection = HTTPSConnection(
                self.address, timeout=10, source_address=source, context=self.tls
            )
        else:
            connection = HTTPConnection(self.address, timeout=10, source_address=source)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers=fields)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    {site}
}}
"""


class Nginx:
    """
    The nginx of this machine with a configuration of its own, in front of one server.

    It is given its listening sockets (in NGINX, as nginx does it for its successor), so its
    ports are free for certain, and a client that comes before it is up waits.
    """

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.folder = folder

    async def start(
        self,
        upstream: str,
        *,
        without: tuple[str, ...] = (),
        certificate: Path | None = None,
    ) -> str:
        """
        Start it with the site file of the documentation, and give its address.

        Args:
            upstream: Where the server listens, as ``server`` of nginx takes it.
            without: Lines that begin so are left out.
            certificate: Chain and private key in one file, for a site with TLS.
        """
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = "{}:{}".format(*sock.getsockname())
            (self.folder / "nginx.conf").write_text(
                self._configuration(upstream, address, without, certificate)
            )
            fd = sock.fileno()
            await self.project.start(
                program("nginx"),
                *("-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr"),
                fds=(fd,),
                environment={"NGINX": f"{fd};"},
            )
        return address

    def _configuration(
        self, upstream: str, address: str, without: tuple[str, ...], certificate: Path | None
    ) -> str:
        tls = ""
        if certificate:
            address += " ssl"
            tls = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};"
        changes = {
            "server unix:/run/mysite.sock;": f"server {upstream};",
            "listen 80;": f"listen {address}; {tls}",
            "server_name example.com;": "",
        }
        site = sample("nginx", "map $http_upgrade")
        for text, instead in changes.items():
            assert text in site
            site = site.replace(text, instead)
        lines = [line for line in site.splitlines() if not line.strip().startswith(without)]
        user = ""
        if os.geteuid() == 0:
            # Else its worker could not enter the folder of the test.
            group = grp.getgrgid(os.getegid()).gr_name
            user = f"user {pwd.getpwuid(os.geteuid()).pw_name} {group};"
        return NGINX.format(folder=self.folder, user=user, site="\n".join(lines))
