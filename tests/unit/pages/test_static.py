"""
Whether somebody serves static files: the check for deployments, and the line of the log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest
from django.urls import clear_url_caches, re_path
from django.views.static import serve
from pytest_django import Settings

from fairway import checks
from fairway.pages import static
from fairway.pages.sync import SyncPages


class Urls:
    """
    A project without routes.
    """

    urlpatterns: list[Any] = []  # noqa: RUF012 - as a module has it


class Served:
    """
    A project with a view for its static files.
    """

    urlpatterns = [re_path(r"^static/(?P<path>.*)$", serve)]  # noqa: RUF012 - as above


@pytest.fixture(autouse=True)
def project(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A project as startproject leaves it, with DEBUG off.
    """
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.STATIC_URL = "static/"
    settings.DEBUG = False
    settings.ROOT_URLCONF = Urls
    clear_url_caches()
    monkeypatch.setattr(static.notices, "_kinds", {})


def found() -> list[str | None]:
    """
    The ids that the check reports about static files.
    """
    return [each.id for each in checks._static_files()]


def test_a_project_as_startproject_leaves_it() -> None:
    """Without STATIC_ROOT nobody can serve anything, and the check says what to do."""
    (message,) = checks._static_files()
    assert message.id == "fairway.W205"
    assert "/static/" in message.msg
    assert "STATIC_ROOT is not set" in message.msg
    assert "WhiteNoise" in str(message.hint)


def test_a_folder_without_files(settings: Settings, tmp_path: Path) -> None:
    """An empty or missing STATIC_ROOT is as good as none; one with files may be a proxy's."""
    for root in (tmp_path, tmp_path / "missing"):
        settings.STATIC_ROOT = root
        assert found() == ["fairway.W205"]
    (tmp_path / "site.css").touch()
    settings.STATIC_ROOT = str(tmp_path)
    assert found() == []


@pytest.mark.parametrize(
    "changed",
    [
        {"DEBUG": True},
        {"STATIC_URL": "https://cdn.example.com/static/"},
        {"STATIC_URL": None},
        {"STATIC_URL": "/"},
        {"INSTALLED_APPS": ["fairway"]},
        {"MIDDLEWARE": ["whitenoise.middleware.WhiteNoiseMiddleware"]},
        {"STORAGES": {"staticfiles": {"BACKEND": "storages.backends.s3.S3Storage"}}},
        {"ROOT_URLCONF": Served},
        {"ROOT_URLCONF": "no.such.module"},
    ],
)
def test_no_false_alarm(settings: Settings, changed: dict[str, Any]) -> None:
    """Development, another host or storage, WhiteNoise or a view of the project: all is well."""
    for name, value in changed.items():
        setattr(settings, name, value)
    clear_url_caches()
    assert found() == []


def test_a_file_that_nobody_serves(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """The first 404 below STATIC_URL leaves one line; other paths leave none."""
    handler = SyncPages()
    for route in ("/other/", "/static/admin/css/base.css", "/static/again.css"):
        request = HttpRequest()
        request.path = request.path_info = route
        request.META["HTTP_HOST"] = "testserver"
        request.method = "GET"
        assert handler.get_response(request).status_code == 404
        handler.note_missing(request)
    lines = [each.getMessage() for each in caplog.records if each.name == "fairway.pages"]
    assert len(lines) == 1
    assert lines[0].startswith("/static/admin/css/base.css is a static file")
    assert lines[0].endswith("[fairway.R604]")
