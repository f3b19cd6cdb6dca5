"""
What ``manage.py fairway ...`` and ``fairway ...`` can do besides serving: one module each.

A subcommand is a module with ``HELP``, ``add_arguments(parser)`` and
``run(say, **options)``, which imports what it needs when it runs. Adding one is a line in
``SUBCOMMANDS``. How they are started is known here and in ``commands/fairway.py`` alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import django
from django.core.management.base import CommandError

from fairway.logs import configure_logging
from fairway.management.subcommands import config, publish, routes

__all__ = ["EPILOG", "SUBCOMMANDS", "Subcommand", "add_subcommands", "main", "run"]


class Subcommand(NamedTuple):
    """
    What a module here offers.

    Attributes:
        help: One sentence for people.
        add_arguments: Adds what it takes to a parser.
        run: Does it, and says for people what was done; raises CommandError with an exit
            status if it could not be done.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[..., None]


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "config": Subcommand(config.HELP, config.add_arguments, config.run),
    "publish": Subcommand(publish.HELP, publish.add_arguments, publish.run),
    "routes": Subcommand(routes.HELP, routes.add_arguments, routes.run),
}

EPILOG = f"There is also: {', '.join(f'fairway {name}' for name in SUBCOMMANDS)}."
"""
How the help of ``fairway module:app`` ends.
"""


def add_subcommands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """
    Let a parser take one of the subcommands, with its arguments.

    Returns:
        The parsers of the subcommands.
    """
    choices = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")
    made = []
    for name, subcommand in SUBCOMMANDS.items():
        one = choices.add_parser(name, help=subcommand.help, description=subcommand.help)
        subcommand.add_arguments(one)
        made.append(one)
    return made


def run(say: Callable[[str], Any], *, subcommand: str, **options: Any) -> None:
    """
    Run the subcommand that a parser found.

    Raises:
        CommandError: It could not be done; carries the exit status.
    """
    SUBCOMMANDS[subcommand].run(say, **options)


def main(arguments: Sequence[str]) -> int:
    """
    Run ``fairway <subcommand> ...`` in the folder of a project, or of any application.

    Returns:
        The exit status: 1 if it could not be done, 2 if it was asked for wrongly.
    """
    parser = argparse.ArgumentParser(prog="fairway", allow_abbrev=False)
    add_subcommands(parser)
    options = vars(parser.parse_args(arguments))
    configure_logging()
    sys.path.insert(0, str(Path.cwd()))
    try:
        if os.environ.get("DJANGO_SETTINGS_MODULE"):
            django.setup()
        run(print, **options)
    except CommandError as error:
        print(f"fairway: {error}", file=sys.stderr)  # noqa: T201 - a command's own output
        return error.returncode
    return 0
