"""
``manage.py serve`` before it serves: who tells what the checks found.
"""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core import checks
from django.core.management.base import CommandError, SystemCheckError

from fairway.management.commands.serve import Command
from fairway.server.place import VARIABLE


@pytest.fixture(params=[False, True], ids=["command", "worker"])
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """
    Whether a supervisor started the process.
    """
    if request.param:
        monkeypatch.setenv(VARIABLE, "{}")
    return bool(request.param)


def check(monkeypatch: pytest.MonkeyPatch, found: Any) -> str:
    """
    Run the checks, which find something, and give what is printed.
    """

    def run_checks(**options: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return [found]

    monkeypatch.setattr(checks, "run_checks", run_checks)
    errors = StringIO()
    Command(stderr=errors, no_color=True).check()
    return errors.getvalue()


def test_a_warning_is_told_once(monkeypatch: pytest.MonkeyPatch, *, worker: bool) -> None:
    """
    By the command, and not by each of its workers.
    """
    said = check(monkeypatch, checks.Warning("beware", id="shop.W001"))
    assert ("beware" in said) is not worker


@pytest.mark.usefixtures("worker")
def test_an_error_ends_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A worker may meet one that its command did not, in code that is newer.
    """
    with pytest.raises(SystemCheckError, match="wrong"):
        check(monkeypatch, checks.Error("wrong", id="shop.E001"))


@pytest.mark.usefixtures("worker")
def test_a_broken_project_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A project that cannot be loaded ends the command with status 2, the place and an id.
    """
    with pytest.raises(CommandError) as caught:
        check(monkeypatch, ValueError("boom"))
    line = str(caught.value)
    assert line.startswith(f"the project cannot be loaded: {__file__}, line ")
    assert line.endswith("ValueError: boom [fairway.R110]")
    assert caught.value.returncode == 2
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_a_check_says_of_itself_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An error of Django's own kind has its words already.
    """
    with pytest.raises(CommandError) as caught:
        check(monkeypatch, CommandError("as it is"))
    assert str(caught.value) == "as it is"
