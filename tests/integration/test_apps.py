"""
Fairway as a Django application, in processes of its own.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from django.apps import apps

from fairway.apps import FairwayConfig

PROJECT = """
import django
from django.conf import settings
from django.core.management import get_commands, load_command_class
from fairway.apps import runserver_below

settings.configure(INSTALLED_APPS={apps!r}, STATIC_URL="/static/", SECRET_KEY="x")
django.setup()
print(get_commands()["runserver"], runserver_below())
"""


def run(*installed: str) -> str:
    """
    Set a project with these applications up, and say whose runserver runs and which is below.
    """
    result = subprocess.run(
        [sys.executable, "-c", PROJECT.format(apps=list(installed))],
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.strip()


@pytest.mark.parametrize(
    "installed",
    [("fairway", "django.contrib.staticfiles"), ("django.contrib.staticfiles", "fairway")],
)
def test_our_runserver_wins_at_any_position(installed: tuple[str, ...]) -> None:
    """Neither staticfiles nor the order of INSTALLED_APPS decides; its flags are built upon."""
    assert run(*installed) == "fairway django.contrib.staticfiles"


def test_builds_on_djangos_runserver_without_others() -> None:
    """Where no other application has one, Django's own is below ours."""
    assert run("fairway") == "fairway django.core"


def test_is_installed_by_its_name() -> None:
    """`"fairway"` in INSTALLED_APPS is enough."""
    assert isinstance(apps.get_app_config("fairway"), FairwayConfig)
