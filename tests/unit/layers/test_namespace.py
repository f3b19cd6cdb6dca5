"""
Which processes belong together: those of one project, and in tests nobody.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core import mail
from pytest_django import Settings

from fairway import conf
from fairway.layers import namespace
from fairway.layers.namespace import derive_namespace, in_tests, place


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """
    The settings of a project, to be changed.
    """
    settings = {
        "SETTINGS_MODULE": "site_.settings",
        "SECRET_KEY": "the key",
        "DATABASES": {"default": database("/srv/site/db.sqlite3")},
    }
    monkeypatch.setattr(conf, "django_setting", settings.get)
    return settings


@pytest.fixture
def outside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As if this were no test.
    """
    monkeypatch.delattr(mail, "outbox")


def database(name: Any, engine: str = "sqlite3", **more: Any) -> dict[str, Any]:
    """
    Describe a database as settings do.
    """
    return {"ENGINE": f"django.db.backends.{engine}", "NAME": name, **more}


def module_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Have the settings module lie in a folder.
    """
    module = ModuleType("site_.settings")
    module.__file__ = str(folder / "settings.py")
    monkeypatch.setitem(sys.modules, "site_.settings", module)


def test_the_same_settings_give_the_same_namespace(
    project: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Wherever a process of the project was started, and whoever computes it again.
    """
    here = derive_namespace()
    monkeypatch.chdir("/")
    assert derive_namespace() == here
    assert len(here) == 24
    assert set(here) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "another key"),
        ("SETTINGS_MODULE", "site_.staging"),
        ("DATABASES", {"default": database("/srv/copy/db.sqlite3")}),
        ("DATABASES", {"default": database("site", "postgresql")}),
    ],
)
def test_what_tells_projects_apart(project: dict[str, Any], name: str, value: Any) -> None:
    """
    Another key, settings module or database is another project, or another copy of this one.
    """
    before = derive_namespace()
    project[name] = value
    assert derive_namespace() != before


def test_databases_on_two_hosts_differ(project: dict[str, Any]) -> None:
    """
    The name alone is the same on staging and in production.
    """
    project["DATABASES"] = {"default": database("site", "postgresql", HOST="db1")}
    one = derive_namespace()
    project["DATABASES"] = {"default": database("site", "postgresql", HOST="db2")}
    assert derive_namespace() != one


def test_a_key_may_be_bytes_and_a_name_a_path(project: dict[str, Any]) -> None:
    """
    As startproject and Django accept them.
    """
    before = derive_namespace()
    project["SECRET_KEY"] = b"the key"
    project["DATABASES"] = {"default": database(Path("/srv/site/db.sqlite3"))}
    assert derive_namespace() == before


def test_a_relative_file_is_the_one_in_this_folder(
    project: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    SQLite opens it there, so two copies of a project that name it the same do not meet.
    """
    project["DATABASES"] = {"default": database(str(tmp_path / "db.sqlite3"))}
    absolute = derive_namespace()
    project["DATABASES"] = {"default": database("db.sqlite3")}
    assert derive_namespace() != absolute
    monkeypatch.chdir(tmp_path)
    assert derive_namespace() == absolute


@pytest.mark.parametrize(
    "databases",
    [
        {},
        {"default": {}},
        {"default": database(":memory:")},
        {"default": database("file:shared?mode=memory&cache=shared")},
        {"default": database(None, "postgresql", OPTIONS={"service": "site"})},
    ],
    ids=str,
)
def test_without_a_database_to_share_the_folder_counts(
    project: dict[str, Any], monkeypatch: pytest.MonkeyPatch, databases: Any
) -> None:
    """
    The folder of the settings module tells two copies apart.
    """
    project["DATABASES"] = databases
    module_in(Path("/srv/site"), monkeypatch)
    one = derive_namespace()
    monkeypatch.chdir("/")
    assert derive_namespace() == one
    module_in(Path("/srv/copy"), monkeypatch)
    assert derive_namespace() != one


def test_without_settings_the_current_folder_counts(tmp_path: Path) -> None:
    """
    Any application that is served from one folder meets itself there, and nobody elsewhere.
    """
    other = tmp_path / "other"
    other.mkdir()
    script = "from fairway.layers.namespace import derive_namespace as d; print(d())"
    bare = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    found = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env=bare,
            check=True,
            capture_output=True,
            timeout=15,
        ).stdout
        for folder in (tmp_path, tmp_path, other)
    ]
    assert found[0] == found[1] != found[2]


def test_a_project_without_a_key_has_a_namespace(settings: Settings) -> None:
    """
    The folder it lies in is private in any case.
    """
    settings.SECRET_KEY = ""
    assert len(derive_namespace()) == 24


def test_tests_are_noticed(outside_tests: None) -> None:
    """
    Django's test environment is one from its first moment to its last.
    """
    assert not in_tests()
    mail.outbox = []
    try:
        assert in_tests()
    finally:
        del mail.outbox


def test_the_place_is_the_projects_own(outside_tests: None) -> None:
    """
    Outside of tests layers begin where their settings say.
    """
    assert place(Path("/run/site")) == Path("/run/site")


class TestInTests:
    """
    In tests each process has a place of its own.
    """

    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(namespace, "_own", {})
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def test_has_one_for_this_process(self) -> None:
        """
        Nobody else may enter it, and asking again gives the same.
        """
        assert in_tests()
        found = place(Path("/run/site"))
        assert found == place(Path("/run/site"))
        assert found.parent.stat().st_mode & 0o777 == 0o700

    def test_it_is_gone_when_its_process_ends(self, tmp_path: Path) -> None:
        """
        That of a child too, as `manage.py test --parallel` forks them, and nobody else's.
        """
        script = """
            import multiprocessing
            from pathlib import Path
            from django.core import mail
            from fairway.layers.namespace import place

            def show():
                found = place(Path("/run/site"))
                found.mkdir(exist_ok=True)
                print(found.parent, found.parent.exists(), flush=True)

            if __name__ == "__main__":
                mail.outbox = []
                show()
                child = multiprocessing.get_context("fork").Process(target=show)
                child.start()
                child.join()
                show()
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
            timeout=15,
        )
        parent, child, again = [line.split() for line in done.stdout.splitlines()]
        assert parent == again
        assert (parent[1], child[1]) == ("True", "True")
        assert parent[0] != child[0]
        assert list(tmp_path.iterdir()) == []
