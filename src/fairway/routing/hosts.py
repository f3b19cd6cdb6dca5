"""
Which URL configuration a connection has: ``FAIRWAY["URLCONF"]``, in all its forms.

It is the dotted path of a URL configuration, or a function of the scope (or its dotted path),
sync or async, for sites that have one for each host. Without it, ``ROOT_URLCONF`` holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from django.core.signals import setting_changed

from fairway.conf import resolve_options
from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.options import ProjectOptions
from fairway.types import Scope

__all__ = ["Chooser", "Fixed", "choose", "chooser"]

Chooser = Callable[[Scope], Any]


@dataclass(frozen=True, slots=True)
class Fixed:
    """
    Gives every scope the same URL configuration.
    """

    urlconf: ModuleType

    def __call__(self, scope: Scope) -> ModuleType:
        """
        Give it.
        """
        return self.urlconf


@cache
def chooser() -> Chooser | None:
    """
    Give what says which URL configuration a scope has; None where all have ``ROOT_URLCONF``.

    Raises:
        ConfigurationError: The setting leads nowhere.
    """
    options, _ = resolve_options(ProjectOptions)
    setting = options.urlconf
    if setting is None:
        return None
    found = _import(setting) if isinstance(setting, str) else setting
    if isinstance(found, ModuleType):
        return Fixed(found)
    choosing: Chooser = found
    return choosing


async def choose(scope: Scope) -> Any:
    """
    Give a connection's URL configuration: a module or its name, None for ``ROOT_URLCONF``.

    Raises:
        ConfigurationError: The project's function returned something else.
    """
    choosing = chooser()
    if choosing is None:
        return None
    try:
        found = choosing(scope)
        if inspect.isawaitable(found):
            found = await found
    except Exception as error:
        error.fault = Fault.URLCONF_FAILED  # type: ignore[attr-defined] # read by the server's log
        raise
    if found is None or hasattr(found, "urlpatterns"):
        return found
    if isinstance(found, str) and _exists(found):
        return found
    problem = "no module of that name" if isinstance(found, str) else "no URL configuration"
    raise ConfigurationError(
        f"FAIRWAY['URLCONF'] returned {found!r} for {_site(scope)}: there is {problem}. Expected "
        "the dotted path of a URL configuration, or None for ROOT_URLCONF",
        fault=Fault.URLCONF_FAILED,
    )


def _import(path: str) -> Any:
    """
    Import a URL configuration, or a function that chooses one.

    Raises:
        ConfigurationError: It is neither, or is not there.
    """
    if _exists(path):
        module = import_module(path)
        if hasattr(module, "urlpatterns"):
            return module
        raise _unusable(path, "the module has no urlpatterns")
    parent, _, name = path.rpartition(".")
    if not parent or not _exists(parent):
        raise _unusable(path, f"there is no module {parent or path!r}")
    value = getattr(import_module(parent), name, None)
    if value is None:
        raise _unusable(path, f"{parent} has no {name!r}")
    if not callable(value):
        raise _unusable(path, f"{type(value).__name__} is not a function")
    return value


def _unusable(path: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"FAIRWAY['URLCONF'] is {path!r}: {problem}. Expected the dotted path of a URL "
        "configuration, or of a function that takes a scope and returns one",
        fault=Fault.URLCONF_INVALID,
    )


@cache
def _exists(module: str) -> bool:
    """
    Whether there is a module of a name. What is wrong inside of it is told where it is imported.
    """
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _site(scope: Scope) -> str:
    """
    Name the host that a client asked for.
    """
    host = next((value for name, value in scope.get("headers", ()) if name == b"host"), b"")
    return f"host {host.decode('latin1')[:200]!r}"


def _forget(**kwargs: Any) -> None:
    """
    Look anew after a change of settings.
    """
    chooser.cache_clear()
    _exists.cache_clear()


setting_changed.connect(_forget)
