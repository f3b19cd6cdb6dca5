"""
``manage.py runserver``: the same server as in production, with Django's reloader.

Builds on the ``runserver`` that would run without Fairway (Django's own, that of
``staticfiles`` or of a third party), so that its flags stay.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django import get_version
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils import autoreload

from fairway.apps import runserver_below
from fairway.cli import build_server, describe_broken
from fairway.conf import resolve_server_options
from fairway.exceptions import ConfigurationError
from fairway.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from fairway.server import Server

    class Below(BaseCommand):
        """
        What a ``runserver`` of any application has.
        """

        addr: str
        default_port: str
        port: str
        use_ipv6: bool

        def check_migrations(self) -> None:
            """
            Print which migrations are not applied.
            """

else:
    Below = import_module(f"{runserver_below()}.management.commands.runserver").Command

__all__ = ["Command"]

BROKEN = frozenset({Fault.APPLICATION_BROKEN, Fault.PROJECT_BROKEN})
"""
What is repaired in a file of the project that could not be imported.
"""

MISWRITTEN = frozenset({Fault.AS_ASGI_MISSING, Fault.LAYER_INVALID, Fault.URLCONF_INVALID})
"""
What is repaired in files that were imported, and so are watched.
"""

RELOAD_SECONDS = 2.0
"""
Time for sockets to be told before the process is replaced.
"""


class Command(Below):
    """
    Serves the project for development.
    """

    help = "Serve this project for development: pages, WebSockets, static files, reload."

    def handle(self, *args: Any, **options: Any) -> None:
        """
        Take the port of the variable ``PORT`` where the command names none.
        """
        with suppress(ConfigurationError):  # The checks say it, with its id.
            resolved, sources = resolve_server_options()
            if sources["port"] != "default":
                self.default_port = str(resolved.port)
        super().handle(*args, **options)

    def inner_run(self, *args: Any, **options: Any) -> None:
        """
        Check the project and serve it; runs once per reload, often in a thread.
        """
        autoreload.raise_last_exception()
        if not options.get("skip_checks"):
            self.stdout.write("Performing system checks...\n\n")
            self.check(display_num_errors=True)
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()
        try:
            server = self.build_server(options)
            _stop_before_exit(server)
            server.run()
        except ConfigurationError as error:
            line = f"fairway: {error} [{error.fault}]"
            if options.get("use_reloader") and error.fault in BROKEN and error.__cause__:
                # As with a broken urls.py: only what is raised, the reloader watches for repair.
                error.__cause__.add_note(line)
                raise error.__cause__ from None
            self.stderr.write(line)
            if options.get("use_reloader") and error.fault in MISWRITTEN:
                return
            # In the reloader's thread an exception or sys.exit() would end nothing.
            sys.stdout.flush()
            os._exit(2)

    def check(self, *args: Any, **options: Any) -> None:
        """
        Run the system checks, which load the project.

        Raises:
            CommandError: One found an error.
        """
        try:
            super().check(*args, **options)
        except CommandError:
            raise
        except Exception as error:
            # With its traceback, as Django's own has it: the reloader waits for the repair.
            error.add_note(f"fairway: {describe_broken(error)} [{Fault.PROJECT_BROKEN}]")
            raise

    def build_server(self, options: dict[str, Any]) -> Server:
        """
        Put the server together from what Django's own flags say.
        """
        flags = {
            "host": self.addr.strip("[]"),
            "port": int(self.port),
            "workers": 1,
            "access_log": True,
            "access_logger": "django.server",
            "drain": RELOAD_SECONDS / 2,
        }
        static = None
        if options.get("insecure_serving"):
            static = True
        elif not options.get("use_static_handler", True):
            static = False
        chosen, _ = resolve_server_options(flags)
        _, sources = resolve_server_options()
        # What this command decides by itself, or prints as its address, is no news; the variable
        # PORT may be.
        mine = {name for name in flags if name != "port" or options.get("addrport")}
        sources |= dict.fromkeys(mine, "default")
        return build_server(
            (chosen, sources), self.stdout.write, static=static, ready=self.say_ready
        )

    def say_ready(self, address: str) -> None:
        """
        Print what Django's own command prints.
        """
        key = "CTRL-BREAK" if sys.platform == "win32" else "CONTROL-C"
        self.stdout.write(
            f"Django version {get_version()}, using settings {settings.SETTINGS_MODULE!r}\n"
            f"Quit the server with {key}.\n"
        )


def _stop_before_exit(server: Server) -> None:
    """
    Have sockets closed with 1012 before a reload or the end replaces the process.

    The reloader calls ``trigger_reload`` through its module, so that it can be wrapped.
    """
    trigger: Callable[[str], None] = autoreload.trigger_reload

    def stop() -> None:
        server.stop()
        if server.started.is_set():
            server.stopped.wait(RELOAD_SECONDS)

    def stop_and_trigger(filename: str) -> None:
        stop()
        trigger(filename)

    autoreload.trigger_reload = stop_and_trigger
    atexit.register(stop)
