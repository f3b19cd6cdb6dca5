"""
``manage.py fairway <subcommand>``: what there is to do besides serving.
"""

from __future__ import annotations

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
        add_subcommands(parser)

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        """
        Run the one that was named.
        """
        run(self.stdout.write, subcommand=subcommand, **options)
