"""
Broadcasts from ordinary code: after the commit, through a layer, without a broker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connections, transaction
from pytest_django import Settings

from fairway import abroadcast, broadcast, broadcasting, metrics
from fairway.exceptions import (
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    MessageTooLarge,
)
from fairway.layers.brokers.local import LocalBroker
from fairway.layers.codec import Kind
from fairway.layers.layer import ChannelLayer, InMemoryChannelLayer
from fairway.layers.notices import Notices
from fairway.options import LayerOptions
from tests.integration.listening import Listener, default_layer, default_layer_in_thread


class AbsentBroker(LocalBroker):
    """
    A broker that takes nothing.
    """

    def publish(self, subject: str, payload: bytes) -> None:
        """
        Be away.
        """
        raise ChannelLayerUnavailable("the broker is away")


@pytest.fixture
def fresh_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing has been said yet.
    """
    monkeypatch.setattr(broadcasting, "notices", Notices(logging.getLogger("fairway.layers")))


@pytest.fixture
def absent(fresh_notices: None) -> Iterator[ChannelLayer]:
    """
    A layer whose broker is away.
    """
    with default_layer_in_thread(ChannelLayer(AbsentBroker(60), LayerOptions())) as layer:
        yield layer


@pytest.fixture
def listener(layer: ChannelLayer) -> Listener:
    """
    A member of the group "news".
    """
    return Listener(layer, "news")


@pytest.mark.django_db(transaction=True)
class TestAfterCommit:
    """
    A broadcast waits for the transaction it is called in.
    """

    def test_is_sent_after_the_commit(self, listener: Listener) -> None:
        """Inside the block nobody hears of it, after the block everybody does."""
        with transaction.atomic():
            Group.objects.create(name="a")
            broadcast("news", {"n": 1})
            assert listener.heard() == []
        assert listener.heard() == [(Kind.JSON, b'{"n":1}')]

    def test_is_sent_at_once_without_a_transaction(self, listener: Listener) -> None:
        """In autocommit mode there is nothing to wait for."""
        Group.objects.create(name="a")
        broadcast("news", "now")
        assert listener.heard() == [(Kind.TEXT, b"now")]

    def test_dies_with_its_transaction(self, listener: Listener) -> None:
        """Nobody hears of what was rolled back."""
        with transaction.atomic():
            broadcast("news", "never")
            transaction.set_rollback(True)
        assert listener.heard() == []

    def test_dies_with_its_savepoint(self, listener: Listener) -> None:
        """A savepoint that is rolled back takes its own broadcasts along, and no others."""
        with transaction.atomic():
            broadcast("news", "before")
            with transaction.atomic():
                broadcast("news", "within")
                transaction.set_rollback(True)
            with transaction.atomic():
                broadcast("news", "kept")
            broadcast("news", "after")
        assert [payload for _, payload in listener.heard()] == [b"before", b"kept", b"after"]

    def test_is_encoded_when_called(self, listener: Listener) -> None:
        """What happens to the object before the commit changes nothing."""
        message = {"n": 1}
        with transaction.atomic():
            broadcast("news", message)
            message["n"] = 2
        assert listener.heard() == [(Kind.JSON, b'{"n":1}')]

    def test_mistakes_show_where_they_are_made(self, listener: Listener) -> None:
        """A message, size or name that will not do raises in the block and not after it."""
        with transaction.atomic():
            with pytest.raises(TypeError):
                broadcast("news", object())
            with pytest.raises(TypeError, match="group name"):
                broadcast("", "x")
            with pytest.raises(MessageTooLarge):
                broadcast("news", b"x" * (1024 * 1024 + 1))
        assert listener.heard() == []

    def test_does_not_stop_other_callbacks(
        self, absent: ChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A broker that is away does not keep the rest from running after the commit."""
        ran: list[bool] = []
        with transaction.atomic():
            broadcast("news", "x")
            transaction.on_commit(lambda: ran.append(True))
        assert ran == [True]
        # Sent on another thread, in order: what was broadcast before has failed by now.
        with pytest.raises(ChannelLayerUnavailable):
            broadcast("news", "x", strict=True)

    def test_strict_raises_from_the_commit(self, absent: ChannelLayer) -> None:
        """Who asks to be told is told when it is sent, which is after the commit."""

        def work() -> None:
            with transaction.atomic():
                Group.objects.create(name="a")
                broadcast("news", "x", strict=True)

        with pytest.raises(ChannelLayerUnavailable):
            work()
        assert Group.objects.count() == 1


class TestWithoutDatabase:
    """
    Broadcasts that need no transaction.
    """

    def test_opens_no_connection(self, layer: ChannelLayer, listener: Listener) -> None:
        """A thread that has no database connection has none afterwards either."""
        opened: list[Any] = []

        def work() -> None:
            broadcast("news", "x")
            opened.extend(connections.all(initialized_only=True))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert opened == []
        assert listener.heard() == [(Kind.TEXT, b"x")]

    def test_excludes_a_channel(self, layer: ChannelLayer, listener: Listener) -> None:
        """The excluded channel hears nothing, the others do."""
        other = Listener(layer, "news")
        broadcast("news", b"\x00", exclude=listener.channel)
        assert other.heard() == [(Kind.BINARY, b"\x00")]
        assert listener.heard() == []

    def test_strict_returns_once_it_is_sent(self, listener: Listener) -> None:
        """With a broker that works, strict changes nothing for the group."""
        broadcast("news", "x", strict=True)
        assert listener.heard() == [(Kind.TEXT, b"x")]

    async def test_strict_does_not_stop_a_loop(self) -> None:
        """On an event loop, waiting is refused with the name of what to call."""
        with pytest.raises(RuntimeError, match=r"await abroadcast\(strict=True\)"):
            broadcast("news", "x", strict=True)

    async def test_works_on_a_loop(self) -> None:
        """broadcast() and abroadcast() may both be called by async code."""
        async with default_layer(InMemoryChannelLayer()) as layer:
            channel = await layer.new_channel()
            await layer.group_add("news", channel)
            broadcast("news", "one")
            await abroadcast("news", {"n": 2})
            first = await layer.receive_envelope(channel)
            second = await layer.receive_envelope(channel)
            assert (first.payload, second.payload) == (b"one", b'{"n":2}')


class TestFailures:
    """
    What happens without a broker, and with a wrong layer.
    """

    def test_counts_and_logs_once(
        self, absent: ChannelLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Code that broadcasts goes on; every loss is counted, the log says it once."""
        before = metrics.drops.values.get("unavailable", 0)
        for _ in range(3):
            broadcast("news", "x")
        # Sent in order on another thread: once this one failed, the others have too.
        with pytest.raises(ChannelLayerUnavailable):
            broadcast("news", "x", strict=True)
        assert metrics.drops.values["unavailable"] == before + 3
        lines = [each for each in caplog.records if "could not be sent" in each.getMessage()]
        assert len(lines) == 1
        assert "'news'" in lines[0].getMessage()
        assert "the broker is away" in lines[0].getMessage()

    async def test_async_raises_only_if_strict(self, fresh_notices: None) -> None:
        """abroadcast() has the same manners."""
        before = metrics.drops.values.get("unavailable", 0)
        async with default_layer(ChannelLayer(AbsentBroker(60), LayerOptions())):
            await abroadcast("news", "x")
            assert metrics.drops.values["unavailable"] == before + 1
            with pytest.raises(ChannelLayerUnavailable):
                await abroadcast("news", "x", strict=True)

    def test_strict_waits_in_bounded_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A layer whose loop stands still is unavailable too."""
        options = LayerOptions(publish_timeout=0.01)
        never: Future[None] = Future()
        with default_layer_in_thread(ChannelLayer(LocalBroker(60), options)) as layer:
            monkeypatch.setattr(layer, "submit", lambda *args, **kwargs: never)
            with pytest.raises(ChannelLayerUnavailable, match=r"within 0\.02 s"):
                broadcast("news", "x", strict=True)
        assert never.cancelled()

    def test_too_many_waiting_calls_are_a_loss(
        self, layer: ChannelLayer, monkeypatch: pytest.MonkeyPatch, fresh_notices: None
    ) -> None:
        """A layer that takes no more calls at all is counted as well."""

        def refuse(*args: Any, **kwargs: Any) -> Future[None]:
            raise ChannelLayerUnavailable("too many calls wait")

        before = metrics.drops.values.get("unavailable", 0)
        monkeypatch.setattr(layer, "submit", refuse)
        broadcast("news", "x")
        assert metrics.drops.values["unavailable"] == before + 1

    def test_an_unknown_layer_is_named(self, layer: ChannelLayer) -> None:
        """An alias that is not configured is a mistake, with those that are."""
        with pytest.raises(
            InvalidChannelLayerError, match="no channel layer 'other', only default"
        ):
            broadcast("news", "x", layer="other")

    def test_another_kind_of_layer_is_named(self, settings: Settings) -> None:
        """A layer that is none of Fairway's cannot broadcast."""
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": "builtins.dict"}}
        with pytest.raises(InvalidChannelLayerError, match="'default' is a dict"):
            broadcast("news", "x")
