"""
Faults in how a project is started: the real command, what it says, and that the hint helps.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.management.test_commands import ROUTER, get
from tests.acceptance.project import Command, free_port
from tests.ux.sites import HELLO, Site, Talk, change, ids, log_lines

CASES: list[str] = []
"""
The faults that have a test here.
"""


def case(fault: str) -> Callable[[Any], Any]:
    """
    Mark a test as the case of a fault.
    """
    CASES.append(fault)
    return lambda test: test


CHAT = Talk("/ws/chat/lobby/")
EARLY = """
import os

from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")

application = get_asgi_application()
"""
SOCKETS = r"(\d+ WebSocket routes?) in site_.urls, served by Fairway"
WORKER = """
from fairway.consumers import SyncConsumer
from fairway.routing import ChannelNameRouter, ProtocolTypeRouter


class Thumbnails(SyncConsumer):
    def make(self, message):
        print("made", message["number"], flush=True)


application = %s
"""


async def refused(command: Command, fault: str) -> str:
    """
    Wait for a start to fail, and give the one line that it is about.
    """
    status, output = await command.ended()
    assert status == 2
    lines = log_lines(output)
    assert len(lines) <= 3, lines
    assert ids(lines) == {fault}
    (line,) = (each for each in lines if fault in each)
    return line


async def serves(command: Command) -> str:
    """
    Wait until a command serves, have two sockets talk, and give what it printed before.
    """
    found = await command.expect(r"Serving on http://([^/\s]+)/\n")
    assert await CHAT(found[1]) == HELLO
    return found.string[: found.end()]


async def stop(command: Command) -> list[str]:
    """
    End a server and give the lines of its log.
    """
    _, output = await command.stop()
    return log_lines(output)


@case("server not installed as an app")
async def test_not_installed(site: Site) -> None:
    """
    Under Django's own runserver a socket is answered with 426, and the log says what to install.
    """
    change(site.settings, "    'fairway',\n", "")
    port = str(free_port())
    command = await site.manage("runserver", port, "--noreload")
    await command.expect("Quit the server")
    assert await CHAT(f"127.0.0.1:{port}") == 426
    found = await command.expect(r".*fairway\.R203.*\n")
    lines = [*log_lines(found.string[: found.end()]), *await stop(command)]
    assert len(lines) <= 3
    assert ids(lines) == {"fairway.R203"}
    name, setting = re.findall(r"put '(\w+)' into (\w+)", found[0])[0]
    site.configure(f"{setting} += [{name!r}]")
    assert re.search(SOCKETS, await serves(await site.manage("runserver", port, "--noreload")))


@case("app imported before get_asgi_application()")
async def test_early_import(site: Site) -> None:
    """
    An asgi.py that imports models at its top works under every command, not in development alone.
    """
    (site.folder / "site_" / "asgi.py").write_text(EARLY)
    output = await serves(await site.fairway("site_.asgi:application", "--port", "0"))
    assert log_lines(output) == []


@case("default asgi.py left")
async def test_default_asgi(site: Site) -> None:
    """
    The asgi.py that startproject wrote serves sockets too, and the start says how.
    """
    site.configure('ASGI_APPLICATION = "site_.asgi.application"')
    command = await site.manage("serve", "--port", "0")
    output = await serves(command)
    assert ids(output.splitlines()) == {"fairway.R115"}
    assert log_lines(output) == []
    assert await stop(command) == []


@case("gunicorn for WSGI in front")
async def test_gunicorn(site: Site) -> None:
    """
    A WSGI server answers a socket with 426, and the log names the server and what to use.
    """
    command = await site.run("-m", "gunicorn", "site_.wsgi", "--bind", "127.0.0.1:0")
    address = (await command.expect(r"Listening at: http://(\S+) "))[1]
    assert await CHAT(address) == 426
    found = await command.expect(r".*\(gunicorn/.*\).*fairway\.R203.*\n")
    assert len(log_lines(found.string)) <= 3
    arguments = re.findall(r"use manage\.py (\w+)", found[0])
    await command.stop()
    await serves(await site.manage(*arguments, "--port", "0"))


@case("wrong module name")
async def test_wrong_module(site: Site) -> None:
    """
    An application that cannot be found is one line with the nearest name.
    """
    command = await site.fairway("site_.agsi:application", "--port", "0")
    line = await refused(command, "fairway.R108")
    wrong, right = re.findall(r"there is no module '(.+)'; did you mean '(.+)'\?", line)[0]
    spec = "site_.agsi:application".replace(wrong, right)
    await serves(await site.fairway(spec, "--port", "0"))


@case("port busy")
async def test_port_busy(site: Site) -> None:
    """
    A port that is taken ends the start, with who has it and what helps.
    """
    # One that nobody else gets by chance while nobody has it.
    port = str(free_port())
    holder = await site.manage("serve", "--port", port)
    await holder.ready()
    commands = [("serve", "--port", port), ("runserver", port, "--noreload")]

    async def refusal(arguments: tuple[str, ...]) -> str:
        return await refused(await site.manage(*arguments), "fairway.R104")

    lines = await asyncio.gather(*(refusal(each) for each in commands))
    hint = r"choose another port with (--port) \((runserver): as its argument\)"
    ((flag, command), _) = (re.findall(hint, line)[0] for line in lines)
    right = [("serve", flag, "0"), (command, "0", "--noreload")]
    await asyncio.gather(*map(serves, [await site.manage(*each) for each in right]))
    pids = {
        int(re.findall(r"in use by .+ \(pid (\d+)\); end that program", each)[0]) for each in lines
    }
    assert pids == {holder.process.pid}
    assert (await holder.stop(signal.SIGTERM))[0] == 0
    await serves(await site.manage(*commands[1]))


@case("--fd 0 without a supervisor")
async def test_descriptor(site: Site) -> None:
    """
    A descriptor that is no socket is said to be none.
    """
    arguments = ["serve", "--port", "0", "--fd", "0"]
    line = await refused(await site.manage(*arguments), "fairway.R106")
    dropped = re.findall(r"or drop (--\w+)", line)[0]
    position = arguments.index(dropped)
    await serves(await site.manage(*arguments[:position], *arguments[position + 2 :]))


@case("runworker without an app of its own")
async def test_runworker(site: Site) -> None:
    """
    One app is enough for workers, and each step that is missing is said.
    """
    (site.folder / "site_" / "routes.py").write_text(WORKER % "None")
    line = await refused(await site.manage("runworker", "thumbnails"), "fairway.R704")
    written = re.findall(r"write (ProtocolTypeRouter\(.+\)) into", line)[0]
    code = written.replace("...", '"thumbnails": Thumbnails.as_asgi()')
    (site.folder / "site_" / "asgi.py").write_text(WORKER % code)
    setting = re.findall(r"name it in (\w+)", line)[0]
    site.configure(f'{setting} = "site_.asgi.application"')
    worker = await site.manage("runworker", "thumbnails")
    await worker.expect("Quit the worker")
    send = (
        "import fairway; from asgiref.sync import async_to_sync;"
        "send = async_to_sync(fairway.get_channel_layer().send);"
        "send('thumbnails', {'type': 'make', 'number': 7})"
    )
    assert (await (await site.manage("shell", "-c", send)).ended())[0] == 0
    await worker.expect("made 7")


@case("whitenoise.runserver_nostatic above")
@pytest.mark.parametrize(
    "apps",
    [
        ("whitenoise.runserver_nostatic", "fairway", "django.contrib.staticfiles"),
        ("fairway", "whitenoise.runserver_nostatic", "django.contrib.staticfiles"),
        ("whitenoise.runserver_nostatic", "django.contrib.staticfiles", "fairway"),
        ("django.contrib.staticfiles", "fairway", "whitenoise.runserver_nostatic"),
        ("django.contrib.staticfiles", "fairway"),
    ],
    ids=["above", "below", "first", "last", "without"],
)
async def test_whitenoise(site: Site, apps: tuple[str, ...]) -> None:
    """
    In any order of apps runserver is ours, static files are served, and sockets talk.
    """
    others = ["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes"]
    others += ["django.contrib.sessions", "django.contrib.messages"]
    site.configure(f"INSTALLED_APPS = {[*others, *apps]}")
    if "whitenoise.runserver_nostatic" in apps:
        middleware = '"whitenoise.middleware.WhiteNoiseMiddleware"'
        site.configure(f"MIDDLEWARE.insert(1, {middleware})\nWHITENOISE_USE_FINDERS = True")
    command = await site.manage("runserver", "0", "--noreload")
    output = await serves(command)
    assert re.search(SOCKETS, output)
    address = re.findall(r"Serving on http://([^/]+)/", output)[0]
    assert (await get(address, "/static/admin/css/base.css"))[0] == 200


async def test_broken_project(site: Site) -> None:
    """
    A project that cannot be loaded is one line with the place, whichever command serves it.
    """
    site.urls.write_text(f"import requestz\n{site.urls.read_text()}")
    alone = await refused(
        await site.fairway("site_.asgi:application", "--port", "0"), "fairway.R110"
    )
    managed = await refused(await site.manage("serve", "--port", "0"), "fairway.R110")
    assert managed.removeprefix("CommandError: ") == alone.removeprefix("fairway: ")
    place = re.findall(r"loaded: (\S+), line (\d+): ModuleNotFoundError", alone)
    assert place == [(str(site.urls), "1")]


async def test_proxy_drops_the_upgrade(site: Site) -> None:
    """
    A plain request for a route in a project's own router is told what a proxy has to pass on.
    """
    (site.folder / "site_" / "asgi.py").write_text(ROUTER)
    command = await site.manage("serve", "site_.asgi:application", "--port", "0")
    found = await command.expect(r"Serving on http://([^/\s]+)/\n")
    assert "1 WebSocket route, served by Fairway" in found.string
    status, body = await get(found[1], "/own/lobby/")
    assert status == 426
    assert '"Upgrade: websocket"' in body
    assert await Talk("/own/lobby/")(found[1]) == HELLO
    assert (await get(found[1], "/own/"))[0] == 404
    lines = await stop(command)
    assert ids(lines) == {"fairway.R202"}
    assert len(lines) <= 3


@pytest.mark.parametrize(
    ("arguments", "fault", "hint"),
    [
        (["serve", "--prot", "0"], "fairway.R102", "did you mean --port?"),
        (["serve", "--port", "x"], "fairway.R102", "invalid int value"),
        (["serve", "--port", "70000"], "fairway.R101", "between 0 and 65535"),
        (["serve", "--port", "0", "--host", "203.0.113.1"], "fairway.R105", "use 127.0.0.1, or"),
        (["serve", "--port", "0", "--certfile", "no.pem"], "fairway.R107", "no such file"),
        (["runserver", "203.0.113.1:0", "--noreload"], "fairway.R105", "203.0.113.1"),
    ],
    ids=["flag", "type", "bounds", "host", "certificate", "runserver"],
)
async def test_wrong_flags(site: Site, arguments: list[str], fault: str, hint: str) -> None:
    """
    A flag that cannot be is refused in one line.
    """
    assert hint in await refused(await site.manage(*arguments), fault)


async def test_wrong_layer(site: Site) -> None:
    """
    A channel layer that cannot be imported ends the start.
    """
    site.configure('CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.Layer"}}')
    line = await refused(await site.manage("serve", "--port", "0"), "fairway.R112")
    assert "Cannot import BACKEND 'channels_redis.core.Layer' specified for default" in line
    site.configure(
        'CHANNEL_LAYERS = {"default": {"BACKEND": "fairway.layers.RedisChannelLayer", '
        '"CONFIG": {"hosts": "redis://:secret@redis"}}}'
    )
    line = await refused(await site.manage("serve", "--port", "0"), "fairway.R112")
    assert "hosts must be a list of Redis servers" in line
    assert "secret" not in line


def test_records() -> None:
    """
    A traceback with its hint is one line of the log, and a banner none.
    """
    text: Any = (
        "Performing system checks...\n\n2026-01-01 00:00:00,000 ERROR fairway.server: boom\n"
        "Traceback (most recent call last):\n  File\nKeyError: 1\nHint: look\n"
        "2026-01-01 00:00:00,000 WARNING fairway: other [fairway.R201]\n"
    )
    lines = log_lines(text)
    assert [line.split()[0] for line in lines] == ["2026-01-01", "Traceback", "2026-01-01"]
    assert ids(lines) == {"fairway.R201"}
