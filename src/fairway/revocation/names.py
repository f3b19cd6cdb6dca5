"""
Users and sessions by name: what an order says, and what a roll looks up.

A session's key opens the session, so it never travels: orders carry its digest, or the key
itself sealed where the receiver has to have it. Pure but for ``SECRET_KEY``.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from django.apps import apps
from django.contrib.auth import SESSION_KEY, get_user_model
from django.utils.crypto import salted_hmac
from django.utils.functional import LazyObject, empty

from fairway import conf
from fairway.layers.layer import INTERNAL

__all__ = [
    "control_group",
    "digest",
    "is_of_project",
    "seal",
    "session_key_of",
    "unseal",
    "user_of",
    "user_text",
    "user_text_in",
]

SALT = "fairway.revocation"

NONCE_BYTES = 16


def user_text(user: Any) -> str | None:
    """
    Name a user, or the primary key of one, as text; None for one without a key.

    A lazy user is looked up.
    """
    if isinstance(user, int | str) or not hasattr(user, "pk"):
        return None if user is None else str(user)
    if user.pk is None:
        return None
    # Objects that are no users of the project's user model have keys of their own.
    return str(user.pk) if is_of_project(user) else f"{user.__class__.__qualname__}:{user.pk}"


def user_of(scope: Any) -> Any:
    """
    Give the scope's user if one is logged in and known without asking the database.
    """
    user = scope.get("user")
    if isinstance(user, LazyObject):
        user = _unwrapped(user)
    return user if getattr(user, "is_authenticated", False) and hasattr(user, "pk") else None


def is_of_project(user: Any) -> bool:
    """
    Whether a user is in the table of ``AUTH_USER_MODEL``.
    """
    return "auth" in apps.app_configs and isinstance(user, get_user_model())


def session_key_of(session: Any) -> str | None:
    """
    Give the key of a session, or of what stands for one.
    """
    key = session if isinstance(session, str) else getattr(session, "session_key", None)
    return key or None


def user_text_in(content: Any) -> str | None:
    """
    Name the user that a session's content logs in.
    """
    text = content.get(SESSION_KEY) if content else None
    return None if text is None else str(text)


def digest(key: str) -> bytes:
    """
    Give what stands for a session's key where others may see it.
    """
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def seal(key: str) -> bytes:
    """
    Hide a session's key from those who do not know ``SECRET_KEY``; empty if it is too long.

    Each sealed key has a pad of its own, which a keyed hash makes of a random number.
    """
    data = key.encode()
    nonce = secrets.token_bytes(NONCE_BYTES)
    pad = _pad(nonce)
    if len(data) > len(pad):
        return b""
    return nonce + bytes(one ^ other for one, other in zip(data, pad, strict=False))


def unseal(sealed: bytes) -> str | None:
    """
    Read what ``seal`` gave; None if that was nothing, or made under another ``SECRET_KEY``.
    """
    nonce, data = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    text = bytes(one ^ other for one, other in zip(data, _pad(nonce), strict=False))
    try:
        return text.decode() or None
    except UnicodeDecodeError:
        return None


def control_group() -> str:
    """
    Name the one group that all orders go to; nobody can guess it and join.
    """
    # Without Django's settings there is no secret, and no session to keep secret either.
    secret = conf.django_setting("SECRET_KEY", "") or "none"
    made = salted_hmac(SALT, "group", secret, algorithm="sha256").hexdigest()
    return f"{INTERNAL}{made[:32]}"


def _pad(nonce: bytes) -> bytes:
    return salted_hmac(SALT, nonce.hex(), algorithm="sha512").digest()


def _unwrapped(user: Any) -> Any:
    """
    Give what a lazy object stands for, if it was looked up already.
    """
    wrapped = user._wrapped  # noqa: SLF001 - looking at it otherwise would ask the database
    return None if wrapped is empty else wrapped
