"""
Users and sessions by name, and what of them travels.
"""

from __future__ import annotations

from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.utils.functional import SimpleLazyObject
from pytest_django import Settings

from fairway.revocation.names import (
    control_group,
    digest,
    seal,
    session_key_of,
    unseal,
    user_of,
    user_text,
)

KEY = "k3y" * 10 + "ab"


class Device:
    """
    A user that is no row.
    """

    is_authenticated = True
    pk = 5


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (User(pk=5), "5"),
        (SimpleLazyObject(lambda: User(pk=5)), "5"),
        (5, "5"),
        ("5", "5"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (User(), None),
        (AnonymousUser(), None),
        (None, None),
        (Device(), "Device:5"),
        (SimpleLazyObject(Device), "Device:5"),
    ],
)
def test_users_have_names(user: object, expected: str | None) -> None:
    """A user and its key have the same; others of the same key have not; nobody has none."""
    assert user_text(user) == expected


def test_a_lazy_user_is_not_looked_up() -> None:
    """One that is known already counts."""
    lazy = SimpleLazyObject(lambda: User(pk=5))
    assert user_of({"user": lazy}) is None
    assert lazy.pk == 5
    assert user_of({"user": lazy}) == User(pk=5)
    assert user_text(lazy) == "5"
    assert user_of({"user": AnonymousUser()}) is None
    assert user_of({}) is None


def test_sessions_have_keys() -> None:
    """As text, or in what stands for a session."""
    assert session_key_of(KEY) == KEY
    assert session_key_of("") is None
    assert session_key_of({}) is None
    assert session_key_of(None) is None


def test_keys_travel_sealed(settings: Settings) -> None:
    """Each time differently, and for those who know SECRET_KEY."""
    sealed = seal(KEY)
    assert unseal(sealed) == KEY
    assert sealed != seal(KEY)
    assert KEY[:4].encode() not in sealed
    settings.SECRET_KEY = "another"
    assert unseal(sealed) != KEY


@pytest.mark.parametrize("sealed", [b"", b"x", b"\xff" * 60, b"\xff" * 200])
def test_what_is_not_sealed_is_no_key(sealed: bytes) -> None:
    """Whatever it is, it raises nothing and is no key of anybody."""
    assert unseal(sealed) != KEY


def test_keys_that_are_too_long_do_not_travel() -> None:
    """A session in a signed cookie is its own key."""
    assert seal("x" * 65) == b""
    assert unseal(seal("x" * 65)) is None


def test_digests_tell_keys_apart() -> None:
    """And tell nothing else."""
    assert digest(KEY) == digest(KEY) != digest(KEY + "x")
    assert len(digest(KEY)) == 16


def test_the_group_is_the_projects_own(settings: Settings) -> None:
    """Nobody without SECRET_KEY can name it; every layer takes the name."""
    name = control_group()
    assert name.isascii()
    assert len(name) < 100
    settings.SECRET_KEY = "another"
    assert control_group() != name
