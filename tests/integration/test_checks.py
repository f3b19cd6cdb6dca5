"""
What ``manage.py check --database`` says, asked of a real PostgreSQL server.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.core.checks import CheckMessage
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper

from fairway.checks import check_databases
from tests.integration.postgres import postgres

CONNECTIONS_MAX = 20
RESERVED = 3


@pytest.fixture(scope="module")
def address() -> Iterator[dict[str, Any]]:
    """
    A server that takes few connections, with a role that may have fewer, and a database too.
    """
    with postgres(
        max_connections=str(CONNECTIONS_MAX), superuser_reserved_connections=str(RESERVED)
    ) as address:
        with psycopg.connect(**address, autocommit=True) as connection:
            connection.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 10")
            connection.execute("CREATE DATABASE fewer CONNECTION LIMIT 6")
        yield address


@pytest.fixture
def check(
    address: dict[str, Any], monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any
) -> Iterator[Any]:
    """
    A function that runs the check with so many processes, as a role, on a database.
    """
    usual = connections["default"]
    opened: list[DatabaseWrapper] = []

    def run(processes: int, **changed: Any) -> list[CheckMessage]:
        monkeypatch.setenv("FAIRWAY_WORKERS", str(processes))
        monkeypatch.setenv("FAIRWAY_THREADS", "3")
        monkeypatch.setenv("FAIRWAY_PAGE_THREADS", "1")
        described = {
            **usual.settings_dict,
            "ENGINE": "django.db.backends.postgresql",
            "NAME": address["dbname"],
            "HOST": address["host"],
            "USER": address["user"],
            **changed,
        }
        opened.append(DatabaseWrapper(described, "default"))
        connections["default"] = opened[-1]
        with django_db_blocker.unblock():
            return check_databases(databases=["default"])

    yield run
    connections["default"] = usual
    for connection in opened:
        connection.close()


def test_what_fits_is_fine(check: Any) -> None:
    """
    17 connections are left of 20, and four processes open 16: three threads for consumers
    and one for pages each.
    """
    assert check(4) == []


@pytest.mark.parametrize(
    ("processes", "changed", "found"),
    [
        (5, {}, "may open 20 connections to database 'default', which takes 17 (max_connections)"),
        (
            3,
            {"USER": "few"},
            "12 connections to database 'default', which takes 10 (CONN",
        ),
        (2, {"NAME": "fewer"}, "which takes 6 (CONNECTION LIMIT of the database)"),
    ],
)
def test_too_many_connections_are_found(
    check: Any, processes: int, changed: dict[str, str], found: str
) -> None:
    """
    The smallest limit counts: of the server, of the role, of the database.
    """
    (message,) = check(processes, **changed)
    assert message.id == "fairway.W201"
    assert found in message.msg
    assert "Lower WORKERS, THREADS or PAGE_THREADS" in message.hint


def test_a_server_that_is_away_is_not_ours_to_report(check: Any) -> None:
    """
    Whoever needs the database says so.
    """
    assert check(5, HOST="/nowhere") == []
