"""
``manage.py runworker``: a process that reads named channels and runs consumers for them.

Here is what may be wrong before a worker starts, each with its fix; what a worker does is
in ``fairway.worker``.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from fairway.asgi import import_application
from fairway.cli import add_flags, given_flags, refuse_wrong_layer
from fairway.conf import resolve_server_options
from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.layers.layer import ChannelLayer
from fairway.layers.registry import DEFAULT_CHANNEL_LAYER, channel_layers
from fairway.logs import show_warnings
from fairway.options import ServerOptions
from fairway.routing import ChannelNameRouter, ProtocolTypeRouter
from fairway.worker import Worker

__all__ = ["Command"]

FLAGS = {"application_close_timeout", "drain", "loop", "threads"}
"""
Of the server's options, those that mean something without a server.
"""


class Command(BaseCommand):
    """
    Runs a worker until a signal ends it.

    Attributes:
        worker_class: Made with ``application``, ``channels`` and ``channel_layer``, then ``run()``.
    """

    help = "Read named channels and run the consumers that ChannelNameRouter has for them."
    worker_class: Any = Worker

    def add_arguments(self, parser: CommandParser) -> None:
        """
        Add the channels, the layer, and those flags of the server that apply.
        """
        # All flags are in the help; a mistake is to be seen at a glance.
        parser.usage = "%(prog)s [options] channel [channel ...]"
        parser.add_argument("channels", nargs="*", help="names of the channels to read")
        parser.add_argument(
            "--layer",
            default=DEFAULT_CHANNEL_LAYER,
            metavar="ALIAS",
            help="Channel layer to read, as in CHANNEL_LAYERS. Default: default.",
        )
        add_flags(parser, [one.name for one in fields(ServerOptions) if one.name not in FLAGS])

    def execute(self, *args: Any, **options: Any) -> Any:
        """
        Have a wrong layer be the one thing that is said, before the system checks.
        """
        refuse_wrong_layer(options["layer"])
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        """
        Find what is to be read and what runs there, and read.

        Raises:
            CommandError: Nothing could ever be handled like this.
        """
        show_warnings()
        try:
            server_options, _ = resolve_server_options(given_flags(options))
            application = _application()
        except ConfigurationError as error:
            raise CommandError(f"{error} [{error.fault}]", returncode=2) from error
        router = _router_in(application)
        channels: list[str] = options["channels"]
        if not channels:
            _refuse(
                Fault.WORKER_WITHOUT_CHANNELS,
                f"name the channels to read: manage.py runworker {_choices(router)}",
            )
        layer = _layer(options["layer"])
        _require_channels(channels, layer, router)
        if options["verbosity"] > 1:
            logging.getLogger("fairway").setLevel(logging.DEBUG)
        worker = self.worker_class(application=application, channels=channels, channel_layer=layer)
        worker.options = server_options
        if options["verbosity"] > 0:
            self._say(options["layer"], layer)
        # What checks and migrations opened is this thread's, which uses none from here on.
        connections.close_all()
        try:
            worker.run()
        except ConfigurationError as error:
            raise CommandError(f"{error} [{error.fault}]", returncode=2) from error

    def _say(self, alias: str, layer: Any) -> None:
        """
        Print what the worker reads from.
        """
        described = (
            layer.broker.describe() if isinstance(layer, ChannelLayer) else type(layer).__qualname__
        )
        self.stdout.write(f"Channel layer {alias!r}: {described}\nQuit the worker with CONTROL-C.")
        self.stdout.flush()


def _application() -> Any:
    """
    Import what ``ASGI_APPLICATION`` names.

    Raises:
        CommandError: The setting is missing.
        ConfigurationError: It leads to nothing.
    """
    spec: str | None = getattr(settings, "ASGI_APPLICATION", None)
    if spec is None:
        _refuse(
            Fault.WORKER_WITHOUT_ROUTE,
            "ASGI_APPLICATION is not set, so no consumer has a channel: write "
            'ProtocolTypeRouter({"channel": ChannelNameRouter({...})}) into asgi.py and name it '
            "in ASGI_APPLICATION",
        )
    return import_application(spec, "ASGI_APPLICATION")


def _layer(alias: str) -> Any:
    """
    Give the channel layer of an alias, if other processes can send to it.

    Raises:
        CommandError: There is none, or they cannot.
    """
    if alias not in channel_layers:
        known = ", ".join(map(repr, sorted(channel_layers.configs)))
        _refuse(
            Fault.WORKER_LAYER_UNKNOWN,
            f"--layer {alias}: CHANNEL_LAYERS has no {alias!r}"
            f"{_nearest(alias, channel_layers.configs)} (there is {known})",
        )
    layer = channel_layers[alias]
    if isinstance(layer, ChannelLayer) and layer.broker.alone:
        _refuse(
            Fault.WORKER_LAYER_ALONE,
            f"the channel layer {alias!r} ({type(layer).__name__}) lives in one process, so "
            f"nothing would ever reach this worker: take {alias!r} out of CHANNEL_LAYERS for the "
            "layer that joins the processes of this machine, or name one with a broker",
        )
    return layer


def _require_channels(channels: list[str], layer: Any, router: ChannelNameRouter | None) -> None:
    """
    Raise unless every channel can be read and has a consumer, as far as one can tell.

    Raises:
        CommandError: With the nearest name that has one.
    """
    for channel in channels:
        try:
            layer.require_valid_channel_name(channel)
        except (AttributeError, NotImplementedError):
            pass  # A layer of somebody else's, which will say so itself.
        except TypeError as error:
            _refuse(Fault.WORKER_WITHOUT_CHANNELS, f"{channel!r} is no channel's name: {error}")
        if "!" in channel:
            _refuse(
                Fault.WORKER_WITHOUT_CHANNELS,
                f"{channel!r} is the channel of one consumer (it has a '!'), which that one reads: "
                "send to a name of your own",
            )
        if router is not None and channel not in router.application_mapping:
            _refuse(
                Fault.WORKER_WITHOUT_ROUTE,
                f"ChannelNameRouter has no {channel!r}"
                f"{_nearest(channel, router.application_mapping)} (there is {_choices(router)})",
            )


def _router_in(application: Any) -> ChannelNameRouter | None:
    """
    Find what gives channels their applications; None where that cannot be seen from outside.

    Raises:
        CommandError: Channels lead nowhere.
    """
    spec = getattr(settings, "ASGI_APPLICATION", None)
    if isinstance(application, ProtocolTypeRouter):
        application = application.application_mapping.get("channel")
        if application is None:
            _refuse(
                Fault.WORKER_WITHOUT_ROUTE,
                f"{spec} has no 'channel': add "
                '"channel": ChannelNameRouter({"name": Consumer.as_asgi()}) to its '
                "ProtocolTypeRouter",
            )
    elif type(application).__module__.partition(".")[0] == "django":
        _refuse(
            Fault.WORKER_WITHOUT_ROUTE,
            f"{spec} is Django's own handler, which knows no channels: make it "
            'ProtocolTypeRouter({"channel": ChannelNameRouter({...})}); pages go on as before',
        )
    while application is not None and not isinstance(application, ChannelNameRouter):
        application = getattr(application, "inner", getattr(application, "application", None))
    return application


def _choices(router: ChannelNameRouter | None) -> str:
    """
    Name the channels that have a consumer.
    """
    return " ".join(sorted(router.application_mapping)) if router else "NAME"


def _nearest(wrong: str, names: Any) -> str:
    """
    Ask whether a similar name was meant; an empty text if there is none.
    """
    close = get_close_matches(wrong, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _refuse(fault: Fault, text: str) -> NoReturn:
    """
    End the command with one line.

    Raises:
        CommandError: Always.
    """
    raise CommandError(f"{text} [{fault}]", returncode=2)
