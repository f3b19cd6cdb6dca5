"""
``manage.py serve``: the project in production, pages and sockets in one server.
"""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from fairway.cli import add_flags, build_server, given_flags, serve
from fairway.exceptions import ConfigurationError

__all__ = ["Command"]


class Command(BaseCommand):
    """
    Serves the project until a signal ends it.
    """

    help = "Serve pages, WebSockets and everything else of this project."

    def add_arguments(self, parser: CommandParser) -> None:
        """
        Add the application and one flag per server option.
        """
        parser.add_argument(
            "application", nargs="?", help="module:name; default: ASGI_APPLICATION, or everything"
        )
        add_flags(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """
        Serve; exits with the server's status.
        """
        try:
            server = build_server(
                given_flags(options), self.stdout.write, application=options["application"]
            )
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=2) from None
        sys.exit(serve(server))
