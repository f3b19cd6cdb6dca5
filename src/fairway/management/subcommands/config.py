"""
``config``: every option with the value that holds, and where that was written.

What a flag of ``serve`` changes is not seen here; the lines of its start say that.
"""

from __future__ import annotations

import argparse
import json as json_format
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from django.core.management.base import CommandError

from fairway import conf
from fairway.exceptions import ConfigurationError, InvalidChannelLayerError
from fairway.faults import Fault
from fairway.management.subcommands.tables import table
from fairway.options import AREAS

__all__ = ["HELP", "add_arguments", "run"]

HELP = "Show every option: its value, and the setting or variable it comes from."

STARS = "********"
SECRET = re.compile("auth|credential|key|pass|secret|signature|token", re.IGNORECASE)
# To the last @, since a password that should be quoted and is not is one, too; without a colon
# it may be meant as one.
PASSWORD_IN_URL = re.compile(r"(?<=://)([^:/@\s]*:)?\S+(?=@)")
SECRET_IN_QUERY = re.compile(
    rf"(?<=[?&])([^=&\s]*(?:{SECRET.pattern})[^=&\s]*=)[^&\s]+", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Layer:
    """
    A channel layer as the settings describe it, without its secrets.
    """

    alias: str
    backend: str
    config: Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add what may be left out, and the form.
    """
    parser.add_argument(
        "--changed", action="store_true", help="Leave out what has its default value."
    )
    parser.add_argument("--json", action="store_true", help="Print JSON.")


def run(say: Callable[[str], Any], *, changed: bool, json: bool, **_: Any) -> None:
    """
    Show the options.

    Raises:
        CommandError: Something is wrong with them; said behind the table, where there is one.
    """
    try:
        readings = [each for area in AREAS for each in conf.readings(area)]
        unknown = [*conf.unknown_settings(), *conf.unknown_variables()]
        layers = list(_layers())
    except (ConfigurationError, InvalidChannelLayerError) as error:
        fault = getattr(error, "fault", Fault.LAYER_INVALID)
        raise CommandError(f"{error} [{fault}]") from error
    problems = [each.problem for each in readings if each.problem]
    problems += [_unknown(each) for each in unknown]
    shown = [each for each in readings if not changed or each.source != "default"]
    lines = _as_json if json else _as_text
    for line in lines(shown, layers, problems):
        say(line)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise CommandError(f"{count} in the options")


def _as_text(
    readings: list[conf.Reading], layers: list[Layer], problems: list[str]
) -> Iterator[str]:
    """
    Give the tables for people.
    """
    yield from table(
        ("OPTION", "VALUE", "SOURCE", "VARIABLES"),
        [(each.key, _shown(each), _source(each), ", ".join(each.variables)) for each in readings],
    )
    yield ""
    yield from table(
        ("LAYER", "BACKEND", "CONFIG"),
        [(each.alias, each.backend, str(each.config or "")) for each in layers],
    )
    yield from ["", *(f"! {each}" for each in problems)] if problems else []


def _as_json(
    readings: list[conf.Reading], layers: list[Layer], problems: list[str]
) -> Iterator[str]:
    """
    Give one JSON object.
    """
    content = {
        "options": [each._asdict() for each in readings],
        "layers": [asdict(each) for each in layers],
        "problems": problems,
    }
    yield json_format.dumps(content, indent=2, default=_name)


def _layers() -> Iterator[Layer]:
    """
    Describe the channel layers, with stars for what should stay secret.
    """
    from fairway.layers.registry import OTHER_NAMES, REDIS, REDIS_URL, channel_layers, takes_url

    for alias, described in channel_layers.configs.items():
        config = described.get("CONFIG") or {}
        backend = str(described.get("BACKEND", "(none)"))
        if OTHER_NAMES.get(backend, backend) == REDIS and takes_url(config):
            config = {**config, f"url ({REDIS_URL})": os.environ[REDIS_URL]}
        yield Layer(alias, backend, _without_secrets(config))


def _without_secrets(value: Any) -> Any:
    """
    Put stars in the place of passwords and keys, in URLs too.
    """
    if isinstance(value, dict):
        return {
            key: STARS if SECRET.search(str(key)) else _without_secrets(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return SECRET_IN_QUERY.sub(rf"\1{STARS}", PASSWORD_IN_URL.sub(rf"\1{STARS}", value))
    return value


def _shown(reading: conf.Reading) -> str:
    """
    Write a value with its unit.
    """
    value = reading.value
    if value is None or value in {"", ()}:
        return "-"
    text = ", ".join(value) if isinstance(value, tuple) else _name(value)
    return f"{text} {reading.unit}".rstrip()


def _source(reading: conf.Reading) -> str:
    """
    Say where a value was written.
    """
    return f"{reading.source}: {reading.where}" if reading.where else reading.source


def _name(value: Any) -> str:
    """
    Write a value, a function by its name.
    """
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def _unknown(unknown: conf.UnknownSetting) -> str:
    """
    Say that a key or variable means nothing.
    """
    is_variable = unknown.key.startswith("FAIRWAY_")
    subject = unknown.key if is_variable else f"FAIRWAY[{unknown.key!r}]"
    return f"{subject} means nothing" + (
        f"; did you mean {unknown.nearest}?" if unknown.nearest else ""
    )
