"""
What others have made, for comparison: how each is started, in an environment of its own.

Their versions, and those of all they need, are in ``peers.txt``; the environment is made when a
block asks for one. Nothing but the blocks that name them needs it, the tests do not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks.harness.build import HERE, BuildError

__all__ = ["ENVIRONMENT", "PEERS", "TITLES", "environment", "versions"]

ENVIRONMENT = HERE.parent / ".venv-peers"
INSTALLS_WITHIN = 900.0
HINT = "Hint: --own does without most of the servers of others."
SHARED = ("Django", "asgiref")
"""
What the site itself needs, in the versions it has under Fairway.
"""

ASGI = "asgi_app:application"
CHANNELS = "channels_site:application"
PLACE = "--host 127.0.0.1 --port {port}"
# Its own endpoint has a backlog of 50, of which a client of others would see the overflow.
DAPHNE = "daphne -v 0 -e tcp:port={{port}}:interface=127.0.0.1:backlog=1024 {app}"
# Without the level it says three lines about each WebSocket.
QUIET = "--no-access-log --log-level warning"
UVICORN = f"uvicorn {QUIET} --loop uvloop --ws websockets-sansio {PLACE} {{app}}"

PEERS = {
    # With the plain ASGI application.
    "daphne": DAPHNE.format(app=ASGI),
    "uvicorn": UVICORN.replace("{app}", f"--http httptools {ASGI}"),
    "uvicorn-zttp": UVICORN.replace("{app}", f"--http zttp {ASGI}"),
    "granian-asgi": f"granian --interface asgi --loop uvloop --workers 1 {PLACE} {ASGI}",
    "hypercorn": f"hypercorn -k uvloop --workers 1 --bind 127.0.0.1:{{port}} {ASGI}",
    "picows": "python picows_server.py --port {port}",
    # With a plain WSGI application.
    "gunicorn-wsgi": "gunicorn -k gthread --threads 4 -b 127.0.0.1:{port} wsgi_app:application",
    # With the site that Fairway serves as ``pages``.
    # By itself it takes 512 threads, which stand in each other's way.
    "granian": f"granian --interface wsgi --workers 1 --blocking-threads 4 {PLACE} page_site:wsgi",
    "gunicorn": "gunicorn -k gthread --threads 4 -b 127.0.0.1:{port} page_site:wsgi",
    "page-uvicorn": UVICORN.replace("{app}", "page_site:application"),
    "page-daphne": DAPHNE.format(app="page_site:application"),
    # With Channels.
    **{
        f"channels-{server}{layer}": command
        for server, command in (
            ("daphne", DAPHNE.format(app=CHANNELS)),
            ("uvicorn", UVICORN.replace("{app}", f"--lifespan off {CHANNELS}")),
        )
        for layer in ("", "-core", "-pubsub")
    },
}
"""
The command of each subject that others made.
"""

TITLES = {
    "daphne": "Daphne",
    "uvicorn": "uvicorn, httptools and sansio",
    "uvicorn-zttp": "uvicorn, zttp and sansio",
    "granian-asgi": "granian",
    "hypercorn": "hypercorn",
    "picows": "picows (no ASGI)",
    "gunicorn-wsgi": "gunicorn, gthread (WSGI)",
    "channels-daphne": "Channels on Daphne",
    "channels-uvicorn": "Channels on uvicorn",
    "channels-daphne-core": "Channels on Daphne, core",
    "channels-uvicorn-core": "Channels on uvicorn, core",
    "channels-daphne-pubsub": "Channels on Daphne, pub/sub",
    "channels-uvicorn-pubsub": "Channels on uvicorn, pub/sub",
}
"""
What tables call those that take part in more than one.
"""

NAMED = (
    "channels",
    "daphne",
    "granian",
    "gunicorn",
    "hypercorn",
    "picows",
    "redis",
    "uvicorn",
    "websockets",
    "zttp",
)
"""
Those whose versions a reader looks for; of the rest only ``peers.txt`` tells.
"""


def wanted() -> list[str]:
    """
    Return what has to be installed, each with its version.
    """
    lines = (HERE / "peers.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    return [*pins, *(f"{name}=={metadata.version(name)}" for name in SHARED)]


def environment() -> Path:
    """
    Return the folder of the programs, after making or refreshing the environment if need be.

    Raises:
        BuildError: There is no uv, or it could not install them.
    """
    note = ENVIRONMENT / "installed.txt"
    state = "\n".join([sys.version, *wanted()])
    if not note.exists() or note.read_text(encoding="utf-8") != state:
        tools = f"{HERE.parent / '.tools' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        uv = shutil.which("uv", path=tools)
        if uv is None:
            raise BuildError(f"uv was expected, which scripts/bootstrap installs. {HINT}")
        run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT))
        # What is not in the file is not installed: nothing comes in a version of its own choice.
        run(uv, "pip", "install", "--quiet", "--no-deps", "--python", str(ENVIRONMENT), *wanted())
        note.write_text(state, encoding="utf-8")
    return ENVIRONMENT / "bin"


def run(*command: str) -> None:
    """
    Run a command to its end.

    Raises:
        BuildError: It failed, with what it printed, or took too long.
    """
    what = " ".join(command[:3])
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=INSTALLS_WITHIN,
            env={**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{what} took more than {INSTALLS_WITHIN:g} s. {HINT}") from None
    if done.returncode:
        raise BuildError(f"{what} failed. {HINT}\n{done.stderr}")


def versions() -> str:
    """
    Name them with their versions, for the record.
    """
    return ", ".join(each.replace("==", " ") for each in wanted() if each.startswith(NAMED))
