"""
Asking the database whether the logins behind open connections still hold.

One query for all users of a process and one for all sessions, in a thread for consumers, so no
socket waits. The rule is the one by which a page finds its user: the user exists and may log
in, the session exists and was made with the present password. What to do about it, and when
to ask, is in ``roll``.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    get_user_model,
    load_backend,
)
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import ValidationError
from django.db import router
from django.utils.crypto import constant_time_compare

from fairway.db import database_sync_to_async
from fairway.revocation.members import Member
from fairway.revocation.names import session_key_of, user_text_in
from fairway.session_stores import Merging, still_stored

__all__ = ["find_ended", "is_hash_valid"]


@database_sync_to_async
def find_ended(members: list[Member]) -> list[Member]:
    """
    Give the members whose user or session is no longer what let them in.
    """
    users = _read_users({member.user for member in members if member.known and member.user})
    keys = {member: _key(member) for member in members}
    stored = still_stored({key for key in keys.values() if key is not None})
    welcome = Welcome()
    ended = []
    for member, key in keys.items():
        if key is not None and key not in stored:
            # Unless it was given a new one while we asked.
            if key == _key(member):
                ended.append(member)
        elif member.known:
            user = users.get(member.user)
            if user is None or not welcome.may_stay(user, member):
                ended.append(member)
    return ended


def is_hash_valid(given: str | None, user: Any) -> bool:
    """
    Whether a session's hash is of the user's present password, or under an older SECRET_KEY.
    """
    if not hasattr(user, "get_session_auth_hash"):
        return True
    if not given:
        return False
    accepted = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return any(constant_time_compare(given, each) for each in accepted)


class Welcome:
    """
    The rule, with the backends that were loaded for it.
    """

    def __init__(self) -> None:
        self._backends: dict[str | None, Any] = {}

    def may_stay(self, user: Any, member: Member) -> bool:
        """
        Whether a user may go on with a connection.

        One without the user in its session, as by a token, needs no session.
        """
        content = getattr(member.store, "_session_cache", None)
        if not content or user_text_in(content) != member.user:
            return self._may_log_in(user, None)
        path = content.get(BACKEND_SESSION_KEY)
        if path not in settings.AUTHENTICATION_BACKENDS or not self._may_log_in(user, path):
            return False
        return is_hash_valid(content.get(HASH_SESSION_KEY), user) or self._has_changed_own(
            user, member
        )

    def _may_log_in(self, user: Any, path: str | None) -> bool:
        """
        Ask the backend, as far as it can tell without a query, else the user.
        """
        if path not in self._backends:
            self._backends[path] = load_backend(path) if path else None
        ask = getattr(self._backends[path], "user_can_authenticate", None)
        return bool(ask(user)) if ask else bool(getattr(user, "is_active", True))

    def _has_changed_own(self, user: Any, member: Member) -> bool:
        """
        Whether the stored session has the new password's hash: it was changed from there.
        """
        session = member.store
        if not isinstance(session, Merging):
            return False
        try:
            session.refresh()
        except UpdateError:
            return False
        content = session._session  # noqa: SLF001 - refreshed right above
        return user_text_in(content) == member.user and is_hash_valid(
            content.get(HASH_SESSION_KEY), user
        )


def _key(member: Member) -> str | None:
    return session_key_of(member.store) if member.session is not None else None


def _read_users(texts: set[str]) -> dict[str | None, Any]:
    """
    Read users by their names, in one query, or in as many as the database's limits ask for.
    """
    if not texts:
        return {}
    model = get_user_model()
    keys = []
    for text in texts:
        try:
            keys.append(model._meta.pk.to_python(text))  # noqa: SLF001 - Django's API
        except ValidationError:
            continue
    rows = model._base_manager.using(router.db_for_write(model))  # noqa: SLF001 - Django's API
    return {str(key): user for key, user in rows.in_bulk(keys).items()}
