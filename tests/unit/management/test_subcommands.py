"""
`manage.py fairway publish` and `fairway publish`, in one process.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from fairway.cli import main
from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers import InMemoryChannelLayer, channel_layers
from fairway.layers.base import BaseChannelLayer
from fairway.layers.codec import Kind
from fairway.management import subcommands
from fairway.management.commands.fairway import Command
from tests.unit.layers.fakes import FakeInbox, FakeOutbox, LoopThread, until


class OtherLayer(BaseChannelLayer):
    """
    A layer of somebody else's.
    """


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    """
    The default layer.
    """
    layer = InMemoryChannelLayer()
    before = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", before)


@pytest.fixture
def outbox(layer: InMemoryChannelLayer) -> Iterator[FakeOutbox]:
    """
    What a socket of the group `lobby` gets.
    """
    outbox = FakeOutbox()

    async def join() -> None:
        channel = await layer.new_channel()
        layer.attach(channel, inbox=FakeInbox(), outbox=outbox)
        await layer.group_add("lobby", channel)

    with LoopThread() as server:
        asyncio.run_coroutine_threadsafe(join(), server.loop).result(5)
        yield outbox


def manage(*arguments: str) -> tuple[int, str]:
    """
    Run `manage.py fairway` and give its exit status with what it says went wrong.
    """
    try:
        call_command("fairway", *arguments)
    except CommandError as error:
        return error.returncode, str(error)
    return 0, ""


@pytest.fixture
def _prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process in which everything is set up already, and stays as it is.
    """
    monkeypatch.setattr(subcommands, "configure_logging", lambda: None)
    monkeypatch.setattr(django, "setup", lambda: None)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(params=["manage.py fairway", "fairway"])
def run(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], _prepared: None) -> Any:
    """
    Both ways to start a subcommand: they give exit status, output and error.
    """

    def run(*arguments: str) -> tuple[int, str, str]:
        if request.param == "fairway":
            status = main(arguments)
            said = capsys.readouterr()
            return status, said.out, said.err.removeprefix("fairway: ").rstrip()
        status, error = manage(*arguments)
        return status, capsys.readouterr().out, error

    return run


@pytest.mark.parametrize("message", ['{"text":  "h\u00e9llo"}', "[1]", "42", "h\u00e9llo {", "NaN"])
async def test_a_message_arrives_as_it_was_written(
    run: Any, outbox: FakeOutbox, message: str
) -> None:
    """
    JSON to the letter and text as it is, and the number of processes is said.
    """
    assert await asyncio.to_thread(run, "publish", "lobby", message) == (
        0,
        "Reached 1 process.\n",
        "",
    )
    await until(lambda: outbox.texts)
    assert outbox.texts == [message]


def test_json_is_marked_as_such(layer: InMemoryChannelLayer, monkeypatch: Any) -> None:
    """
    For consumers that encode it in their own way; what is no object or array is text.
    """
    kinds = []

    async def broadcast(group: str, payload: bytes, *, kind: Kind) -> None:
        kinds.append(kind)

    monkeypatch.setattr(layer, "broadcast", broadcast)
    for message in ("{}", "[]", "{", "5"):
        manage("publish", "lobby", message)
    assert kinds == [Kind.JSON, Kind.JSON, Kind.TEXT, Kind.TEXT]


def test_several_processes_are_said_so(
    run: Any, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    As the broker counts them.
    """

    async def audience(group: str) -> int:
        return 3

    monkeypatch.setattr(layer, "audience", audience)
    assert run("publish", "lobby", "x") == (0, "Reached 3 processes.\n", "")


def test_reaching_nobody_is_a_failure(run: Any, layer: InMemoryChannelLayer) -> None:
    """
    A script notices, and a person reads where was looked.
    """
    why = "group 'lobby' has no members here (memory, this process alone)"
    said = f"Reached no process: {why} [fairway.R711]"
    assert run("publish", "lobby", "x") == (1, "", said)


def test_outside_a_project_the_failure_says_so(
    run: Any, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Else one looks for the server that runs with the project's settings.
    """
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    assert "DJANGO_SETTINGS_MODULE is not set" in run("publish", "lobby", "x")[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["", "x"], "a group name must be 1 to 1024 bytes long"),
        (["lobby", "\ud800"], "text that UTF-8 cannot say"),
        (["lobby", "x", "--layer", "none"], "There is no channel layer 'none', only default"),
        (["lobby", "x", "--layer", "other"], "needs a channel layer of Fairway's"),
    ],
)
def test_what_was_asked_for_wrongly_is_said(run: Any, arguments: list[str], said: str) -> None:
    """
    With status 2, as everywhere.
    """
    other = {"default": {}, "other": {"BACKEND": f"{__name__}.OtherLayer"}}
    with override_settings(CHANNEL_LAYERS=other if "other" in arguments else {}):
        status, output, error = run("publish", *arguments)
    assert (status, output) == (2, "")
    assert said in error


def test_a_broker_that_is_away_is_a_failure(
    run: Any, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    In one line, with status 1.
    """

    async def audience(group: str) -> int:
        raise ChannelLayerUnavailable("it is away")

    monkeypatch.setattr(layer, "audience", audience)
    assert run("publish", "lobby", "x") == (1, "", "Not published: it is away [fairway.R401]")


def test_help_names_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    """
    That of `fairway module:app` too.
    """
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "fairway publish" in capsys.readouterr().out


def test_options_of_every_command_may_stand_behind() -> None:
    """What Django's commands take may be written before or after the subcommand."""
    parser = Command().create_parser("manage.py", "fairway")
    behind = vars(parser.parse_args(["config", "--settings", "prod", "-v", "2", "--no-color"]))
    assert behind == vars(parser.parse_args(["--settings=prod", "-v2", "--no-color", "config"]))
    assert behind["settings"] == "prod"
