"""
``runworker`` before it reads: what it refuses, in which words, and what it makes a worker of.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from django.core.asgi import get_asgi_application
from django.core.management import CommandError, call_command
from pytest_django import Settings

from fairway import AsyncConsumer
from fairway.layers import IPCChannelLayer
from fairway.layers.registry import channel_layers
from fairway.management.commands.runworker import Command
from fairway.routing import ChannelNameRouter, ProtocolTypeRouter

HERE = __name__


class Consumer(AsyncConsumer):
    """
    Handles nothing.
    """


class Wrapper:
    """
    Middleware as projects write it.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """
        Pass everything on.
        """
        await self.inner(scope, receive, send)


router = ChannelNameRouter({"mail": Consumer.as_asgi(), "thumbnails": Consumer.as_asgi()})
application = ProtocolTypeRouter({"channel": Wrapper(router)})
without = ProtocolTypeRouter({})


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    """
    Stand for an application that cannot be seen into.
    """


class Noting:
    """
    A worker that only notes how it was made.
    """

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **arguments: Any) -> None:
        self.made.append({**arguments, "worker": self})

    def run(self) -> None:
        """
        Return at once.
        """


class NotingCommand(Command):
    """
    A project's own command.
    """

    worker_class = Noting


@pytest.fixture(autouse=True)
def project(settings: Settings) -> Any:
    """
    A project with consumers on two channels, and a layer that others can reach.
    """
    settings.ASGI_APPLICATION = f"{HERE}.application"
    before = channel_layers.set("default", IPCChannelLayer(namespace="runworker"))
    Noting.made.clear()
    yield
    channel_layers.set("default", before)


def refusal(*arguments: str) -> str:
    """
    What the command says to these arguments.
    """
    with pytest.raises(CommandError) as caught:
        call_command("runworker", *arguments)
    assert caught.value.returncode == 2
    return str(caught.value)


def test_worker_class_gets_what_channels_gives_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A command with a worker class of its own makes it as Channels does."""
    call_command(NotingCommand(), "mail", "thumbnails", drain=3.0)
    (made,) = Noting.made
    assert made["application"] is application
    assert made["channels"] == ["mail", "thumbnails"]
    assert made["channel_layer"] is channel_layers["default"]
    assert made["worker"].options.drain == 3.0
    assert "Channel layer 'default': ipc, namespace runworker" in capsys.readouterr().out
    call_command(NotingCommand(), "mail", verbosity=0)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "name the channels to read: manage.py runworker mail thumbnails [fairway.R701]"),
        (["b@d"], "'b@d' is no channel's name: "),
        (["a!b"], "'a!b' is the channel of one consumer"),
        (["mial"], "ChannelNameRouter has no 'mial'; did you mean 'mail'? (there is mail thumb"),
        (["mail", "--layer", "other"], "--layer other: CHANNEL_LAYERS has no 'other' (there is 'd"),
        (["mail", "--threads", "0"], "threads must be between 1 and 1000 threads, not 0 [fairway."),
    ],
)
def test_arguments(arguments: list[str], line: str) -> None:
    """What cannot be read is refused in one line, with what there is."""
    assert refusal(*arguments).startswith(line)


def test_layer_of_one_process() -> None:
    """A layer that nobody else can send to is refused."""
    channel_layers.set("default", None)
    assert refusal("mail").startswith(
        "the channel layer 'default' (InMemoryChannelLayer) lives in one process"
    )


def test_layer_described_wrongly(settings: Settings) -> None:
    """A layer that cannot be made is refused."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "nowhere.Layer"}}
    assert refusal("mail").endswith("[fairway.R112]")


def test_applications_without_channels(settings: Settings) -> None:
    """Projects whose application knows no channels are told what to write, and where."""
    settings.ASGI_APPLICATION = f"{HERE}.without"
    assert refusal("mail").startswith(f"{HERE}.without has no 'channel': add")
    settings.ASGI_APPLICATION = f"{HERE}.handler"
    assert refusal("mail").startswith(f"{HERE}.handler is Django's own handler")
    del settings.ASGI_APPLICATION
    assert refusal("mail").startswith("ASGI_APPLICATION is not set")
    settings.ASGI_APPLICATION = "nowhere.application"
    assert "no module 'nowhere'" in refusal("mail")


def test_application_that_cannot_be_seen_into(settings: Settings) -> None:
    """An application of another kind is trusted with any channel."""
    settings.ASGI_APPLICATION = f"{HERE}.opaque"
    call_command(NotingCommand(), "anything")
    assert [made["application"] for made in Noting.made] == [opaque]


def __getattr__(name: str) -> Any:  # Made when it is asked for, since settings have to be there.
    if name == "handler":
        return get_asgi_application()
    raise AttributeError(name)
