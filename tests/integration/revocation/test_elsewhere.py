"""
Logins that end where something is missing: Fairway's server, a channel layer of its own, a broker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pytest_django import Settings

import fairway
from fairway import auth
from fairway.asgi import Application, Pages
from fairway.exceptions import ChannelFull, ChannelLayerUnavailable, InvalidChannelLayerError
from fairway.layers.layer import InMemoryChannelLayer
from fairway.layers.registry import channel_layers
from fairway.revocation import orders, rolls
from fairway.revocation.hearing import ORDER
from fairway.testing import HttpCommunicator, WebsocketCommunicator
from tests.integration.revocation.conftest import (
    SECONDS_MAX,
    Site,
    ask,
    closed,
    cookie_of,
    log_in_soon,
    make_user_soon,
)
from tests.protocol.harness import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_loop]


class Foreign:
    """
    A channel layer of somebody else's.
    """

    def __init__(self) -> None:
        self.inner = InMemoryChannelLayer()

    async def new_channel(self, prefix: str = "specific") -> str:
        """
        As channels_redis has it.
        """
        return await self.inner.new_channel(prefix)

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """
        As channels_redis has it.
        """
        await self.inner.send(channel, message)

    async def receive(self, channel: str) -> dict[str, Any]:
        """
        As channels_redis has it.
        """
        return await self.inner.receive(channel)

    async def group_add(self, group: str, channel: str) -> None:
        """
        As channels_redis has it.
        """
        await self.inner.group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """
        As channels_redis has it.
        """
        await self.inner.group_discard(group, channel)


class Away(InMemoryChannelLayer):
    """
    A layer whose broker cannot be reached.
    """

    async def group_add(self, group: str, channel: str) -> None:
        """
        Fail for the group of orders alone.
        """
        if group.startswith("fairway."):
            raise ChannelLayerUnavailable("away")
        await super().group_add(group, channel)

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """
        Fail.
        """
        raise ChannelLayerUnavailable("away")


@pytest.fixture
def quiet_notices() -> Iterator[None]:
    """
    Have each line said that an earlier test may have said already.
    """
    orders.notices._kinds.clear()
    yield
    orders.notices._kinds.clear()


@pytest.fixture
async def foreign() -> AsyncIterator[Foreign]:
    """
    Somebody else's layer as the default one.
    """
    layer = Foreign()
    previous = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", previous)


@pytest.fixture
async def away() -> AsyncIterator[Away]:
    """
    A layer without its broker as the default one.
    """
    layer = Away()
    previous = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", previous)


async def communicate(where: str, browser: Any) -> WebsocketCommunicator:
    """
    Connect as another server would.
    """
    headers = [(b"host", b"testserver"), (b"cookie", cookie_of(browser)["cookie"].encode())]
    communicator = WebsocketCommunicator(Application(Pages()), where, headers)
    assert (await communicator.connect())[0]
    return communicator


class TestOtherServers:
    """
    Without Fairway's own ends, which communicators have not either.
    """

    @pytest.mark.parametrize("where", ["/ws/", "/sync/"])
    async def test_a_websocket(self, where: str, layer: InMemoryChannelLayer) -> None:
        """The consumer closes by itself, told through its channel."""
        user = await make_user_soon()
        browser, other = await log_in_soon(user), await log_in_soon(user)
        mine, stays = await communicate(where, browser), await communicate(where, other)
        await sync_to_async(browser.logout)()
        message = await mine.receive_output(SECONDS_MAX)
        assert (message["type"], message["code"]) == ("websocket.close", 4401)
        await stays.send_to(text_data="hello")
        assert await stays.receive_from() == "bob: hello"
        await mine.disconnect()
        await stays.disconnect()

    async def test_a_poll(self, layer: InMemoryChannelLayer) -> None:
        """It is answered."""
        user = await make_user_soon()
        browser = await log_in_soon(user)
        headers = [(b"host", b"testserver"), (b"cookie", cookie_of(browser)["cookie"].encode())]
        poll = HttpCommunicator(Application(Pages()), "GET", "/poll/", headers=headers)
        answer = asyncio.ensure_future(poll.get_response(SECONDS_MAX))
        async with asyncio.timeout(SECONDS_MAX):
            while not rolls.exist():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)
        await fairway.adisconnect(user=user)
        assert (await answer)["status"] == 401

    async def test_consumers_with_a_scope_of_their_own(self, layer: InMemoryChannelLayer) -> None:
        """A user that a test puts into the scope is one, without a session or a database."""

        class Chat(fairway.AsyncWebsocketConsumer):
            pass

        communicator = WebsocketCommunicator(Chat.as_asgi(), "/")
        communicator.scope["user"] = await make_user_soon()
        assert (await communicator.connect())[0]
        assert layer.groups == {}
        fairway.disconnect(user=communicator.scope["user"])
        assert (await communicator.receive_output(SECONDS_MAX))["code"] == 4401
        await communicator.disconnect()

    async def test_set_user_without_any(self, layer: InMemoryChannelLayer) -> None:
        """A consumer that had neither user nor session gets on the roll, and leaves it."""

        class Late(fairway.AsyncWebsocketConsumer):
            async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
                await auth.set_user(self, user)
                await self.send(text_data="set")

        user = await make_user_soon()
        communicator = WebsocketCommunicator(Late.as_asgi(), "/")
        assert (await communicator.connect())[0]
        assert not rolls.exist()
        await communicator.send_to(text_data="token")
        assert await communicator.receive_from() == "set"
        await fairway.adisconnect(user=user)
        assert (await communicator.receive_output(SECONDS_MAX))["code"] == 4401
        await communicator.disconnect()
        assert not rolls.exist()


class TestForeignLayers:
    """
    A default layer that is none of Fairway's.
    """

    async def test_this_process_is_told(
        self, foreign: Foreign, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Logouts here close sockets here; one line says what is missing."""
        browser = await log_in_soon(await make_user_soon())
        socket = await communicate("/ws/", browser)
        await sync_to_async(browser.logout)()
        assert (await socket.receive_output(SECONDS_MAX))["code"] == 4401
        await socket.disconnect()
        assert [record for record in caplog.records if "[fairway.R504]" in record.getMessage()]

    async def test_a_consumer_that_cannot_be_told(
        self,
        foreign: Foreign,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """One line says so, and the next re-check tries again."""
        settings.FAIRWAY = {"RECHECK_INTERVAL": 0.02}
        channel_layers.set("default", foreign)
        browser = await log_in_soon(await make_user_soon())
        socket = await communicate("/ws/", browser)
        send, refused = foreign.send, asyncio.Event()

        async def refuse(channel: str, message: dict[str, Any]) -> None:
            refused.set()
            raise ChannelFull(channel)

        monkeypatch.setattr(foreign, "send", refuse)
        await sync_to_async(browser.logout)()
        async with asyncio.timeout(SECONDS_MAX):
            await refused.wait()
        monkeypatch.setattr(foreign, "send", send)
        assert (await socket.receive_output(SECONDS_MAX))["code"] == 4401
        await socket.disconnect()
        assert any("[fairway.R501]" in record.getMessage() for record in caplog.records)

    async def test_disconnect_says_what_it_needs(self, foreign: Foreign) -> None:
        """By name, at once."""
        with pytest.raises(InvalidChannelLayerError, match="IPCChannelLayer"):
            fairway.disconnect(user=1)


class TestBrokersThatAreAway:
    """
    Nobody who logs out has to know.
    """

    async def test_nothing_raises(
        self, away: Away, caplog: pytest.LogCaptureFixture, quiet_notices: None
    ) -> None:
        """It is counted and logged; strict raises."""
        user = await make_user_soon()
        browser = await log_in_soon(user)
        socket = await communicate("/ws/", browser)
        fairway.disconnect(user=user)
        await fairway.adisconnect(user=user)
        await sync_to_async(browser.logout)()
        with pytest.raises(ChannelLayerUnavailable):
            await fairway.adisconnect(user=user, strict=True)
        with pytest.raises(ChannelLayerUnavailable):
            await sync_to_async(fairway.disconnect)(user=user, strict=True)
        await socket.disconnect()
        said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
        assert any("[fairway.R502]" in line for line in said)

    async def test_a_layer_that_cannot_be_made(
        self,
        site: Site,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A line says so, nothing else, and it is tried again."""

        def fail() -> None:
            raise InvalidChannelLayerError("described wrongly")

        monkeypatch.setattr("fairway.revocation.hearing.get_channel_layer", fail)
        socket = await site.open(await log_in_soon(await make_user_soon()))
        (found,) = rolls._rolls
        await until(lambda: found._hearing._joining is None)
        (line,) = [each.getMessage() for each in caplog.records if each.name == "fairway.auth"]
        assert line == (
            "logins that end are not heard of at present: InvalidChannelLayerError: "
            "described wrongly [fairway.R502]"
        )
        assert await ask(socket) == "bob: hello"

    async def test_the_re_check_finds_it(
        self, away: Away, settings: Settings, quiet_notices: None
    ) -> None:
        """What could not be told is found."""
        settings.FAIRWAY = {"RECHECK_INTERVAL": 0.02}
        # Changing settings makes layers anew.
        channel_layers.set("default", away)
        browser = await log_in_soon(await make_user_soon())
        socket = await communicate("/ws/", browser)
        await sync_to_async(browser.logout)()
        assert (await socket.receive_output(SECONDS_MAX))["code"] == 4401
        await socket.disconnect()


async def test_other_members_survive_a_broken_order(
    site: Site, layer: InMemoryChannelLayer
) -> None:
    """What no process of ours would send closes nothing and breaks nothing."""
    from fairway.revocation.names import control_group

    user = await make_user_soon()
    socket = await site.open(await log_in_soon(user))
    for order in ({}, {"do": "close"}, {"do": "close", "user": 5}, {"do": "move", "session": b"x"}):
        await layer.group_send(control_group(), {"type": ORDER, **order})
    await layer.group_send(control_group(), {"type": "websocket.send", "text": "x"})
    assert await ask(socket) == "bob: hello"
    await fairway.adisconnect(user=user)
    assert await closed(socket) == 4401
