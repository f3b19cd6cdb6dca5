"""
Sessions in a database: however many save at once, nothing is lost.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.postgres import postgres

SCRIPT = """
import os, threading
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="locked",
    INSTALLED_APPS=["django.contrib.sessions"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends." + os.environ["ENGINE"], "NAME": os.environ["NAME"],
        "HOST": os.environ.get("PLACE", ""), "USER": os.environ.get("ROLE", ""),
    }},
)
django.setup()

from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.db import connection
from fairway.sessions import open_session

call_command("migrate", verbosity=0)
stored = SessionStore()
stored["kept"] = True
stored.save()


def save(name):
    socket = open_session({"sessionid": stored.session_key})
    for number in range(20):
        socket[f"{name}{number}"] = number
        socket.save()
    connection.close()


threads = [threading.Thread(target=save, args=(name,)) for name in "abcd"]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(SessionStore(stored.session_key).load()))
"""


def save_at_once(**database: str) -> None:
    """
    Have four sockets save twenty keys each at the same time, into one session.
    """
    environment = {**os.environ, **database}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "81\n", "")


def test_a_database_that_locks_rows() -> None:
    """All of many saves are kept."""
    with postgres() as address:
        save_at_once(
            ENGINE="postgresql",
            NAME=address["dbname"],
            PLACE=address["host"],
            ROLE=address["user"],
        )


def test_sqlite(tmp_path: Path) -> None:
    """All of many saves are kept."""
    save_at_once(ENGINE="sqlite3", NAME=str(tmp_path / "database"))
