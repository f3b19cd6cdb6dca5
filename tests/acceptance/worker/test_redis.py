"""
``manage.py runworker`` on Redis: each message once, whatever consumers and Redis go through.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers import RedisChannelLayer
from tests.acceptance.project import Command, Project
from tests.acceptance.worker.test_runworker import Done, worker
from tests.integration.layers.redis_server import RedisServer, redis_server

ASGI = """
import asyncio
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")

from django.core.asgi import get_asgi_application

http = get_asgi_application()

from fairway import AsyncConsumer
from fairway.routing import ChannelNameRouter, ProtocolTypeRouter


def note(word, number):
    with open("done.txt", "a") as file:
        file.write(f"{word} {number} {os.getpid()}\\n")


class Mail(AsyncConsumer):
    async def mail_send(self, message):
        note("mail", message["number"])

    async def mail_fail(self, message):
        note("fail", message["number"])
        raise RuntimeError("this one fails")

    async def mail_hold(self, message):
        note("hold", message["number"])
        await asyncio.sleep(message["seconds"])


application = ProtocolTypeRouter({
    "http": http,
    "channel": ChannelNameRouter({"mail": Mail.as_asgi()}),
})
"""

SETTINGS = """
ASGI_APPLICATION = "site_.asgi.application"
CHANNEL_LAYERS = {{
    "default": {{
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {{
            "hosts": [("127.0.0.1", {port})],
            "prefix": "work",
            "symmetric_encryption_keys": ["a secret"],
        }},
    }},
}}
"""


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """
    Run a server of the test's own.
    """
    with redis_server() as server:
        yield server


@pytest.fixture
async def layer(redis: RedisServer) -> AsyncIterator[RedisChannelLayer]:
    """
    Give what another process of the project sends through.
    """
    layer = RedisChannelLayer([redis.address], "work", symmetric_encryption_keys=["a secret"])
    yield layer
    await layer.close()


async def send(layer: RedisChannelLayer, *numbers: int, kind: str = "mail.send") -> None:
    """
    Send numbered messages, each until it is taken.
    """
    for number in numbers:
        message = {"type": kind, "number": number, "seconds": 0.3}
        async with asyncio.timeout(10):
            while True:
                try:
                    await layer.send("mail", message)
                except ChannelLayerUnavailable:
                    await asyncio.sleep(0.02)
                else:
                    break


@pytest.mark.fault
@pytest.mark.slow(40, "a project and two workers")
async def test_workers_read_on_through_failures(
    project: Project, redis: RedisServer, layer: RedisChannelLayer
) -> None:
    """
    Two workers get each message once between them, while a consumer raises and Redis restarts.
    """
    (project.folder / "site_" / "asgi.py").write_text(ASGI)
    with project.settings.open("a") as settings:
        settings.write(SETTINGS.format(port=redis.port))
    done = Done(project.folder)
    await send(layer, *range(20))  # Kept until somebody reads.
    workers: list[Command] = [await worker(project, "mail"), await worker(project, "mail")]
    await send(layer, *range(20, 60))
    await done.until("mail", 60)

    # One message each: none of the two has to do it all.
    await send(layer, 0, 1, kind="mail.hold")
    await done.until("hold", 2)
    assert {pid for word, _, pid in done.lines() if word == "hold"} == {
        str(command.process.pid) for command in workers
    }

    # A consumer that raised is replaced for the next message.
    for number in range(4):
        await send(layer, number, kind="mail.fail")
        await send(layer, 60 + number)
    await done.until("mail", 64)
    assert done.count("fail") == Counter(range(4))

    # Ended well, and killed; nothing that was sent afterwards waits for more than a moment.
    for number, end in enumerate((redis.stop, redis.kill), 1):
        await asyncio.to_thread(end)
        await asyncio.to_thread(redis.start)
        first = 64 * number
        await send(layer, *range(first, first + 64))
        await done.until("mail", first + 64)

    assert done.count("mail") == Counter(range(192))
    for command in workers:
        status, told = await command.stop(signal.SIGTERM)
        assert status == 0
        assert told.count("RuntimeError: this one fails") == told.count("fairway.R7")
    assert not redis.do("KEYS", "*")
