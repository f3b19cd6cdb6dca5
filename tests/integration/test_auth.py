"""
Users found by their session, and logging in and out from a consumer, with a real database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth import (
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    user_logged_in,
    user_logged_out,
)
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import connections
from django.dispatch import Signal
from django.test.utils import CaptureQueriesContext
from django.utils.functional import LazyObject
from pytest_django import Settings

from fairway.auth import (
    AuthMiddleware,
    AuthMiddlewareStack,
    UserLazyObject,
    get_user,
    identify,
    login,
    logout,
)
from fairway.db import database_sync_to_async
from fairway.types import Message

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_loop]

BACKEND = "django.contrib.auth.backends.ModelBackend"


async def nothing() -> Message:
    """
    Stand in for receive(), which nothing here calls.
    """
    raise AssertionError


async def unsent(message: Message) -> None:
    """
    Stand in for send(), which nothing here calls.
    """
    raise AssertionError


@contextmanager
def heard(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """
    Keep what a signal says.
    """
    calls: list[dict[str, Any]] = []

    def keep(**arguments: Any) -> None:
        calls.append(arguments)

    signal.connect(keep)
    try:
        yield calls
    finally:
        signal.disconnect(keep)


async def make_user(name: str = "bob") -> User:
    """
    Make a user with a password.
    """
    return await User.objects.acreate_user(name, password="secret")


async def logged_in(user: User) -> SessionStore:
    """
    Make the saved session of a user who has logged in.
    """
    scope: dict[str, Any] = {"session": SessionStore()}
    await login(scope, user)
    await scope["session"].asave()
    return SessionStore(scope["session"].session_key)


@database_sync_to_async
def queries_of_this_thread() -> CaptureQueriesContext:
    """
    Capture the queries of the thread where database work of these tests happens.
    """
    connection = connections["default"]
    connection.ensure_connection()
    return CaptureQueriesContext(connection).__enter__()


class TestGetUser:
    """
    From a session to its user.
    """

    async def test_needs_a_session(self) -> None:
        """Without a session the stack is wrong."""
        with pytest.raises(ValueError, match="Cannot find session in scope"):
            await get_user({})

    async def test_finds_the_user(self) -> None:
        """The user of the session, as a model instance."""
        user = await make_user()
        found = await get_user({"session": await logged_in(user)})
        assert isinstance(found, get_user_model())
        assert found == user

    async def test_reads_session_and_user_once(self) -> None:
        """Two queries in one hop, and none where the request names no session."""
        session = await logged_in(await make_user())
        captured = await queries_of_this_thread()
        await get_user({"session": session})
        assert len(captured.captured_queries) == 2
        assert isinstance(await get_user({"session": SessionStore()}), AnonymousUser)
        assert len(captured.captured_queries) == 2
        await database_sync_to_async(captured.__exit__)(None, None, None)

    async def test_an_unknown_session_is_nobodys(self) -> None:
        """A cookie that names no session gives an anonymous user."""
        found = await get_user({"session": SessionStore("a" * 32)})
        assert isinstance(found, AnonymousUser)

    @pytest.mark.parametrize("given", [None, "", "wrong"])
    async def test_a_wrong_hash_flushes_the_session(self, given: str | None) -> None:
        """A session made with another password, or without a hash, is worth nothing."""
        session = await logged_in(await make_user())
        if given is None:
            await session.apop(HASH_SESSION_KEY)
        else:
            await session.aset(HASH_SESSION_KEY, given)
        await session.asave()
        assert isinstance(await get_user({"session": session}), AnonymousUser)
        assert not await Session.objects.aexists()

    async def test_an_older_secret_key_still_counts(self, settings: Settings) -> None:
        """A session made under a key in SECRET_KEY_FALLBACKS stays valid."""
        session = await logged_in(await make_user())
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "rotated"
        found = await get_user({"session": session})
        assert found.is_authenticated

    async def test_a_removed_backend_counts_no_longer(self, settings: Settings) -> None:
        """A session of a backend that is not configured gives an anonymous user."""
        session = await logged_in(await make_user())
        settings.AUTHENTICATION_BACKENDS = []
        assert isinstance(await get_user({"session": session}), AnonymousUser)

    async def test_inactive_and_deleted_users_are_anonymous(self) -> None:
        """What the backend does not give is nobody."""
        user = await make_user()
        session = await logged_in(user)
        user.is_active = False
        await user.asave()
        assert isinstance(await get_user({"session": session}), AnonymousUser)
        await user.adelete()
        assert isinstance(await get_user({"session": session}), AnonymousUser)

    async def test_a_plain_mapping_will_do(self) -> None:
        """Tests of projects put dictionaries into the scope."""
        assert isinstance(await get_user({"session": {}}), AnonymousUser)


class TestLogin:
    """
    Logging in from a consumer.
    """

    async def test_needs_a_session_and_a_user(self) -> None:
        """Each is missed by name."""
        with pytest.raises(ValueError, match="Cannot find session in scope"):
            await login({}, None)
        with pytest.raises(ValueError, match="User must be passed as an argument"):
            await login({"session": SessionStore()}, None)

    @pytest.mark.parametrize("in_scope", [True, False])
    async def test_logs_in(self, in_scope: bool) -> None:
        """The user, given or in the scope, is in session and scope; the signal has no request."""
        user = await make_user()
        scope: dict[str, Any] = {"session": SessionStore()}
        if in_scope:
            scope["user"] = user
        with heard(user_logged_in) as calls:
            await login(scope, None if in_scope else user)
        assert scope["user"] == user
        assert await get_user(scope) == user
        (call,) = calls
        assert (call["sender"], call["request"], call["user"]) == (User, None, user)

    async def test_keeps_what_the_anonymous_session_held(self) -> None:
        """The key changes, the content stays."""
        session = SessionStore()
        await session.aset("basket", [1])
        await session.asave()
        before = session.session_key
        await login({"session": session}, await make_user())
        assert session.session_key != before
        assert await session.aget("basket") == [1]

    async def test_does_not_hand_a_session_to_another_user(self) -> None:
        """Another user's session is emptied first; one's own is kept."""
        bob, bill = await make_user("bob"), await make_user("bill")
        session = await logged_in(bob)
        await session.aset("basket", [1])
        await login({"session": session}, bob)
        assert await session.aget("basket") == [1]
        await login({"session": session}, bill)
        assert await session.aget("basket") is None
        assert await session.aget(SESSION_KEY) == str(bill.pk)

    async def test_several_backends_need_a_choice(self, settings: Settings) -> None:
        """With several backends the argument or the user decides, else it is a ValueError."""
        settings.AUTHENTICATION_BACKENDS = [BACKEND, BACKEND + "x"]
        user: Any = await make_user()
        with pytest.raises(ValueError, match="multiple authentication backends"):
            await login({"session": SessionStore()}, user)
        scope: dict[str, Any] = {"session": SessionStore()}
        await login(scope, user, backend=BACKEND)
        assert await get_user(scope) == user
        user.backend = BACKEND
        await login({"session": SessionStore()}, user)

    async def test_a_user_without_a_hash_can_log_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """User classes of projects need no get_session_auth_hash()."""
        monkeypatch.delattr(AbstractBaseUser, "get_session_auth_hash")
        user = await make_user()
        session = SessionStore()
        await login({"session": session}, user)
        assert await session.aget(HASH_SESSION_KEY) == ""
        assert await get_user({"session": session}) == user


class TestLogout:
    """
    Logging out from a consumer.
    """

    async def test_needs_a_session(self) -> None:
        """Without a session the stack is wrong."""
        with pytest.raises(ValueError, match="Cannot find session in scope"):
            await logout({})

    async def test_logs_out(self) -> None:
        """The session is gone with all it held; the signal names who left."""
        user = await make_user()
        scope = {"session": await logged_in(user), "user": user}
        with heard(user_logged_out) as calls:
            await logout(scope)
        assert isinstance(scope["user"], AnonymousUser)
        assert isinstance(await get_user(scope), AnonymousUser)
        assert not await Session.objects.aexists()
        assert [call["user"] for call in calls] == [user]

    @pytest.mark.parametrize("user", [None, AnonymousUser()])
    async def test_nobody_logs_out_quietly(self, user: AnonymousUser | None) -> None:
        """Without a user there is no signal, and none is put into the scope."""
        scope = (
            {"session": SessionStore()}
            if user is None
            else {"session": SessionStore(), "user": user}
        )
        keys = scope.keys() | set()
        with heard(user_logged_out) as calls:
            await logout(scope)
        assert calls == []
        assert scope.keys() == keys


class TestMiddleware:
    """
    Users in scopes.
    """

    @pytest.mark.parametrize("kind", ["websocket", "http"])
    async def test_the_stack_finds_the_user_by_the_cookie(self, kind: str) -> None:
        """Cookies, session and user are there, resolved, before the application runs."""
        user = await make_user()
        session = await logged_in(user)
        seen: list[dict[str, Any]] = []

        async def application(scope: Any, receive: Any, send: Any) -> str:
            seen.append(scope)
            return "result"

        headers = [(b"cookie", f"sessionid={session.session_key}".encode())]
        scope = {"type": kind, "path": "/", "headers": headers}
        assert await AuthMiddlewareStack(application)(scope, nothing, unsent) == "result"
        assert seen[0]["user"] == user
        assert seen[0]["session"].session_key == session.session_key
        assert seen[0]["cookies"] == {"sessionid": session.session_key}
        assert "user" not in scope

    async def test_leaves_what_others_put_there(self) -> None:
        """A user, session or cookies that are in the scope already stay."""
        scope = {"type": "websocket", "cookies": {"a": "1"}, "session": {"b": 2}, "user": "me"}
        before = dict(scope)
        await identify(scope)
        assert scope == before

    async def test_no_session_is_a_mistake(self) -> None:
        """AuthMiddleware stands inside SessionMiddleware."""
        with pytest.raises(ValueError, match="SessionMiddleware must be above it"):
            await AuthMiddleware(None)({"type": "http"}, nothing, unsent)

    async def test_a_subclass_may_know_its_users_from_elsewhere(self) -> None:
        """Token middleware fills the stand-in itself, as it did with Channels."""

        class TokenMiddleware(AuthMiddleware):
            def populate_scope(self, scope: Any) -> None:
                scope.setdefault("user", UserLazyObject())

            async def resolve_scope(self, scope: Any) -> None:
                scope["user"]._wrapped = User(username="token")

        seen = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["user"].username)

        await TokenMiddleware(application)({"type": "websocket"}, nothing, unsent)
        assert seen == ["token"]

    async def test_the_plain_middleware_keeps_its_shape(self) -> None:
        """Inside sessions it resolves a lazy object, and leaves a user of others alone."""
        seen = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["user"])

        middleware = AuthMiddleware(application)
        await middleware({"type": "http", "session": SessionStore()}, nothing, unsent)
        assert isinstance(seen[0], LazyObject)
        assert not seen[0].is_authenticated
        await middleware({"type": "http", "session": {}, "user": "me"}, nothing, unsent)
        assert seen[1] == "me"

    def test_a_user_looked_at_too_early_says_so(self) -> None:
        """The stand-in explains itself."""
        with pytest.raises(ValueError, match="before it is ready"):
            _ = UserLazyObject().username
