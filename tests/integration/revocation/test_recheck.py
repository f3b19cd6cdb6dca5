"""
Asking the database whether logins still hold, at an interval that tests need not wait for.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from websockets.asyncio.client import ClientConnection

from fairway.exceptions import ConfigurationError
from fairway.revocation import recheck, roll, rolls
from fairway.revocation.members import Member
from fairway.session_stores import engine, merging_store
from tests.integration.revocation.conftest import (
    SECONDS_MAX,
    Site,
    ask,
    closed,
    log_in,
    log_in_soon,
    make_user,
    make_user_soon,
)
from tests.protocol import harness

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def often(settings: Settings) -> None:
    """
    A re-check every few milliseconds.
    """
    settings.FAIRWAY = {"RECHECK_INTERVAL": 0.02}


async def logged_in(site: Site, name: str) -> tuple[Any, ClientConnection]:
    """
    Open the socket of a new user.
    """
    user = await make_user_soon(name)
    return user, await site.open(await log_in_soon(user))


@pytest.mark.usefixtures("often")
class TestSockets:
    """
    What nobody was told.
    """

    async def test_changes_that_send_no_signal(self, site: Site) -> None:
        """Users and sessions changed by queryset, and sessions that have expired."""
        bob, inactive = await logged_in(site, "bob")
        bill, deleted = await logged_in(site, "bill")
        _, expired = await logged_in(site, "eve")
        _, stays = await logged_in(site, "zoe")
        past = timezone.now() - dt.timedelta(seconds=1)
        rows = {row.get_decoded()["_auth_user_id"]: row async for row in Session.objects.all()}
        eve = await User.objects.aget(username="eve")
        await User.objects.filter(pk=bob.pk).aupdate(is_active=False)
        await Session.objects.filter(pk=rows[str(bill.pk)].pk).adelete()
        await Session.objects.filter(pk=rows[str(eve.pk)].pk).aupdate(expire_date=past)
        assert [await closed(each) for each in (inactive, deleted, expired)] == [4401] * 3
        assert await ask(stays) == "zoe: hello"

    async def test_a_password_changed_by_queryset(self, site: Site) -> None:
        """The session's hash is compared."""
        bob, socket = await logged_in(site, "bob")
        _, stays = await logged_in(site, "zoe")
        await User.objects.filter(pk=bob.pk).aupdate(password="!")
        assert await closed(socket) == 4401
        assert await ask(stays) == "zoe: hello"

    @pytest.mark.parametrize("name", ["cache", "file"])
    async def test_other_engines(
        self, site: Site, settings: Settings, name: str, session_files: Path
    ) -> None:
        """Sessions that went from a cache or a folder without a word."""
        settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{name}"
        _, socket = await logged_in(site, "bob")
        assert await ask(socket) == "bob: hello"
        caches["default"].clear()
        for file in list(session_files.iterdir()):  # noqa: ASYNC240 - a test may wait for a folder
            file.unlink()
        assert await closed(socket) == 4401

    async def test_a_database_that_is_away_ends_nothing(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is asked again; one line in 30 s says so."""
        asked = asyncio.Event()

        async def fail(members: list[Member]) -> dict[Member, bool]:
            if len(asked_times) > 3:
                asked.set()
            asked_times.append(len(members))
            raise DatabaseError("away")

        asked_times: list[int] = []
        monkeypatch.setattr(recheck, "find_ended", fail)
        _, socket = await logged_in(site, "bob")
        async with asyncio.timeout(SECONDS_MAX):
            await asked.wait()
        assert await ask(socket) == "bob: hello"
        lines = [each for each in caplog.records if "[fairway.R503]" in each.getMessage()]
        assert [each.levelno for each in lines] == [logging.WARNING]

    async def test_a_slow_database_is_asked_once_at_a_time(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many intervals go by until it answers, questions do not pile up."""
        answer = asyncio.Event()
        asked: list[int] = []
        ticks: list[None] = []
        tick = roll.Roll._tick

        async def find(members: list[Member]) -> dict[Member, bool]:
            asked.append(len(members))
            await answer.wait()
            return {}

        def count(self: roll.Roll) -> None:
            ticks.append(None)
            tick(self)

        monkeypatch.setattr(recheck, "find_ended", find)
        await logged_in(site, "bob")
        await harness.until(lambda: asked)
        monkeypatch.setattr(roll.Roll, "_tick", count)
        await harness.until(lambda: len(ticks) > 5)
        assert len(asked) == 1
        answer.set()
        await harness.until(lambda: len(asked) > 1)


class TestInterval:
    """
    How often.
    """

    @pytest.mark.parametrize(("given", "ticking"), [(0, False), (60, True)])
    async def test_off_or_on(
        self, site: Site, settings: Settings, given: float, ticking: bool
    ) -> None:
        """0 asks nothing."""
        settings.FAIRWAY = {"RECHECK_INTERVAL": given}
        await logged_in(site, "bob")
        assert rolls._rolls[0]._ticking is ticking

    async def test_bounds(self, settings: Settings) -> None:
        """A wrong value is a mistake in the settings."""
        settings.FAIRWAY = {"RECHECK_INTERVAL": -1}
        with pytest.raises(ConfigurationError, match="recheck_interval"):
            roll.Roll(asyncio.get_running_loop())


def members_of(*browsers: Any) -> list[Member]:
    """
    Make members as sockets of these browsers would be.
    """
    made = []
    for browser in browsers:
        session: Any = merging_store()(browser.cookies["sessionid"].value)
        user = User.objects.get(pk=session["_auth_user_id"])
        made.append(member_of({"session": session, "user": user}))
    return made


def member_of(scope: dict[str, Any]) -> Member:
    """
    Make a member.
    """
    member = Member({"type": "websocket", **scope}, None, "default")
    member.read(scope)
    return member


class TestQueries:
    """
    What it costs.
    """

    @pytest.mark.one_loop
    async def test_two_queries_for_any_number(self) -> None:
        """One for all users, one for all sessions."""

        def ask_about(number: int) -> int:
            users = [make_user(f"bob{number}.{each}") for each in range(number)]
            members = members_of(*(log_in(user) for user in users for _ in range(2)))
            with CaptureQueriesContext(connection) as captured:
                assert recheck.find_ended.func(members) == {}
            return len(captured)

        assert await sync_to_async(ask_about)(1) == 2
        assert await sync_to_async(ask_about)(20) == 2

    @pytest.mark.one_loop
    async def test_a_session_is_read_once_for_all_its_sockets(self) -> None:
        """After a change of password, whether they may stay or not; each has values of its own."""

        def change(number: int, *, stay: bool) -> tuple[int, int]:
            user = make_user(f"bob{number}{stay}")
            browser = log_in(user)
            members = members_of(*[browser] * number)
            user.set_password("another")
            user.save()
            session: Any = engine()(browser.cookies["sessionid"].value)
            session.update({"list": [1], HASH_SESSION_KEY: user.get_session_auth_hash()})
            if stay:
                session.save()
            with CaptureQueriesContext(connection) as captured:
                ended = recheck.find_ended.func(members)
            lists = {id(member.store.get("list")) for member in members}
            assert len(lists) == (number if stay else 1)
            return len(captured), len(ended)

        assert await sync_to_async(change)(20, stay=False) == (3, 20)
        assert await sync_to_async(change)(20, stay=True) == (3, 0)

    @pytest.mark.one_loop
    async def test_in_parts_where_a_statement_takes_no_more(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A limit on variables is kept to."""
        monkeypatch.setattr(type(connection.features), "max_query_params", 10)

        def ask_about() -> dict[Member, bool]:
            users = [make_user(f"bob{each}") for each in range(15)]
            members = members_of(*(log_in(user) for user in users))
            User.objects.filter(pk=users[14].pk).update(is_active=False)
            ended: dict[Member, bool] = recheck.find_ended.func(members)
            assert [member.user for member in ended] == [str(users[14].pk)]
            return ended

        assert await sync_to_async(ask_about)()


class TestRule:
    """
    Who may stay.
    """

    def test_users_without_a_session(self) -> None:
        """A token's user needs no session, but has to exist and to be active."""
        bob, bill = make_user("bob"), make_user("bill")
        members = [member_of({"user": each}) for each in (bob, bill, User(pk=77))]
        User.objects.filter(pk=bill.pk).update(is_active=False)
        assert list(recheck.find_ended.func(members)) == members[1:]

    def test_users_of_another_kind_are_left_alone(self) -> None:
        """What is no row of the user table cannot be looked up there."""

        class Device:
            pk = 5
            is_authenticated = True

        members = [member_of({"user": Device()}), member_of({"user": AnonymousUser()})]
        assert [member.user for member in members] == [f"{Device.__qualname__}:5", None]
        assert recheck.find_ended.func(members) == {}

    def test_a_backend_may_let_the_inactive_in(self, settings: Settings) -> None:
        """As Django's AllowAllUsersModelBackend does; one that is not configured counts no more."""
        backend = "django.contrib.auth.backends.AllowAllUsersModelBackend"
        settings.AUTHENTICATION_BACKENDS = [backend]
        user = make_user()
        members = members_of(log_in(user))
        User.objects.filter(pk=user.pk).update(is_active=False)
        assert recheck.find_ended.func(members) == {}
        settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
        assert list(recheck.find_ended.func(members)) == members

    def test_an_older_secret_key_still_counts(self, settings: Settings) -> None:
        """A session made under a key in SECRET_KEY_FALLBACKS stays."""
        members = members_of(log_in(make_user()))
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "rotated"
        assert recheck.find_ended.func(members) == {}

    def test_plain_mappings_will_do(self) -> None:
        """Sessions that tests put into scopes have no key and are not asked about."""
        members = [member_of({"session": {}, "user": make_user()})]
        assert recheck.find_ended.func(members) == {}

    def test_signed_cookies_are_only_as_good_as_their_user(self, settings: Settings) -> None:
        """Nothing is stored that could be gone."""
        settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
        user = make_user()
        session: Any = engine()()
        session.update({"_auth_user_id": str(user.pk)})
        session.update({"_auth_user_backend": "django.contrib.auth.backends.ModelBackend"})
        session["_auth_user_hash"] = user.get_session_auth_hash()
        session.save()
        members = [member_of({"session": session, "user": user})]
        assert recheck.find_ended.func(members) == {}
        user.set_password("another")
        user.save()
        assert list(recheck.find_ended.func(members)) == members
