"""
A project as the tutorials make it, with places for faults, and its log as people read it.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.acceptance.project import Command, Project

CONSUMERS = """
from django.contrib.auth import get_user_model

import fairway


class ChatConsumer(fairway.AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.room = self.url_kwargs["room"]
        await self.group_add(self.room)
        await self.accept()

    async def receive_json(self, content):
        text = content["message"]
        await self.channel_layer.group_send(self.room, {"type": "chat.message", "message": text})

    async def chat_message(self, event):
        await self.send_json({"message": event["message"]})
"""

URLS = """
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path, re_path

from chat import consumers

urlpatterns = [
    path("admin/", admin.site.urls),
    path("mark/<int:number>/", lambda request, number: HttpResponse()),
    re_path(r"^ws/chat/(?P<room>\\w+)/$", consumers.ChatConsumer.as_asgi()),
]
"""

SECONDS_MAX = 10

RECORD = re.compile(r"\[?\d{4}-\d\d-\d\d |\[\d\d/\w{3}/\d{4} |[A-Z]{3,} |fairway: |CommandError: ")
"""
How a line begins that is no part of a traceback.
"""

BANNER = re.compile(
    r"""
    $ | Performing\ system\ checks | System\ check\ identified | WARNINGS:
    | Django\ version | Quit\ the
    | \w+\ \d\d,\ \d{4}\ -\  | Starting\ development\ server | Fairway\ \d | Channel\ layer
    | Settings: | Serving\ on | \d+\ WebSocket\ route | \[\d{4}-.*\]\ \[\d+\]\ \[INFO\]
    | WARNING:\ This\ is\ a\ development\ server | For\ more\ information\ on\ production
    | usage: | site_.asgi.application\ is\ Django's
    """,
    re.VERBOSE,
)
"""
What a start prints when nothing is wrong.
"""


class Site(Project):
    """
    A project in a folder of its own.
    """

    @property
    def urls(self) -> Path:
        """
        Its URL configuration.
        """
        return self.folder / "site_" / "urls.py"

    @property
    def consumers(self) -> Path:
        """
        Its consumers.
        """
        return self.folder / "chat" / "consumers.py"

    def configure(self, line: str) -> None:
        """
        Add a line at the end of the settings.
        """
        self.settings.write_text(f"{self.settings.read_text()}\n{line}\n")

    async def fairway(self, *arguments: str) -> Command:
        """
        Start ``fairway``, without the settings in its environment.
        """
        return await self.start(
            "env", "-u", "DJANGO_SETTINGS_MODULE", sys.executable, "-m", "fairway", *arguments
        )


def change(file: Path, old: str, new: str) -> None:
    """
    Replace what a file has exactly once.
    """
    text = file.read_text()
    assert text.count(old) == 1, (old, text)
    file.write_text(text.replace(old, new))


def log_lines(text: str) -> list[str]:
    """
    The lines of a log besides the banner; a traceback with its notes counts as one.
    """
    lines: list[str] = []
    within = False
    for line in text.splitlines():
        if lines and not within and line.startswith("\tHINT: "):
            # The second half of a line of Django's checks.
            lines[-1] += f"\n{line}"
        elif RECORD.match(line) or (not within and not line.startswith("Traceback")):
            within = False
            if not BANNER.match(line):
                lines.append(line)
        elif within:
            lines[-1] += f"\n{line}"
        else:
            within = True
            lines.append(line)
    return lines


def ids(lines: list[str]) -> set[str]:
    """
    The faults that are named.
    """
    return set(re.findall(r"\[(fairway\.R\d{3})\]", "\n".join(lines)))


@dataclass
class Talk:
    """
    What a client does: connects, says something, and waits for an answer.

    Attributes:
        path: Where it connects.
        text: What it says.
        host: The name of the site in its address.
        origin: Where its page is from, None for the site itself.
    """

    path: str
    text: str = json.dumps({"message": "hello"})
    host: str = "127.0.0.1"
    origin: str | None = None

    async def __call__(self, address: str) -> Any:
        """
        The answer: a message, the code of a close, or the status of a refusal.
        """
        port = int(address.rpartition(":")[2])
        site = f"{self.host}:{port}"
        try:
            async with connect(
                f"ws://{site}{self.path}",
                host="127.0.0.1",
                port=port,
                origin=self.origin or f"http://{site}",  # type: ignore[arg-type] # a str to people
                open_timeout=SECONDS_MAX,
                proxy=None,
            ) as client:
                await client.send(self.text)
                async with asyncio.timeout(SECONDS_MAX):
                    return json.loads(await client.recv())
        except InvalidStatus as error:
            return error.response.status_code
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else 1006


HELLO = {"message": "hello"}
