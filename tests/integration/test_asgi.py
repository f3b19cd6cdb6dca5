"""
Which application is served, and what is said when it cannot be found.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from pytest_django import Settings

from fairway.asgi import (
    Application,
    Pages,
    application,
    import_application,
    pages,
    resolve_application,
)
from fairway.exceptions import ConfigurationError
from fairway.pages import PageHandler
from fairway.pages.files import StaticFiles
from fairway.routing import ProtocolTypeRouter

MODULE = """
from django.core.asgi import get_asgi_application
from fairway.asgi import application as everything, pages
from fairway.routing import ProtocolTypeRouter

async def websocket(scope, receive, send): ...
async def custom(scope, receive, send): ...

application = get_asgi_application()
router = ProtocolTypeRouter({"http": application, "websocket": websocket})
own_pages = ProtocolTypeRouter({"http": pages, "websocket": websocket})
own_http = ProtocolTypeRouter({"http": custom, "websocket": websocket})
no_http = ProtocolTypeRouter({"websocket": websocket})

class Subclass(ProtocolTypeRouter): ...
class Handler(type(application)): ...

subclass = Subclass({"http": application})
handler = Handler()
number = 7
"""


WSGI = """
from django.core.handlers.wsgi import WSGIHandler

application = WSGIHandler()
"""


class Urls:
    """
    A project without routes.
    """

    urlpatterns: list[Any] = []  # noqa: RUF012 - as a module has it


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """
    A project with an asgi.py and a few broken modules beside it.
    """
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "asgi.py").write_text(MODULE)
    (package / "broken.py").write_text("import shop.asgi\n\nraise RuntimeError('two\\nlines')\n")
    (package / "needy.py").write_text("import nothing_of_that_name\n")
    (package / "fresh.py").write_text("from shop.asgi import application\n")
    (package / "wsgi.py").write_text(WSGI)
    (package / "typo.py").write_text("def application(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("shop", *(f"shop.{each.stem}" for each in package.iterdir())):
        monkeypatch.delitem(sys.modules, name, raising=False)
    settings.ROOT_URLCONF = Urls


@pytest.fixture
def static(settings: Settings) -> None:
    """
    A project in development, with static files.
    """
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.STATIC_URL = "/static/"
    settings.DEBUG = True


class TestResolveApplication:
    """
    No setting, the untouched asgi.py, a router, an application of one's own.
    """

    def test_serves_everything_by_default(self) -> None:
        """Without a setting, pages and routes are served, and there is nothing to say."""
        found = resolve_application()
        assert isinstance(found.application, Application)
        assert found.notes == []

    @pytest.mark.parametrize("spec", ["shop.asgi.application", "shop.asgi:application"])
    def test_replaces_djangos_own_handler(self, settings: Settings, spec: str) -> None:
        """asgi.py may stay as startproject wrote it; start-up says what serves instead."""
        settings.ASGI_APPLICATION = spec
        found = resolve_application()
        assert isinstance(found.application, Application)
        assert found.notes == [
            (
                f"{spec} is Django's own handler; "
                "fairway.asgi.application serves in its place [fairway.R115]"
            )
        ]

    def test_the_argument_goes_before_the_setting(self, settings: Settings) -> None:
        """What is asked for on the command line is served."""
        settings.ASGI_APPLICATION = "no.such.module"
        custom = import_application("shop.asgi:custom")
        assert resolve_application("shop.asgi:custom") == (custom, [])

    @pytest.mark.parametrize("spec", ["fairway.asgi:application", "shop.asgi:everything"])
    def test_names_itself_quietly(self, spec: str) -> None:
        """Fairway's own application is served without a word."""
        found = resolve_application(spec)
        assert isinstance(found.application, Application)
        assert found.notes == []

    def test_pages_alone_stay_alone(self) -> None:
        """Who asks for pages gets no sockets."""
        found = resolve_application("shop.asgi:pages")
        assert isinstance(found.application, Pages)

    @pytest.mark.parametrize(
        ("name", "note"),
        [
            (
                "router",
                (
                    "has Django's own handler for 'http'; "
                    "fairway.asgi.pages serves pages [fairway.R115]"
                ),
            ),
            ("no_http", "has no 'http'; fairway.asgi.pages serves pages."),
            ("own_pages", None),
        ],
    )
    def test_gives_a_router_our_pages(self, name: str, note: str | None) -> None:
        """Inside a ProtocolTypeRouter only 'http' changes, in a copy."""
        found = resolve_application(f"shop.asgi:{name}")
        given = import_application(f"shop.asgi:{name}")
        assert isinstance(found.application, ProtocolTypeRouter)
        assert isinstance(found.application.application_mapping["http"], Pages)
        websocket = given.application_mapping["websocket"]
        assert found.application.application_mapping["websocket"] is websocket
        assert found.application is not given
        assert found.notes == ([] if note is None else [f"shop.asgi:{name} {note}"])

    def test_a_subclass_of_the_router_stays_one(self) -> None:
        """What a project added to the router is kept."""
        found = resolve_application("shop.asgi:subclass")
        assert type(found.application) is type(import_application("shop.asgi:subclass"))

    @pytest.mark.parametrize("name", ["custom", "own_http", "handler"])
    def test_leaves_everything_else_alone(self, name: str) -> None:
        """A project's own application, HTTP side or subclass of the handler is served as it is."""
        found = resolve_application(f"shop.asgi:{name}")
        assert found == (import_application(f"shop.asgi:{name}"), [])


class TestStaticFiles:
    """
    Static files in development.
    """

    @pytest.mark.parametrize("spec", [None, "shop.asgi:custom", "shop.asgi:own_http"])
    def test_are_served_in_development(self, static: None, spec: str | None) -> None:
        """With DEBUG and staticfiles, also in front of a project's own application."""
        found = resolve_application(spec).application
        handler = found._pages.build() if isinstance(found, Application) else found
        assert isinstance(handler, StaticFiles)

    @pytest.mark.parametrize("spec", [None, "shop.asgi:custom"])
    def test_can_be_switched_off(self, static: None, spec: str | None) -> None:
        """--nostatic leaves them to others."""
        found = resolve_application(spec, static=False).application
        handler = found._pages.build() if isinstance(found, Application) else found
        assert not isinstance(handler, StaticFiles)

    @pytest.mark.parametrize(("insecure", "served"), [(None, False), (True, True)])
    def test_are_not_served_in_production(
        self, static: None, settings: Settings, insecure: bool | None, served: bool
    ) -> None:
        """Without DEBUG only --insecure serves them."""
        settings.DEBUG = False
        handler = Pages(static=insecure).build()
        assert isinstance(handler, StaticFiles) is served

    def test_need_the_application(self, settings: Settings) -> None:
        """Without django.contrib.staticfiles there is nothing to serve."""
        settings.DEBUG = True
        assert type(Pages(static=True).build()) is PageHandler


class TestImportApplication:
    """
    One line that says what is wrong, with the nearest name.
    """

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("asgi", "ASGI_APPLICATION 'asgi': expected 'module:name' or 'module.name'"),
            (":application", "expected 'module:name'"),
            ("shop.asgi:", "expected 'module:name'"),
            ("shop.agsi.application", "there is no module 'shop.agsi'; did you mean 'shop.asgi'?"),
            ("shpo.asgi.application", "there is no module 'shpo'; did you mean 'shop'?"),
            ("zzqqxx.asgi:application", "there is no module 'zzqqxx'"),
            (
                "shop.asgi:applicatoin",
                "shop.asgi has no 'applicatoin'; did you mean 'application'?",
            ),
            ("shop.asgi:app", "shop.asgi has no 'app'; did you mean 'application'?"),
            ("shop/asgi.py:application", "or 'module.name'; did you mean 'shop.asgi:application'?"),
            ("shop.fresh", "this is a module; did you mean 'shop.fresh:application'?"),
            (
                "shop.wsgi:application",
                "expected an ASGI application, got WSGIHandler; did you mean that of asgi.py?",
            ),
            ("shop.asgi:number", "expected an ASGI application, got int"),
            ("shop.asgi", "this is a module; did you mean 'shop.asgi:application'?"),
            ("shop.needy:application", "line 1: ModuleNotFoundError: No module named 'nothing_of"),
            ("shop.broken:application", "line 3: RuntimeError: two lines"),
            ("shop.typo:application", "SyntaxError: invalid syntax"),
        ],
    )
    def test_says_what_is_wrong(self, spec: str, message: str) -> None:
        """Format, module, name, kind, and whatever a project's module raises."""
        import shop.asgi  # type: ignore[import-not-found] # made by the fixture  # noqa: F401

        with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
            import_application(spec, "ASGI_APPLICATION")
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"ASGI_APPLICATION {spec!r}: ")

    def test_names_nothing_that_is_not_near(self) -> None:
        """Modules of one package are not near for having that in common."""
        with pytest.raises(ConfigurationError, match=r"there is no module 'shop\.routing'$"):
            import_application("shop.routing:application")

    def test_finds_nested_names(self) -> None:
        """A name may lead through attributes."""
        assert import_application("shop.asgi:router.application_mapping.get")


class TestLaziness:
    """
    Importing is cheap and needs no project.
    """

    def test_importing_needs_no_settings(self) -> None:
        """Neither settings nor models are touched before the first use."""
        code = (
            "import fairway.asgi, sys\n"
            "from django.conf import settings\n"
            "from django.apps import apps\n"
            "assert not settings.configured and not apps.ready\n"
            "assert 'django.contrib.auth.models' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, env={})

    def test_any_application_is_served_without_django(self, tmp_path: Path) -> None:
        """A plain ASGI application needs no settings either."""
        (tmp_path / "plain.py").write_text("async def app(scope, receive, send): ...\n")
        code = (
            "from fairway.asgi import resolve_application\n"
            "assert resolve_application('plain:app').application.__name__ == 'app'\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={})

    def test_builds_once(self) -> None:
        """Middleware is loaded once."""
        built = Pages()
        assert built.build() is built.build()


def test_the_module_holds_both() -> None:
    """`fairway.asgi` has everything, and pages alone."""
    assert isinstance(application, Application)
    assert isinstance(pages, Pages)
    assert type(get_asgi_application()) is ASGIHandler
