"""
Session stores that merge: what a long-lived scope holds in place of the engine's own class.

A page reads its session, changes it and saves it within milliseconds. A socket may hold one
for days, and would write back all of what it read then. So the class made here for each engine
notes what was loaded, and saves only what was changed since, into a fresh load. It also says
which sessions still exist. Middleware and cookies are the business of ``sessions``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.db import connections, router, transaction
from django.db.models import F
from django.utils import timezone

from fairway.db import database_sync_to_async

__all__ = ["Merging", "engine", "key_length_max", "merging_store", "still_stored"]

PLAIN = (str, int, float, bool, bytes, type(None))
"""
Values that nobody can change in place.
"""


COOKIE_MAX = 4096
CACHE_KEY_MAX = 128
"""
Characters of a key: what browsers keep as a cookie, and what caches take without a warning, which
Python would print and remember for each key that somebody makes up. Django makes keys of 32.
"""


class Merging(SessionBase):
    """
    A session that is merged into its stored state when it is saved; mixed into an engine's.

    Keys set, deleted or changed in place win over what others stored under them meanwhile;
    all other keys are taken as they are stored.

    Attributes:
        engine: The engine's own class.
    """

    engine: ClassVar[type[SessionBase]]
    _session: dict[str, Any]

    # What was loaded or saved last: plain values as they are, a copy of all others.
    _fairway_base: dict[str, Any] | None = None

    def load(self) -> dict[str, Any]:
        """
        Read the stored session, and note what it is.
        """
        data: dict[str, Any] = super().load()
        self._fairway_base = _noted(data)
        return data

    async def aload(self) -> dict[str, Any]:
        """
        As ``load``, in a thread: the engine of files would read them on the event loop.
        """
        data: dict[str, Any] = await database_sync_to_async(self.load)()
        return data

    def save(self, must_create: bool = False) -> None:
        """
        Save what was changed since the session was loaded.

        Raises:
            UpdateError: The session is stored no longer, as after a logout elsewhere.
        """
        if must_create or self.session_key is None:
            super().save(must_create)
        else:
            with _locked(self):
                self.refresh()
                super().save()
        self._fairway_base = _noted(self._session)

    async def asave(self, must_create: bool = False) -> None:
        """
        As ``save``, in a thread.
        """
        await database_sync_to_async(self.save)(must_create)

    def refresh(self) -> None:
        """
        Read the stored session anew, and put what was changed here on top. May wait.

        Raises:
            UpdateError: The session is stored no longer.
        """
        stored = self.read_stored()
        if stored is None:
            raise UpdateError
        self.merge(stored)

    def read_stored(self) -> dict[str, Any] | None:
        """
        Read the session as it is stored now; None if it is no longer. May wait.
        """
        fresh: Any = self.engine(self.session_key)
        stored: dict[str, Any] = _load_past_cache(fresh)
        # Engines forget the key of what they do not find, or make a new one.
        return stored if fresh.session_key == self.session_key else None

    def merge(self, stored: dict[str, Any]) -> None:
        """
        Put what was changed here on top of what is stored, and go on with that.

        Args:
            stored: The stored session, which becomes this one's.
        """
        data: dict[str, Any] = self._session
        base, self._fairway_base = self._fairway_base, _noted(stored)
        if base is None:
            return  # Emptied before it was ever read: all of it is new.
        for name in base.keys() - data.keys():
            stored.pop(name, None)
        present = _noted(data)
        changed = [name for name in data if name not in base or present[name] != base[name]]
        stored.update((name, data[name]) for name in changed)
        # In one step, since this may run beside a handler that reads.
        self._session_cache = stored


def engine() -> type[SessionBase]:
    """
    Give the class of ``SESSION_ENGINE``.
    """
    return _engine(settings.SESSION_ENGINE)


def merging_store() -> type[SessionBase]:
    """
    Give the class of sessions for scopes: a merging subclass of the engine's.

    Sessions in signed cookies have no stored state to merge into, and stay as they are.
    """
    return _merging_store(settings.SESSION_ENGINE)


def key_length_max() -> int:
    """
    Say how long the key of a session may be; 0 where sessions cannot be stored.

    Those in a database need their application installed.
    """
    return _key_length_max(settings.SESSION_ENGINE)


def still_stored(keys: Iterable[str]) -> set[str]:
    """
    Say which of these sessions exist and have not expired. May wait.

    One query for sessions in a database (several where its limit on variables asks for it, as
    SQLite's does), one call for those in a cache; other engines are asked key by key.
    """
    keys = list(keys)
    if not keys:
        return set()
    store: Any = engine()
    if _in_cookies(store):
        return set(keys)
    if hasattr(store, "get_model_class"):
        return _stored_in_database(store, keys)
    prefix = getattr(store, "cache_key_prefix", None)
    cache = getattr(store(), "_cache", None)
    if prefix is None or cache is None:
        return {key for key in keys if store().exists(key)}
    found = cache.get_many([prefix + key for key in keys])
    return {key for key in keys if prefix + key in found}


# Looking for a class costs more than making a session.
@lru_cache(maxsize=8)
def _engine(path: str) -> type[SessionBase]:
    store: type[SessionBase] = import_module(path).SessionStore
    return store


@lru_cache(maxsize=8)
def _merging_store(path: str) -> type[SessionBase]:
    store = _engine(path)
    if _in_cookies(store):
        return store
    # The name is the salt of the signature in the database, so it stays.
    names = {"__module__": store.__module__, "__qualname__": store.__qualname__, "engine": store}
    return type(store.__name__, (Merging, store), names)


@lru_cache(maxsize=8)
def _key_length_max(path: str) -> int:
    store: Any = _engine(path)
    try:
        if hasattr(store, "get_model_class"):
            store.get_model_class()
    except RuntimeError:  # What Django raises for a model without an application.
        return 0
    return CACHE_KEY_MAX if hasattr(store, "cache_key_prefix") else COOKIE_MAX


def _in_cookies(store: type[SessionBase]) -> bool:
    from django.contrib.sessions.backends.signed_cookies import SessionStore

    return issubclass(store, SessionStore)


def _load_past_cache(session: Any) -> dict[str, Any]:
    """
    Load a session from where others saved it last.

    Who saves one in both writes the database first, and a cache may be another process's.
    """
    from django.contrib.sessions.backends import cached_db, db

    own = type(session).load is cached_db.SessionStore.load
    data: dict[str, Any] = db.SessionStore.load(session) if own else session.load()
    return data


def _noted(data: dict[str, Any]) -> dict[str, Any]:
    """
    Keep what is needed to find out later which keys were changed.
    """
    return {
        name: value if type(value) in PLAIN else copy.deepcopy(value)
        for name, value in data.items()
    }


@contextmanager
def _locked(session: Any) -> Iterator[None]:
    """
    Keep others from saving between the fresh load and the save, where that is in a database.
    """
    get_model: Callable[[], Any] | None = getattr(session, "get_model_class", None)
    if get_model is None:
        yield
        return
    model = get_model()
    alias = router.db_for_write(model)
    row = model.objects.using(alias).filter(pk=session.session_key)
    with transaction.atomic(using=alias):
        if connections[alias].features.has_select_for_update:
            row.select_for_update().values_list("pk").first()
        else:
            # SQLite has a lock for all; taken before anything is read, it is waited for.
            row.update(expire_date=F("expire_date"))
        yield


def _stored_in_database(store: Any, keys: list[str]) -> set[str]:
    """
    Ask the table of sessions.
    """
    model = store.get_model_class()
    alias = router.db_for_write(model)
    # One variable is the present time.
    size = (connections[alias].features.max_query_params or len(keys) + 2) - 1
    rows = model.objects.using(alias).filter(expire_date__gt=timezone.now())
    found: set[str] = set()
    for start in range(0, len(keys), size):
        part = rows.filter(pk__in=keys[start : start + size])
        found.update(part.values_list("pk", flat=True))
    return found
