"""
Having Django tell when a login ends: signals of the user model, and the engine of sessions.

Engines send no signals, and a receiver of ``post_delete`` would have ``clearsessions`` load every
expired session instead of deleting all in one statement. So the methods through which every
logout and every new key goes are wrapped, in the engine's own class, and say here what they did.
What is then told to whom is in ``orders``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import router
from django.db.models.signals import post_delete, post_save

from fairway.revocation import orders
from fairway.session_stores import engine

__all__ = ["begin"]

HARMLESS_FIELDS = frozenset({"last_login"})
"""
Fields of a user that say nothing of who may log in; every login saves them.
"""

MARK = "_fairway_watched"

# Set while a method runs that says itself what becomes of a session.
_quiet: ContextVar[bool] = ContextVar("fairway.revocation.quiet", default=False)


def begin() -> None:
    """
    Listen, as far as the project has users and sessions. A second call does nothing.
    """
    if not apps.models_ready:
        return
    if "auth" in apps.app_configs:
        user_model = get_user_model()
        for model in apps.get_models():
            # A proxy or a child of the model sends signals of its own.
            if issubclass(model, user_model):
                post_save.connect(_on_user_saved, sender=model, dispatch_uid=MARK)
                post_delete.connect(_on_user_deleted, sender=model, dispatch_uid=MARK)
    # What is wrong with the engine is said where it is used.
    with suppress(ImportError, RuntimeError):
        _watch(engine())


def _on_user_saved(
    instance: Any, created: bool, raw: bool, using: str, update_fields: Any, **signal: Any
) -> None:
    """
    Have a user's connections looked at: the password may have changed, or the right to log in.
    """
    if created or raw or (update_fields is not None and HARMLESS_FIELDS.issuperset(update_fields)):
        return
    orders.announce_look(instance, using)


def _on_user_deleted(instance: Any, using: str, **signal: Any) -> None:
    orders.announce_end(user=instance, using=using)


def _watch(store: Any) -> None:
    """
    Have a class of sessions say which ended, and which go on under another key.
    """
    if MARK in vars(store):
        return
    get_model = getattr(store, "get_model_class", None)
    model = get_model() if get_model else None
    using = _nowhere if model is None else functools.partial(router.db_for_write, model)
    for name, wrap in WRAPPERS.items():
        setattr(store, name, wrap(getattr(store, name), using))
    setattr(store, MARK, True)
    if model is not None and MARK not in vars(model):
        model.delete = _of_row(model.delete)
        setattr(model, MARK, True)


def _nowhere() -> None:
    """
    Name no database: what other engines do is done at once.
    """


def _deleting(original: Callable[..., Any], using: Callable[[], str | None]) -> Any:
    @functools.wraps(original)
    def delete(self: Any, session_key: str | None = None) -> Any:
        with _telling_of_end(session_key or self.session_key, using):
            return original(self, session_key)

    return delete


def _adeleting(original: Callable[..., Any], using: Callable[[], str | None]) -> Any:
    @functools.wraps(original)
    async def adelete(self: Any, session_key: str | None = None) -> Any:
        with _telling_of_end(session_key or self.session_key, using):
            return await original(self, session_key)

    return adelete


def _cycling(original: Callable[..., Any], using: Callable[[], str | None]) -> Any:
    @functools.wraps(original)
    def cycle_key(self: Any) -> Any:
        with _telling_of_rotation(self, using):
            return original(self)

    return cycle_key


def _acycling(original: Callable[..., Any], using: Callable[[], str | None]) -> Any:
    @functools.wraps(original)
    async def acycle_key(self: Any) -> Any:
        with _telling_of_rotation(self, using):
            return await original(self)

    return acycle_key


def _of_row(original: Callable[..., Any]) -> Any:
    """
    Wrap the deletion of one row, which no engine need know of.
    """

    @functools.wraps(original)
    def delete(self: Any, using: str | None = None, *args: Any, **kwargs: Any) -> Any:
        alias = using or self._state.db
        with _telling_of_end(self.pk, lambda: alias):
            return original(self, using, *args, **kwargs)

    return delete


WRAPPERS: dict[str, Callable[..., Any]] = {
    "acycle_key": _acycling,
    "adelete": _adeleting,
    "cycle_key": _cycling,
    "delete": _deleting,
}


@contextmanager
def _quietly() -> Iterator[bool]:
    """
    Keep what is called within from telling; gives whether the caller is to tell.
    """
    tells = not _quiet.get()
    token = _quiet.set(True)
    try:
        yield tells
    finally:
        _quiet.reset(token)


@contextmanager
def _telling_of_end(key: str | None, using: Callable[[], str | None]) -> Iterator[None]:
    with _quietly() as tells:
        yield
    if tells and key:
        orders.announce_end(session=key, using=using())


@contextmanager
def _telling_of_rotation(session: Any, using: Callable[[], str | None]) -> Iterator[None]:
    old = session.session_key
    with _quietly() as tells:
        yield
    new = session.session_key
    if tells and old and new and old != new:
        orders.announce_rotation(old, new, using())
