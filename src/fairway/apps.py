"""
Fairway as a Django application: what has to happen once, when Django is ready.

Only registering: nothing here opens a socket, a thread or a database.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.management import find_commands, get_commands

from fairway import checks
from fairway.logs import configure_logging

__all__ = ["FairwayConfig", "runserver_below"]


class FairwayConfig(AppConfig):
    """
    ``"fairway"`` in ``INSTALLED_APPS``, at any position.
    """

    name = "fairway"
    verbose_name: Any = "Fairway"  # As wide as AppConfig has it.

    def ready(self) -> None:
        """
        Register the checks, show the logs, hear of logins that end, put our ``runserver`` in front.
        """
        checks.register()
        configure_logging(getattr(settings, "LOGGING", None))
        import_module("fairway.revocation.watch").begin()
        # What the project sends from an atexit handler of its own leaves by this one's, which
        # therefore has to be there first.
        import_module("fairway.layers.owner")
        # The dictionary is Django's cache, made once per process; the order of
        # INSTALLED_APPS would else decide.
        commands = get_commands()
        commands["runserver"] = self.name
        # A project's own may build on ours; Channels' would read Channels' layers.
        if commands.get("runworker") == "channels":
            commands["runworker"] = self.name


def runserver_below() -> str:
    """
    Name the application whose ``runserver`` would run without Fairway.

    Ours builds on that one, so that what it adds is kept.
    """
    for config in apps.get_app_configs():
        directory = Path(config.path) / "management"
        if config.name != FairwayConfig.name and "runserver" in find_commands(str(directory)):
            return config.name
    return "django.core"
