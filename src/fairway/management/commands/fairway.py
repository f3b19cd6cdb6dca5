"""
``manage.py fairway <subcommand>``: what there is to do besides serving.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from fairway.management.subcommands import add_subcommands, run

__all__ = ["Command"]


class Command(BaseCommand):
    """
    Runs one of ``management.subcommands``.
    """

    help = "Use this project's channel layer from a terminal."
    # A message from cron waits for no URLconf; ``check`` and ``serve`` look at the settings.
    requires_system_checks: Any = ()  # As wide as BaseCommand has it.

    def add_arguments(self, parser: CommandParser) -> None:
        """
        Add the subcommands with their arguments.
        """
        for subcommand in add_subcommands(parser):
            _add_common_options(subcommand)

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        """
        Run the one that was named.
        """
        run(self.stdout.write, subcommand=subcommand, **options)


def _add_common_options(parser: ArgumentParser) -> None:
    """
    Let what every command of Django takes stand behind a subcommand too, where people write it.
    """
    for flag in ("--settings", "--pythonpath"):
        parser.add_argument(flag, default=SUPPRESS, help=SUPPRESS)
    for flag in ("--traceback", "--no-color", "--force-color"):
        parser.add_argument(flag, action="store_true", default=SUPPRESS, help=SUPPRESS)
    parser.add_argument(
        "-v", "--verbosity", type=int, choices=range(4), default=SUPPRESS, help=SUPPRESS
    )
