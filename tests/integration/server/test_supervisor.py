"""
How a command becomes a supervisor: the interpreter, the environment, and what can be wrong.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fairway
from fairway.exceptions import ConfigurationError
from fairway.options import ServerOptions
from fairway.server import supervisor
from fairway.server.supervisor import become_supervisor


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """
    What would have taken this process's place: program, arguments, environment.
    """
    calls: list[Any] = []

    def replace(*arguments: Any) -> None:
        calls.append((*arguments, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        raise Replaced

    monkeypatch.setattr(os, "execve", replace)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield calls
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Replaced(Exception):
    """
    Stands for the end of a process that another program takes the place of.
    """


def test_hand_over(executed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A fresh interpreter gets the options, the command line, and a way to find the package.
    """
    environ = {"PATH": "/bin", "PYTHONPATH": "/own"}
    monkeypatch.setattr(supervisor, "_original_environ", lambda: dict(environ))
    with pytest.raises(Replaced):
        become_supervisor(ServerOptions(workers=3, trusted_proxies=("10.0.0.0/8",)))
    ((program, arguments, given, _),) = executed
    assert program == sys.executable
    assert arguments == [sys.executable, "-P", "-m", "fairway.server.supervisor"]
    told = json.loads(given.pop("FAIRWAY_SUPERVISOR"))
    assert ServerOptions(**told["options"]).workers == 3
    assert told["command"] == [sys.executable, *sys.orig_argv[1:]]
    assert told["path"] == "/own"
    home = str(Path(fairway.__file__).parents[1])
    assert given == {"PATH": "/bin", "PYTHONPATH": f"/own{os.pathsep}{home}"}


def test_signals_meanwhile(executed: list[Any]) -> None:
    """
    What others say before the new program listens is held back for it.
    """
    with pytest.raises(Replaced):
        become_supervisor(ServerOptions())
    assert executed[0][3] >= {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}


def test_installed(executed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is installed is found without help, which would put it before the standard library.
    """
    monkeypatch.setattr(supervisor, "_original_environ", dict)
    monkeypatch.setattr(supervisor, "__file__", "/v/lib/site-packages/fairway/server/supervisor.py")
    with pytest.raises(Replaced):
        become_supervisor(ServerOptions())
    assert list(executed[0][2]) == ["FAIRWAY_SUPERVISOR"]


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An interpreter that is not where it says is a fault with a fix.
    """
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(
        ConfigurationError, match=r"'/no/python' .*; start the command with the full"
    ):
        become_supervisor(ServerOptions())


def test_original_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What this process added to its environment is not passed on; a spoilt record is not believed.
    """
    monkeypatch.setenv("ADDED", "later")
    assert "ADDED" not in supervisor._original_environ()
    assert supervisor._original_environ()["PATH"] == os.environ["PATH"]
    for spoilt in (b"", b"my title\0\0\0\0PATH=/bin\0", b"my title\0PATH=/bin\0"):
        monkeypatch.setattr(Path, "read_bytes", lambda _, spoilt=spoilt: spoilt)
        assert supervisor._original_environ()["ADDED"] == "later"


@pytest.mark.parametrize("name", ["manage.py", "./manage.py", "../b/manage.py"])
def test_original_folder(name: str, executed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A project that has gone to another folder is started from where its command was.
    """
    folders: list[str] = []
    monkeypatch.setattr(os, "chdir", folders.append)
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setattr(sys.modules["__main__"], "__file__", f"/a/b/{name}", raising=False)
    with pytest.raises(Replaced):
        become_supervisor(ServerOptions())
    assert folders == ["/a/b/"]


@pytest.mark.parametrize(
    ("name", "file"), [("/a/manage.py", "/a/manage.py"), ("-c", None), ("manage.py", "/a/other.py")]
)
def test_unknown_folder(
    name: str, file: str | None, executed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where nothing tells of the first folder, the present one stays.
    """
    monkeypatch.setattr(os, "chdir", lambda _: pytest.fail("it went somewhere"))
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setattr(sys.modules["__main__"], "__file__", file, raising=False)
    with pytest.raises(Replaced):
        become_supervisor(ServerOptions())


def run_module(**environ: str) -> subprocess.CompletedProcess[str]:
    """
    Run the module as it is run, to its end.
    """
    command = [sys.executable, "-P", "-m", "fairway.server.supervisor"]
    return subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


def test_by_hand() -> None:
    """
    Somebody who starts it by hand is told what to start.
    """
    done = run_module()
    assert (done.returncode, done.stdout) == (2, "")
    line = "fairway: start it with: fairway module:app --workers N [fairway.R102]\n"
    assert done.stderr == line


@pytest.mark.parametrize("path", [None, "/own"])
def test_environment_of_workers(path: str | None, tmp_path: Path) -> None:
    """
    A worker gets the environment of the command, without what was meant for others.
    """
    code = "import os, sys; print(dict(os.environ)); sys.exit(5)"
    told = {
        "options": {"port": 0, "workers": 2},
        "command": [sys.executable, "-c", code],
        "path": path,
    }
    done = run_module(
        FAIRWAY_SUPERVISOR=json.dumps(told),
        NOTIFY_SOCKET=str(tmp_path / "notify"),
        LISTEN_PID="1",
        LISTEN_FDS="1",
        PYTHONPATH=os.pathsep.join(filter(None, (path, str(Path(fairway.__file__).parents[1])))),
    )
    assert done.returncode == 5
    names = {"FAIRWAY_SUPERVISOR", "NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "PYTHONPATH"}
    seen = {name: value for name, value in eval(done.stdout).items() if name in names}
    assert seen == ({} if path is None else {"PYTHONPATH": path})
