"""
``serve``, ``runserver`` and ``fairway module:app``, started as their users start them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from contextlib import AsyncExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.acceptance.project import Project

ROUTER = """
from django.core.asgi import get_asgi_application
from django.urls import path

from fairway.routing import ProtocolTypeRouter, URLRouter
from chat.consumers import ChatConsumer

application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("own/<slug:room>/", ChatConsumer.as_asgi())]),
    }
)
"""


async def get(address: str, path: str) -> tuple[int, str]:
    """
    Get a page: its status and body.
    """

    def fetch() -> tuple[int, str]:
        connection = HTTPConnection(address, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(fetch)


async def chat(address: str, path: str = "/ws/chat/lobby/", **options: Any) -> None:
    """
    Let two users of a room talk, one way and the other.
    """
    scheme = "wss" if "ssl" in options else "ws"
    url = f"{scheme}://{address}{path}"
    async with connect(url, **options) as ada, connect(url, **options) as grace:
        for one, other in ((ada, grace), (grace, ada)):
            await one.send(json.dumps({"text": "hello"}))
            async with asyncio.timeout(5):
                assert json.loads(await other.recv()) == {"text": "hello"}


class TestServe:
    """
    ``manage.py serve``.
    """

    async def test_untouched_asgi_py(self, project: Project) -> None:
        """
        The asgi.py of startproject serves consumers, pages and static files, and it says how.
        """
        command = await project.manage("serve", "--port", "0")
        await command.expect("fairway.asgi.application serves in its place|Channel layer: ")
        address = await command.ready()
        assert (project.folder / "site_" / "asgi.py").read_text() == project.original_asgi
        await chat(address)
        assert (await get(address, "/admin/login/"))[0] == 200
        assert (await get(address, "/static/admin/css/base.css"))[0] == 200
        assert (await get(address, "/ws/chat/lobby/"))[0] == 426
        assert await command.stop() == (0, command.output)

    async def test_broadcast_from_a_view(self, project: Project) -> None:
        """
        What a view broadcasts reaches the sockets of the room.
        """
        address = await (await project.manage("serve", "--port", "0")).ready()
        async with connect(f"ws://{address}/ws/chat/lobby/") as ada:
            assert await get(address, "/say/lobby/?text=dinner") == (200, "said")
            async with asyncio.timeout(5):
                assert json.loads(await ada.recv()) == {"text": "dinner"}

    async def test_asgi_application_named(self, project: Project) -> None:
        """
        ASGI_APPLICATION naming startproject's handler is replaced, which start-up says.
        """
        with project.settings.open("a") as settings:
            settings.write("\nASGI_APPLICATION = 'site_.asgi.application'\n")
        command = await project.manage("serve", "--port", "0")
        await command.expect("site_.asgi.application is Django's own handler")
        await chat(await command.ready())

    async def test_own_router(self, project: Project) -> None:
        """
        A ProtocolTypeRouter of the project serves its own routes, and our pages.
        """
        (project.folder / "site_" / "routing.py").write_text(ROUTER)
        command = await project.manage("serve", "site_.routing:application", "--port", "0")
        address = await command.ready()
        await chat(address, "/own/lobby/")
        assert (await get(address, "/admin/login/"))[0] == 200
        with pytest.raises(InvalidStatus, match="404"):
            await chat(address)

    async def test_sigterm_tells_sockets(self, project: Project) -> None:
        """
        SIGTERM closes every WebSocket with 1012 and ends with status 0.
        """
        command = await project.manage("serve", "--port", "0")
        async with connect(f"ws://{await command.ready()}/ws/chat/lobby/") as ada:
            status, _ = await command.stop()
            with pytest.raises(ConnectionClosed):
                await ada.recv()
            assert (status, ada.close_code) == (0, 1012)

    async def test_workers(self, project: Project) -> None:
        """
        With several workers a message reaches the whole room, whichever of them holds whom.
        """
        command = await project.manage("serve", "--port", "0", "--workers", "2")
        found = await command.expect(r"http://(\S+)/ with 2 workers \(pids (\d+), (\d+)\)\n")
        url = f"ws://{found[1]}/ws/chat/lobby/"
        async with AsyncExitStack() as stack:
            room = [await stack.enter_async_context(connect(url)) for _ in range(12)]
            for ada in room[:2]:
                await ada.send(json.dumps({"text": "hello"}))
                async with asyncio.timeout(5):
                    heard = [json.loads(await one.recv()) for one in room if one is not ada]
                assert heard == [{"text": "hello"}] * 11
            assert await get(found[1], "/say/lobby/?text=dinner") == (200, "said")
            async with asyncio.timeout(5):
                heard = [json.loads(await one.recv()) for one in room]
            assert heard == [{"text": "dinner"}] * 12
            assert (await command.stop())[0] == 0
            assert {one.close_code for one in room} == {1012}

    async def test_tls(self, project: Project, tmp_path: Path) -> None:
        """
        With a certificate the same origin over wss is let in.
        """
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
        certificate.private_key_pem.write_to_path(key)
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(chain, append=True)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        command = await project.manage(
            "serve", "--port", "0", "--certfile", str(chain), "--keyfile", str(key)
        )
        address = await command.ready()
        await chat(address, ssl=trusting, origin=f"https://{address}")
        with pytest.raises(InvalidStatus, match="403"):
            await chat(address, ssl=trusting, origin=f"http://{address}")

    async def test_port_busy(self, project: Project) -> None:
        """
        A busy port ends the start with status 2 and one line that names who has it.
        """
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            status, output = await (await project.manage("serve", "--port", str(port))).ended()
        assert status == 2
        assert output.count("\n") == 1
        assert f"port {port} on 127.0.0.1 is in use by " in output

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--port", "70000"], "port must be between 0 and 65535, not 70000"),
            (["--host", "no.such.host.invalid"], "not an address of this machine"),
            (["--fd", "77"], "no such open descriptor"),
            (["--fd", "0"], "is a terminal or device, not a socket"),
            (["--fd", "0", "--uds", "s"], "exclude each other"),
            (["--keyfile", "k.pem"], "--keyfile needs --certfile"),
            (["--certfile", "c.pem"], "no such file, or not readable"),
            (["site_.agsi:application"], "did you mean 'site_.asgi'?"),
            (["site_.asgi:applications"], "did you mean 'application'?"),
            (["site_.asgi:os"], "expected an ASGI application, got module"),
        ],
    )
    async def test_wrong_start(self, project: Project, arguments: list[str], said: str) -> None:
        """
        What cannot be served is said in one line, with status 2.
        """
        status, output = await (await project.manage("serve", "--port", "0", *arguments)).ended()
        assert status == 2
        assert said in output
        assert output.count("\n") == 1


class TestFairway:
    """
    ``python -m fairway module:app``.
    """

    async def test_django_project(self, project: Project) -> None:
        """
        A project's own asgi.py is served with its consumers.
        """
        command = await project.run("-m", "fairway", "site_.asgi:application", "--port", "0")
        await command.expect("is Django's own handler")
        await chat(await command.ready())

    async def test_any_application(self, project: Project) -> None:
        """
        An application that has nothing to do with Django is served too.
        """
        (project.folder / "plain.py").write_text(
            "async def app(scope, receive, send):\n"
            "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            "    await send({'type': 'http.response.body', 'body': b'plain'})\n"
        )
        command = await project.run(
            "-c",
            "import os, sys; del os.environ['DJANGO_SETTINGS_MODULE'];"
            "from fairway.cli import main; sys.exit(main(['plain:app', '--port', '0']))",
        )
        assert await get(await command.ready(), "/") == (200, "plain")
        assert (await command.stop())[0] == 0


class TestRunserver:
    """
    ``manage.py runserver``.
    """

    async def test_serves_everything(self, project: Project) -> None:
        """
        It serves consumers, pages and static files, and logs requests as Django's own does.
        """
        command = await project.manage("runserver", "127.0.0.1:0", "--noreload")
        address = await command.ready()
        await chat(address)
        assert (await get(address, "/static/admin/css/base.css"))[0] == 200
        assert (await get(address, "/admin/login/"))[0] == 200
        await command.expect(r"GET /admin/login/ 200")
        assert (await command.stop())[0] == 0

    async def test_nostatic(self, project: Project) -> None:
        """
        The flags of the runserver below stay: --nostatic serves no static files.
        """
        command = await project.manage("runserver", "127.0.0.1:0", "--noreload", "--nostatic")
        assert (await get(await command.ready(), "/static/admin/css/base.css"))[0] == 404

    async def test_reload_closes_sockets(self, project: Project) -> None:
        """
        A changed file closes sockets with 1012, and they can come back to the new code.
        """
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = await project.manage("runserver", f"127.0.0.1:{port}")
        address = await command.ready()
        async with connect(f"ws://{address}/ws/chat/lobby/") as ada:
            consumers = project.folder / "chat" / "consumers.py"
            # The reloader may not have looked at the file yet, so change it until it has.
            while ada.close_code is None:
                consumers.write_text(f"{consumers.read_text()}\n# changed\n")
                with suppress(ConnectionClosed, TimeoutError):
                    async with asyncio.timeout(1):
                        await ada.recv()
            assert ada.close_code == 1012
        await chat(await command.ready())

    async def test_port_busy(self, project: Project) -> None:
        """
        A busy port ends it with a status that is not 0, under the reloader too.
        """
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            command = await project.manage("runserver", f"127.0.0.1:{port}")
            status, output = await command.ended()
        assert status == 2
        assert f"port {port} on 127.0.0.1 is in use by " in output
