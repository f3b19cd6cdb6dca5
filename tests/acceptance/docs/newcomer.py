"""
Somebody who does what the tutorial says, literally, with the package as it would be published.

The wheel is built from this checkout and installed by the tutorial's own command into a fresh
environment; nothing of the checkout can be imported there. What the way to two chatting tabs
takes is counted here, for the tests and for ``benchmarks``.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests.acceptance.docs.tutorial import CommandStep, FileStep, Step, lines_added, sections, texts

__all__ = ["FIRST", "Newcomer", "arrived", "is_server"]

ROOT = Path(__file__).parents[3]
FIRST = "Two tabs that chat"
SERVICES = r"\b(redis|docker|postgres|systemctl|service|daphne|celery)\b"
"""
What would have to run beside the project's own server.
"""


class Newcomer:
    """
    A person with an empty folder, a fresh virtual environment and the tutorial.

    Attributes:
        folder: The folder, empty at first.
        variables: The environment of what is typed.
        typed: Every command typed so far.
        packages: What is installed besides what the environment was made with.
        written: How many lines were written by hand, for each file.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "site"
        self.folder.mkdir()
        self.environment = root / "venv"
        self.typed: list[str] = []
        self.packages: set[str] = set()
        self.written: dict[str, int] = {}
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        left_out = ("COVERAGE_", "DJANGO_", "PYTHON", "PYTEST_")
        inherited = {key: os.environ[key] for key in os.environ if not key.startswith(left_out)}
        self.variables = inherited | {
            "PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}",
            # The tutorial's port may be in use by others.
            "PORT": self.address.partition(":")[2],
            # Its command installs the pinned versions, and of Fairway the wheel just built.
            "PIP_CONSTRAINT": str(root / "constraints.txt"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def prepare(self, wheel: Path) -> None:
        """
        Make the environment, in which ``pip install fairway`` finds the wheel.
        """
        run(uv(), "venv", "--quiet", "--seed", "--python", sys.executable, str(self.environment))
        pins = (ROOT / "constraints.txt").read_text()
        constraints = Path(self.variables["PIP_CONSTRAINT"])
        constraints.write_text(f"{pins}fairway @ {wheel.as_uri()}\n")

    def follow(self, steps: list[Step]) -> None:
        """
        Do the steps one by one, each command to its end; a server is not started yet.
        """
        for step in steps:
            if isinstance(step, FileStep):
                step.write(self.folder)
            elif not is_server(step):
                self.type(step.line)

    def type(self, line: str) -> str:
        """
        Type a command, and give what it prints until its end.
        """
        self.typed.append(line)
        return run("sh", "-c", line, cwd=self.folder, env=self.variables)

    def installed(self) -> set[str]:
        """
        Look which packages are in the environment.
        """
        found = self.environment.glob("lib/python*/site-packages/*.dist-info")
        return {folder.name.partition("-")[0] for folder in found}

    def arrive(self) -> None:
        """
        Follow the first section up to its server, and count.
        """
        steps = sections()[FIRST]
        before = self.installed()
        commands = [step for step in steps if isinstance(step, CommandStep)]
        self.follow([*commands])
        self.packages = self.installed() - before
        original = texts(self.folder)
        self.follow([step for step in steps if isinstance(step, FileStep)])
        self.written = lines_added(original, self.folder)

    def counts(self) -> dict[str, int]:
        """
        Say what the way there took: commands, files, lines, packages, and services besides.
        """
        typed = [step.line for step in sections()[FIRST] if isinstance(step, CommandStep)]
        return {
            "commands": len(typed),
            "files": len(self.written),
            "lines": sum(self.written.values()),
            "packages": len(self.packages),
            # Whatever else there is to start would be typed as well.
            "services": len([line for line in typed if re.search(SERVICES, line)]),
        }


def is_server(step: CommandStep) -> bool:
    """
    Whether a command goes on until it is ended.
    """
    return " runserver" in step.line or " serve" in step.line


def uv() -> str:
    """
    Find uv where scripts/_lib puts it.
    """
    found = shutil.which("uv", path=f"{ROOT / '.tools' / 'bin'}:{os.environ['PATH']}")
    assert found, "uv is missing; scripts/bootstrap installs it"
    return found


def run(*command: str, **options: object) -> str:
    """
    Run a command to its end, and give what it printed.
    """
    done = subprocess.run(  # type: ignore[call-overload] # options are handed on as they are
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
        **options,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return str(done.stdout)


def arrived(root: Path) -> Newcomer:
    """
    Give somebody who is about to start the server of the first section, in an empty folder.
    """
    given = ("--quiet", "--build-constraints", str(ROOT / "constraints.txt"))
    run(uv(), "build", "--wheel", *given, "--out-dir", str(root), str(ROOT))
    (wheel,) = root.glob("*.whl")
    newcomer = Newcomer(root)
    newcomer.prepare(wheel)
    newcomer.arrive()
    return newcomer
