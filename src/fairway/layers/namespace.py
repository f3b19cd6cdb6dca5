"""
Which processes belong together, as the project's settings say; nothing of layers here.

Processes meet that share SECRET_KEY, settings module and database: the server, a shell,
cron and the tasks of one project. A copy of it elsewhere has another database and meets
nobody. Tests have a place of their own, whatever the settings say.
"""

from __future__ import annotations

import hmac
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.encoding import force_bytes

from fairway import conf

__all__ = ["derive_namespace", "in_tests", "place", "place_prefix"]

DIGITS = 24
"""
Hexadecimal digits of a namespace: nobody meets by chance, and a socket's path stays short.
"""

_own: dict[int, Path] = {}
"""
The directory that a test process has for itself, by process id: a forked child has another.
"""


def derive_namespace() -> str:
    """
    Derive the namespace of this project from its settings.

    The key keeps others from computing it; what it is computed from stays secret too.
    """
    module = conf.django_setting("SETTINGS_MODULE", None) or ""
    parts = "\0".join([module, *_data(module)])
    return hmac.digest(_key(), parts.encode(errors="surrogateescape"), "sha256").hex()[:DIGITS]


def in_tests() -> bool:
    """
    Whether this is Django's test environment, as ``manage.py test`` and pytest-django make it.
    """
    # What setup_test_environment() puts there, and nothing else does.
    return hasattr(sys.modules.get("django.core.mail"), "outbox")


def place(directory: Path) -> Path:
    """
    Give the directory where a layer is to meet others: in tests one that nobody else has.

    Asked when a layer begins and not when it is made, since modules that keep a layer are
    often imported before the test environment is set up.
    """
    return _own_directory() if in_tests() else directory


def place_prefix(prefix: str) -> str:
    """
    Give the prefix that a layer's names on a server are to have: in tests one of this process.

    So tests reach neither one another nor a project that runs with the same settings.
    """
    return f"{prefix}:test:{socket.gethostname()}:{os.getpid()}" if in_tests() else prefix


def _own_directory() -> Path:
    """
    Make a directory for this process alone, which goes with it.
    """
    # Unlike atexit it is run by the children of ``manage.py test --parallel`` as well, and by
    # nobody who inherited it.
    from multiprocessing.util import Finalize

    process = os.getpid()
    if process not in _own:
        made = Path(tempfile.mkdtemp(prefix="fairway-test-"))
        Finalize(None, shutil.rmtree, (made,), {"ignore_errors": True}, exitpriority=0)
        _own[process] = made
    return _own[process] / "test"


def _data(module: str) -> list[str]:
    """
    Say which data is the project's: name and host of its default database.

    Without a database that other processes can open, its place on the disk.
    """
    database: Mapping[str, Any] = conf.django_setting("DATABASES", {}).get("default") or {}
    name = os.fsdecode(database.get("NAME") or "")
    if name == ":memory:" or "mode=memory" in name:
        name = ""
    elif name and "sqlite3" in str(database.get("ENGINE")) and not name.startswith("file:"):
        name = str(Path(name).absolute())
    return [name, str(database.get("HOST") or "")] if name else [str(_home(module))]


def _home(module: str) -> Path:
    """
    Give the folder of the settings module, or the current one where there is none.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).parent if file else Path.cwd()


def _key() -> bytes:
    """
    Give SECRET_KEY; a process without one has no pages either, and its own folder will do.
    """
    with suppress(ImproperlyConfigured):
        return force_bytes(conf.django_setting("SECRET_KEY", ""))
    return b""
