"""
``captured_broadcasts()`` in every kind of test that Django and pytest-django know.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import Client, SimpleTestCase, TestCase, TransactionTestCase
from django.urls import path

import fairway
from fairway import abroadcast, broadcast, broadcasting
from fairway.consumers import JsonWebsocketConsumer
from fairway.exceptions import MessageTooLarge
from fairway.layers.layer import ChannelLayer, InMemoryChannelLayer
from fairway.testing import CapturedBroadcast, WebsocketCommunicator, captured_broadcasts
from tests.integration.listening import Listener, default_layer
from tests.integration.test_broadcasting_commit import RefusedError, rolled_back, say

urlpatterns = [path("say/", say)]


@pytest.fixture
def listener(layer: ChannelLayer) -> Listener:
    """
    A member of the group "news".
    """
    return Listener(layer, "news")


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """
    No capture outlives its block.
    """
    yield
    assert broadcasting.captures == []


def payloads(listener: Listener) -> list[bytes]:
    """
    What a member has heard since it was asked last.
    """
    return [payload for _, payload in listener.heard()]


def data(sent: list[CapturedBroadcast]) -> list[Any]:
    """
    What sockets would get.
    """
    return [one.data for one in sent]


class TestWhatItSays:
    """
    The entries of the list.
    """

    def test_everything_that_was_given(self, listener: Listener) -> None:
        """Group, message, what sockets get of it, and each argument."""
        with captured_broadcasts() as sent:
            message = {1: (2, 3)}
            broadcast("news", message, exclude="x!y")
            broadcast("news", "text", event="said", id="7")
            broadcast("news", [1], event="said")
            broadcast("news", b"\x00", using="default")
            message[1] = (4, 5)
        assert sent == [
            CapturedBroadcast("news", message, {"1": [2, 3]}, "json", exclude="x!y"),
            CapturedBroadcast("news", "text", "text", "text", event="said", id="7"),
            CapturedBroadcast("news", [1], [1], "json", event="said"),
            CapturedBroadcast("news", b"\x00", b"\x00", "bytes", using="default"),
        ]
        assert sent[0].message is message
        assert sent[0].layer == "default"
        assert payloads(listener) == []

    def test_mistakes_raise_as_ever(self, layer: ChannelLayer) -> None:
        """What could not be sent is not captured."""
        with captured_broadcasts() as sent:
            with pytest.raises(TypeError):
                broadcast("news", object())
            with pytest.raises(MessageTooLarge):
                broadcast("news", b"x" * (1024 * 1024 + 1))
            with pytest.raises(TypeError):
                async_to_sync(abroadcast)("", "x")
        assert sent == []

    def test_messages_of_other_ways_are_not_in_it(
        self, layer: ChannelLayer, listener: Listener
    ) -> None:
        """A group_send goes its way."""
        with captured_broadcasts() as sent:
            async_to_sync(layer.group_send)("news", {"type": "websocket.send", "text": "x"})
        assert sent == []
        assert payloads(listener) == [b"x"]


class TestWithoutTransaction:
    """
    What is sent at once.
    """

    def test_is_in_the_list_at_once_and_not_sent(self, listener: Listener) -> None:
        """Nor is it sent later."""
        with captured_broadcasts() as sent:
            broadcast("news", "a")
            async_to_sync(abroadcast)("news", "b")
            assert data(sent) == ["a", "b"]
        broadcast("news", "c")
        assert data(sent) == ["a", "b"]
        assert payloads(listener) == [b"c"]

    def test_is_sent_at_once_if_asked_to(self, listener: Listener) -> None:
        """Inside the block already, once."""
        with captured_broadcasts(execute=True) as sent:
            broadcast("news", "a")
            async_to_sync(abroadcast)("news", "b")
            assert payloads(listener) == [b"a", b"b"]
        assert data(sent) == ["a", "b"]
        assert payloads(listener) == []

    def test_of_other_threads_too(self, listener: Listener) -> None:
        """A view, a task or a live server may run in any."""
        with captured_broadcasts() as sent:
            thread = threading.Thread(target=broadcast, args=("news", "a"))
            thread.start()
            thread.join()
        assert data(sent) == ["a"]

    def test_an_exception_ends_the_block(self, listener: Listener) -> None:
        """Later messages are sent."""
        capture = captured_broadcasts()
        with suppress(RefusedError), capture:
            broadcast("news", "a")
            raise RefusedError
        broadcast("news", "b")
        assert payloads(listener) == [b"b"]


@pytest.mark.django_db
class TestInATransaction:
    """
    With pytest-django's db fixture, as in a TestCase, no commit ever comes.
    """

    def test_what_waits_is_there_at_the_end(self, listener: Listener) -> None:
        """The end of the block stands for the commit; nothing is sent then or later."""
        with captured_broadcasts() as sent:
            broadcast("news", "a")
            with transaction.atomic():
                broadcast("news", "b")
            assert sent == []
        assert data(sent) == ["a", "b"]
        assert payloads(listener) == []

    def test_what_waits_is_sent_at_the_end_if_asked_to(self, listener: Listener) -> None:
        """Members have it when the block has ended."""
        with captured_broadcasts(execute=True) as sent:
            broadcast("news", "a")
            assert payloads(listener) == []
        assert payloads(listener) == [b"a"]
        assert data(sent) == ["a"]

    def test_what_was_rolled_back_is_not_there(self, listener: Listener) -> None:
        """A savepoint takes its own along, and those within it."""
        with captured_broadcasts(execute=True) as sent:
            broadcast("news", "a")
            with rolled_back("default"):
                broadcast("news", "b")
                with transaction.atomic():
                    broadcast("news", "c")
            with transaction.atomic():
                with rolled_back("default"):
                    broadcast("news", "d")
                broadcast("news", "e")
        assert data(sent) == ["a", "e"]
        assert payloads(listener) == [b"a", b"e"]

    def test_what_waited_before_the_block_is_not_there(self, listener: Listener) -> None:
        """Each block has its own."""
        broadcast("news", "before")
        with captured_broadcasts(execute=True) as first:
            broadcast("news", "a")
        with captured_broadcasts(execute=True) as second:
            broadcast("news", "b")
        assert (data(first), data(second)) == (["a"], ["b"])
        assert payloads(listener) == [b"a", b"b"]

    def test_strict_messages_too(self, listener: Listener) -> None:
        """They are sent as the others are."""
        with captured_broadcasts(execute=True) as sent:
            broadcast("news", "a", strict=True)
        assert data(sent) == ["a"]
        assert payloads(listener) == [b"a"]

    def test_beside_djangos_own_capture(
        self, listener: Listener, django_capture_on_commit_callbacks: Any
    ) -> None:
        """Either may be around the other, and each message is sent once."""
        with captured_broadcasts(execute=True) as sent:
            with django_capture_on_commit_callbacks(execute=True):
                broadcast("news", "a")
            assert data(sent) == ["a"]
            assert payloads(listener) == [b"a"]
        with django_capture_on_commit_callbacks(execute=True), captured_broadcasts() as sent:
            broadcast("news", "b")
        assert data(sent) == ["b"]
        assert payloads(listener) == []

    def test_callbacks_of_the_projects_own(
        self, listener: Listener, django_capture_on_commit_callbacks: Any
    ) -> None:
        """Who waits for the commit twice is heard too, with Django's capture inside."""
        with (
            captured_broadcasts(execute=True) as sent,
            django_capture_on_commit_callbacks(execute=True),
        ):
            transaction.on_commit(lambda: broadcast("news", "a"))
        assert data(sent) == ["a"]
        assert payloads(listener) == [b"a"]

    def test_djangos_own_capture_alone(
        self, listener: Listener, django_capture_on_commit_callbacks: Any
    ) -> None:
        """A broadcast that waits is a callback of the commit like any other."""
        with django_capture_on_commit_callbacks(execute=True) as callbacks:
            broadcast("news", "a")
        assert len(callbacks) == 1
        assert payloads(listener) == [b"a"]


class TestNested:
    """
    A block inside a block.
    """

    @pytest.mark.django_db
    @pytest.mark.parametrize("outer", [False, True])
    @pytest.mark.parametrize("inner", [False, True])
    def test_the_inner_one_hands_on_what_it_executes(
        self, listener: Listener, outer: bool, inner: bool
    ) -> None:
        """So each message is sent once, if both send; the inner one keeps what it does not."""
        with captured_broadcasts(execute=outer) as around:
            broadcast("news", "a")
            with captured_broadcasts(execute=inner) as within:
                broadcast("news", "b")
        assert data(within) == ["b"]
        assert data(around) == (["b", "a"] if inner else ["a"])
        expected = ([b"b"] if inner and outer else []) + ([b"a"] if outer else [])
        assert payloads(listener) == expected

    def test_blocks_of_two_threads_may_overlap(self, listener: Listener) -> None:
        """Whichever ends first, both take what comes while they last."""
        first, second = captured_broadcasts(execute=True), captured_broadcasts(execute=True)
        one, two = first.__enter__(), second.__enter__()
        broadcast("news", "a")
        first.__exit__(None, None, None)
        broadcast("news", "b")
        second.__exit__(None, None, None)
        assert (data(one), data(two)) == (["a"], ["a", "b"])
        assert payloads(listener) == [b"a", b"b"]


@pytest.mark.django_db(transaction=True)
class TestRealCommits:
    """
    Where transactions are committed in earnest.
    """

    def test_a_commit_within_the_block_counts(self, listener: Listener) -> None:
        """What waited for it is in the list from then on, and not twice at the end."""
        with captured_broadcasts(execute=True) as sent:
            with transaction.atomic():
                Group.objects.create(name="a")
                broadcast("news", "a")
                assert sent == []
            assert data(sent) == ["a"]
            with rolled_back("default"):
                broadcast("news", "b")
        assert data(sent) == ["a"]
        assert payloads(listener) == [b"a"]

    def test_a_commit_after_the_block_sends_nothing_again(self, listener: Listener) -> None:
        """The block has ended before its transaction did."""
        with transaction.atomic():
            with captured_broadcasts(execute=True) as sent:
                broadcast("news", "a")
            assert payloads(listener) == [b"a"]
            with captured_broadcasts():
                broadcast("news", "b")
        assert data(sent) == ["a"]
        assert payloads(listener) == []


class ChatConsumer(JsonWebsocketConsumer):
    """
    Broadcasts what it gets from inside a transaction, as many do.
    """

    groups: Sequence[str] | None = ("news",)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Save something, and tell.
        """
        with transaction.atomic():
            Group.objects.create(name=content["name"])
            broadcast("news", content)
            if content["name"] == "bad":
                transaction.set_rollback(True)


class OrdinaryTests(TestCase):
    """
    Django's TestCase, with a client and a communicator.
    """

    def test_a_view(self) -> None:
        """
        What a view says, and nothing of one that fails.
        """
        with self.settings(ROOT_URLCONF=__name__), captured_broadcasts() as sent:
            self.client.get("/say/")
            Client(raise_request_exception=False).get("/say/?fail&name=b")
        # Without ATOMIC_REQUESTS a view that fails afterwards has said it.
        assert [(one.group, one.message) for one in sent] == [("news", "said")] * 2

    async def test_a_consumer(self) -> None:
        """
        A consumer's transactions are savepoints of the test's, in another thread than its loop.
        """
        async with default_layer(InMemoryChannelLayer()):
            socket = WebsocketCommunicator(ChatConsumer.as_asgi(), "/")
            assert (await socket.connect())[0]
            with captured_broadcasts(execute=True) as sent:
                await socket.send_json_to({"name": "good"})
                await socket.send_json_to({"name": "bad"})
                await abroadcast("news", "now")
                await socket.receive_from()
                assert await socket.receive_nothing(0.1)
            assert data(sent) == ["now", {"name": "good"}]
            assert await socket.receive_json_from() == {"name": "good"}
            assert await socket.receive_nothing(0.01)
            await socket.disconnect()

    async def test_synchronous_code_of_an_asynchronous_test(self) -> None:
        """
        What waits in the database's thread is found from the loop's.
        """

        @sync_to_async
        def save() -> None:
            Group.objects.create(name="a")
            broadcast("news", "saved")

        with captured_broadcasts() as sent:
            await save()
            assert sent == []
        assert data(sent) == ["saved"]


class CommittingTests(TransactionTestCase):
    """
    Django's TransactionTestCase.
    """

    def test_a_view(self) -> None:
        """
        What is committed is in the list at once.
        """
        with self.settings(ROOT_URLCONF=__name__), captured_broadcasts() as sent:
            self.client.get("/say/")
            assert data(sent) == ["said"]


class DatabaselessTests(SimpleTestCase):
    """
    Django's SimpleTestCase, which forbids the database.
    """

    def test_nothing_is_touched(self) -> None:
        """
        Publishing asks it nothing.
        """
        with captured_broadcasts() as sent:
            fairway.broadcast("news", "a")
        assert data(sent) == ["a"]


@pytest.mark.django_db(transaction=True)
async def test_pytests_asynchronous_tests() -> None:
    """
    A loop of pytest-asyncio's, with a member on it, and the ORM in a thread.
    """
    async with default_layer(InMemoryChannelLayer()) as layer:
        channel = await layer.new_channel()
        await layer.group_add("news", channel)

        @sync_to_async
        def save() -> None:
            with transaction.atomic():
                Group.objects.create(name="a")
                broadcast("news", "saved")

        with captured_broadcasts(execute=True) as sent:
            await save()
            await abroadcast("news", "now")
            broadcast("news", "too")
        assert data(sent) == ["saved", "now", "too"]
        for each in (b"saved", b"now", b"too"):
            assert (await layer.receive_envelope(channel)).payload == each
