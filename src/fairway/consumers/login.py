"""
Whether consumers that say nothing of it want a login: what the project says of its views.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from django.utils.module_loading import import_string

from fairway import conf

__all__ = ["LoginRequired"]

DJANGOS = "django.contrib.auth.middleware.LoginRequiredMiddleware"


class LoginRequired:
    """
    True where ``MIDDLEWARE`` has Django's ``LoginRequiredMiddleware``, or a class made from it.

    Read at each look, so settings may change. A class or instance may assign something else.
    """

    def __get__(self, consumer: Any, owner: type) -> bool:
        middleware: Sequence[str] = conf.django_setting("MIDDLEWARE", None) or ()
        return _demands_login(tuple(middleware))


@lru_cache(maxsize=8)
def _demands_login(middleware: tuple[str, ...]) -> bool:
    return any(path == DJANGOS or _is_made_from_it(path) for path in middleware)


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
