"""
Real servers of a project over Redis: what their clients notice when it is away or refuses.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from time import monotonic
from urllib.request import urlopen

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.acceptance.project import Project
from tests.integration.layers.fleet import until
from tests.integration.layers.redis_server import RedisServer, certificates, redis_server

CONSUMERS = """
from fairway.generic.websocket import AsyncWebsocketConsumer


class Tutorial(AsyncWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("tutorial", self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard("tutorial", self.channel_name)

    async def receive(self, text_data):
        await self.channel_layer.group_send("tutorial", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event):
        await self.send(text_data=event["text"])


class Hasty(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.channel_layer.group_add("hasty", self.channel_name)
"""

ROUTES = """
from chat.tutorial import Hasty, Tutorial

urlpatterns += [
    path("ws/tutorial/", Tutorial.as_asgi()), path("ws/hasty/", Hasty.as_asgi()),
]
"""

SETTINGS = """
import os

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {
            "hosts": [os.environ["REDIS"]],
            "connect_timeout": 0.5,
            "command_timeout": 0.5,
            "publish_timeout": 0.75,
        },
    }
}
"""

BOUND_SECONDS = 0.75 + 1.0


@pytest.fixture
async def project(project: Project) -> Project:
    """
    A project over Redis, with the consumer of a tutorial.
    """
    (project.folder / "chat" / "tutorial.py").write_text(CONSUMERS)
    with (project.folder / "site_" / "urls.py").open("a") as urls:
        urls.write(ROUTES)
    with project.settings.open("a") as settings:
        settings.write(SETTINGS)
    return project


@pytest.mark.fault
@pytest.mark.slow(40, "two real servers meet three absences of Redis")
async def test_no_socket_ends_while_redis_does(project: Project) -> None:
    """
    Servers begin without Redis and refuse with 503; whoever is in later stays, whatever comes.
    """
    with redis_server() as redis:
        redis.kill()
        servers = [await project.manage("serve", "--port", "0", REDIS=redis.url) for _ in range(2)]
        for server in servers:
            await server.expect(r"WARNING fairway.layers: redis at \S+ cannot be reached: .*\n")
        addresses = [await server.ready() for server in servers]
        await asyncio.gather(is_refused(addresses[0]), is_cut(addresses[1]))
        assert await page(addresses[0]) < BOUND_SECONDS
        redis.start()
        sockets = await asyncio.gather(*(enter(addresses[number % 2]) for number in range(30)))
        assert len(redis.clients()) == 4
        try:
            for number, ending in enumerate((RedisServer.kill, RedisServer.stop)):
                ending(redis)
                await sockets[number].send("lost")
                await servers[number].expect(
                    r"a handler of Tutorial ended early and the connection stays: .* "
                    r"\[fairway.R404\]\n"
                )
                assert max([await page(address) for address in addresses]) < BOUND_SECONDS
                redis.start()
                begin = monotonic()
                await until(lambda: subscribed(redis) == 2)
                assert monotonic() - begin < 1
                await sockets[number].send(f"back {number}")
                assert await asyncio.gather(*(hear(one) for one in sockets)) == [
                    f"back {number}"
                ] * len(sockets)
            assert {one.close_code for one in sockets} == {None}
        finally:
            await asyncio.gather(*(one.close() for one in sockets))
        for server in servers:
            status, output = await server.stop()
            assert status == 0
            assert "Traceback" not in output


async def test_a_redis_that_refuses_is_said_in_one_line(project: Project, tmp_path: Path) -> None:
    """
    A wrong password, and a certificate of an authority that nobody named, end the start with 2.
    """
    with (
        redis_server(requirepass="right") as closed,
        redis_server(tls=certificates(tmp_path)) as secured,
    ):
        wrong = await project.manage(
            "serve", "--port", "0", REDIS=closed.url.replace("//", "//:wrong@")
        )
        unknown = await project.manage("serve", "--port", "0", REDIS=secured.url)
        for command, words in (
            (wrong, r"redis at 127\.0\.0\.1:\d+/0 refuses: .*password.*"),
            (unknown, r"redis at 127\.0\.0\.1:\d+/0: TLS failed: .*certificate.*ssl_ca_certs.*"),
        ):
            status, output = await command.ended()
            assert status == 2
            assert re.fullmatch(rf"(.* served by Fairway\n)?fairway: {words} \[\S+\]\n", output)
            assert "wrong@" not in output


async def is_refused(address: str) -> None:
    """
    Show that a handshake is answered with 503, and when to come again.
    """
    begin = monotonic()
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://{address}/ws/tutorial/")
    assert monotonic() - begin < BOUND_SECONDS
    assert refused.value.response.status_code == 503
    assert int(refused.value.response.headers["Retry-After"]) > 0


async def is_cut(address: str) -> None:
    """
    Show that who was accepted before its group could be joined is told to come again.
    """
    async with connect(f"ws://{address}/ws/hasty/") as socket:
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


async def enter(address: str) -> ClientConnection:
    """
    Connect once the server is back with Redis, as clients do: by coming again.
    """
    async with asyncio.timeout(10):
        while True:
            try:
                return await connect(f"ws://{address}/ws/tutorial/")
            except InvalidStatus as refused:
                assert refused.response.status_code == 503  # noqa: PT017 - or it is no such answer


async def page(address: str) -> float:
    """
    Ask for a page that broadcasts; give how long that took.
    """
    begin = monotonic()
    answer = await asyncio.to_thread(urlopen, f"http://{address}/say/lobby/?text=hi", timeout=10)
    with answer:
        assert answer.status == 200
    return monotonic() - begin


async def hear(socket: ClientConnection) -> str:
    """
    Give the next message.
    """
    async with asyncio.timeout(5):
        message = await socket.recv()
    assert isinstance(message, str)
    return message


def subscribed(redis: RedisServer) -> int:
    """
    Count the servers that are subscribed to the group.
    """
    channels = [name for name in redis.channels() if name.endswith(b"group:tutorial")]
    return redis.listeners(channels[0].decode()) if channels else 0
