"""
Cookies and sessions, with sessions in a real database.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.exceptions import SuspiciousOperation
from pytest_django import Settings

from fairway.sessions import (
    CookieMiddleware,
    InstanceSessionWrapper,
    SessionMiddleware,
    SessionMiddlewareStack,
    open_session,
    read_cookies,
)
from fairway.types import Message, is_transparent

pytestmark = pytest.mark.one_loop

START: dict[str, Any] = {"type": "http.response.start", "status": 200}


def scope_of(kind: str, cookie: str | None = None) -> dict[str, Any]:
    """
    Make a scope with a Cookie header.
    """
    headers = [] if cookie is None else [(b"cookie", cookie.encode())]
    return {"type": kind, "path": "/", "headers": headers}


async def nothing() -> Message:
    """
    Stand in for receive(), which nothing here calls.
    """
    raise AssertionError


class Sent(list[Message]):
    """
    What an application sent; itself the ``send``, marked as the server marks its own.
    """

    fairway_transparent = True

    async def __call__(self, message: Message) -> None:
        """
        Keep a message.
        """
        self.append(message)

    @property
    def cookies(self) -> list[str]:
        """
        The cookies set by the first message.
        """
        return [
            value.decode() for name, value in self[0].get("headers", []) if name == b"Set-Cookie"
        ]


class TestCookies:
    """
    Reading and setting cookies.
    """

    def test_reads_all_fields(self) -> None:
        """HTTP/2 clients may split the header; all of it counts."""
        headers = [(b"cookie", b"a=1; b=2"), (b"host", b"x"), (b"cookie", b"c=%20")]
        assert read_cookies({"headers": headers}) == {"a": "1", "b": "2", "c": "%20"}

    async def test_puts_cookies_into_a_scope_of_its_own(self) -> None:
        """The application finds the cookies; the outer scope stays as it was."""
        seen = []

        async def application(scope: Any, receive: Any, send: Any) -> str:
            seen.append(scope["cookies"])
            return "result"

        scope = scope_of("websocket", "a=1")
        assert await CookieMiddleware(application)(scope, nothing, Sent()) == "result"
        assert seen == [{"a": "1"}]
        assert "cookies" not in scope

    async def test_needs_headers(self) -> None:
        """A scope without headers is a mistake in the stack."""
        with pytest.raises(ValueError, match="did not have a headers key"):
            await CookieMiddleware(None)({"type": "channel"}, nothing, Sent())

    def test_sets_a_cookie_as_channels_does(self) -> None:
        """The header has Channels' name, order and defaults."""
        message: dict[str, Any] = {}
        CookieMiddleware.set_cookie(message, "Testing-Key", "testing-value")
        assert message == {
            "headers": [(b"Set-Cookie", b"Testing-Key=testing-value; Path=/; SameSite=lax")]
        }

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({"max_age": 60}, r"expires=\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT; Max-Age=60;"),
            ({"expires": "tomorrow"}, r"expires=tomorrow; Path=/"),
            ({"secure": True, "httponly": True}, r"HttpOnly; Path=/; SameSite=lax; Secure"),
            ({"domain": "example.com", "path": "/a/"}, r"Domain=example.com; Path=/a/"),
            ({"samesite": "Strict"}, r"SameSite=Strict"),
            ({"samesite": None, "path": None}, r"^k=v$"),
            ({"expires": dt.datetime(2000, 1, 1)}, r"Max-Age=0;"),  # noqa: DTZ001 - naive on purpose
        ],
    )
    def test_sets_what_is_asked_for(self, arguments: dict[str, Any], expected: str) -> None:
        """Age, end, place and protection of a cookie."""
        message: dict[str, Any] = {"headers": [(b"x", b"y")]}
        CookieMiddleware.set_cookie(message, "k", "v", **arguments)
        assert message["headers"][0] == (b"x", b"y")
        assert re.search(expected, message["headers"][1][1].decode())

    def test_counts_the_seconds_until_a_moment(self) -> None:
        """A datetime becomes the age that the browser is told."""
        message: dict[str, Any] = {}
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        CookieMiddleware.set_cookie(message, "k", "v", expires=moment)
        match = re.search(r"Max-Age=(\d+);", message["headers"][0][1].decode())
        assert match
        assert 3500 < int(match[1]) <= 3600

    def test_refuses_an_unknown_samesite(self) -> None:
        """A value that browsers ignore would leave the cookie unprotected."""
        with pytest.raises(AssertionError, match="samesite must be"):
            CookieMiddleware.set_cookie({}, "k", samesite="lex")

    def test_deletes_a_cookie(self) -> None:
        """An end in the past has the browser forget it."""
        message: dict[str, Any] = {}
        CookieMiddleware.delete_cookie(message, "k", path="/a/", domain="example.com")
        text = message["headers"][0][1].decode()
        assert text.startswith('k=""; Domain=example.com; expires=Thu, 01-Jan-1970 00:00:00 GMT;')
        assert "Max-Age=0; Path=/a/" in text


@pytest.mark.django_db(transaction=True)
class TestSessions:
    """
    Sessions found by their cookie.
    """

    async def test_is_read_when_looked_into(self) -> None:
        """Opening costs no query; the first look reads the session the cookie names."""
        store = SessionStore()
        await store.aset("colour", "blue")
        await store.asave()
        found = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            found.append(scope["session"].session_key)
            found.append(await scope["session"].aget("colour"))

        stack = SessionMiddlewareStack(application)
        await stack(scope_of("websocket", f"sessionid={store.session_key}"), nothing, Sent())
        assert found == [store.session_key, "blue"]

    @pytest.mark.parametrize(
        ("value", "key"),
        [
            ("3q1u2w8vkrld7e5h", "3q1u2w8vkrld7e5h"),
            (".eJx:1tY_-b~Q=", ".eJx:1tY_-b~Q="),
            ('"\\000bcdefghijk"', None),
            ('"\\012bcdefghijk"', None),
            ('"abcd efgh ijkl"', None),
            ('"\\351bcdefghijkl"', None),
            ("", None),
        ],
    )
    async def test_a_key_that_nobody_was_given(self, value: str, key: str | None) -> None:
        """Characters that no engine puts into a key reach no store: PostgreSQL raises for a NUL."""
        scope = scope_of("websocket", f"sessionid={value}")
        assert open_session(read_cookies(scope)).session_key == key
        wrapper = InstanceSessionWrapper({**scope, "cookies": read_cookies(scope)}, Sent())
        await wrapper.resolve_session()
        assert wrapper.scope["session"].session_key == key

    @pytest.mark.parametrize(
        ("name", "length"), [("db", 4096), ("signed_cookies", 4096), ("cached_db", 128)]
    )
    def test_a_key_too_long(self, settings: Settings, name: str, length: int) -> None:
        """Longer than a cookie, or than a cache takes it without a warning that is remembered."""
        settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{name}"
        assert open_session({"sessionid": "a" * length}).session_key == "a" * length
        assert open_session({"sessionid": "a" * (length + 1)}).session_key is None

    async def test_a_response_saves_what_it_changed(self) -> None:
        """A page that wrote to the session meanwhile has not done so in vain."""
        store = SessionStore()
        await store.aset("colour", "blue")
        await store.asave()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await scope["session"].aset("basket", [1])
            await store.aset("colour", "red")
            await store.asave()
            await send(dict(START))

        stack = SessionMiddlewareStack(application)
        await stack(scope_of("http", f"sessionid={store.session_key}"), nothing, Sent())
        stored = SessionStore(store.session_key)
        assert dict(await stored.aitems()) == {"colour": "red", "basket": [1]}

    async def test_needs_cookies(self) -> None:
        """Without CookieMiddleware around it, the stack is wrong."""
        with pytest.raises(ValueError, match="inside of CookieMiddleware"):
            await SessionMiddleware(None)(scope_of("http"), nothing, Sent())

    async def test_leaves_a_websocket_its_own_send(self) -> None:
        """Nothing sent over a WebSocket saves a session, so group messages go straight out."""
        seen = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append(send)

        send = Sent()
        await SessionMiddlewareStack(application)(scope_of("websocket"), nothing, send)
        await SessionMiddlewareStack(application)(scope_of("http"), nothing, send)
        assert seen[0] is send
        assert is_transparent(seen[0])
        assert seen[1] is not send

    async def test_lets_the_parts_of_a_response_pass(self) -> None:
        """What saves a session adds to a response's start alone, so events go straight out."""
        seen = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append(send)

        await SessionMiddlewareStack(application)(scope_of("http"), nothing, Sent())
        assert is_transparent(seen[0])

    async def test_a_subclass_may_save_on_other_messages(self) -> None:
        """A wrapper that saves on websocket.accept gets to see it."""

        class Wrapper(InstanceSessionWrapper):
            save_message_types = ["websocket.accept"]  # noqa: RUF012 - as users write it

        wrapper = Wrapper({**scope_of("websocket"), "cookies": {}}, Sent())
        assert wrapper.acts_on_send
        await wrapper.resolve_session()
        await wrapper.scope["session"].aset("colour", "blue")
        await wrapper.send({"type": "websocket.accept"})
        assert await Session.objects.aexists()

    async def test_saves_when_the_response_starts(self) -> None:
        """A changed session is saved and its cookie set, with the project's protection."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await scope["session"].aset("colour", "blue")
            await send(dict(START))

        sent = Sent()
        await SessionMiddlewareStack(application)(scope_of("http"), nothing, sent)
        (cookie,) = sent.cookies
        match = re.match(r"sessionid=(\w+); expires=.+; HttpOnly; Max-Age=1209600; Path=/;", cookie)
        assert match
        assert cookie.endswith("SameSite=Lax")
        assert await SessionStore(match[1]).aget("colour") == "blue"

    async def test_a_session_of_the_browser_has_no_age(self, settings: Settings) -> None:
        """SESSION_EXPIRE_AT_BROWSER_CLOSE and SESSION_COOKIE_SECURE are kept to."""
        settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
        settings.SESSION_COOKIE_SECURE = True

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await scope["session"].aset("colour", "blue")
            await send(dict(START))

        sent = Sent()
        await SessionMiddlewareStack(application)(scope_of("http"), nothing, sent)
        assert "Max-Age" not in sent.cookies[0]
        assert sent.cookies[0].endswith("; Secure")

    @pytest.mark.parametrize("status", [200, 500])
    async def test_saves_only_what_changed_and_worked(self, status: int) -> None:
        """An unchanged session sets no cookie, nor does one whose request failed."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if status == 500:
                await scope["session"].aset("colour", "blue")
            await send({**START, "status": status})

        sent = Sent()
        await SessionMiddlewareStack(application)(scope_of("http"), nothing, sent)
        assert sent.cookies == []
        assert not await Session.objects.aexists()

    async def test_may_save_every_request(self, settings: Settings) -> None:
        """SESSION_SAVE_EVERY_REQUEST saves an unchanged session too."""
        settings.SESSION_SAVE_EVERY_REQUEST = True
        store = SessionStore()
        await store.aset("colour", "blue")
        await store.asave()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send(dict(START))

        sent = Sent()
        cookie = f"sessionid={store.session_key}"
        await SessionMiddlewareStack(application)(scope_of("http", cookie), nothing, sent)
        assert sent.cookies[0].startswith(cookie)

    async def test_deletes_the_cookie_of_an_emptied_session(self) -> None:
        """A session that was flushed takes its cookie along, if there was one."""
        store = SessionStore()
        await store.aset("colour", "blue")
        await store.asave()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await scope["session"].aflush()
            await send(dict(START))

        for cookie, expected in ((f"sessionid={store.session_key}", 1), (None, 0)):
            sent = Sent()
            await SessionMiddlewareStack(application)(scope_of("http", cookie), nothing, sent)
            assert len(sent.cookies) == expected
            assert all('sessionid=""' in each for each in sent.cookies)

    async def test_says_that_the_session_was_deleted(self) -> None:
        """A session deleted elsewhere meanwhile is a SuspiciousOperation, as in Django."""
        store = SessionStore()
        await store.aset("colour", "blue")
        await store.asave()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await scope["session"].aset("colour", "red")
            await sync_to_async(SessionStore(store.session_key).flush)()
            await send(dict(START))

        with pytest.raises(SuspiciousOperation, match="session was deleted"):
            await SessionMiddlewareStack(application)(
                scope_of("http", f"sessionid={store.session_key}"), nothing, Sent()
            )

    async def test_only_the_outermost_middleware_acts(self) -> None:
        """A session that is there already is left to whoever made it."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await scope["session"].aset("colour", "blue")
            await send(dict(START))

        sent = Sent()
        await SessionMiddlewareStack(SessionMiddleware(application))(
            scope_of("http"), nothing, sent
        )
        assert len(sent.cookies) == 1
