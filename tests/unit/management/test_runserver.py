"""
``manage.py runserver``: which port it takes.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command

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
