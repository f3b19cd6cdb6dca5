"""
Sessions that merge what was changed into what is stored, with every engine of Django's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.backends.file import SessionStore as FileStore
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from fairway.db import database_sync_to_async
from fairway.session_stores import engine, merging_store, still_stored
from fairway.sessions import open_session

pytestmark = pytest.mark.django_db(transaction=True)

SHARED = ("db", "cache", "cached_db", "file")


class CustomStore(DatabaseStore):
    """
    An engine of a project, built on one of Django's.
    """


SessionStore = CustomStore


@pytest.fixture(params=[*SHARED, "custom"])
def store(
    request: pytest.FixtureRequest,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """
    Each engine that keeps sessions where several can get at them.
    """
    settings.SESSION_ENGINE = (
        __name__
        if request.param == "custom"
        else f"django.contrib.sessions.backends.{request.param}"
    )
    monkeypatch.setattr(FileStore, "_storage_path", str(tmp_path), raising=False)
    yield engine()
    caches["default"].clear()


def begun(store: Any, **content: Any) -> str:
    """
    Store a session and give its key.
    """
    session = store()
    session.update(content)
    session.save()
    key: str = session.session_key
    return key


def held(key: str) -> Any:
    """
    Open a session as a scope has it.
    """
    return open_session({"sessionid": key})


class TestMerging:
    """
    Two who hold the same session.
    """

    def test_is_the_engines_own(self, store: Any) -> None:
        """It is an instance of the engine's class, by name and salt too, and reads its sessions."""
        session = held(begun(store, a=1))
        assert isinstance(session, store)
        assert isinstance(session, SessionBase)
        assert (type(session).__qualname__, session.key_salt) == (
            store.__qualname__,
            store().key_salt,
        )
        assert dict(session.items()) == {"a": 1}

    def test_a_concurrent_write_is_not_lost(self, store: Any) -> None:
        """Keys set and deleted here are, and what others did to other keys stays."""
        key = begun(store, mine=1, deleted=1, theirs=1, gone=1, nested={"list": [1]}, same=[1])
        socket, page = held(key), store(key)
        assert socket["mine"] == 1
        page["theirs"], page["new"], page["same"] = 2, 2, [1, 2]
        del page["gone"]
        page.save()
        socket["mine"], socket["added"] = 3, 3
        del socket["deleted"]
        socket["nested"]["list"].append(3)
        socket.modified = True
        socket.save()
        expected: dict[str, Any] = {"mine": 3, "theirs": 2, "new": 2, "added": 3}
        expected |= {"nested": {"list": [1, 3]}, "same": [1, 2]}
        assert dict(store(key).items()) == expected
        assert dict(socket.items()) == expected

    def test_a_cache_of_the_database_may_be_behind(self, settings: Settings) -> None:
        """What another process has saved is not lost because this one's cache knows it not yet."""
        settings.SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
        key = begun(engine(), a=1)
        socket = held(key)
        assert socket["a"] == 1
        elsewhere = DatabaseStore(key)  # As another process, with a cache of its own.
        elsewhere["page"] = 2
        elsewhere.save()
        socket["b"] = 3
        socket.save()
        assert dict(DatabaseStore(key).items()) == {"a": 1, "page": 2, "b": 3}
        caches["default"].clear()

    def test_the_second_save_merges_too(self, store: Any) -> None:
        """What was saved once is no change of ours any more."""
        key = begun(store, a=1)
        socket = held(key)
        socket["a"] = 2
        socket.save()
        page = store(key)
        page["a"] = 3
        page.save()
        socket["b"] = 1
        socket.save()
        assert dict(store(key).items()) == {"a": 3, "b": 1}

    async def test_asave_merges(self, store: Any) -> None:
        """As from a consumer, with the methods that are coroutines."""
        key = await database_sync_to_async(begun)(store, a=1)
        socket = held(key)
        await socket.aset("b", 1)
        page = store(key)
        await page.aset("c", 1)
        await page.asave()
        await socket.asave()
        assert dict(await store(key).aitems()) == {"a": 1, "b": 1, "c": 1}

    def test_clearing_takes_what_was_seen(self, store: Any) -> None:
        """A session cleared unread is empty; one that was read loses what was read."""
        key = begun(store, a=1)
        unread = held(key)
        unread.clear()
        unread["b"] = 1
        unread.save()
        assert dict(store(key).items()) == {"b": 1}
        read = held(key)
        assert read["b"] == 1
        read.clear()
        read.save()
        assert dict(store(key).items()) == {}

    def test_a_deleted_session_is_an_update_error(self, store: Any) -> None:
        """As with Django: what was deleted meanwhile does not come back."""
        key = begun(store, a=1)
        socket = held(key)
        socket["b"] = 1
        store(key).delete()
        with pytest.raises(UpdateError):
            socket.save()
        assert still_stored([key]) == set()

    def test_a_new_session_is_created(self, store: Any) -> None:
        """Without a key there is nothing to merge into."""
        socket = held("")
        socket["a"] = 1
        socket.save()
        assert dict(store(socket.session_key).items()) == {"a": 1}

    def test_cycling_and_flushing_work(self, store: Any) -> None:
        """The key changes and the content stays; or both go."""
        key = begun(store, a=1)
        socket = held(key)
        socket.cycle_key()
        assert socket.session_key != key
        socket["b"] = 1
        socket.save()
        assert dict(store(socket.session_key).items()) == {"a": 1, "b": 1}
        assert still_stored([key, socket.session_key]) == {socket.session_key}
        socket.flush()
        assert socket.session_key is None
        socket["c"] = 1
        socket.save()
        assert dict(store(socket.session_key).items()) == {"c": 1}

    def test_nothing_is_noted_before_it_is_read(self, store: Any) -> None:
        """A session nobody looked into holds neither content nor a copy."""
        session = held(begun(store, a=1))
        assert "_session_cache" not in vars(session)
        assert session._fairway_base is None


class TestStillStored:
    """
    Which sessions exist.
    """

    def test_one_query_for_many(self, settings: Settings) -> None:
        """Of a database, with those left out that have expired."""
        keys = [begun(engine(), a=number) for number in range(5)]
        Session.objects.filter(pk=keys[0]).update(
            expire_date=timezone.now() - dt.timedelta(seconds=1)
        )
        Session.objects.filter(pk=keys[1]).delete()
        with CaptureQueriesContext(connection) as captured:
            assert still_stored([*keys, "nobody"]) == set(keys[2:])
        assert len(captured) == 1

    def test_more_than_one_statement_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A database's limit on variables costs a second query and no error."""
        monkeypatch.setattr(type(connection.features), "max_query_params", 999)
        key = begun(engine(), a=1)
        with CaptureQueriesContext(connection) as captured:
            assert still_stored([*(f"no{number}" for number in range(1200)), key]) == {key}
        assert len(captured) > 1

    def test_cookies_hold_themselves(self, settings: Settings) -> None:
        """Sessions in signed cookies are stored nowhere: they neither end nor merge."""
        settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
        assert merging_store() is engine()
        assert still_stored(["a" * 40]) == {"a" * 40}
