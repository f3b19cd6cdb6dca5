"""
``manage.py runworker`` as its users start it: two workers and a third process that sends.

What a consumer does it writes into a file, so that nothing of the product is needed to count.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.project import Command, Project

ASGI = """
import os
import time

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")

from django.core.asgi import get_asgi_application

http = get_asgi_application()

from django.contrib.auth.models import User

from fairway import AsyncConsumer, SyncConsumer
from fairway.routing import ChannelNameRouter, ProtocolTypeRouter


def note(word, number):
    with open("done.txt", "a") as file:
        file.write(f"{word} {number} {os.getpid()}\\n")


class Thumbnails(SyncConsumer):
    def thumbnail_make(self, message):
        User.objects.exists()  # Refuses to be asked in a coroutine.
        note("thumbnail", message["number"])


class Mail(AsyncConsumer):
    async def mail_send(self, message):
        note("mail", message["number"])

    async def mail_hold(self, message):
        note("hold", 0)
        import asyncio
        await asyncio.sleep(message["seconds"])
        note("held", 0)


application = ProtocolTypeRouter({
    "http": http,
    "channel": ChannelNameRouter({"thumbnails": Thumbnails.as_asgi(), "mail": Mail.as_asgi()}),
})
"""

SENDER = """
import sys
import time

from asgiref.sync import async_to_sync
from fairway.exceptions import ChannelFull
from fairway.layers import get_channel_layer

send = async_to_sync(get_channel_layer().send)
for line in sys.stdin:
    first, last, hold = map(float, line.split())
    if hold:
        send("mail", {"type": "mail.hold", "seconds": hold})
    for number in range(int(first), int(last)):
        for channel, kind in (("thumbnails", "thumbnail.make"), ("mail", "mail.send")):
            while True:
                try:
                    send(channel, {"type": kind, "number": number})
                    break
                except ChannelFull:
                    time.sleep(0.01)  # Until a worker has made room.
"""


class Done:
    """
    The file that consumers write into.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "done.txt"

    def lines(self) -> list[list[str]]:
        """
        What was done: word, number and process.
        """
        return (
            [line.split() for line in self.path.read_text().splitlines()]
            if self.path.exists()
            else []
        )

    def count(self, word: str) -> Counter[int]:
        """
        How often each number was done.
        """
        return Counter(int(number) for kind, number, _ in self.lines() if kind == word)

    async def until(self, word: str, count: int) -> None:
        """
        Wait until a word was written so many times.
        """
        async with asyncio.timeout(10):
            while self.count(word).total() < count:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)


async def worker(project: Project, *channels: str) -> Command:
    """
    Start a worker and wait until it reads.
    """
    command = await project.manage("runworker", *channels)
    await command.expect(r"Running worker for channels .*\n")
    return command


async def sender(project: Project) -> Callable[[int, int, float], None]:
    """
    Start a process that sends, and give what tells it numbers, and seconds to hold a worker up.
    """
    arguments = ("manage.py", "shell", "-v", "0", "-c", SENDER)
    command = await project.start(sys.executable, *arguments, stdin=asyncio.subprocess.PIPE)
    stdin = command.process.stdin
    assert stdin is not None

    def send(first: int, last: int, hold: float) -> None:
        stdin.write(f"{first} {last} {hold}\n".encode())

    return send


@pytest.mark.slow(40, "a project and four processes")
async def test_each_message_is_handled_once(project: Project) -> None:
    """Two workers share what others send; one that is killed or stopped loses nothing unread."""
    (project.folder / "site_" / "asgi.py").write_text(ASGI)
    with project.settings.open("a") as settings:
        settings.write("ASGI_APPLICATION = 'site_.asgi.application'\n")
    await (await project.manage("migrate", "-v", "0")).ended()
    done = Done(project.folder)
    send = await sender(project)

    # One worker that a message holds up and that is then killed, with all that waits behind it.
    first = await worker(project, "mail")
    send(0, 50, 60)
    await done.until("hold", 1)
    second = await worker(project, "thumbnails", "mail")
    await done.until("mail", 50)
    await first.kill()
    await done.until("thumbnail", 50)

    # Two workers, of which one is stopped while it works and messages come.
    third = await worker(project, "mail", "thumbnails")
    send(50, 150, 0)
    await done.until("mail", 70)
    assert await third.stop(signal.SIGTERM) == (0, "")
    await done.until("mail", 150)
    await done.until("thumbnail", 150)
    assert done.count("mail") == Counter(range(150))
    assert done.count("thumbnail") == Counter(range(150))
    assert {pid for _, _, pid in done.lines()} >= {str(second.process.pid), str(third.process.pid)}

    # What runs is finished.
    send(0, 0, 0.3)
    await done.until("hold", 2)
    assert await second.stop(signal.SIGINT) == (0, "")
    assert done.count("held") == Counter({0: 1})
