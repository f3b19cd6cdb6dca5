"""
Whom the processes of a real project reach, without a word in its settings: each other.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.acceptance.project import Project

SHELL = "import fairway; fairway.broadcast('chat.lobby', {'text': 'from the shell'})"

GREET = """
from django.core.management.base import BaseCommand

import fairway


class Command(BaseCommand):
    def handle(self, **options):
        fairway.broadcast("chat.lobby", {"text": "good morning"})
"""

MODELS = """
from fairway.layers import get_channel_layer

layer = get_channel_layer()  # Before anybody could say that this is a test.
"""

TESTS = """
from asgiref.sync import async_to_sync
from django.test import SimpleTestCase

import fairway
from chat.models import layer
from fairway.layers import get_channel_layer


class Leaks(SimpleTestCase):
    def test_layers(self):
        leak = {"type": "websocket.send", "text": "leak"}
        for one in (layer, get_channel_layer()):
            async_to_sync(one.group_send)("chat.lobby", leak)
            self.assertEqual(async_to_sync(one.audience)("chat.lobby"), 0)
        fairway.broadcast("chat.lobby", "leak")
        fairway.broadcast("chat.lobby", "leak", strict=True)
"""


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    """
    A fresh project whose settings may be varied, with an application of its own.
    """
    folder = tmp_path / "original"
    folder.mkdir()
    project = Project(folder)
    try:
        await project.create()
        text = project.settings.read_text().replace("'fairway',", "'fairway',\n    'chat',")
        project.settings.write_text(
            re.sub(r"SECRET_KEY = (.*)", r"import os\nSECRET_KEY = os.environ.get('KEY', \1)", text)
        )
        yield project
    finally:
        await project.close()


async def heard(browser: ClientConnection) -> Any:
    """
    The next thing that a browser's socket is told.
    """
    async with asyncio.timeout(5):
        message = await browser.recv()
    return json.loads(message)


async def publish(project: Project, text: str, **environment: str) -> tuple[int, str]:
    """
    Publish to the room from a terminal, and give how that ended.
    """
    message = json.dumps({"text": text})
    command = await project.manage("fairway", "publish", "chat.lobby", message, **environment)
    return await command.ended()


async def serve(project: Project) -> str:
    """
    Start a server of a project and give the URL of the room.
    """
    address = await (await project.manage("serve", "--port", "0")).ready()
    return f"ws://{address}/ws/chat/lobby/"


async def test_a_shell_reaches_the_browsers(project: Project) -> None:
    """
    One line typed next to the running server is enough.
    """
    async with connect(await serve(project)) as ada:
        status, output = await (await project.manage("shell", "-c", SHELL)).ended()
        assert status == 0, output
        assert await heard(ada) == {"text": "from the shell"}


async def test_cron_reaches_the_browsers(project: Project) -> None:
    """
    A command of the project, with nothing in its environment and from another folder.
    """
    commands = project.folder / "chat" / "management" / "commands"
    commands.mkdir(parents=True)
    (commands / "greet.py").write_text(GREET)
    bare = ("-i", "-C", "/", "PATH=/usr/bin:/bin", "HOME=/", "LOGNAME=cron")
    place = f"FAIRWAY_RUNTIME_DIR={os.environ['FAIRWAY_RUNTIME_DIR']}"
    manage = str(project.folder / "manage.py")
    async with connect(await serve(project)) as ada:
        job = await project.start("env", *bare, place, sys.executable, manage, "greet")
        assert await job.ended() == (0, "")
        assert await heard(ada) == {"text": "good morning"}


async def test_two_servers_of_one_project_hear_each_other(project: Project) -> None:
    """
    Browsers of either see what those of the other say; the second one says whom it found.
    """
    async with connect(await serve(project)) as ada:
        second = await project.manage("serve", "--port", "0")
        await second.expect(r"Channel layer: ipc, namespace [0-9a-f]{6}, 1 other process\n")
        async with connect(f"ws://{await second.ready()}/ws/chat/lobby/") as grace:
            for one, other in ((ada, grace), (grace, ada)):
                await one.send(json.dumps({"text": "hello"}))
                assert await heard(other) == {"text": "hello"}
            assert await publish(project, "to both") == (0, "Reached 2 processes.\n")
            assert await heard(ada) == await heard(grace) == {"text": "to both"}


async def test_the_workers_of_one_server_hear_each_other(project: Project) -> None:
    """
    Browsers meet whichever worker they came to, and a publisher reaches all.
    """
    server = await project.manage("serve", "--port", "0", "--workers", "2")
    url = f"ws://{await server.ready()}/ws/chat/lobby/"
    async with AsyncExitStack() as browsers:
        # An even number: each worker takes as many, give or take two.
        everybody = [await browsers.enter_async_context(connect(url)) for _ in range(8)]
        assert await publish(project, "to all") == (0, "Reached 2 processes.\n")
        assert [await heard(one) for one in everybody] == [{"text": "to all"}] * 8
        await everybody[0].send(json.dumps({"text": "hello"}))
        assert [await heard(one) for one in everybody[1:]] == [{"text": "hello"}] * 7


async def test_workers_over_a_layer_of_one_process_are_refused(project: Project) -> None:
    """
    The flag alone asks for several, so the start says what the check could not.
    """
    with project.settings.open("a") as settings:
        layer = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
        settings.write(f"\nCHANNEL_LAYERS = {{'default': {layer!r}}}\n")
    server = await project.manage("serve", "--port", "0", "--workers", "2")
    status, output = await server.ended()
    assert (status, output.count("\n")) == (2, 1)
    assert "2 processes are to serve" in output
    assert "(fairway.E202)" in output


@pytest.mark.parametrize("how", ["clone", "settings", "key", "namespace"])
async def test_another_project_is_never_met(project: Project, tmp_path: Path, how: str) -> None:
    """
    Not a copy of it elsewhere, nor one with other settings, another key or another namespace.
    """
    other, environment = project, {}
    if how == "clone":
        shutil.copytree(project.folder, tmp_path / "copy")
        other = Project(tmp_path / "copy")
    elif how == "settings":
        (project.folder / "site_" / "staging.py").write_text("from site_.settings import *\n")
        environment["DJANGO_SETTINGS_MODULE"] = "site_.staging"
    elif how == "key":
        environment["KEY"] = "another one"
    else:
        environment["FAIRWAY_NAMESPACE"] = "another-one"
    try:
        async with connect(await serve(project)) as ada:
            status, said = await publish(other, "from elsewhere", **environment)
            assert status == 1
            assert "Reached no process: group 'chat.lobby' has no members here (ipc, " in said
            assert "0 other processes" in said
            assert await publish(project, "from here") == (0, "Reached 1 process.\n")
            assert await heard(ada) == {"text": "from here"}
    finally:
        await other.close()


async def test_a_namespace_joins_what_settings_tell_apart(project: Project, tmp_path: Path) -> None:
    """
    Where two projects are to share their groups, both name it.
    """
    with project.settings.open("a") as settings:
        settings.write("\nFAIRWAY = {'NAMESPACE': 'together'}\n")
    shutil.copytree(project.folder, tmp_path / "copy")
    other = Project(tmp_path / "copy")
    try:
        async with connect(await serve(project)) as ada:
            assert await publish(other, "from the copy") == (0, "Reached 1 process.\n")
            assert await heard(ada) == {"text": "from the copy"}
    finally:
        await other.close()


@pytest.mark.parametrize("configured", [False, True])
async def test_tests_never_reach_the_browsers(project: Project, configured: bool) -> None:
    """
    `manage.py test` beside a running server: neither by default nor with an explicit layer.
    """
    chat = project.folder / "chat"
    (chat / "models.py").write_text(MODELS)
    (chat / "tests.py").write_text(TESTS)
    if configured:
        with project.settings.open("a") as settings:
            layer = {"BACKEND": "fairway.layers.IPCChannelLayer"}
            settings.write(f"\nCHANNEL_LAYERS = {{'default': {layer!r}}}\n")
    async with connect(await serve(project)) as ada:
        status, output = await (await project.manage("test")).ended()
        assert status == 0, output
        assert "Ran 1 test" in output
        assert await publish(project, "in earnest") == (0, "Reached 1 process.\n")
        assert await heard(ada) == {"text": "in earnest"}


@pytest.fixture
def open_folder() -> Path:
    """
    A place to meet that others may enter.
    """
    folder = Path(os.environ["FAIRWAY_RUNTIME_DIR"], "open")
    folder.mkdir(mode=0o755)
    return folder


async def test_a_place_that_others_may_enter_ends_the_start(
    project: Project, open_folder: Path
) -> None:
    """
    In one line that says the fix, before anybody could connect; a publisher says the same.
    """
    place = {"FAIRWAY_RUNTIME_DIR": str(open_folder)}
    server = await project.manage("serve", "--port", "0", **place)
    status, output = await server.ended()
    assert (status, output.count("\n")) == (2, 1)
    assert f"{open_folder} has mode 755, expected 700: run chmod 700" in output
    status, output = await publish(project, "hello", **place)
    assert (status, output.count("\n")) == (2, 1)
    assert "expected 700" in output
