"""
Whether consumers that say nothing of it want a login: what the project says of its views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from fairway import conf

__all__ = ["LoginRequired"]

DJANGOS = "django.contrib.auth.middleware.LoginRequiredMiddleware"


class LoginRequired:
    """
    True where ``MIDDLEWARE`` has Django's ``LoginRequiredMiddleware``, or a class made from it.

    A class or instance may assign something else.
    """

    def __get__(self, consumer: Any, owner: type) -> bool:
        return _demands_login() if _remembered is None else _remembered


def _demands_login() -> bool:
    """
    Look at the settings, once: a look at one costs more than all else here.
    """
    global _remembered  # noqa: PLW0603 - what a cache would hold, but not where settings may yet come
    middleware: Sequence[str] = conf.django_setting("MIDDLEWARE", None) or ()
    found = any(path == DJANGOS or _is_made_from_it(path) for path in middleware)
    if settings.configured:
        _remembered = found
    return found


def _is_made_from_it(path: str) -> bool:
    """
    Whether a middleware is a subclass; what cannot be imported, Django itself reports.
    """
    try:
        found = import_string(path)
    except ImportError:
        return False
    # By name, since a project without django.contrib.auth cannot import Django's.
    return any(
        f"{each.__module__}.{each.__name__}" == DJANGOS for each in getattr(found, "__mro__", ())
    )


_remembered: bool | None = None


def _forget(**kwargs: Any) -> None:
    """
    Look anew after a change of settings.
    """
    global _remembered  # noqa: PLW0603 - as above
    _remembered = None


setting_changed.connect(_forget)
