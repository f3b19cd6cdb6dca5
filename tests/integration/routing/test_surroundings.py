"""
What a consumer finds around itself, as a view would: language, mount point, URL configuration.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import clear_url_caches, include, path, reverse
from django.utils.functional import lazy
from django.utils.translation import activate, get_language
from pytest_django import Settings

from fairway import AsyncHttpConsumer, AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from fairway.asgi import Application, Pages
from fairway.exceptions import ConfigurationError, RouteNotFound
from fairway.testing import HttpCommunicator, WebsocketCommunicator
from tests.protocol import harness
from tests.protocol.harness import Served

# A thread that answers pages may have a connection open since an earlier test.
pytestmark = pytest.mark.django_db(transaction=True)

HOST = (b"host", b"testserver")


def seen() -> dict[str, Any]:
    """
    What code in a consumer sees.
    """
    return {"language": get_language(), "url": reverse("room", kwargs={"room": "a"})}


class Seeing(AsyncJsonWebsocketConsumer):
    """
    Says what it sees, and again at each message.
    """

    async def connect(self) -> None:
        """
        Accept, and say it.
        """
        await self.accept()
        await self.send_json({**seen(), "room": self.url_kwargs["room"]})

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Say it again.
        """
        await self.send_json(seen())


class SeeingInThreads(JsonWebsocketConsumer):
    """
    The same with ordinary methods.
    """

    def connect(self) -> None:
        """
        Accept, and say it.
        """
        self.accept()
        self.send_json({**seen(), "room": self.url_kwargs["room"]})

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """
        Say it again, in another language if asked for.
        """
        if content:
            activate(content)
        self.send_json(seen())


class SeeingRequests(AsyncHttpConsumer):
    """
    Answers with what it sees.
    """

    async def handle(self, body: bytes) -> None:
        """
        Answer.
        """
        await self.send_response(200, f"{get_language()} {reverse('room', args=['a'])}".encode())


def page(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """
    A page that says its language.
    """
    return HttpResponse(f"page {get_language()}")


seeing: Any = Seeing.as_asgi()
in_threads: Any = SeeingInThreads.as_asgi()
requests: Any = SeeingRequests.as_asgi()


class Urls:
    """
    A URL configuration, as a module would be.
    """

    urlpatterns: list[Any]


def urlconf(*patterns: Any) -> type[Urls]:
    """
    Make a URL configuration of its own.
    """
    return type("Urls", (Urls,), {"urlpatterns": list(patterns)})


ROOM = path("ws/<room>/", seeing, name="room")
REQUESTS = path("ask/<room>/", requests, name="ask")


@pytest.fixture(autouse=True)
def project(settings: Settings) -> Iterator[None]:
    """
    A project in English and German with one room.
    """
    settings.ROOT_URLCONF = urlconf(ROOM)
    settings.LANGUAGE_CODE = "en"
    settings.LANGUAGES = [("en", "English"), ("de", "German")]
    settings.MIDDLEWARE = []
    yield
    clear_url_caches()


@pytest.fixture
def application() -> Application:
    """
    The default application.
    """
    return Application(Pages())


async def look(
    application: Any, given: str, *headers: tuple[bytes, bytes], **scope: Any
) -> dict[str, Any]:
    """
    Connect and give what the consumer sees, at first and with a message.
    """
    hosts = [] if any(name == b"host" for name, _ in headers) else [HOST]
    communicator = WebsocketCommunicator(application, given, [*hosts, *headers])
    communicator.scope.update(scope)
    assert await communicator.connect() == (True, None)
    first: dict[str, Any] = await communicator.receive_json_from()
    await communicator.send_json_to(None)
    second = await communicator.receive_json_from()
    assert second == {key: first[key] for key in second}
    await communicator.disconnect()
    return first


async def ask(application: Any, given: str, *headers: tuple[bytes, bytes]) -> tuple[int, str]:
    """
    Make a request and give status and body.
    """
    communicator = HttpCommunicator(application, "GET", given, headers=[HOST, *headers])
    response = await communicator.get_response()
    await communicator.wait()
    return response["status"], response["body"].decode()


class TestLanguage:
    """
    i18n_patterns, and what LocaleMiddleware does for pages.
    """

    @pytest.mark.parametrize("consumer", [seeing, in_threads], ids=["async", "sync"])
    async def test_the_prefix_of_the_path_is_the_language(
        self, application: Application, settings: Settings, consumer: Any
    ) -> None:
        """A consumer below i18n_patterns speaks the path's language, and reverse() knows it."""
        settings.ROOT_URLCONF = urlconf(*i18n_patterns(path("ws/<room>/", consumer, name="room")))
        for language in ("de", "en"):
            assert await look(application, f"/{language}/ws/x/") == {
                "language": language,
                "url": f"/{language}/ws/a/",
                "room": "x",
            }

    async def test_no_prefix_for_the_default_language(
        self, application: Application, settings: Settings
    ) -> None:
        """With prefix_default_language=False the default language has no prefix, and only that."""
        settings.ROOT_URLCONF = urlconf(*i18n_patterns(ROOM, prefix_default_language=False))
        assert (await look(application, "/ws/x/"))["language"] == "en"
        assert (await look(application, "/de/ws/x/"))["url"] == "/de/ws/a/"
        await _refused(application, "/en/ws/x/")

    async def test_other_languages_are_paths(
        self, application: Application, settings: Settings
    ) -> None:
        """A prefix that is none of LANGUAGES leads nowhere; routes beside them need none."""
        settings.ROOT_URLCONF = urlconf(*i18n_patterns(path("in/<room>/", seeing)), ROOM)
        assert (await look(application, "/ws/x/"))["language"] == "en"
        for given in ("/fr/in/x/", "/in/x/", "/de/ws/x/"):
            await _refused(application, given)
        # A path that only lacks its language is told with one.
        message = "path '/site/in/x/'. Did you mean '/site/en/in/x/'?"
        await _refused(application, "/site/in/x/", message=message, root_path="/site")

    async def test_follows_includes_and_translated_routes(
        self, application: Application, settings: Settings
    ) -> None:
        """Below the prefix lie includes, and routes that are themselves translated."""
        names = {"de": "raum/<room>/", "en": "room/<room>/"}
        translated: Any = lazy(lambda: names[str(get_language())], str)()
        inner = include([path(translated, seeing, name="room")])
        settings.ROOT_URLCONF = urlconf(*i18n_patterns(path("chat/", inner)))
        assert (await look(application, "/de/chat/raum/x/"))["url"] == "/de/chat/raum/a/"
        assert (await look(application, "/en/chat/room/x/"))["url"] == "/en/chat/room/a/"
        await _refused(application, "/de/chat/room/x/")

    async def test_without_i18n_there_are_no_prefixes(
        self, application: Application, settings: Settings
    ) -> None:
        """With USE_I18N off i18n_patterns is a list of routes, as Django has it."""
        settings.USE_I18N = False
        settings.ROOT_URLCONF = urlconf(*i18n_patterns(ROOM))
        assert (await look(application, "/ws/x/"))["url"] == "/ws/a/"

    async def test_locale_middleware_counts_for_consumers_too(
        self, application: Application, settings: Settings
    ) -> None:
        """Cookie and Accept-Language decide where LocaleMiddleware is installed, and only there."""
        settings.ROOT_URLCONF = urlconf(ROOM, REQUESTS, path("page/", page))
        german = (b"accept-language", b"de-AT,de;q=0.9,en;q=0.5")
        cookie = (b"cookie", b"django_language=en")
        assert (await look(application, "/ws/x/", german))["language"] == "en"
        settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware"]
        application = Application(Pages())
        assert (await look(application, "/ws/x/", german))["language"] == "de"
        assert (await look(application, "/ws/x/", german, cookie))["language"] == "en"
        assert await ask(application, "/ask/x/", german) == (200, "de /ws/a/")
        assert await ask(application, "/page/", german) == (200, "page de")
        assert await ask(application, "/page/") == (200, "page en")

    async def test_the_prefix_wins_over_the_browser(
        self, application: Application, settings: Settings
    ) -> None:
        """As for pages, the path comes before what the browser asks for."""
        settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware"]
        settings.ROOT_URLCONF = urlconf(*i18n_patterns(ROOM, REQUESTS), path("page/", page))
        german = (b"accept-language", b"de")
        assert (await look(application, "/en/ws/x/", german))["language"] == "en"
        assert await ask(application, "/en/ask/x/", german) == (200, "en /en/ws/a/")
        assert await ask(application, "/de/ask/x/") == (200, "de /de/ws/a/")
        assert await ask(application, "/page/") == (200, "page en")


class TestMountPoint:
    """
    root_path and FORCE_SCRIPT_NAME.
    """

    @pytest.mark.parametrize("given", ["/site/ws/x/", "/ws/x/"])
    async def test_reverse_knows_it(self, application: Application, given: str) -> None:
        """reverse() has the prefix, whether the proxy left it in the path or not."""
        assert (await look(application, given, root_path="/site"))["url"] == "/site/ws/a/"
        assert (await look(application, given, root_path="/site/"))["url"] == "/site/ws/a/"

    async def test_force_script_name_wins(
        self, application: Application, settings: Settings
    ) -> None:
        """FORCE_SCRIPT_NAME says where the site is, for consumers as for pages."""
        settings.FORCE_SCRIPT_NAME = "/forced"
        settings.ROOT_URLCONF = urlconf(ROOM, REQUESTS)
        for given in ("/forced/ws/x/", "/ws/x/"):
            assert (await look(application, given, root_path="/site"))["url"] == "/forced/ws/a/"
        assert await ask(application, "/forced/ask/x/") == (200, "en /forced/ws/a/")

    async def test_a_path_that_only_begins_like_it(
        self, application: Application, settings: Settings
    ) -> None:
        """Whole parts of the path are taken off, and not letters."""
        settings.ROOT_URLCONF = urlconf(ROOM, path("sitemap/<room>/", seeing), path("", seeing))
        assert (await look(application, "/sitemap/x/", root_path="/site"))["room"] == "x"
        assert (await look(application, "/ws/x/"))["url"] == "/ws/a/"

    async def test_with_a_language(self, application: Application, settings: Settings) -> None:
        """The language comes behind the mount point."""
        settings.ROOT_URLCONF = urlconf(*i18n_patterns(ROOM))
        found = await look(application, "/site/de/ws/x/", root_path="/site")
        assert found == {"language": "de", "url": "/site/de/ws/a/", "room": "x"}


class TestUrlconfs:
    """
    FAIRWAY["URLCONF"].
    """

    async def test_one_for_each_host(self, application: Application, settings: Settings) -> None:
        """A function of the scope says which routes a host has, and reverse() follows it."""
        other = urlconf(path("other/<room>/", seeing, name="room"), REQUESTS)

        def by_host(scope: Any) -> Any:
            return other if (b"host", b"other.net") in scope["headers"] else None

        async def by_host_later(scope: Any) -> Any:
            # As those do that keep their sites in the database.
            return by_host(scope) if not await User.objects.acount() else "no users here"

        settings.ALLOWED_HOSTS = ["testserver", "other.net"]
        settings.ROOT_URLCONF = urlconf(ROOM, path("page/", page))
        for chosen in (by_host, by_host_later):
            settings.FAIRWAY = {"URLCONF": chosen}
            elsewhere = (b"host", b"other.net")
            assert (await look(application, "/ws/x/"))["url"] == "/ws/a/"
            assert (await look(application, "/other/x/", elsewhere))["url"] == "/other/a/"
            await _refused(application, "/other/x/")
            await _refused(application, "/ws/x/", elsewhere)
            assert await ask(application, "/page/") == (200, "page en")
            # A request that lost its upgrade is told so, though Django knows no such page.
            for given, expected in (("/other/x/", 426), ("/nothing/", 404)):
                communicator = HttpCommunicator(application, "GET", given, headers=[elsewhere])
                assert (await communicator.get_response())["status"] == expected
            communicator = HttpCommunicator(application, "GET", "/ask/x/", headers=[elsewhere])
            assert (await communicator.get_response())["body"] == b"en /other/a/"

    @pytest.mark.parametrize("name", ["hosted_urls", "hosts.choose"])
    async def test_by_name(self, application: Application, settings: Settings, name: str) -> None:
        """A dotted path leads to a URL configuration or to a function that names one."""
        settings.FAIRWAY = {"URLCONF": f"tests.integration.routing.{name}"}
        assert (await look(application, "/hosted/x/"))["url"] == "/hosted/a/"
        settings.FAIRWAY = {}
        assert (await look(application, "/ws/x/"))["url"] == "/ws/a/"

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("no.such.urls", "there is no module 'no.such'"),
            ("nothing", "there is no module 'nothing'"),
            ("tests.integration.routing.hosts.nothing", "hosts has no 'nothing'"),
            ("tests.integration.routing.hosts.PLACE", "str is not a function"),
            ("tests.integration.routing.test_surroundings", "the module has no urlpatterns"),
            ("not a path", "must be a dotted path or a function, not 'not a path'"),
            (3, "must be text, not 3"),
        ],
    )
    def test_what_leads_nowhere_starts_nothing(
        self, application: Application, settings: Settings, setting: Any, message: str
    ) -> None:
        """A wrong name is told at the start, with what is wrong about it."""
        settings.FAIRWAY = {"URLCONF": setting}
        with pytest.raises(ConfigurationError, match=message):
            application.build()

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            ("no.such.urls", r"returned 'no.such.urls' for host 'testserver': there is no module"),
            (3, "returned 3 for host 'testserver': there is no URL configuration"),
            (ZeroDivisionError("mine"), "mine"),
        ],
    )
    async def test_what_a_function_gives_is_looked_at(
        self, application: Application, settings: Settings, result: Any, message: str
    ) -> None:
        """A function that gives no URL configuration, or fails, is named in the log by an id."""

        def failing(scope: Any) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

        settings.FAIRWAY = {"URLCONF": failing}
        communicator = WebsocketCommunicator(application, "/ws/x/", [HOST])
        await communicator.send_input({"type": "websocket.connect"})
        with pytest.raises((ConfigurationError, ZeroDivisionError), match=message) as caught:
            await communicator.wait()
        assert vars(caught.value)["fault"] == "fairway.R209"


class TestServed:
    """
    The same on the wire, where one process serves many at once.
    """

    @pytest.fixture
    async def served(self, settings: Settings) -> AsyncIterator[Served]:
        """
        A site in two languages, mounted at /site.
        """
        settings.ALLOWED_HOSTS = ["a"]
        settings.ROOT_URLCONF = urlconf(
            *i18n_patterns(path("ws/<room>/", in_threads, name="room"), REQUESTS),
            path("plain/<room>/", seeing),
            path("page/", page),
        )
        served = await harness.serve(Application(Pages()).build(), root_path="/site")
        yield served
        await served.close()

    async def test_nobody_speaks_the_language_of_another(self, served: Served) -> None:
        """Languages of sockets, requests and pages on one loop and its threads stay apart."""
        peers = {}
        for language in ("de", "en"):
            peer = peers[language] = await served.websocket(f"/site/{language}/ws/x/")
            assert (await peer.response()).status == 101
            assert json.loads((await peer.frame()).payload)["language"] == language
        plain = await served.websocket("/plain/x/")
        assert (await plain.response()).status == 101
        assert json.loads((await plain.frame()).payload)["language"] == "en"
        requests = await served.connect()
        for given, expected in (
            ("/site/de/ask/x/", b"de /site/de/ws/a/"),
            ("/page/", b"page en"),
            ("/en/ask/x/", b"en /site/en/ws/a/"),
        ):
            assert (await requests.get(given)).body == expected
        for language, peer in peers.items():
            await peer.text("null")
            answer = json.loads((await peer.frame()).payload)
            assert answer == {"language": language, "url": f"/site/{language}/ws/a/"}

    async def test_a_language_chosen_later_stays_with_its_connection(self, served: Served) -> None:
        """What a handler activates holds for its connection's next messages, and for no other."""
        first, second = [await served.websocket("/site/en/ws/x/") for _ in range(2)]
        for peer in (first, second):
            assert (await peer.response()).status == 101
            await peer.frame()
        await first.text('"de"')
        assert json.loads((await first.frame()).payload)["language"] == "de"
        for peer, expected in ((second, "en"), (first, "de")):
            await peer.text("null")
            assert json.loads((await peer.frame()).payload)["language"] == expected


async def _refused(
    application: Any,
    given: str,
    *headers: tuple[bytes, bytes],
    message: str = "No route found",
    **scope: Any,
) -> None:
    """
    See that a path leads nowhere.
    """
    communicator = WebsocketCommunicator(application, given, [*(headers or (HOST,))])
    communicator.scope.update(scope)
    await communicator.send_input({"type": "websocket.connect"})
    with pytest.raises(RouteNotFound, match=re.escape(message)):
        await communicator.wait()
