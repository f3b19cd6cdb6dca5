"""
An example of each of Channels' topics, served.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.acceptance.compat import projects
from tests.acceptance.project import Project

SECONDS_MAX = 5

PREPARE = """
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
User.objects.create_user("ada")
SessionStore("k" * 32).save(must_create=True)
"""

OUTSIDE = """
from asgiref.sync import async_to_sync
from fairway.layers import get_channel_layer

channel_layer = get_channel_layer()
async_to_sync(channel_layer.group_send)("broadcast", {"type": "chat.message", "text": "outside"})
async_to_sync(channel_layer.send)("print", {"type": "test.print", "text": "to a worker"})
"""


@pytest.fixture
async def topics(project: Project) -> Project:
    """
    A project with an example of each topic.
    """
    projects.write(project.folder, projects.TOPICS)
    projects.change(project.folder, "site_.asgi.application")
    migrating = await (await project.manage("migrate", "-v", "0")).ended()
    assert migrating == (0, ""), migrating[1]
    return project


def enter(address: str, path: str, **options: Any) -> Any:
    """
    Open a WebSocket from an origin that may.
    """
    return connect(f"ws://{address}{path}", origin="https://www.example.com", **options)  # type: ignore[arg-type] # a NewType


async def heard(socket: ClientConnection) -> Any:
    """
    The next thing that a socket is told.
    """
    async with asyncio.timeout(SECONDS_MAX):
        return await socket.recv()


async def ask(socket: ClientConnection, content: object) -> Any:
    """
    Send JSON and give the answer.
    """
    await socket.send(json.dumps(content))
    return json.loads(await heard(socket))


async def get(address: str, path: str) -> bytes:
    """
    Fetch a page, or what is no page.
    """

    def fetch() -> bytes:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=SECONDS_MAX) as answer:
            content: bytes = answer.read()
            return content

    return await asyncio.to_thread(fetch)


@pytest.mark.slow(40, "a server, a worker and two shells")
async def test_topics(topics: Project) -> None:
    """Consumers, routers, middleware, sessions, users, origins, layers and workers work."""
    command = await topics.manage("shell", "-v", "0", "-c", PREPARE)
    assert await command.ended() == (0, "")
    working = await topics.manage("runworker", "print")
    serving = await topics.manage("serve", "--port", "0")
    address = await serving.ready()

    async with enter(address, "/echo/") as socket:
        await socket.send("hello")
        assert await heard(socket) == "hello"
    async with enter(address, "/account/") as socket:
        assert await ask(socket, {}) == {"user": "AnonymousUser", "count": 1}
        assert await ask(socket, {"login": "ada"}) == {"user": "ada", "count": 1}
        assert await ask(socket, {"logout": 1}) == {"user": "AnonymousUser", "count": 1}
    cookie = {"Cookie": f"sessionid={'k' * 32}"}
    for seen in (1, 2):
        path = "/pages/7/counting/"
        async with enter(address, path, additional_headers=cookie) as socket:
            assert await ask(socket, {}) == {"seen": seen, "page": {"number": 7}}
    await refusals(address)

    subprotocols: Any = ["first", "second"]
    async with enter(address, "/groups/", subprotocols=subprotocols) as socket:
        assert socket.subprotocol == "second"
        await socket.send(b"abc")
        assert await heard(socket) == b"cba"
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(f"GET /longpoll/ HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")  # In the group by now.
        await working.expect("Running worker for channels print\n")
        outside = await topics.manage("shell", "-v", "0", "-c", OUTSIDE)
        assert (await outside.ended())[0] == 0
        assert await heard(socket) == "outside"
        assert b'"text": "outside"' in await reader.readuntil(b"\r\n0\r\n")
        writer.close()
        await working.expect("printed: to a worker")
        await socket.send("close")
        with pytest.raises(ConnectionClosed, match="4123"):
            await heard(socket)
    assert await get(address, "/hello/") == b"hello AnonymousUser"
    assert b"Django administration" in await get(address, "/admin/login/")


async def refusals(address: str) -> None:
    """
    Hold what is to be refused against a server.
    """
    with pytest.raises(InvalidStatus, match="403"):
        await enter(address, "/groups/?deny")
    with pytest.raises(InvalidStatus, match="404"):
        await enter(address, "/nowhere/")
    for origin, passes in {
        "http://page.test:81": True,
        "http://sub.page.test:81": True,
        "http://page.test": False,
        "https://page.test:81": False,
        "https://example.org": False,
    }.items():
        entering = connect(f"ws://{address}/echo/", origin=origin)  # type: ignore[arg-type] # a NewType
        if passes:
            async with entering:
                continue
        with pytest.raises(InvalidStatus, match="403"):
            await entering
