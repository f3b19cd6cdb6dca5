"""
``manage.py serve``: the project in production, pages and sockets in one server.
"""

from __future__ import annotations

import os
import sys
from io import StringIO
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from fairway.cli import add_flags, describe_broken, given_flags, refuse_wrong_layer, serve
from fairway.faults import Fault
from fairway.layers.registry import DEFAULT_CHANNEL_LAYER
from fairway.server.place import VARIABLE

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
        # All flags are in the help; a mistake is to be seen at a glance.
        parser.usage = "%(prog)s [options] [module:name]"
        parser.add_argument(
            "application", nargs="?", help="module:name; default: ASGI_APPLICATION, or everything"
        )
        add_flags(parser)

    def check(self, *args: Any, **options: Any) -> None:
        """
        Run the system checks, which load the project.

        Warnings are told by the command, and not again by each worker that it starts.

        Raises:
            CommandError: One found an error, or the project cannot be loaded; ``--traceback``
                shows the whole way there. Or there is no layer, told here and not by a warning
                and an error.
        """
        refuse_wrong_layer(DEFAULT_CHANNEL_LAYER)
        shown = self.stderr
        if VARIABLE in os.environ:
            self.stderr = OutputWrapper(StringIO())
        try:
            super().check(*args, **options)
        except CommandError:
            raise
        except Exception as error:
            words = f"{describe_broken(error)} [{Fault.PROJECT_BROKEN}]"
            raise CommandError(words, returncode=2) from error
        finally:
            self.stderr = shown

    def handle(self, *args: Any, **options: Any) -> None:
        """
        Serve; exits with the server's status.
        """
        sys.exit(serve(given_flags(options), application=options["application"]))
