"""
``manage.py runserver``: which port it takes, and what it says of its settings, and when it waits.
"""

from __future__ import annotations

import os
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.management.commands import runserver
from fairway.management.commands.runserver import Command


@pytest.mark.parametrize(
    ("arguments", "variables", "port"),
    [
        ((), {}, "8000"),
        ((), {"PORT": "8123"}, "8123"),
        ((), {"PORT": "8123", "FAIRWAY_PORT": "8124"}, "8124"),
        (("8125",), {"PORT": "8123"}, "8125"),
        (("127.0.0.1:8125",), {"PORT": "8123"}, "8125"),
        ((), {"PORT": "none"}, "8000"),
    ],
)
def test_port(
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    port: str,
) -> None:
    """
    The command's own wins over the variable PORT, which wins over 8000; a wrong one is for later.
    """
    seen = []

    def run(command: Command, **options: Any) -> None:
        seen.append((command.addr, command.port))

    monkeypatch.setattr(Command, "run", run)
    monkeypatch.delenv("PORT", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    call_command(Command(), *arguments, use_ipv6=False)
    assert seen == [("127.0.0.1", port)]


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        ((), {}, {}),
        (("0.0.0.0:8125",), {"PORT": "8123"}, {}),
        ((), {"PORT": "8123"}, {"port": "environment"}),
        (
            (),
            {"FAIRWAY_DRAIN": "9", "FAIRWAY_THREADS": "5"},
            {"threads": "environment"},
        ),
    ],
)
def test_settings_told(
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    told: dict[str, str],
) -> None:
    """
    The start tells what people changed, and nothing that the command decides by itself.
    """
    seen: list[dict[str, str]] = []

    def build(resolved: Any, *args: Any, **keywords: Any) -> None:
        seen.append(resolved[1])

    monkeypatch.setattr(runserver, "build_server", build)
    monkeypatch.setattr(Command, "run", lambda self, **options: self.build_server(options))
    monkeypatch.delenv("PORT", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    call_command(Command(), *arguments, use_ipv6=False)
    assert {name: source for name, source in seen[0].items() if source != "default"} == told


@pytest.mark.parametrize(
    ("fault", "reload", "outcome"),
    [
        (Fault.LAYER_INVALID, True, "waits"),
        (Fault.LAYER_INVALID, False, "ends with 2"),
        (Fault.APPLICATION_BROKEN, True, "raises"),
        (Fault.APPLICATION_BROKEN, False, "ends with 2"),
        (Fault.ADDRESS_IN_USE, True, "ends with 2"),
    ],
)
def test_waits_for_a_repair(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, outcome: str, *, reload: bool
) -> None:
    """
    What is repaired in a file does not end a command that watches files; all else does.
    """

    def build(command: Command, options: Any) -> None:
        raise ConfigurationError("wrong", fault=fault) from LookupError("its cause")

    class Ended(Exception):
        """The process has."""

    def end(status: int) -> None:
        raise Ended(f"ends with {status}")

    monkeypatch.setattr(Command, "build_server", build)
    monkeypatch.setattr(Command, "check_migrations", lambda command: None)
    monkeypatch.setattr("django.db.connections.all", lambda **only: [])
    monkeypatch.setattr(os, "_exit", end)
    errors = StringIO()
    seen = "waits"
    try:
        Command(stderr=errors, no_color=True).inner_run(skip_checks=True, use_reloader=reload)
    except Ended as error:
        seen = str(error)
    except LookupError as error:
        seen = "raises"
        errors.write("".join(error.__notes__))
    assert seen == outcome
    assert errors.getvalue().strip() == f"fairway: wrong [{fault}]"
