"""
System checks: what is wrong in a project's settings, what follows, and the fix.

Each has an id, ``fairway.E001`` and on for errors and ``fairway.W001`` and on for
warnings, and the tag ``fairway``. A check looks at settings only; it opens no
database and no broker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import checks

from fairway import conf
from fairway.exceptions import ConfigurationError
from fairway.options import AREAS

__all__ = ["check_settings"]


def check_settings(**options: Any) -> list[checks.CheckMessage]:
    """
    Check what Fairway reads from the settings.
    """
    return [*_fairway(), *_asgi_application(), *_channel_layers()]


def _fairway() -> Iterator[checks.CheckMessage]:
    """
    Look at the keys and values of ``FAIRWAY``, and of the variables that override them.
    """
    try:
        for key, nearest in conf.unknown_settings():
            yield checks.Error(
                f"FAIRWAY has no key {key!r}. It changes nothing.",
                hint=f"Did you mean {nearest!r}?" if nearest else "Remove it.",
                id="fairway.E001",
            )
        for area in AREAS:
            conf.resolve_options(area)
    except ConfigurationError as error:
        yield checks.Error(
            f"{error}. Neither runserver nor serve can start.",
            hint="Correct the value, or remove it for the default.",
            id="fairway.E002",
        )


def _asgi_application() -> Iterator[checks.CheckMessage]:
    """
    Look whether ``ASGI_APPLICATION`` leads to an application.
    """
    spec = getattr(settings, "ASGI_APPLICATION", None)
    if spec is None:
        return
    # Every command of the project imports this module, and few run the checks.
    from fairway.asgi import import_application

    try:
        import_application(spec, "ASGI_APPLICATION")
    except ConfigurationError as error:
        yield checks.Warning(
            f"{error}. Neither runserver nor serve can start.",
            hint="Correct ASGI_APPLICATION, or remove it: Fairway serves pages and the "
            "consumers in urls.py without it.",
            id="fairway.W001",
        )


def _channel_layers() -> Iterator[checks.CheckMessage]:
    """
    Look for options of channel layers that Fairway accepts and ignores.
    """
    layers = getattr(settings, "CHANNEL_LAYERS", None) or {}
    for alias, layer in layers.items():
        backend = str(layer.get("BACKEND", ""))
        if backend.startswith("fairway.") and "group_expiry" in layer.get("CONFIG", {}):
            yield checks.Warning(
                f"CHANNEL_LAYERS[{alias!r}] sets group_expiry, which is ignored: a member "
                "leaves its groups when its connection ends, and not after a time.",
                hint="Remove group_expiry.",
                id="fairway.W002",
            )
