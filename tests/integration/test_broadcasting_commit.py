"""
Whose commit a broadcast waits for, line by line, with real transactions on several databases.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from pytest_django import Settings

from fairway import abroadcast, broadcast
from fairway.layers.layer import ChannelLayer, InMemoryChannelLayer
from tests.integration.listening import Listener, default_layer_in_thread

OTHERS = ("one", "two")


class RefusedError(Exception):
    """
    Why a block is rolled back.
    """


def say(request: HttpRequest) -> HttpResponse:
    """
    Broadcast in a view, note what was heard by then, and fail if asked to.
    """
    Group.objects.create(name=request.GET.get("name", "a"))
    broadcast("news", "said")
    if "fail" in request.GET:
        raise RefusedError
    return HttpResponse(b",".join(payload for _, payload in heard_in_view()))


def heard_in_view() -> list[tuple[Any, bytes]]:
    """
    What the listener of the present test has heard; replaced by the test.
    """
    return []


urlpatterns = [path("say/", say)]


@pytest.fixture
def heard(layer: ChannelLayer) -> Callable[[], list[bytes]]:
    """
    Give what a member of the group "news" has heard since it was asked last.
    """
    listener = Listener(layer, "news")
    return lambda: [payload for _, payload in listener.heard()]


@pytest.fixture
def others(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """
    Two more databases, for as long as the test lasts.
    """
    default = connections["default"].settings_dict
    for alias in OTHERS:
        connections.settings[alias] = {**default, "NAME": tmp_path / alias}
        one = connections[alias]
        # What the tests' settings do not name may be opened only before it is listed.
        described = connections.settings.pop(alias)
        one.ensure_connection()
        connections.settings[alias] = described
    try:
        yield
    finally:
        for alias in OTHERS:
            connections[alias].close()
            del connections[alias]
            del connections.settings[alias]


@contextmanager
def rolled_back(using: str) -> Iterator[None]:
    """
    Be a transaction that fails.
    """
    with suppress(RefusedError), transaction.atomic(using=using):
        yield
        raise RefusedError


def in_thread(function: Callable[[], Any]) -> Any:
    """
    Call a function in a thread that has used no database yet.
    """
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(10)
    return results[0]


@pytest.mark.usefixtures("others")
class TestSeveralDatabases:
    """
    More than one database, each with transactions of its own.
    """

    def test_waits_for_the_only_open_one(self, heard: Callable[[], list[bytes]]) -> None:
        """Whichever it is: it need not be named."""
        with transaction.atomic(using="one"):
            broadcast("news", "a")
            assert heard() == []
        assert heard() == [b"a"]

    def test_waits_for_default_among_several(self, heard: Callable[[], list[bytes]]) -> None:
        """The end of the other's transaction sends nothing; a rollback of it loses nothing."""
        with transaction.atomic():
            with rolled_back("one"):
                broadcast("news", "a")
            assert heard() == []
        assert heard() == [b"a"]

    def test_waits_for_the_one_that_is_named(self, heard: Callable[[], list[bytes]]) -> None:
        """It is sent with that commit, though default's is still to come, or never comes."""
        with rolled_back("default"):
            with transaction.atomic(using="one"):
                broadcast("news", "a", using="one")
                assert heard() == []
            assert heard() == [b"a"]
        assert heard() == []

    def test_dies_with_the_one_that_is_named(self, heard: Callable[[], list[bytes]]) -> None:
        """The rollback of that transaction takes it along."""
        with transaction.atomic(), rolled_back("one"):
            broadcast("news", "a", using="one")
        assert heard() == []

    def test_is_sent_now_if_the_named_one_has_no_block(
        self, heard: Callable[[], list[bytes]]
    ) -> None:
        """Another database's transaction is none of its business."""
        with transaction.atomic():
            broadcast("news", "a", using="one")
            assert heard() == [b"a"]

    def test_does_not_guess(self, heard: Callable[[], list[bytes]]) -> None:
        """Two open ones without default are named, and nothing is sent."""
        with transaction.atomic(using="two"), transaction.atomic(using="one"):
            with pytest.raises(ValueError, match=r"open on one, two\. Hint: .*using="):
                broadcast("news", "a")
            broadcast("news", "b", using="two")
        assert heard() == [b"b"]


@pytest.mark.usefixtures("transactional_db")
class TestManualTransactions:
    """
    Code that has turned autocommit off.
    """

    @pytest.fixture(autouse=True)
    def _autocommit_off(self, transactional_db: None) -> Iterator[None]:
        transaction.set_autocommit(False)
        try:
            yield
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_without_a_block_nothing_is_waited_for(self, heard: Callable[[], list[bytes]]) -> None:
        """Django's on_commit refuses there; a broadcast is sent now."""
        Group.objects.create(name="a")
        with pytest.raises(transaction.TransactionManagementError):
            transaction.on_commit(lambda: None)
        broadcast("news", "a")
        broadcast("news", "b", using="default")
        assert heard() == [b"a", b"b"]

    def test_a_block_within_waits_as_djangos_callbacks_do(
        self, heard: Callable[[], list[bytes]]
    ) -> None:
        """That is, until the commit and the return to autocommit."""
        with transaction.atomic():
            Group.objects.create(name="a")
            broadcast("news", "a")
        assert heard() == []
        transaction.commit()
        transaction.set_autocommit(True)
        assert heard() == [b"a"]
        transaction.set_autocommit(False)


class TestRequests:
    """
    ATOMIC_REQUESTS: a request is a transaction.
    """

    @pytest.fixture(autouse=True)
    def _atomic_requests(
        self,
        transactional_db: None,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        heard: Callable[[], list[bytes]],
    ) -> None:
        settings.ROOT_URLCONF = __name__
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
        monkeypatch.setattr(f"{__name__}.heard_in_view", lambda: [(None, each) for each in heard()])

    def test_sends_when_the_view_has_returned(self, heard: Callable[[], list[bytes]]) -> None:
        """Inside the view nobody has heard of it."""
        assert Client().get("/say/").content == b""
        assert heard() == [b"said"]

    def test_a_view_that_fails_says_nothing(self, heard: Callable[[], list[bytes]]) -> None:
        """What it did is rolled back, and so is what it said."""
        assert Client(raise_request_exception=False).get("/say/?fail").status_code == 500
        assert heard() == []
        assert Group.objects.count() == 0

    def test_the_asynchronous_client_too(self, heard: Callable[[], list[bytes]]) -> None:
        """A synchronous view under ASGI runs in a thread, with its transaction there."""

        async def get(path: str) -> int:
            response = await AsyncClient(raise_request_exception=False).get(path)
            return int(response.status_code)

        assert async_to_sync(get)("/say/?fail") == 500
        assert heard() == []
        assert async_to_sync(get)("/say/") == 200
        assert heard() == [b"said"]


class TestUntouched:
    """
    Publishing opens no connection, and makes no object for one.
    """

    def test_in_a_coroutine(self, heard: Callable[[], list[bytes]]) -> None:
        """On an event loop Django's guard has nothing to refuse."""

        async def work() -> list[Any]:
            broadcast("news", "a")
            broadcast("news", "b", using="default")
            await abroadcast("news", "c")
            return list(connections.all(initialized_only=True))

        assert in_thread(lambda: asyncio.run(work())) == []
        assert heard() == [b"a", b"b", b"c"]

    def test_with_a_connection_that_was_never_opened(
        self, heard: Callable[[], list[bytes]]
    ) -> None:
        """The object exists, and stays without a connection."""

        def work() -> Any:
            one = connections["default"]
            broadcast("news", "a")
            return one.connection

        assert in_thread(work) is None
        assert heard() == [b"a"]

    @pytest.mark.django_db(transaction=True)
    def test_a_block_of_another_thread_is_not_waited_for(
        self, heard: Callable[[], list[bytes]]
    ) -> None:
        """Transactions belong to threads."""
        with transaction.atomic():
            Group.objects.create(name="a")
            in_thread(lambda: broadcast("news", "a"))
            assert heard() == [b"a"]

    @pytest.mark.django_db(transaction=True)
    async def test_abroadcast_waits_for_nothing(self) -> None:
        """Even called back from inside a block, it sends now."""

        def work() -> list[bytes]:
            with default_layer_in_thread(InMemoryChannelLayer()) as layer:
                listener = Listener(layer, "news")
                with transaction.atomic():
                    Group.objects.create(name="a")
                    async_to_sync(abroadcast)("news", "a")
                    return [payload for _, payload in listener.heard()]

        assert await sync_to_async(work)() == [b"a"]
