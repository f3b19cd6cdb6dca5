"""
A project as ``startproject`` makes it, with one consumer, and its commands as subprocesses.

The commands are the real ones, on a free port of the loopback interface; whoever starts one
ends it by its process id.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from secrets import token_hex
from tempfile import mkdtemp

CONSUMERS = """
import fairway


class ChatConsumer(fairway.AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.room = f"chat.{self.url_kwargs['room']}"
        await self.group_add(self.room)
        await self.accept()

    async def receive_json(self, content):
        await fairway.abroadcast(self.room, {"text": content["text"]}, exclude=self.channel_name)
"""

URLS = """
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

import fairway
from chat.consumers import ChatConsumer


def say(request, room):
    fairway.broadcast(f"chat.{room}", {"text": request.GET["text"]})
    return HttpResponse("said")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("say/<slug:room>/", say),
    path("ws/chat/<slug:room>/", ChatConsumer.as_asgi(), name="chat-room"),
]
"""

SECONDS_MAX = 15
"""
Time that a command gets to say what a test waits for.
"""


@cache
def original() -> Path:
    """
    What ``startproject`` makes: run once, since all that differs from one to the next is the key.
    """
    folder = Path(mkdtemp(prefix="fw-project-"))
    atexit.register(shutil.rmtree, folder)
    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "site_", folder],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("DJANGO")},
        check=True,
        timeout=SECONDS_MAX,
    )
    return folder


def free_port() -> int:
    """
    A port that nobody has, and that the kernel gives nobody who asks for any.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Command:
    """
    A running command of a project.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""

    async def expect(self, pattern: str) -> re.Match[str]:
        """
        Wait until the command has printed something, on either stream.

        What was printed up to there is not looked at again.
        """
        assert self.process.stdout is not None
        async with self._in_time(f"print {pattern!r}"):
            while True:
                found = re.search(pattern, self.output)
                if found:
                    self.output = self.output[found.end() :]
                    return found
                data = await self.process.stdout.read(4096)
                assert data, f"ended before it printed {pattern!r}; it printed: {self.output}"
                self.output += data.decode()

    async def ready(self) -> str:
        """
        Wait until it serves and give its address, ``127.0.0.1:port``.
        """
        return (await self.expect(r"Serving on https?://([^/\s]+)/"))[1]

    async def ended(self) -> tuple[int, str]:
        """
        Wait for its end and give its exit status with what it printed last.
        """
        assert self.process.stdout is not None
        async with self._in_time("end"):
            self.output += (await self.process.stdout.read()).decode()
            return await self.process.wait(), self.output

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """
        Send it a signal and wait for its end.
        """
        self.process.send_signal(number)
        return await self.ended()

    async def kill(self) -> None:
        """
        End it whatever it does, with all that it started.

        A supervisor gives each of its processes a group of its own, so those are found one by one.
        """
        others = descendants(self.process.pid)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.ended()

    @asynccontextmanager
    async def _in_time(self, what: str) -> AsyncIterator[None]:
        """
        Bound a wait for what it does, and say what it did instead.
        """
        try:
            async with asyncio.timeout(SECONDS_MAX):
                yield
        except TimeoutError:
            raise AssertionError(
                f"it did not {what} within {SECONDS_MAX} s; it printed: {self.output}"
            ) from None


def descendants(pid: int) -> list[int]:
    """
    The processes that a process started, and those that they started, as /proc knows them.
    """
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text("latin1").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found[1:]


class Project:
    """
    A Django project in a folder of its own.

    Attributes:
        folder: Where ``manage.py`` is.
    """

    def __init__(self, folder: Path, settings: str = "site_.settings") -> None:
        self.folder = folder
        self.settings_module = settings
        self.commands: list[Command] = []

    async def create(self) -> None:
        """
        Take what ``startproject`` makes, and add Fairway, a consumer, a view and their routes.
        """
        shutil.copytree(await asyncio.to_thread(original), self.folder, dirs_exist_ok=True)
        self.settings.write_text(
            re.sub(
                "(?m)^SECRET_KEY = .*$",
                f"SECRET_KEY = '{token_hex(32)}'",
                self.settings.read_text(),
            )
            .replace("INSTALLED_APPS = [", "INSTALLED_APPS = [\n    'fairway',")
            .replace("ALLOWED_HOSTS = []", "ALLOWED_HOSTS = ['127.0.0.1']")
        )
        # What startproject writes stays as it is.
        self.original_asgi = (self.folder / "site_" / "asgi.py").read_text()
        chat = self.folder / "chat"
        chat.mkdir()
        (chat / "__init__.py").touch()
        (chat / "consumers.py").write_text(CONSUMERS)
        (self.folder / "site_" / "urls.py").write_text(URLS)

    @property
    def settings(self) -> Path:
        """
        The file with its settings.
        """
        return self.folder / "site_" / "settings.py"

    async def run(self, *arguments: str, **environment: str) -> Command:
        """
        Start Python in the project's folder.
        """
        return await self.start(sys.executable, *arguments, environment=environment)

    async def start(
        self,
        program: str,
        *arguments: str,
        fds: tuple[int, ...] = (),
        environment: Mapping[str, str] | None = None,
        stdin: int = asyncio.subprocess.DEVNULL,
    ) -> Command:
        """
        Start a program in the project's folder, with descriptors passed on to it.
        """
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                # Python would take a file changed twice in a second for the one it compiled before.
                "PYTHONDONTWRITEBYTECODE": "1",
                "DJANGO_SETTINGS_MODULE": self.settings_module,
                **(environment or {}),
            },
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=fds,
        )
        command = Command(process)
        self.commands.append(command)
        return command

    async def manage(self, *arguments: str, **environment: str) -> Command:
        """
        Start ``manage.py``.
        """
        return await self.run("manage.py", *arguments, **environment)

    async def close(self) -> None:
        """
        End whatever still runs.
        """
        for command in self.commands:
            if command.process.returncode is None:
                await command.kill()
