"""
HTTP consumers in urls.py: by the default application, and as Django views under other servers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import clear_url_caches, include, path, re_path, reverse
from django.urls.converters import IntConverter
from pytest_django import Settings

from fairway import (
    AsyncHttpConsumer,
    AsyncWebsocketConsumer,
    EventStreamConsumer,
    LongPollConsumer,
    metrics,
)
from fairway.asgi import Application, Pages
from fairway.broadcasting import abroadcast
from fairway.db import database_sync_to_async
from fairway.exceptions import RouteNotFound
from fairway.layers.registry import get_channel_layer
from fairway.testing import ApplicationCommunicator, HttpCommunicator, WebsocketCommunicator
from tests.unit.wire.events import Event, EventReader

# A thread that answers pages may have a connection open since an earlier test.
pytestmark = pytest.mark.django_db(transaction=True)

HOST = (b"host", b"testserver")


class Whoami(AsyncHttpConsumer):
    """
    Says who asks, where, and with what.
    """

    async def handle(self, body: bytes) -> None:
        """
        Answer.
        """
        content = {"user": str(self.scope["user"]), "body": body.decode(), **self.url_kwargs}
        headers = [(b"content-type", b"application/json"), (b"x-way", b"consumer")]
        await self.send_response(200, json.dumps(content).encode(), headers=headers)


class Remember(AsyncHttpConsumer):
    """
    Keeps something in the session.
    """

    async def handle(self, body: bytes) -> None:
        """
        Keep it.
        """
        session = self.scope["session"]
        await database_sync_to_async(session.__setitem__)("kept", "yes")
        await self.send_response(204, b"")


class News(EventStreamConsumer):
    """
    Streams a group.
    """

    groups: Sequence[str] | None = ("news",)
    retry: float | None = None


class Members(LongPollConsumer):
    """
    Polls, for users alone.
    """

    login_required = True
    timeout = 0.01


class Socket(AsyncWebsocketConsumer):
    """
    Accepts.
    """


def page(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """
    A page that says its name.
    """
    return HttpResponse(f"page {request.path}")


class Urls:
    """
    A project with pages and consumers of both kinds.
    """

    whoami: Any = Whoami.as_asgi()
    socket: Any = Socket.as_asgi()
    api = ([path("<int:number>/", whoami, name="whoami")], "api")
    urlpatterns = [  # noqa: RUF012 - as a module has it
        path("first/", page),
        re_path(r"^(first|second)/$", whoami),
        path("api/", include(api)),
        path("remember/", Remember.as_asgi()),
        path("both/", News.as_asgi()),
        path("both/", socket),
        path("news/", News.as_asgi(), name="news"),
        path("members/", Members.as_asgi()),
        re_path(r"", page),
    ]


@pytest.fixture(autouse=True)
def project(settings: Settings) -> Iterator[None]:
    """
    A project as most are: with sessions, users and CSRF protection.
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
def cookie() -> tuple[bytes, bytes]:
    """
    The Cookie header of a user who has logged in.
    """
    client = Client()
    client.force_login(User.objects.create_user("ada"))
    return b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode()


async def ask(
    given: str, *headers: tuple[bytes, bytes], method: str = "GET", body: bytes = b""
) -> Any:
    """
    Send a request to the default application.
    """
    application = Application(Pages())
    communicator = HttpCommunicator(application, method, given, body, [HOST, *headers])
    response = await communicator.get_response()
    await communicator.wait()
    return response


class TestDefaultApplication:
    """
    What the default application does with HTTP consumers.
    """

    async def test_runs(self, cookie: tuple[bytes, bytes]) -> None:
        """A consumer runs with route and user, without Django's own handler."""
        response = await ask("/api/7/", cookie)
        assert json.loads(response["body"]) == {"user": "ada", "body": "", "number": 7}
        assert reverse("api:whoami", args=[7]) == "/api/7/"

    async def test_order_of_urls(self) -> None:
        """A page that stands before a consumer wins, and one behind it does not."""
        assert (await ask("/first/"))["body"] == b"page /first/"
        assert b"AnonymousUser" in (await ask("/second/"))["body"]
        assert (await ask("/third/"))["body"] == b"page /third/"

    async def test_arguments_are_each_requests_own(
        self, monkeypatch: pytest.MonkeyPatch, cookie: tuple[bytes, bytes]
    ) -> None:
        """What a consumer does to its arguments is not there for the next on the same path."""

        async def handle(self: Any, body: bytes) -> None:
            number = self.scope["url_route"]["kwargs"].pop("number")
            await self.send_response(200, str(number).encode())

        monkeypatch.setattr(Whoami, "handle", handle)
        assert [(await ask("/api/7/", cookie))["body"] for _ in range(2)] == [b"7", b"7"]

    async def test_a_converter_may_change_its_mind(self, settings: Settings) -> None:
        """A path with a converter of the project's is looked for at each request."""

        class Choosy(IntConverter):
            takes = False

            def to_python(self, value: str) -> int:
                if not self.takes:
                    raise ValueError
                return int(value)

        pattern = path("<int:number>/", page)
        converter = pattern.pattern.converters["number"] = Choosy()

        class Chosen:
            urlpatterns: ClassVar[list[Any]] = [pattern, re_path(r"^[0-9]+/$", Whoami.as_asgi())]

        settings.ROOT_URLCONF = Chosen
        assert b"AnonymousUser" in (await ask("/7/"))["body"]
        converter.takes = True
        assert (await ask("/7/"))["body"] == b"page /7/"

    async def test_a_path_for_both(self) -> None:
        """One path may hold a stream and a socket."""
        socket = WebsocketCommunicator(Application(Pages()), "/both/", [HOST])
        assert (await socket.connect())[0]
        await socket.disconnect()
        stream = HttpCommunicator(Application(Pages()), "GET", "/both/", headers=[HOST])
        await stream.send_input({"type": "http.request", "body": b""})
        start = await stream.receive_output()
        assert (b"content-type", b"text/event-stream") in start["headers"]
        await stream.send_input({"type": "http.disconnect"})
        await stream.wait()

    async def test_no_socket_on_a_consumer_of_requests(self) -> None:
        """A WebSocket finds no consumer of requests."""
        scope = {"type": "websocket", "path": "/news/", "headers": [HOST]}
        socket = ApplicationCommunicator(Application(Pages()), scope)
        await socket.send_input({"type": "websocket.connect"})
        with pytest.raises(RouteNotFound):
            await socket.receive_output()

    async def test_session_is_saved(self) -> None:
        """What a consumer keeps in the session is saved as its answer begins."""
        response = await ask("/remember/")
        cookie = dict(response["headers"])[b"Set-Cookie"].decode()
        client = AsyncClient()
        client.cookies.load(cookie)
        assert (await database_sync_to_async(lambda: client.session["kept"])()) == "yes"

    async def test_login_required(self, cookie: tuple[bytes, bytes]) -> None:
        """Nobody in particular gets 401, a user an answer."""
        assert (await ask("/members/"))["status"] == 401
        assert (await ask("/members/", cookie))["status"] == 200

    @pytest.mark.parametrize(
        ("method", "origin", "status"),
        [
            ("POST", b"http://evil.example", 403),
            ("DELETE", b"null", 403),
            ("POST", b"http://testserver", 200),
            ("POST", None, 200),
            ("GET", b"http://evil.example", 200),
            ("OPTIONS", b"null", 200),
        ],
    )
    async def test_origin(
        self, method: str, origin: bytes | None, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Methods that change something need the site's own Origin or none; reading needs none."""
        before = metrics.refusals.values.get("origin", 0)
        headers = [] if origin is None else [(b"origin", origin)]
        assert (await ask("/api/7/", *headers, method=method))["status"] == status
        assert metrics.refusals.values.get("origin", 0) == before + (status == 403)
        assert ("refused with 403" in caplog.text) == (status == 403)

    async def test_trusted_origin(self, settings: Settings) -> None:
        """CSRF_TRUSTED_ORIGINS counts as it does for Django's forms."""
        settings.CSRF_TRUSTED_ORIGINS = ["https://*.example.com"]
        trusted = (b"origin", b"https://a.example.com")
        assert (await ask("/api/7/", trusted, method="POST"))["status"] == 200

    async def test_host(self, caplog: pytest.LogCaptureFixture) -> None:
        """A Host that is not allowed is 400, as for pages, with the fix in the log."""
        communicator = HttpCommunicator(
            Application(Pages()), "GET", "/api/7/", headers=[(b"host", b"evil.example")]
        )
        response = await communicator.get_response()
        assert response["status"] == 400
        assert b"evil" not in response["body"]
        assert 'ALLOWED_HOSTS += ["evil.example"]' in caplog.text


class TestView:
    """
    What Django's own handler makes of them, under any server.
    """

    async def test_runs(self) -> None:
        """A consumer answers as a view, behind Django's middleware."""
        response = await AsyncClient().post("/api/7/", b"abc", content_type="text/plain")
        assert response.json() == {"user": "AnonymousUser", "body": "abc", "number": 7}
        assert response["x-way"] == "consumer"

    async def test_user_and_session(self) -> None:
        """User and session are those of Django's middleware, which saves the session."""
        client = AsyncClient()
        user = await database_sync_to_async(User.objects.create_user)("ada")
        await client.aforce_login(user)
        assert (await client.get("/api/7/")).json()["user"] == "ada"
        assert (await client.get("/remember/")).status_code == 204
        assert (await database_sync_to_async(lambda: client.session["kept"])()) == "yes"

    async def test_origin(self) -> None:
        """Django's token is not asked for, so the Origin is."""
        client = AsyncClient(enforce_csrf_checks=True)
        assert (await client.post("/api/7/")).status_code == 200
        refused = await client.post("/api/7/", headers={"origin": "http://evil.example"})
        assert refused.status_code == 403

    async def test_login_required(self) -> None:
        """As everywhere."""
        assert (await AsyncClient().get("/members/")).status_code == 401

    async def test_streams(self) -> None:
        """Events of groups come through; a client that leaves is noticed."""
        response = await AsyncClient().get("/news/")
        assert response.status_code == 200
        assert response["content-type"] == "text/event-stream"
        assert response["x-accel-buffering"] == "no"
        reader = EventReader()
        parts: Any = aiter(response)  # type: ignore[arg-type] # the stubs take it for the other kind
        await anext(parts)
        await abroadcast("news", {"a": 1}, event="tick", id="4")
        while not reader.events:
            reader.feed(await asyncio.wait_for(anext(parts), 2))
        assert reader.events == [Event('{"a":1}', "tick", "4")]
        await parts.aclose()
        response.close()
        layer = get_channel_layer()
        async with asyncio.timeout(2):
            while layer.groups:  # noqa: ASYNC110 - nobody tells when a group is empty
                await asyncio.sleep(0.01)

    async def test_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a consumer raises is the view's exception."""

        async def fail(self: Any, body: bytes) -> None:
            raise LookupError("as told")

        monkeypatch.setattr(Whoami, "handle", fail)
        with pytest.raises(LookupError, match="as told"):
            await AsyncClient().get("/api/7/")

    def test_wsgi(self) -> None:
        """Under WSGI an answer that ends is given, and a stream refused by name."""
        client = Client()
        response = client.post("/api/7/", b"abc", content_type="text/plain")
        assert response.json()["body"] == "abc"
        stream = client.get("/news/")
        assert stream.status_code == 501
        assert b"ASGI" in stream.content
