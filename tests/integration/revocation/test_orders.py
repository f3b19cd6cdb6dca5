"""
Logins that end, and the sockets that end with them: told by signals and by ``disconnect()``.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.db import transaction
from django.test import Client
from pytest_django import Settings

import fairway
from fairway.layers.layer import InMemoryChannelLayer
from fairway.layers.registry import channel_layers
from fairway.revocation import orders, roll, rolls
from fairway.revocation.names import control_group
from fairway.revocation.roll import Roll
from fairway.session_stores import engine
from tests.integration.revocation.conftest import (
    SECONDS_MAX,
    Site,
    ask,
    closed,
    log_in,
    log_in_soon,
    make_user_soon,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_loop]

ENGINES = ("db", "cache", "cached_db", "file")


@pytest.fixture(params=ENGINES)
def any_engine(request: pytest.FixtureRequest, settings: Settings) -> None:
    """
    Each engine that keeps sessions on the server.
    """
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"


async def two(site: Site) -> tuple[Any, Client, Any, Client, Any]:
    """
    Open a socket in each of two browsers of one user.
    """
    user = await make_user_soon()
    here, there = await log_in_soon(user), await log_in_soon(user)
    return user, here, await site.open(here), there, await site.open(there)


class TestPages:
    """
    What happens on pages.
    """

    async def test_logout_closes_that_session(self, site: Site, any_engine: None) -> None:
        """By Django's own view, with every engine: the other browser's socket stays."""
        _, here, mine, _, other = await two(site)
        second = await site.open(here, "sync/")
        await sync_to_async(here.post)("/logout/")
        assert await closed(mine) == 4401
        assert await closed(second) == 4401
        assert await ask(other) == "bob: hello"

    async def test_a_password_change_closes_all_but_its_own(
        self, site: Site, any_engine: None
    ) -> None:
        """Who changed it stays, under the new key of the session; whose hash is old does not."""
        _, here, mine, _, other = await two(site)
        data = {
            "old_password": "secret",
            "new_password1": "p4ss-w0rd",
            "new_password2": "p4ss-w0rd",
        }
        before = here.cookies["sessionid"].value
        assert (await sync_to_async(here.post)("/password/", data)).status_code == 302
        assert here.cookies["sessionid"].value != before
        assert await closed(other) == 4401
        assert await ask(mine, "a=1") == "bob: a=1"
        assert await ask(mine, "fresh") == "bob: fresh"
        session = await sync_to_async(lambda: dict(here.session.items()))()
        assert session["a"] == "1"
        await sync_to_async(here.post)("/logout/")
        assert await closed(mine) == 4401

    async def test_a_new_key_closes_nobody(self, site: Site, any_engine: None) -> None:
        """The socket follows its session, whose end it hears of under the new name."""
        _, here, mine, _, _ = await two(site)
        await sync_to_async(here.get)("/cycle/")
        await sync_to_async(here.get)("/change/?key=page&value=1")
        assert await ask(mine, "socket=2") == "bob: socket=2"
        session = await sync_to_async(lambda: dict(here.session.items()))()
        assert (session["page"], session["socket"]) == ("1", "2")
        await sync_to_async(here.session.flush)()
        assert await closed(mine) == 4401

    async def test_logging_in_keeps_the_visitors_socket(self, site: Site) -> None:
        """An anonymous session that a login gives a new key goes on."""
        browser = Client()
        await sync_to_async(browser.get)("/change/?key=a&value=1")
        visitor = await site.open(browser)
        await sync_to_async(browser.force_login)(await make_user_soon())
        assert await ask(visitor) == "AnonymousUser: hello"
        await sync_to_async(browser.logout)()
        assert await closed(visitor) == 4401

    async def test_another_user_in_the_same_browser(self, site: Site) -> None:
        """The session is flushed then, and what it had opened is closed."""
        browser = await log_in_soon(await make_user_soon())
        socket = await site.open(browser)
        await sync_to_async(browser.force_login)(await make_user_soon("bill"))
        assert await closed(socket) == 4401


class TestSlowPages:
    """
    A page that changes the password and takes its time until the session is saved.
    """

    @pytest.fixture(autouse=True)
    def waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Leave it to the test when the database is asked first; the second time comes soon.
        """
        monkeypatch.setattr(roll, "GRACE_SECONDS", 60)
        monkeypatch.setattr(roll, "ROTATION_SECONDS", 1.0)

    async def change_password(self, user: Any, browser: Client) -> Any:
        """
        Do what the page does before it is slow.
        """
        session: Any = engine()(browser.cookies["sessionid"].value)
        user.set_password("another")
        await user.asave()
        await session.acycle_key()
        await session.aset(HASH_SESSION_KEY, user.get_session_auth_hash())
        return session

    async def look(self) -> None:
        """
        Have the database asked once all processes were told, and wait for the answer.
        """
        (found,) = rolls._rolls
        async with asyncio.timeout(SECONDS_MAX):
            while not found._to_look_at:  # noqa: ASYNC110 - has no event
                await asyncio.sleep(0.005)
            found._look()
            await asyncio.gather(*found._tasks)

    async def test_the_session_may_be_saved_late(self, site: Site) -> None:
        """Under a new key it gets a second look, which finds the new hash."""
        user, here, mine, _, other = await two(site)
        session = await self.change_password(user, here)
        await self.look()
        assert await closed(other) == 4401
        (found,) = rolls._rolls
        again = len(found._timers)
        await session.asave()
        async with asyncio.timeout(SECONDS_MAX):
            while len(found._timers) == again or found._tasks:  # noqa: ASYNC110 - has no event
                await asyncio.sleep(0.01)
        assert await ask(mine) == "bob: hello"

    async def test_not_for_ever(self, site: Site) -> None:
        """A session that is not saved ends."""
        user, here, mine, _, _ = await two(site)
        await self.change_password(user, here)
        await self.look()
        assert await closed(mine) == 4401

    async def test_others_do_not_wait(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who is deactivated meanwhile leaves at once."""
        monkeypatch.setattr(roll, "ROTATION_SECONDS", 60)
        user, here, mine, _, _ = await two(site)
        await self.change_password(user, here)
        user.is_active = False
        await user.asave()
        await self.look()
        assert await closed(mine) == 4401


class TestUsers:
    """
    What happens to users.
    """

    async def test_deactivation(self, site: Site) -> None:
        """All sockets of the user, and nobody else's."""
        user, _, mine, _, other = await two(site)
        bystander = await site.open(await log_in_soon(await make_user_soon("bill")))
        user.is_active = False
        await user.asave()
        assert [await closed(mine), await closed(other)] == [4401, 4401]
        assert await ask(bystander) == "bill: hello"

    async def test_a_password_set_elsewhere(self, site: Site) -> None:
        """By the shell, say: there is no session to stay."""
        user, _, mine, _, other = await two(site)
        user.set_password("another")
        await user.asave()
        assert [await closed(mine), await closed(other)] == [4401, 4401]

    async def test_deletion(self, site: Site) -> None:
        """A deleted user's sockets close, by one object or by a queryset."""
        user, _, mine, _, _ = await two(site)
        bill = await site.open(await log_in_soon(await make_user_soon("bill")))
        await user.adelete()
        assert await closed(mine) == 4401
        await User.objects.filter(username="bill").adelete()
        assert await closed(bill) == 4401

    async def test_ordinary_changes_close_nothing(self, site: Site) -> None:
        """A new name or a last login is no end."""
        user, _, mine, _, _ = await two(site)
        user.first_name = "Bob"
        await user.asave()
        await user.asave(update_fields=["last_login"])
        (found,) = rolls._rolls
        await asyncio.gather(*found._tasks)
        assert await ask(mine) == "bob: hello"

    async def test_a_proxy_of_the_model_counts(self, site: Site) -> None:
        """Signals name the class that was saved."""
        from django.apps import apps

        class Person(User):
            class Meta:
                proxy = True
                app_label = "auth"

        from fairway.revocation import watch

        try:
            watch.begin()
            user, _, mine, _, _ = await two(site)
            person = await Person.objects.aget(pk=user.pk)
            person.is_active = False
            await person.asave()
            assert await closed(mine) == 4401
        finally:
            del apps.all_models["auth"]["person"]
            apps.clear_cache()


class TestSessions:
    """
    What happens to sessions without a page.
    """

    async def test_deleting_one(self, site: Site, any_engine: None) -> None:
        """By its store, sync and async."""
        _, here, mine, there, other = await two(site)
        await sync_to_async(engine()(here.cookies["sessionid"].value).delete)()
        assert await closed(mine) == 4401
        store = engine()(there.cookies["sessionid"].value)
        # Django's own would delete a file on the event loop.
        await (sync_to_async(store.delete)() if "file" in store.__module__ else store.adelete())
        assert await closed(other) == 4401

    async def test_the_async_twins(self, site: Site) -> None:
        """A new key and a flush by the methods that are coroutines, as alogout() calls them."""
        _, here, mine, _, _ = await two(site)
        session: Any = engine()(here.cookies["sessionid"].value)
        await session.acycle_key()
        assert await ask(mine, "a=1") == "bob: a=1"
        await session.aflush()
        assert await closed(mine) == 4401

    async def test_deleting_its_row(self, site: Site) -> None:
        """As recipes do that go through all of a user's sessions."""
        _, _, mine, _, other = await two(site)
        async for row in Session.objects.all():
            await row.adelete()
        assert [await closed(mine), await closed(other)] == [4401, 4401]

    async def test_many_are_deleted_at_once_as_ever(self) -> None:
        """Clearsessions goes on being one statement."""
        from django.db.models.signals import post_delete, pre_delete

        assert not post_delete.has_listeners(Session)
        assert not pre_delete.has_listeners(Session)

    async def test_signed_cookies(self, site: Site, settings: Settings) -> None:
        """A logout closes sockets opened with the cookie it ends."""
        settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
        _, here, mine, _, _ = await two(site)
        await sync_to_async(here.post)("/logout/")
        assert await closed(mine) == 4401


class TestTransactions:
    """
    Orders leave with the commit.
    """

    @pytest.mark.parametrize("commit", [True, False])
    async def test_after_the_commit(self, site: Site, commit: bool) -> None:
        """What is rolled back closes nothing."""
        user, _, mine, _, _ = await two(site)

        def work() -> None:
            with transaction.atomic():
                fairway.disconnect(user=user)
                User.objects.get(pk=user.pk).delete()
                assert rolls._rolls[0].users.of(str(user.pk))
                if not commit:
                    transaction.set_rollback(True)

        await sync_to_async(work)()
        if commit:
            assert await closed(mine) == 4401
        else:
            assert await ask(mine) == "bob: hello"


class TestConsumers:
    """
    Logins from within a consumer.
    """

    @pytest.mark.parametrize("where", ["ws/", "sync/"])
    async def test_logging_out(self, site: Site, where: str) -> None:
        """The consumer's own socket stays, as nobody's; others of the session close."""
        _, here, _, _, other = await two(site)
        mine, second = await site.open(here, where), await site.open(here)
        assert await ask(mine, "logout") == "AnonymousUser: logout"
        assert await closed(second) == 4401
        assert await ask(mine) == "AnonymousUser: hello"
        assert await ask(other) == "bob: hello"

    @pytest.mark.parametrize("where", ["ws/", "sync/"])
    async def test_logging_in(self, site: Site, where: str) -> None:
        """From then on the socket is that user's."""
        user = await make_user_soon()
        socket = await site.open(None, where)
        assert await ask(socket, "login bob") == "bob: login bob"
        fairway.disconnect(user=user)
        assert await closed(socket) == 4401

    async def test_logging_in_as_another(self, site: Site) -> None:
        """The socket changes hands: what ends the former user does not end it."""
        user, _, mine, _, _ = await two(site)
        await make_user_soon("bill")
        assert await ask(mine, "login bill") == "bill: login bill"
        await fairway.adisconnect(user=user)
        assert await ask(mine) == "bill: hello"
        await fairway.adisconnect(user=await User.objects.aget(username="bill"))
        assert await closed(mine) == 4401

    async def test_a_busy_consumer(self, site: Site) -> None:
        """The socket closes whatever its handler is doing."""
        user = await make_user_soon()
        socket = await site.open(await log_in_soon(user), "busy/")
        assert await ask(socket) == "busy"
        fairway.disconnect(user=user)
        assert await closed(socket) == 4401


class TestRequests:
    """
    Requests that last.
    """

    async def test_streams_and_polls_end(self, site: Site) -> None:
        """A stream ends; a poll that has said nothing yet is answered with 401."""
        user = await make_user_soon()
        browser = await log_in_soon(user)
        stream, poll = await site.get(browser, "stream/"), await site.get(browser, "poll/")
        await stream.read_until(b"\r\n\r\n")
        await _with_members(2)
        await fairway.adisconnect(user=user)
        assert (await poll.response()).status == 401
        assert b"retry: " in await stream.read_until(b"\r\n0\r\n\r\n")


async def _with_members(number: int) -> tuple[Roll, ...]:
    async with asyncio.timeout(SECONDS_MAX):
        while not rolls._rolls or len(rolls._rolls[0].members) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return rolls._rolls


class TestDisconnect:
    """
    ``disconnect()`` and ``adisconnect()``.
    """

    async def test_by_user_session_and_group(self, site: Site) -> None:
        """Each names its own, with code and reason of the caller."""
        user, here, mine, there, other = await two(site)
        bystander = await site.open(await log_in_soon(await make_user_soon("bill")))
        await fairway.adisconnect(session=here.session, code=4000, reason="bye")
        assert (await closed(mine), mine.close_reason) == (4000, "bye")
        await sync_to_async(fairway.disconnect)(user=user.pk, strict=True)
        assert await closed(other) == 4401
        again = await site.open(there)
        assert await ask(again) == "bob: hello"
        fairway.disconnect(session=there.cookies["sessionid"].value)
        assert await closed(again) == 4401
        fairway.disconnect(group="room", code=1000)
        assert await closed(bystander) == 1000

    @pytest.mark.parametrize(
        ("given", "error", "words"),
        [
            ({}, TypeError, "exactly one of user, session and group, not 0"),
            ({"user": 1, "group": "a"}, TypeError, "not 2"),
            ({"user": AnonymousUser()}, ValueError, "a user with a primary key, got <.*Anonymous"),
            ({"session": ""}, ValueError, "a session with a key"),
            ({"user": 1, "code": 1006}, ValueError, "expected a close code"),
            ({"user": 1, "reason": "x\n"}, ValueError, "reason"),
            ({"group": ""}, TypeError, "1 to 1024 bytes"),
            ({"group": "a", "layer": "none"}, ValueError, "no channel layer 'none'"),
        ],
    )
    async def test_mistakes_are_the_callers(
        self, layer: InMemoryChannelLayer, given: Any, error: type[Exception], words: str
    ) -> None:
        """They raise at once, where they are made."""
        with pytest.raises(error, match=words):
            fairway.disconnect(**given)
        with pytest.raises(error, match=words):
            await fairway.adisconnect(**given)

    async def test_strict_would_stop_the_loop(self) -> None:
        """On an event loop there is the other one for that."""
        with pytest.raises(RuntimeError, match="await adisconnect"):
            fairway.disconnect(user=1, strict=True)


class TestRoll:
    """
    What is kept of connections.
    """

    async def test_nothing_is_left(self, site: Site, layer: InMemoryChannelLayer) -> None:
        """Entries, the group and what was to be done go with the last connection."""
        _, _, mine, _, other = await two(site)
        (found,) = await _with_members(2)
        assert [len(found.users), len(found.sessions), len(found.members)] == [1, 2, 2]
        (key,) = found.users
        assert len(found.users.of(key)) == 2
        await mine.close()
        await other.close()
        async with asyncio.timeout(SECONDS_MAX):
            while rolls._rolls:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)
        assert [len(found.users), len(found.sessions), len(found.members)] == [0, 0, 0]
        assert not found._timers
        assert layer.groups == {}

    async def test_the_next_finds_what_the_last_left(self, site: Site) -> None:
        """Requests that come one by one do not have a roll made for each."""
        used = []
        for _ in range(2):
            scope: Any = {"type": "http", "headers": []}
            rolls.enter(scope, None, "default")
            used.append(rolls._rolls[0])
            rolls.leave(scope)
            assert not rolls.exist()
        assert used[0] is used[1]

    async def test_the_next_may_have_another_server(self, site: Site) -> None:
        """What rested works in the threads of who comes, not of who left."""
        contexts = []
        for _ in range(2):
            scope: Any = {"type": "http", "headers": []}
            rolls.enter(scope, None, "default")
            contexts.append(rolls._rolls[0]._context)
            rolls.leave(scope)
        assert contexts[0] is not contexts[1]

    async def test_other_settings_make_another(self, site: Site, settings: Settings) -> None:
        """What rests does not outlive a change of settings."""
        scope: Any = {"type": "http", "headers": []}
        used = []
        for interval in (10, 20):
            settings.FAIRWAY = {"RECHECK_INTERVAL": interval}
            rolls.enter(scope, None, "default")
            used.append(rolls._rolls[0])
            rolls.leave(scope)
        assert used[0] is not used[1]

    async def test_one_group_for_all(self, site: Site, layer: InMemoryChannelLayer) -> None:
        """However many users are here, there is one member of one group besides their own."""
        for name in "abc":
            await site.open(await log_in_soon(await make_user_soon(name)))
        assert {name: len(channels) for name, channels in layer.hub.groups.items()} == {
            "room": 3,
            control_group(): 1,
        }

    async def test_a_session_that_ended_just_before(self, site: Site) -> None:
        """A connection that had read its session before, and enters after, is closed too."""
        _, here, mine, _, _ = await two(site)
        key = here.cookies["sessionid"].value
        await fairway.adisconnect(session=key)
        assert await closed(mine) == 4401
        late = End({"type": "websocket", "session": engine()(key), "user": AnonymousUser()})
        late.enter()
        async with asyncio.timeout(SECONDS_MAX):
            assert await late.code == 4401
        rolls.leave(late.scope)

    async def test_a_user_who_was_changed_just_before(self, site: Site) -> None:
        """A connection that had read its user before, and enters after, is looked at too."""
        user, _, mine, _, _ = await two(site)
        # Somebody who keeps the roll alive.
        await site.open(await log_in_soon(await make_user_soon("bill")))
        user.is_active = False
        await user.asave()
        assert await closed(mine) == 4401
        user.is_active = True  # As the connection had read it.
        late = End({"type": "websocket", "user": user})
        late.enter()
        async with asyncio.timeout(SECONDS_MAX):
            assert await late.code == 4401
        rolls.leave(late.scope)

    async def test_a_login_that_ended_before_orders_were_heard(
        self, site: Site, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Joining the group of orders may take a while, with other processes that end logins."""
        join, joined = layer.group_add, asyncio.Event()

        async def join_late(group: str, channel: str) -> None:
            await joined.wait()
            await join(group, channel)

        browser = await log_in_soon(await make_user_soon())
        monkeypatch.setattr(layer, "group_add", join_late)
        late = End({"type": "websocket", "session": engine()(browser.cookies["sessionid"].value)})
        late.enter()
        monkeypatch.setattr(layer.broker, "alone", False)
        await Session.objects.all().adelete()  # Nobody is told.
        joined.set()
        async with asyncio.timeout(SECONDS_MAX):
            assert await late.code == 4401
        rolls.leave(late.scope)


class End:
    """
    The server's end of a WebSocket that is about to enter the roll.
    """

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = {**scope, "extensions": {"fairway": {"outbox": self}}}
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def enter(self) -> None:
        """
        Enter.
        """
        rolls.enter(self.scope, None, "default")

    def close(self, code: int, reason: str) -> None:
        """
        See ``types.Outbox``.
        """
        self.code.set_result(code)


def test_a_process_without_sockets_says_nothing(
    transactional_db: None, django_capture_on_commit_callbacks: Any
) -> None:
    """Where the layer reaches this process alone, and nobody is here, nothing is sent or waits."""
    layer = InMemoryChannelLayer()
    previous = channel_layers.set("default", layer)
    try:
        user = User.objects.create_user("bob")
        with django_capture_on_commit_callbacks() as callbacks, transaction.atomic():
            log_in(user).logout()
            user.delete()
        assert callbacks == []
        assert not layer.hub.owner.lives
    finally:
        channel_layers.set("default", previous)


def test_a_layer_described_wrongly_fails_no_page(
    transactional_db: None, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Who logs out is logged out; a line says who was not told."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "no.such.Layer"}}
    orders.notices._kinds.clear()
    user = User.objects.create_user("bob")
    log_in(user).logout()
    assert not Session.objects.exists()
    assert any("[fairway.R501]" in record.getMessage() for record in caplog.records)
