"""
The default application with consumers in urls.py: pages, sockets, who may connect and as whom.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import clear_url_caches, include, path, re_path, reverse
from pytest_django import Settings

from fairway import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer
from fairway.asgi import Application, Pages
from fairway.auth import AuthMiddlewareStack
from fairway.exceptions import RouteNotFound
from fairway.http import AsgiHandler
from fairway.routing import ProtocolTypeRouter, URLRouter
from fairway.security import AllowedHostsOriginValidator, WebsocketDenier
from fairway.testing import ApplicationCommunicator, HttpCommunicator, WebsocketCommunicator

# A thread that answers pages may have a connection open since an earlier test.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_loop]

HOST = (b"host", b"testserver")


class Chat(AsyncJsonWebsocketConsumer):
    """
    Says who is there and where.
    """

    async def connect(self) -> None:
        """
        Accept, and say it.
        """
        await self.accept()
        route = self.scope["url_route"]
        await self.send_json({"user": str(self.scope["user"]), **route["kwargs"]})


class Echo(WebsocketConsumer):
    """
    Sends back what comes, from a thread.
    """

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send it back.
        """
        self.send(text_data=text_data, bytes_data=bytes_data)


def page(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """
    A page that says its name and who sees it.
    """
    return HttpResponse(f"page {request.path} {kwargs}")


class Urls:
    """
    A project with pages and consumers, side by side and on one path.
    """

    chat: Any = Chat.as_asgi()
    echo: Any = Echo.as_asgi()
    chat_urls = ([path("<slug:room>/", chat, name="room")], "chat")
    urlpatterns = [  # noqa: RUF012 - as a module has it
        path("both/<slug:room>/", page, name="both-page"),
        path("both/<slug:room>/", chat, name="both"),
        path("ws/<int:site>/", include(chat_urls, namespace="main"), {"kind": "chat"}),
        re_path(r"^ws/re/(?P<room>\w+)/$", chat, name="re"),
        path("ws/echo/", echo, name="echo"),
        re_path(r"^(?!ws/).*$", page, name="catch-all"),
    ]


@pytest.fixture(autouse=True)
def project(settings: Settings) -> Iterator[None]:
    """
    A project as most are: with sessions and users.
    """
    settings.ROOT_URLCONF = Urls
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    yield
    clear_url_caches()


@pytest.fixture
def application() -> Application:
    """
    The default application, not yet built.
    """
    return Application(Pages())


@pytest.fixture
def cookie(db: None, transactional_db: None) -> tuple[bytes, bytes]:
    """
    The Cookie header of a user who has logged in by a page.
    """
    client = Client()
    client.force_login(User.objects.create_user("bob"))
    return (b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode())


async def get(application: Application, given: str) -> Any:
    """
    Request a page, and let its request end.
    """
    communicator = HttpCommunicator(application, "GET", given)
    response = await communicator.get_response()
    await communicator.wait()
    return response


class TestRoutes:
    """
    A consumer is routed like a view.
    """

    @pytest.mark.parametrize(
        ("name", "kwargs", "expected"),
        [
            (
                "main:room",
                {"site": 3, "room": "lobby"},
                {"site": 3, "kind": "chat", "room": "lobby"},
            ),
            ("both", {"room": "lobby"}, {"room": "lobby"}),
            ("re", {"room": "lobby"}, {"room": "lobby"}),
        ],
    )
    async def test_connects_where_reverse_says(
        self, application: Application, name: str, kwargs: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        """reverse(), include(), namespaces and converters agree with what is served."""
        communicator = WebsocketCommunicator(application, reverse(name, kwargs=kwargs), [HOST])
        assert await communicator.connect() == (True, None)
        assert await communicator.receive_json_from() == {"user": "AnonymousUser", **expected}
        await communicator.disconnect()

    async def test_a_sync_consumer_echoes(self, application: Application) -> None:
        """Text and binary come back through a thread."""
        communicator = WebsocketCommunicator(application, reverse("echo"), [HOST])
        assert await communicator.connect() == (True, None)
        await communicator.send_to(text_data="grüße")
        assert await communicator.receive_from() == "grüße"
        await communicator.send_to(bytes_data=b"\x00\xff")
        assert await communicator.receive_from() == b"\x00\xff"
        await communicator.disconnect()

    async def test_an_unknown_path_is_the_fault_of_the_client(
        self, application: Application
    ) -> None:
        """A page is no route for a socket; the slash that is missing is named."""
        for given, message in (
            ("/some/page/", r"No route found for path '/some/page/'\.$"),
            ("/ws/echo", r"Did you mean '/ws/echo/'\?"),
        ):
            communicator = WebsocketCommunicator(application, given, [HOST])
            await communicator.send_input({"type": "websocket.connect"})
            with pytest.raises(RouteNotFound, match=message):
                await communicator.wait()

    @pytest.mark.parametrize("given", ["/", "/any/page/", "/both/lobby/"])
    async def test_pages_are_served_beside_it(self, application: Application, given: str) -> None:
        """A page that shares its path with a consumer is a page."""
        response = await get(application, given)
        assert response["status"] == 200
        assert response["body"].startswith(f"page {given}".encode())

    def test_a_plain_request_is_told_to_upgrade(self, caplog: pytest.LogCaptureFixture) -> None:
        """A GET or POST on a consumer's route is answered with 426, which needs no CSRF token."""
        client = Client(enforce_csrf_checks=True)
        for method in (client.get, client.post):
            response = method("/ws/echo/")
            assert response.status_code == 426
            assert response["Upgrade"] == "websocket"
        assert "does a proxy drop the Upgrade header?" in caplog.text
        assert {record.name for record in caplog.records} == {"fairway.consumers"}

    async def test_an_async_request_too(self) -> None:
        """The same through Django's ASGI handler."""
        assert (await AsyncClient().get("/ws/echo/")).status_code == 426


class TestWhoConnects:
    """
    Host, Origin, session and user.
    """

    async def test_another_site_may_not(
        self, application: Application, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A foreign Origin is refused before anything else happens, in one record."""
        headers = [HOST, (b"origin", b"https://evil.net")]
        communicator = WebsocketCommunicator(application, "/ws/echo/", headers)
        assert await communicator.connect() == (False, 1000)
        (record,) = caplog.records
        assert 'CSRF_TRUSTED_ORIGINS = ["https://evil.net"]' in record.getMessage()

    async def test_the_site_itself_may(self, application: Application) -> None:
        """The page's own origin passes."""
        headers = [HOST, (b"origin", b"http://testserver")]
        communicator = WebsocketCommunicator(application, "/ws/echo/", headers)
        assert await communicator.connect() == (True, None)
        await communicator.disconnect()

    async def test_a_consumer_knows_the_user_of_the_cookie(
        self, application: Application, cookie: tuple[bytes, bytes]
    ) -> None:
        """Who has logged in on a page is the user of the socket."""
        communicator = WebsocketCommunicator(application, "/both/lobby/", [HOST, cookie])
        assert await communicator.connect() == (True, None)
        assert await communicator.receive_json_from() == {"user": "bob", "room": "lobby"}
        await communicator.disconnect()

    async def test_a_test_may_choose_the_user(self, application: Application) -> None:
        """What a test puts into the scope stays."""
        communicator = WebsocketCommunicator(application, "/both/lobby/", [HOST])
        communicator.scope["user"] = "alice"
        assert await communicator.connect() == (True, None)
        assert (await communicator.receive_json_from())["user"] == "alice"
        await communicator.disconnect()


class TestRoutingModules:
    """
    Projects that write their stack as with Channels.
    """

    async def test_websocket_urlpatterns_work(self, cookie: tuple[bytes, bytes]) -> None:
        """ProtocolTypeRouter, validators, AuthMiddlewareStack and URLRouter, nested."""
        websocket_urlpatterns = [re_path(r"ws/chat/(?P<room>\w+)/$", Urls.chat)]
        application = ProtocolTypeRouter(
            {
                "http": Pages(),
                "websocket": AllowedHostsOriginValidator(
                    AuthMiddlewareStack(URLRouter(websocket_urlpatterns))
                ),
            }
        )
        headers = [cookie, (b"origin", b"http://testserver:8000")]
        communicator = WebsocketCommunicator(application, "/ws/chat/lobby/", headers)
        assert await communicator.connect() == (True, None)
        assert await communicator.receive_json_from() == {"user": "bob", "room": "lobby"}
        await communicator.disconnect()

    async def test_a_class_without_as_asgi_works(self) -> None:
        """The commonest mistake of beginners is a warning and not a failure."""
        with pytest.warns(DeprecationWarning, match="write AsyncWebsocketConsumer"):
            router = URLRouter([path("ws/", AsyncWebsocketConsumer)])  # type: ignore[arg-type] # on purpose
        communicator = WebsocketCommunicator(router, "/ws/")
        assert await communicator.connect() == (True, None)
        await communicator.disconnect()

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize("made", [True, False])
    async def test_pages_by_their_old_name(self, made: bool) -> None:
        """AsgiHandler serves pages, as the class of Channels 2 and the instance of Channels 3."""
        handler: Any = AsgiHandler() if made else AsgiHandler
        router: Any = ProtocolTypeRouter({"http": URLRouter([re_path(r"", handler)])})
        assert (await get(router, "/both/lobby/"))["status"] == 200

    async def test_the_denier_denies(self) -> None:
        """Channels' consumer that refuses."""
        communicator = WebsocketCommunicator(WebsocketDenier.as_asgi(), "/")
        assert await communicator.connect() == (False, 1000)


class TestLifespan:
    """
    Start and end under servers that ask.
    """

    async def test_answers(self, application: Application) -> None:
        """Start-up builds what is served and completes; shutdown ends it."""
        communicator = ApplicationCommunicator(application, {"type": "lifespan"})
        for phase in ("startup", "shutdown"):
            await communicator.send_input({"type": f"lifespan.{phase}"})
            assert await communicator.receive_output() == {"type": f"lifespan.{phase}.complete"}
        await communicator.wait()

    async def test_says_that_it_cannot_start(
        self, application: Application, settings: Settings
    ) -> None:
        """A mistake in urls.py shows at start-up and not with the first socket."""
        settings.ROOT_URLCONF = "no.such.urls"
        communicator = ApplicationCommunicator(application, {"type": "lifespan"})
        await communicator.send_input({"type": "lifespan.startup"})
        message = await communicator.receive_output()
        assert message["type"] == "lifespan.startup.failed"
        assert "No module named 'no'" in message["message"]
        with pytest.raises(ModuleNotFoundError):
            await communicator.wait()

    async def test_other_scopes_are_refused(self, application: Application) -> None:
        """A type that is not served is named."""
        communicator = ApplicationCommunicator(application, {"type": "aprs"})
        with pytest.raises(ValueError, match="scope type 'aprs'"):
            await communicator.wait()


class TestStaticFiles:
    """
    Static files in development, as runserver serves them.
    """

    @pytest.fixture(autouse=True)
    def development(self, project: None, settings: Settings, tmp_path: Path) -> None:
        """
        A project in development with one static file and nothing else.
        """
        (tmp_path / "app.css").write_text("body {}")
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
        settings.STATICFILES_DIRS = [tmp_path]
        settings.STATIC_URL = "/static/"
        settings.DEBUG = True
        settings.ROOT_URLCONF = type("Bare", (), {"urlpatterns": [path("page/", page)]})

    @pytest.mark.parametrize(("static", "status"), [(None, 200), (False, 404)])
    async def test_are_served_unless_switched_off(self, static: bool | None, status: int) -> None:
        """A file of the project is found below STATIC_URL; a missing one is a 404."""
        application = Application(Pages(static=static)).build()
        for name, expected in (("app.css", status), ("none.css", 404)):
            response = await get(application, f"/static/{name}")
            assert response["status"] == expected
