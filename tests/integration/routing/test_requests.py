"""
Plain requests for the routes of consumers: as Django's clients make them, and on the wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import clear_url_caches, include, path, re_path, reverse
from pytest_django import Settings

from fairway import AsyncHttpConsumer, AsyncWebsocketConsumer
from fairway.asgi import Application, Pages
from tests.protocol import harness
from tests.protocol.harness import Served

# A thread that answers pages may have a connection open since an earlier test.
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:.*write Chat.as_asgi:DeprecationWarning"),
]


class Chat(AsyncWebsocketConsumer):
    """
    A socket.
    """


class Api(AsyncHttpConsumer):
    """
    A consumer of requests that says whether a transaction is open.
    """

    async def handle(self, body: bytes) -> None:
        """
        Answer.
        """
        atomic = [alias for alias in connections if connections[alias].in_atomic_block]
        await self.send_response(200, f"api {atomic}".encode())


def page(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """
    A page that names its route and whether a transaction is open.
    """
    match = request.resolver_match
    assert match is not None
    atomic = transaction.get_connection().in_atomic_block
    return HttpResponse(f"{match.view_name} {kwargs} {atomic}")


chat: Any = Chat.as_asgi()
api: Any = Api.as_asgi()
inner: list[Any] = [path("<slug:room>/", chat), path("<slug:room>/", page, name="room")]


class Urls:
    """
    Pages and sockets on one path, in either order, and a page that catches everything.
    """

    urlpatterns = [  # noqa: RUF012 - as a module has it
        path("first/<int:n>/", page, name="first"),
        path("first/<int:n>/", chat),
        path("second/<int:n>/", chat, name="second-socket"),
        path("second/<int:n>/", page, {"more": 1}, name="second"),
        path("in/", include((inner, "in"))),
        path("socket/", chat, name="socket"),
        path("bare/", Chat),  # type: ignore[arg-type] # on purpose
        path("api/", api),
        re_path(r"^.*$", page, name="any"),
    ]


@pytest.fixture(autouse=True)
def project(settings: Settings) -> Iterator[None]:
    """
    A project with users.
    """
    settings.ROOT_URLCONF = Urls
    settings.ALLOWED_HOSTS = ["a", "testserver"]
    settings.LOGIN_URL = "/login/"
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    yield
    clear_url_caches()


class TestClients:
    """
    Django's own handlers, as its test clients use them.
    """

    @pytest.mark.parametrize("method", ["get", "post", "put", "delete", "options"])
    async def test_a_socket_wants_an_upgrade(self, method: str) -> None:
        """Every method gets 426, and needs no token."""
        response = await getattr(AsyncClient(enforce_csrf_checks=True), method)("/socket/")
        assert response.status_code == 426
        assert response["connection"] == "Upgrade"

    def test_a_socket_wants_an_upgrade_of_the_sync_client_too(self) -> None:
        """The same through Django's WSGI handler."""
        client = Client(enforce_csrf_checks=True)
        for method in (client.get, client.post, client.head):
            assert method(reverse("socket")).status_code == 426

    async def test_login_required_middleware_stays_out_of_it(self, settings: Settings) -> None:
        """No redirect to a page of login, which no WebSocket client could follow."""
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "django.contrib.auth.middleware.LoginRequiredMiddleware",
        ]
        client = AsyncClient()
        assert (await client.get("/socket/")).status_code == 426
        assert (await client.get("/first/1/")).status_code == 302
        user = await User.objects.acreate(username="ada")
        await client.aforce_login(user)
        assert (await client.get("/first/1/")).status_code == 200
        assert (await client.get("/api/")).status_code == 200

    async def test_no_transaction_is_opened(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With ATOMIC_REQUESTS, on however many databases, consumers are left out and pages not."""
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
        other = {**connections.settings["default"], "ATOMIC_REQUESTS": True}
        monkeypatch.setitem(connections.settings, "other", other)
        monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
        client = AsyncClient()
        assert (await client.get("/socket/")).status_code == 426
        assert (await client.get("/api/")).content == b"api []"


class TestOnePath:
    """
    A page and a socket at the same route, as Fairway serves them.
    """

    @pytest.fixture
    async def served(self) -> AsyncIterator[Served]:
        """
        The default application, served.
        """
        served = await harness.serve(Application(Pages()).build())
        yield served
        await served.close()

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("/first/1/", b"first {'n': 1} False"),
            ("/second/2/", b"second {'n': 2, 'more': 1} False"),
            ("/in/a/", b"in:room {'room': 'a'} False"),
        ],
    )
    async def test_both_answer_in_either_order(
        self, served: Served, given: str, expected: bytes
    ) -> None:
        """A request gets the page and a handshake the socket, whichever is written first."""
        peer = await served.connect()
        response = await peer.get(given)
        assert (response.status, response.body) == (200, expected)
        socket = await served.websocket(given)
        assert (await socket.response()).status == 101

    async def test_a_page_that_catches_everything_hides_no_mistake(self, served: Served) -> None:
        """A request that lost its upgrade on the way is told so, and gets no page by chance."""
        peer = await served.connect()
        assert (await peer.get("/socket/")).status == 426
        assert (await peer.get("/elsewhere/")).body == b"any {} False"

    async def test_a_class_without_as_asgi_answers_too(self, served: Served) -> None:
        """Both the plain request and the handshake are answered as with .as_asgi()."""
        peer = await served.connect()
        assert (await peer.get("/bare/")).status == 426
        socket = await served.websocket("/bare/")
        assert (await socket.response()).status == 101
