"""
Asking the database whether the logins behind open connections still hold.

One query for all users of a process and one for all sessions, in a thread for consumers, so no
socket waits. The rule is the one by which a page finds its user: the user exists and may log
in, the session exists and was made with the present password. What to do about it, and when
to ask, is in ``roll``.
"""

from __future__ import annotations

import copy
from typing import Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    get_user_model,
    load_backend,
)
from django.core.exceptions import ValidationError
from django.db import router
from django.utils.crypto import constant_time_compare

from fairway.db import database_sync_to_async
from fairway.revocation.members import Member
from fairway.revocation.names import session_key_of, user_text_in
from fairway.session_stores import Merging, still_stored

__all__ = ["find_ended", "is_hash_valid"]


@database_sync_to_async
def find_ended(members: list[Member]) -> dict[Member, bool]:
    """
    Find the members whose user or session is no longer what let them in.

    Returns:
        Them, each with whether no more than its session's hash is old: who changes their own
        password has it saved in a moment.
    """
    users = _read_users({member.user for member in members if member.known and member.user})
    keys = {member: _key(member) for member in members}
    stored = still_stored({key for key in keys.values() if key is not None})
    look = Look()
    ended = {}
    for member, key in keys.items():
        user = users.get(member.user)
        if key is not None and key not in stored:
            # Unless it was given a new one while we asked.
            if key == _key(member):
                ended[member] = False
        elif member.known and (user is None or not look.may_log_in(user, member)):
            ended[member] = False
        elif member.known and not look.has_present_hash(user, member):
            ended[member] = True
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


class Look:
    """
    One look at many logins, for which nothing is loaded or computed twice.
    """

    def __init__(self) -> None:
        self._backends: dict[str | None, Any] = {}
        self._verdicts: dict[tuple[str | None, str], bool] = {}
        self._stored: dict[str | None, dict[str, Any] | None] = {}

    def may_log_in(self, user: Any, member: Member) -> bool:
        """
        Ask the backend of a member's session, as far as it can tell without a query.

        Without such a backend, as for a token's user, it is the user who says.
        """
        content = _login_of(member)
        path = content.get(BACKEND_SESSION_KEY) if content else None
        if content and path not in settings.AUTHENTICATION_BACKENDS:
            return False
        if path not in self._backends:
            self._backends[path] = load_backend(path) if path else None
        ask = getattr(self._backends[path], "user_can_authenticate", None)
        return bool(ask(user)) if ask else bool(getattr(user, "is_active", True))

    def has_present_hash(self, user: Any, member: Member) -> bool:
        """
        Whether a member's session is of the user's present password, as known here or as stored.
        """
        content = _login_of(member)
        if content is None or self._is_present(content, user):
            return True
        session = member.store
        if not isinstance(session, Merging):
            return False
        stored = self._read(session)
        if stored is None or not self._is_present(stored, user):
            return False
        # Each connection has values of its own.
        session.merge(copy.deepcopy(stored))
        content = _login_of(member)
        return content is not None and self._is_present(content, user)

    def _is_present(self, content: dict[str, Any], user: Any) -> bool:
        """
        Whether the hash in a session's content is of the user's present password.
        """
        case = content.get(HASH_SESSION_KEY), str(user.pk)
        if case not in self._verdicts:
            self._verdicts[case] = is_hash_valid(case[0], user)
        return self._verdicts[case]

    def _read(self, session: Merging) -> dict[str, Any] | None:
        """
        Read a session as it is stored, for all connections that share it.
        """
        key = session.session_key
        if key not in self._stored:
            self._stored[key] = session.read_stored()
        return self._stored[key]


def _login_of(member: Member) -> dict[str, Any] | None:
    """
    Give the content of a member's session, if it is what logs its user in.
    """
    content: dict[str, Any] | None = getattr(member.store, "_session_cache", None)
    return content if content and user_text_in(content) == member.user else None


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
