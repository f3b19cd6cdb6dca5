"""
Every fault that newcomers to realtime Django are known to meet, and which of them has a case here.

The list was made with Channels and Daphne: each fault put alone into a working tutorial project.
What it means to Fairway's users is the case of that name.
"""

from __future__ import annotations

REDIS = "Fairway needs no Redis; its own layer for Redis is tested with that layer"
DAPHNE = "Daphne's own rule about the order of apps; for Fairway's see test_apps"

FAULTS: dict[str, str | None] = {
    "Redis not running": REDIS,
    "no CHANNEL_LAYERS": None,
    "daphne after staticfiles": DAPHNE,
    "server not installed as an app": None,
    "ASGI_APPLICATION missing": None,
    "app imported before get_asgi_application()": None,
    "default asgi.py left": None,
    "missing trailing slash": None,
    "a room that the route does not take": None,
    "a room of 120 characters, or with an accent": None,
    ".as_asgi() forgotten": None,
    "client sends no JSON": None,
    "client sends a wrong key": None,
    "typo in a message's type": None,
    "async_to_sync forgotten": None,
    "foreign Origin": None,
    "page host not in ALLOWED_HOSTS": None,
    "whitenoise.runserver_nostatic above": None,
    "synchronous ORM in an asynchronous consumer": None,
    "gunicorn for WSGI in front": None,
    "wrong module name": None,
    "port busy": None,
    "--fd 0 without a supervisor": None,
    "runworker without an app of its own": None,
}
"""
Each fault with the reason why it has no case, or None.
"""

STARTS = frozenset(
    {
        "server not installed as an app",
        "app imported before get_asgi_application()",
        "default asgi.py left",
        "whitenoise.runserver_nostatic above",
        "gunicorn for WSGI in front",
        "wrong module name",
        "port busy",
        "--fd 0 without a supervisor",
        "runworker without an app of its own",
    }
)
"""
Cases about how something is started, which are tests of their own.
"""

CLIENTS = frozenset(name for name, reason in FAULTS.items() if not reason) - STARTS
"""
Cases about what a client meets, which share one running server.
"""
