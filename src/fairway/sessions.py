"""
Cookies and Django's sessions in ``scope["cookies"]`` and ``scope["session"]``.

Reading a cookie touches no database: a session loads itself when something first
looks into it. Saving and setting cookies happens only where an answer can carry a
cookie, which is the start of an HTTP response; over a WebSocket the code that
changes a session saves it. Users live in ``auth``.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core.exceptions import SuspiciousOperation
from django.http import parse_cookie
from django.utils.functional import LazyObject
from django.utils.http import http_date

from fairway.callables import single_callable
from fairway.db import database_sync_to_async
from fairway.session_stores import key_length_max, merging_store
from fairway.types import Message, Receive, Scope, Send

__all__ = [
    "CookieMiddleware",
    "InstanceSessionWrapper",
    "OwnSession",
    "SessionMiddleware",
    "SessionMiddlewareStack",
    "open_session",
    "read_cookies",
]

_LONG_AGO = "Thu, 01-Jan-1970 00:00:00 GMT"

_KEY = re.compile(r"[!-~]+")


def read_cookies(scope: Scope) -> dict[str, str]:
    """
    Parse the cookies of a request.

    HTTP/2 clients may send them as several fields; they belong together.
    """
    fields = [value for name, value in scope["headers"] if name == b"cookie"]
    return parse_cookie(b"; ".join(fields).decode("latin1")) if fields else {}


def open_session(cookies: Mapping[str, str]) -> SessionBase:
    """
    Make the session that the cookies name, unread; a new one if they name none.
    """
    name = settings.SESSION_COOKIE_NAME if cookies else ""
    return merging_store()(_session_key(cookies, name))


class CookieMiddleware:
    """
    Puts the request's cookies into ``scope["cookies"]``.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = single_callable(inner, type(self).__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Run the inner application with the cookies in its scope.

        Raises:
            ValueError: The scope has no headers.
        """
        if "headers" not in scope:
            raise ValueError(
                "CookieMiddleware was passed a scope that did not have a headers key "
                "(make sure it is only passed HTTP or WebSocket connections)"
            )
        return await self.inner(dict(scope, cookies=read_cookies(scope)), receive, send)

    @classmethod
    def set_cookie(  # noqa: PLR0913, PLR0917 - the arguments of Django's set_cookie()
        cls,
        message: Message,
        key: str,
        value: str = "",
        max_age: float | None = None,
        expires: str | dt.datetime | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool | None = False,
        httponly: bool | None = False,
        samesite: str | None = "lax",
    ) -> None:
        """
        Set a cookie in an ``http.response.start``.

        Args:
            message: The message, whose headers are extended.
            key: The cookie's name.
            value: The cookie's value.
            max_age: Its life in seconds; None ends it with the browser.
            expires: Its end, as the text of the field or as a datetime (naive: UTC).
            path: Where it is valid.
            domain: For which hosts; None for the present one alone.
            secure: Whether it travels over TLS only.
            httponly: Whether it is hidden from scripts.
            samesite: ``lax``, ``strict``, ``none``, or None to leave it to the browser.
        """
        if isinstance(expires, dt.datetime):
            max_age, expires = _seconds_until(expires), None
        if max_age is not None and not expires:
            expires = http_date(time.time() + max_age)
        cookies: SimpleCookie = SimpleCookie({key: str(value)})
        morsel = cookies[key]
        morsel["expires"] = expires or ""
        attributes: dict[str, Any] = {
            "max-age": max_age,
            "path": path,
            "domain": domain,
            "secure": secure or None,
            "httponly": httponly or None,
            "samesite": samesite,
        }
        morsel.update({name: given for name, given in attributes.items() if given is not None})
        if samesite is not None and samesite.lower() not in {"strict", "lax", "none"}:
            raise AssertionError("samesite must be either 'strict', 'lax' or 'none'")
        # The case that Channels uses, since tests compare it.
        header = (b"Set-Cookie", cookies.output(header="").strip().encode())
        message.setdefault("headers", []).append(header)

    @classmethod
    def delete_cookie(
        cls, message: Message, key: str, path: str | None = "/", domain: str | None = None
    ) -> None:
        """
        Have the browser forget a cookie.
        """
        cls.set_cookie(message, key, max_age=0, path=path, domain=domain, expires=_LONG_AGO)


class InstanceSessionWrapper:
    """
    One scope's session: opened for it, and saved when the response starts.

    Attributes:
        save_message_types: What the application sends when its session is to be saved.
        cookie_response_message_types: Which of these can carry a cookie.
        activated: Whether this is the outermost session middleware, which alone acts.
    """

    save_message_types: ClassVar[list[str]] = ["http.response.start"]
    cookie_response_message_types: ClassVar[list[str]] = ["http.response.start"]

    def __init__(self, scope: Scope, send: Send) -> None:
        self.cookie_name = settings.SESSION_COOKIE_NAME
        self.session_store = merging_store()
        self.scope: Scope = dict(scope)
        self.real_send = send
        self.activated = "session" not in self.scope
        if self.activated:
            if "cookies" not in self.scope:
                raise ValueError(
                    "No cookies in scope - SessionMiddleware needs to run "
                    "inside of CookieMiddleware."
                )
            # Subclasses fill it by resolve_session(), which may wait.
            self.scope["session"] = LazyObject()

    async def resolve_session(self) -> None:
        """
        Open the session that the cookie names. It is not read yet.
        """
        if self.activated:
            session_key = _session_key(self.scope["cookies"], self.cookie_name)
            session = self.session_store(session_key)
            self.scope["session"]._wrapped = session  # noqa: SLF001 - how subclasses fill it

    @property
    def acts_on_send(self) -> bool:
        """
        Whether anything sent in this scope can have the session saved.
        """
        protocol = f"{self.scope['type']}."
        return self.activated and any(kind.startswith(protocol) for kind in self.save_message_types)

    async def send(self, message: Message) -> None:
        """
        Send a message, saving the session and setting its cookie where it is time for that.
        """
        if self.activated and self._is_time_to_save(message):
            session = self.scope["session"]
            empty = session.is_empty()
            await database_sync_to_async(self.save_session)()
            if message["type"] in self.cookie_response_message_types:
                self._set_cookie(message, session, empty=empty)
        await self.real_send(message)

    # It adds to the start of a response and changes nothing that follows.
    send.fairway_transparent = True  # type: ignore[attr-defined] # functions take attributes

    def save_session(self) -> None:
        """
        Save the session.

        Raises:
            SuspiciousOperation: It was deleted meanwhile, as by a logout elsewhere.
        """
        try:
            self.scope["session"].save()
        except UpdateError as error:
            raise SuspiciousOperation(
                "The request's session was deleted before the request completed. "
                "The user may have logged out in a concurrent request, for example."
            ) from error

    def _is_time_to_save(self, message: Message) -> bool:
        return (
            message["type"] in self.save_message_types
            and message.get("status", 200) != 500
            and (self.scope["session"].modified or settings.SESSION_SAVE_EVERY_REQUEST)
        )

    def _set_cookie(self, message: Message, session: Any, *, empty: bool) -> None:
        """
        Set the session's cookie, or delete it once the session is empty.
        """
        place = {"path": settings.SESSION_COOKIE_PATH, "domain": settings.SESSION_COOKIE_DOMAIN}
        if empty:
            if self.cookie_name in self.scope["cookies"]:
                CookieMiddleware.delete_cookie(message, self.cookie_name, **place)
            return
        ends_with_browser = session.get_expire_at_browser_close()
        CookieMiddleware.set_cookie(
            message,
            self.cookie_name,
            session.session_key,
            max_age=None if ends_with_browser else session.get_expiry_age(),
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=settings.SESSION_COOKIE_HTTPONLY,
            samesite=settings.SESSION_COOKIE_SAMESITE or None,
            **place,
        )


class OwnSession(InstanceSessionWrapper):
    """
    The same for a scope that is the caller's to change: without a copy of it and a stand-in.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.cookie_name = settings.SESSION_COOKIE_NAME
        self.scope = scope
        self.real_send = send
        self.activated = "session" not in scope
        if self.activated:
            scope["session"] = open_session(scope["cookies"])


class SessionMiddleware:
    """
    Puts Django's session into ``scope["session"]``; stands inside ``CookieMiddleware``.

    A ``send`` on which nothing is to be done is handed on as it came, so that the
    messages of a group still go straight to the socket.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = single_callable(inner, type(self).__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Run the inner application with a session in its scope.
        """
        wrapper = InstanceSessionWrapper(scope, send)
        await wrapper.resolve_session()
        chosen = wrapper.send if wrapper.acts_on_send else send
        return await self.inner(wrapper.scope, receive, chosen)


def SessionMiddlewareStack(inner: Any) -> CookieMiddleware:  # noqa: N802 - Channels' name
    """
    Wrap an application in cookies and sessions.
    """
    return CookieMiddleware(SessionMiddleware(inner))


def _session_key(cookies: Mapping[str, str], name: str) -> str | None:
    """
    Give the session's key from its cookie; None for one that nobody was given.

    Quoted cookies may hold anything, and stores differ in what they do not take: PostgreSQL
    raises for a NUL, caches warn of spaces. And a project without sessions gets cookies, too.
    """
    key = cookies.get(name)
    return key if key and len(key) <= key_length_max() and _KEY.fullmatch(key) else None


def _seconds_until(moment: dt.datetime) -> int:
    """
    Count the seconds until a moment, none if it has passed; naive moments are in UTC.
    """
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    left = moment - dt.datetime.now(dt.UTC)
    # One more, so that the date matches exactly after losing the fraction.
    return max(0, int(left.total_seconds()) + 1)
