"""
Django's users in ``scope["user"]``, and logging in and out from a consumer.

The user is read together with the session, in one hop to a thread, and only where
the request names a session. Closing what a login opened is the business of ``revocation``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
    user_logged_in,
    user_logged_out,
)
from django.contrib.sessions.backends.base import UpdateError
from django.utils.crypto import constant_time_compare
from django.utils.functional import LazyObject

from fairway.callables import single_callable
from fairway.db import database_sync_to_async
from fairway.middleware import BaseMiddleware
from fairway.ratelimits import admit_address, connect_limits
from fairway.revocation import enter, held_back, is_hash_valid, is_on, refresh
from fairway.session_stores import Merging
from fairway.sessions import CookieMiddleware, SessionMiddleware, open_session, read_cookies
from fairway.types import Receive, Scope, Send

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

__all__ = [
    "AuthMiddleware",
    "AuthMiddlewareStack",
    "UserLazyObject",
    "get_user",
    "identify",
    "login",
    "logout",
    "set_user",
]


async def get_user(scope: Scope) -> AbstractBaseUser | AnonymousUser:
    """
    Find the user whose session the scope carries.

    Touches no database where the scope has a session without a key and without content.

    Returns:
        The user, or an ``AnonymousUser``.

    Raises:
        ValueError: There is no session in the scope.
    """
    session = _session(scope)
    is_empty = getattr(session, "is_empty", None)
    if is_empty is not None and is_empty():
        return _anonymous()
    user: AbstractBaseUser | AnonymousUser = await database_sync_to_async(_load_user)(session)
    return user


async def login(scope: Scope, user: AbstractBaseUser | None, backend: str | None = None) -> None:
    """
    Log a user in: into the session, and into ``scope["user"]``.

    The socket itself stays, whoever's it was. The session gets a new key, and is emptied first if
    it was another user's. It is not saved: over a WebSocket, await ``session.asave()``.

    Args:
        scope: The consumer's scope, with a session.
        user: Who; None for the one in the scope.
        backend: Dotted path of the authentication backend, needed if there are several
            and the user carries none.

    Raises:
        ValueError: There is no session, no user, or no telling which backend.
    """
    # This socket is none of those whose login ended.
    with held_back():
        await database_sync_to_async(_login)(scope, user, backend)
        refresh(scope)


async def logout(scope: Scope) -> None:
    """
    Log the scope's user out and delete the session with all it holds.

    Other sockets of the session are closed. This one stays, as nobody's: ``close()`` it, or not.

    Raises:
        ValueError: There is no session in the scope.
    """
    with held_back():
        await database_sync_to_async(_logout)(scope)
        refresh(scope)


async def set_user(consumer: Any, user: Any) -> None:
    """
    Put a user who proved to be one by other means than a session into a consumer's scope.

    For a token in the first message, say. From then on the connection is that user's: logging
    out everywhere, deactivation and ``fairway.disconnect(user=...)`` close it.

    Args:
        consumer: A consumer that runs.
        user: Who it is; an ``AnonymousUser`` for nobody any more.
    """
    consumer.scope["user"] = user
    refresh(consumer.scope)
    if not is_on(consumer.scope):
        enter(consumer.scope, getattr(consumer, "channel_name", None), consumer.channel_layer_alias)


def _login(scope: Scope, user: AbstractBaseUser | None, backend: str | None) -> None:
    """
    Log in, in a thread.
    """
    session = _session(scope)
    user = scope.get("user") if user is None else user
    if user is None:
        raise ValueError("User must be passed as an argument or must be present in the scope.")
    session_hash = _session_hash(user)
    if SESSION_KEY not in session:
        session.cycle_key()
    elif not _is_session_of(session, user, session_hash):
        session.flush()
    chosen = backend or getattr(user, "backend", None) or _only_backend()
    session[SESSION_KEY] = user._meta.pk.value_to_string(user)  # noqa: SLF001 - Django's API
    session[BACKEND_SESSION_KEY] = chosen
    session[HASH_SESSION_KEY] = session_hash
    scope["user"] = user
    user_logged_in.send(sender=user.__class__, request=None, user=user)


def _logout(scope: Scope) -> None:
    """
    Log out, in a thread.
    """
    session = _session(scope)
    user = scope.get("user")
    if user is not None and getattr(user, "is_authenticated", True):
        user_logged_out.send(sender=user.__class__, request=None, user=user)
    session.flush()
    if "user" in scope:
        scope["user"] = _anonymous()


class UserLazyObject(LazyObject):  # type: ignore[type-arg] # generic in the stubs alone
    """
    Stands in ``scope["user"]`` until the user is known.
    """

    def _setup(self) -> None:
        raise ValueError("Accessing scope user before it is ready.")


class AuthMiddleware(BaseMiddleware):
    """
    Puts the session's user into ``scope["user"]``; stands inside ``SessionMiddleware``.

    A subclass that knows its users from elsewhere overrides ``populate_scope`` or
    ``resolve_scope``.
    """

    def populate_scope(self, scope: Scope) -> None:
        """
        Put a stand-in for the user into the scope.

        Raises:
            ValueError: There is no session in the scope.
        """
        if "session" not in scope:
            raise ValueError(
                "AuthMiddleware cannot find session in scope. SessionMiddleware must be above it."
            )
        if "user" not in scope:
            scope["user"] = UserLazyObject()

    async def resolve_scope(self, scope: Scope) -> None:
        """
        Find the user that the stand-in stands for. A user put there by others stays.
        """
        if isinstance(scope["user"], LazyObject):
            scope["user"]._wrapped = await get_user(scope)  # noqa: SLF001 - how subclasses fill it


class AuthMiddlewareStack:
    """
    Cookies, session and user around an application, in one step.

    The same as ``CookieMiddleware(SessionMiddleware(AuthMiddleware(inner)))``; a
    WebSocket, which may rest for days, carries one copy of the scope instead of three.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = single_callable(inner, "AuthMiddlewareStack")
        self._stack = CookieMiddleware(SessionMiddleware(AuthMiddleware(self.inner)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Run the inner application with cookies, session and user in its scope.
        """
        if scope["type"] != "websocket":
            return await self._stack(scope, receive, send)
        if connect_limits() and not await admit_address(scope, receive, send):
            return None
        scope = dict(scope)
        await identify(scope)
        return await self.inner(scope, receive, send)


async def identify(scope: Scope) -> None:
    """
    Put cookies, session and user into a WebSocket's scope, leaving what is there.

    A project without ``django.contrib.auth`` has no users, and its scopes have none.
    """
    if "cookies" not in scope:
        scope["cookies"] = read_cookies(scope)
    if "session" not in scope:
        scope["session"] = open_session(scope["cookies"])
    if "user" not in scope and "auth" in apps.app_configs:
        scope["user"] = await get_user(scope)


def _session(scope: Scope) -> Any:
    if "session" not in scope:
        raise ValueError(
            "Cannot find session in scope. You should wrap your consumer in SessionMiddleware."
        )
    return scope["session"]


def _anonymous() -> AnonymousUser:
    return _anonymous_user()()


@cache
def _anonymous_user() -> type[AnonymousUser]:
    """
    Import the class late: its module holds models, which need the applications ready.
    """
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser


def _load_user(session: Any) -> AbstractBaseUser | AnonymousUser:
    """
    Read the session and its user. May wait for the database.

    A session whose hash does not fit, as after a change of password, is flushed.
    """
    try:
        user_id = _get_user_session_key(session)
        backend_path = session[BACKEND_SESSION_KEY]
    except KeyError:
        return _anonymous()
    if backend_path not in settings.AUTHENTICATION_BACKENDS:
        return _anonymous()
    user: AbstractBaseUser | None = load_backend(backend_path).get_user(user_id)
    if user is not None and not _is_hash_valid(session, user):
        session.flush()
        return _anonymous()
    return user or _anonymous()


def _get_user_session_key(session: Any) -> Any:
    # A session holds it as text.
    return get_user_model()._meta.pk.to_python(session[SESSION_KEY])  # noqa: SLF001 - as above


def _is_hash_valid(session: Any, user: AbstractBaseUser) -> bool:
    """
    Whether a session was made with the user's present password, as far as is stored now.

    What a scope holds may be days old: the password may have been changed in that session.
    """
    if is_hash_valid(session.get(HASH_SESSION_KEY), user):
        return True
    if not isinstance(session, Merging):
        return False
    try:
        session.refresh()
    except UpdateError:
        return False
    return is_hash_valid(session.get(HASH_SESSION_KEY), user)


def _is_session_of(session: Any, user: AbstractBaseUser, session_hash: str) -> bool:
    """
    Whether a session is the user's own, unchanged since the last change of password.
    """
    if _get_user_session_key(session) != user.pk:
        return False
    given = session.get(HASH_SESSION_KEY, "")
    return not session_hash or constant_time_compare(given, session_hash)


def _session_hash(user: Any) -> str:
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else ""


def _only_backend() -> str:
    backends: list[str] = list(settings.AUTHENTICATION_BACKENDS)
    if len(backends) != 1:
        raise ValueError(
            "You have multiple authentication backends configured and therefore must provide "
            "the `backend` argument or set the `backend` attribute on the user."
        )
    return backends[0]
