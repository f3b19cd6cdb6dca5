"""
What Django's handler puts around a view: its language, URL configuration and mount point.

``reverse()``, ``{% url %}`` and ``gettext()`` read these from the present context. Each
connection has a context of its own, so nothing of it reaches another one. Nothing is set,
and nothing is kept, where the defaults hold.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.middleware.locale import LocaleMiddleware
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import translation
from django.utils.module_loading import import_string

from fairway.sessions import read_cookies
from fairway.types import Scope

__all__ = [
    "Undo",
    "follows_browser",
    "has_surroundings",
    "path_below",
    "restore",
    "surround",
]

Undo = list[Callable[[], Any]]

# The project's languages and whether their catalogs are loaded: both are done with files, and so
# in a thread.
_known: defaultdict[str, bool] = defaultdict(bool)


def path_below(scope: Scope) -> str:
    """
    Give the path below the place where the application is mounted.

    The server says where that is (``root_path``), or ``FORCE_SCRIPT_NAME`` does, as for pages. A
    proxy may have taken the prefix off already.
    """
    path: str = scope["path"]
    prefix = _mount_point(scope)
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"}:
        return path[len(prefix) :] or "/"
    return path


def has_surroundings(scope: Scope, urlconf: Any, *, localized: bool) -> bool:
    """
    Whether anything is to be set for a connection; the arguments are those of ``surround()``.
    """
    return bool(urlconf is not None or localized or follows_browser() or _mount_point(scope))


async def surround(scope: Scope, urlconf: Any, *, localized: bool, prefixed: bool) -> Undo | None:
    """
    Set what holds for one connection, in the present context.

    Waits only for files, where a language is met for the first time.

    Args:
        scope: Its scope.
        urlconf: Its URL configuration, None for ``ROOT_URLCONF``.
        localized: Whether that uses ``i18n_patterns``.
        prefixed: Whether these have a prefix for the default language too.

    Returns:
        For ``restore()``; None where the defaults hold.
    """
    undo: Undo = []
    if prefix := _mount_point(scope):
        undo.append(partial(set_script_prefix, get_script_prefix()))
        set_script_prefix(prefix)
    if urlconf is not None:
        undo.append(partial(set_urlconf, get_urlconf()))
        set_urlconf(urlconf)
    if localized or follows_browser():
        if not _known:
            await asyncio.to_thread(_look_for_languages)
        language = _language(scope, localized=localized, prefixed=prefixed)
        if language is not None and language != translation.get_language():
            if not _known[language]:
                await asyncio.to_thread(_load, language)
            override = translation.override(language)
            override.__enter__()
            undo.append(partial(override.__exit__, None, None, None))
    return undo or None


def restore(undo: Undo | None) -> None:
    """
    Set what held before ``surround()``.
    """
    while undo:
        undo.pop()()


def _mount_point(scope: Scope) -> str:
    """
    Name where the application is mounted, without a slash at the end.
    """
    prefix: str = _forced_prefix() or scope.get("root_path") or ""
    return prefix.rstrip("/")


@cache
def _forced_prefix() -> str | None:
    """
    Read the setting once: a look at one costs more than all else here.
    """
    prefix: str | None = settings.FORCE_SCRIPT_NAME
    return prefix


def _language(scope: Scope, *, localized: bool, prefixed: bool) -> str | None:
    """
    Say in which language a page would answer here; None for whichever is set.

    The prefix of the path comes first. Cookie and Accept-Language count where the project
    has ``LocaleMiddleware``, by whose rules this goes.
    """
    if not settings.USE_I18N:
        return None
    if localized:
        language = translation.get_language_from_path(path_below(scope))
        if language or not prefixed:
            return language or settings.LANGUAGE_CODE
    if not follows_browser():
        return None
    accepted = [value for name, value in scope.get("headers", ()) if name == b"accept-language"]
    asked: Any = SimpleNamespace(
        COOKIES=scope.get("cookies") or read_cookies(scope),
        META={"HTTP_ACCEPT_LANGUAGE": b",".join(accepted).decode("latin1")},
    )
    return translation.get_language_from_request(asked)


def _look_for_languages() -> None:
    """
    Have Django look for the project's languages on the disk, which it remembers.
    """
    for code, _ in settings.LANGUAGES:
        translation.check_for_language(code)
    _known.update({code: False for code, _ in settings.LANGUAGES})


def _load(language: str) -> None:
    """
    Have Django read the catalog of a language, which it keeps.
    """
    with translation.override(language):
        _known[language] = True


@cache
def follows_browser() -> bool:
    """
    Whether the project has ``LocaleMiddleware``, by which pages follow what browsers ask for.
    """
    for path in settings.MIDDLEWARE:
        try:
            middleware = import_string(path)
        except ImportError:  # Django's own handler says so, and better.
            continue
        if isinstance(middleware, type) and issubclass(middleware, LocaleMiddleware):
            return True
    return False


def _forget(**kwargs: Any) -> None:
    """
    Look anew after a change of settings.
    """
    follows_browser.cache_clear()
    _forced_prefix.cache_clear()
    _known.clear()


setting_changed.connect(_forget)
