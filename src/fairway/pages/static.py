"""
Whether anything in a project serves its static files once ``DEBUG`` is off.

Django serves them in development alone, and says nothing where they are missing: pages come
without style. A proxy may serve them, which nobody here can see.
"""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.http import Http404
from django.urls import resolve

from fairway.faults import Fault
from fairway.layers.notices import Notices

__all__ = ["collected", "note_missing", "unserved_path"]

notices = Notices(logging.getLogger("fairway.pages"))

SERVING = ("whitenoise", "servestatic")
"""
Packages whose middleware serves static files.
"""


def unserved_path() -> str | None:
    """
    Give the path of static files, if nothing in the project serves them.

    None without static files, in development, where they have a host or a storage of their own,
    and where middleware or a view is there for them.
    """
    if settings.DEBUG or not apps.is_installed("django.contrib.staticfiles"):
        return None
    url = urlsplit(settings.STATIC_URL or "")
    storage = settings.STORAGES.get("staticfiles", {}).get("BACKEND", "")
    if url.netloc or not url.path.strip("/") or not storage.startswith("django."):
        return None
    if any(name in middleware for middleware in settings.MIDDLEWARE for name in SERVING):
        return None
    try:
        resolve(f"{url.path}x")
    except Http404:
        return url.path
    return None


def collected() -> bool:
    """
    Whether ``STATIC_ROOT`` has files, so that somebody may mean to serve them.
    """
    if not settings.STATIC_ROOT:
        return False
    root = Path(settings.STATIC_ROOT)
    return root.is_dir() and any(root.iterdir())


def note_missing(path: str, prefix: str) -> None:
    """
    Say once in a while that a static file was asked for which nobody serves.
    """
    notices.say(
        "static",
        "%s is a static file, and nothing serves these without DEBUG. Hint: add WhiteNoise's "
        f"middleware, or have a proxy serve STATIC_ROOT at %s. [{Fault.STATIC_NOT_SERVED}]",
        path,
        prefix,
    )
