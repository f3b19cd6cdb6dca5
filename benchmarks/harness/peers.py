"""
What others have made, for comparison: an environment of its own, made when a block asks for one.

Which servers and channel layers they are, and their versions, is in ``peers.txt``. Nothing but
the blocks that name them needs it, the tests do not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks.harness.build import HERE, BuildError

__all__ = ["ENVIRONMENT", "environment", "versions"]

ENVIRONMENT = HERE.parent / ".venv-peers"
SHARED = ("Django", "asgiref")
"""
What the site itself needs, in the versions it has under Fairway.
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
            raise BuildError("uv was expected, for the servers to compare with. Hint: bootstrap.")
        run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT))
        run(uv, "pip", "install", "--quiet", "--python", str(ENVIRONMENT), *wanted())
        note.write_text(state, encoding="utf-8")
    return ENVIRONMENT / "bin"


def run(*command: str) -> None:
    """
    Run a command to its end.

    Raises:
        BuildError: It failed; with what it printed.
    """
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "1"},
    )
    if done.returncode:
        raise BuildError(f"{' '.join(command[:3])} failed:\n{done.stderr}")


def versions() -> str:
    """
    Name them with their versions, for the record.
    """
    names = ("channels_redis", "granian", "gunicorn", "redis", "uvicorn")
    return ", ".join(each.replace("==", " ") for each in wanted() if each.startswith(names))
