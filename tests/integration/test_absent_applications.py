"""
Projects without Django's users or sessions, and visitors who bring the cookie of another project.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS={apps!r},
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF="__main__",
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
)
django.setup()
import fairway
from django.urls import path


class Open(fairway.AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send_json(sorted({{"session", "user"}} & self.scope.keys()))


urlpatterns = [path("ws/", Open.as_asgi())]

from fairway.asgi import Application, Pages
from fairway.testing import WebsocketCommunicator


async def visit():
    headers = [(b"cookie", b"sessionid=0123456789abcdef0123456789abcdef")]
    socket = WebsocketCommunicator(Application(Pages()), "/ws/", headers=headers)
    assert (await socket.connect())[0]
    print(*await socket.receive_json_from())
    await socket.disconnect()


asyncio.run(visit())
"""


@pytest.mark.parametrize(
    ("apps", "found"),
    [
        ([], "session"),
        (["django.contrib.contenttypes", "django.contrib.auth"], "session user"),
    ],
)
def test_sockets_need_neither_users_nor_sessions(apps: list[str], found: str) -> None:
    """A session that could be kept nowhere is not looked for, and no user where there is none."""
    program = PROGRAM.format(apps=[*apps, "fairway"])
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20
    )
    assert (ended.stdout, ended.stderr) == (f"{found}\n", "")
