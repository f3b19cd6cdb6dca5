"""
``publish GROUP MESSAGE``: send to a group from a terminal, a script or cron.

Says how many processes were reached, so that it also shows whether they find each other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from fairway.exceptions import ChannelLayerError, ConfigurationError, InvalidChannelLayerError
from fairway.faults import Fault

if TYPE_CHECKING:
    from fairway.layers.codec import Kind
    from fairway.layers.layer import ChannelLayer

__all__ = ["HELP", "add_arguments", "run"]

HELP = "Send a message to every socket of a group, and say how many processes it reached."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add the group and the message.
    """
    parser.add_argument("group", help="the group's name")
    parser.add_argument("message", help="a JSON object or array, or any text")
    parser.add_argument(
        "--layer", default="default", help="Alias of the channel layer. Default: default."
    )


def run(say: Callable[[str], Any], *, group: str, message: str, layer: str, **_: Any) -> None:
    """
    Publish, and say how many processes have members of the group.

    Raises:
        CommandError: The layer or the message is wrong, or nobody was reached.
    """
    from fairway.broadcasting import own_layer

    try:
        target = own_layer(layer)
        kind, payload = _read(message)
        reached = asyncio.run(_publish(target, group, kind, payload))
    except (ConfigurationError, InvalidChannelLayerError, TypeError) as error:
        fault = getattr(error, "fault", Fault.UNKNOWN_FLAG)
        raise CommandError(f"{error} [{fault}]", returncode=2) from error
    except ChannelLayerError as error:
        raise CommandError(f"Not published: {error} [{Fault.MESSAGE_NOT_SENT}]") from error
    if not reached:
        raise CommandError(
            f"Reached no process: {_why(target, group)} [{Fault.PUBLISHED_TO_NOBODY}]"
        )
    say(f"Reached {reached} process{'es' if reached > 1 else ''}.")


def _read(message: str) -> tuple[Kind, bytes]:
    """
    Give a message as it goes to the sockets: JSON to the letter, anything else as text.

    Raises:
        TypeError: It is not UTF-8.
    """
    from fairway.broadcasting import encode
    from fairway.layers.codec import Kind

    kind, payload = encode(message)
    try:
        # A bare number or word is the same on the wire, whichever it is.
        if isinstance(json.loads(message), dict | list):
            kind = Kind.JSON
    except ValueError:
        pass
    return kind, payload


async def _publish(layer: ChannelLayer, group: str, kind: Kind, payload: bytes) -> int:
    """
    Publish and give the number of processes that were there for it.
    """
    layer.require_sendable(group, payload)
    reached = await layer.audience(group)
    await layer.broadcast(group, payload, kind=kind)
    return reached


def _why(layer: ChannelLayer, group: str) -> str:
    """
    Say where was looked, which tells a group without members from a server not found.
    """
    why = f"group {group!r} has no members here ({layer.broker.describe()})"
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        why += "; DJANGO_SETTINGS_MODULE is not set, so this is not the project it may name"
    return why
