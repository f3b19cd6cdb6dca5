"""
Limits on connects and messages: who is counted, what the answer is, and what costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient
from django.urls import clear_url_caches, path
from pytest_django import Settings

from fairway import AsyncHttpConsumer, AsyncWebsocketConsumer, WebsocketConsumer, metrics
from fairway.asgi import Application, Pages
from fairway.auth import AuthMiddlewareStack, set_user
from fairway.exceptions import ConfigurationError
from fairway.layers.notices import Notices
from fairway.ratelimits import connects, count_messages, messages
from fairway.ratelimits.limits import address_of
from fairway.routing import URLRouter
from fairway.testing import HttpCommunicator, WebsocketCommunicator
from tests.protocol import harness
from tests.protocol.harness import Served, WebSocket

# A thread that answers pages may have a connection open since an earlier test.
pytestmark = pytest.mark.django_db(transaction=True)

ENDS: list[tuple[str, int, int]] = []
"""
What consumers that have ended say: class, close code, messages received.
"""


class Counted(AsyncWebsocketConsumer):
    """
    Counts what it receives, and answers.
    """

    received = 0

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Count a message and send it back.
        """
        self.received += 1
        await self.send(text_data=text_data)

    async def disconnect(self, code: int) -> None:
        """
        Tell how it ended.
        """
        ENDS.append((type(self).__name__, code, self.received))


class CountedInThreads(WebsocketConsumer):
    """
    The same with ordinary methods.
    """

    received = 0

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Count a message and send it back.
        """
        self.received += 1
        self.send(text_data=text_data)

    def disconnect(self, code: int) -> None:
        """
        Tell how it ended.
        """
        ENDS.append((type(self).__name__, code, self.received))


class Chatty(Counted):
    """
    May receive more than others.
    """

    messages_per_address: int | None = 6000
    messages_burst: int | None = 5


class Unlimited(Counted):
    """
    May receive anything.
    """

    messages_per_address: int | None = 0
    messages_per_user: int | None = 0


class Introduced(Counted):
    """
    Belongs to whoever says the right name.
    """

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Take a name, and send everything back.
        """
        if text_data == "bob":
            await set_user(self, SimpleNamespace(is_authenticated=True, pk=text_data))
        await super().receive(text_data, bytes_data)


class Requested(AsyncHttpConsumer):
    """
    Answers requests.
    """

    async def handle(self, body: bytes) -> None:
        """
        Answer.
        """
        await self.send_response(200, b"here")


def page(request: HttpRequest) -> HttpResponse:
    """
    A page, which no limit counts.
    """
    return HttpResponse("page")


def route(given: str, consumer: Any) -> Any:
    """
    Make a route.
    """
    return path(given, consumer.as_asgi())


class Urls:
    """
    A project's URL configuration.
    """

    urlpatterns = [  # noqa: RUF012 - as a module has it
        route("ws/", Counted),
        route("sync/", CountedInThreads),
        route("chatty/", Chatty),
        route("unlimited/", Unlimited),
        route("introduced/", Introduced),
        route("ask/", Requested),
        path("page/", page),
    ]


@pytest.fixture(autouse=True)
def project(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    A project without limits, in a process that has not complained yet.
    """
    settings.ROOT_URLCONF = Urls
    settings.ALLOWED_HOSTS = ["a", "testserver"]
    ENDS.clear()
    for module in (connects, messages):
        monkeypatch.setattr(module, "notices", Notices(logging.getLogger("fairway.security")))
    monkeypatch.setattr(metrics.rate_limited, "values", {})
    yield
    clear_url_caches()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """
    The default application, served, with a proxy on this machine that speaks for others.
    """
    served = await harness.serve(Application(Pages()), trusted_proxies=("127.0.0.1",))
    yield served
    await served.close()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """
    What was logged about it.
    """
    return [record.getMessage() for record in caplog.records if "in a minute" in record.message]


async def status(served: Served, given: str = "/ws/", *fields: str) -> int:
    """
    Send a handshake and give the status of the answer.
    """
    peer = await served.websocket(given, *fields)
    return (await peer.response()).status


class TestConnects:
    """
    CONNECTS_PER_ADDRESS and CONNECTS_PER_USER.
    """

    async def test_one_too_many_is_429(
        self, served: Served, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A handshake too many is told when to come again, and no consumer hears of it."""
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 6, "CONNECTS_BURST": 2}
        assert [await status(served) for _ in range(2)] == [101, 101]
        for _ in range(3):
            answer = await (await served.websocket("/ws/")).response()
            assert answer.status == 429
            assert answer.headers["retry-after"] == "10"
            assert answer.headers["cache-control"] == "no-store"
        (line,) = lines(caplog)
        assert line == (
            "Connects of address '127.0.0.1' refused with 429: more than 6 in a minute "
            "(2 at once), CONNECTS_PER_ADDRESS [fairway.R511]"
        )
        assert metrics.rate_limited.values == {"connects_per_address": 3}

    async def test_requests_count_and_pages_do_not(
        self, served: Served, settings: Settings
    ) -> None:
        """An HTTP consumer counts as a socket does; pages are Django's own affair."""
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 1, "CONNECTS_BURST": 2}
        peer = await served.connect()
        assert await status(served) == 101
        statuses = [(await peer.get(given)).status for given in ("/ask/", "/ask/", "/page/")]
        assert statuses == [200, 429, 200]
        assert await status(served) == 429

    async def test_what_another_site_opens_does_not_count(
        self, served: Served, settings: Settings
    ) -> None:
        """A foreign page in a visitor's browser cannot use the visitor's connects up."""
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 1}
        for _ in range(3):
            assert await status(served, "/ws/", "Origin: https://evil.net") == 403
        assert await status(served) == 101

    async def test_the_client_behind_a_proxy_counts(
        self, served: Served, settings: Settings
    ) -> None:
        """Behind a trusted proxy it is its clients that are counted, IPv6 by networks of /64."""
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 1}
        for client, expected in (
            ("192.0.2.1", 101),
            ("192.0.2.1", 429),
            ("192.0.2.2", 101),
            ("2001:db8:0:1::1", 101),
            ("2001:db8:0:1:ffff::2", 429),
            ("2001:db8:0:2::1", 101),
        ):
            assert await status(served, "/ws/", f"X-Forwarded-For: {client}") == expected, client

    async def test_a_stack_of_ones_own_counts_once(self, settings: Settings) -> None:
        """Without the default application the consumer counts; with it, nobody counts twice."""
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 1, "CONNECTS_BURST": 2}
        router = URLRouter(Urls.urlpatterns[:1])
        for application in (router, AuthMiddlewareStack(router), Application(Pages())):
            settings.FAIRWAY = {**settings.FAIRWAY}
            assert [await _connects(application) for _ in range(3)] == [True, True, False]

    async def test_no_session_is_read_for_one_too_many(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is refused for its address costs no query, by either stack."""
        monkeypatch.setattr("fairway.asgi.identify", _never)
        monkeypatch.setattr("fairway.auth.identify", _never)
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 1}
        for application in (
            AuthMiddlewareStack(Urls.urlpatterns[0].callback),
            Application(Pages()),
        ):
            with pytest.raises(AssertionError):
                await _connects(application)
            assert not await _connects(application)
            settings.FAIRWAY = {**settings.FAIRWAY}

    async def test_without_the_extension_it_is_refused_plainly(self, settings: Settings) -> None:
        """A server that cannot answer a handshake refuses it, which is 403."""
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 1}
        application = Application(Pages())
        assert await _connects(application)
        assert not await _connects(application)

    async def test_nobody_without_an_address_is_counted(self, settings: Settings) -> None:
        """Behind a Unix socket there is no address, unless a proxy says one."""
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 1}
        application = Application(Pages())
        assert all([await _connects(application, client=None) for _ in range(3)])

    async def test_users_count_wherever_they_are(
        self, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A user is one on all addresses; nobody in particular is not counted as one."""
        settings.FAIRWAY = {"CONNECTS_PER_USER": 2}
        application = Application(Pages())

        async def connects(user: Any, address: str) -> bool:
            return await _connects(application, user=user, client=(address, 1))

        ada, bob = (SimpleNamespace(is_authenticated=True, pk=key) for key in (1, 2))
        nobody = SimpleNamespace(is_authenticated=False, pk=None)
        assert [await connects(ada, f"192.0.2.{n}") for n in range(3)] == [True, True, False]
        assert await connects(bob, "192.0.2.0")
        assert all([await connects(nobody, "192.0.2.0") for _ in range(4)])
        (line,) = lines(caplog)
        assert "Connects of user '1' refused with 429" in line

    async def test_under_djangos_own_handler(self, settings: Settings) -> None:
        """An HTTP consumer that Django's handler found is counted too."""
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 1}
        client = AsyncClient()
        answers = [await client.get("/ask/") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert answers[1]["retry-after"] == "60"

    async def test_requests_by_asgi(self, settings: Settings) -> None:
        """Any ASGI server gets the same answer."""
        settings.FAIRWAY = {"CONNECTS_PER_ADDRESS": 1}
        application = Application(Pages())
        for expected in (200, 429):
            communicator = HttpCommunicator(
                application, "GET", "/ask/", headers=[(b"host", b"testserver")]
            )
            communicator.scope["client"] = ("192.0.2.1", 1)
            assert (await communicator.get_response())["status"] == expected


class TestMessages:
    """
    MESSAGES_PER_ADDRESS and MESSAGES_PER_USER.
    """

    @pytest.mark.parametrize(
        ("given", "name"), [("/ws/", "Counted"), ("/sync/", "CountedInThreads")]
    )
    async def test_one_too_many_closes(
        self,
        served: Served,
        settings: Settings,
        caplog: pytest.LogCaptureFixture,
        given: str,
        name: str,
    ) -> None:
        """The message too many closes with 1008; the consumer gets those before it and its end."""
        settings.FAIRWAY = {"MESSAGES_PER_ADDRESS": 60, "MESSAGES_BURST": 3}
        peer = await _opened(served, given)
        for number in range(5):
            await peer.text(str(number))
        assert [(await peer.frame()).payload for _ in range(3)] == [b"0", b"1", b"2"]
        assert await peer.close_code() == 1008
        await peer.send_close(1008)
        await harness.until(lambda: ENDS)
        assert [(name, 1008, 3)] == ENDS
        (line,) = lines(caplog)
        assert line == (
            f"WebSocket '{given}' of address '127.0.0.1' closed with 1008: more than 60 messages "
            "in a minute (3 at once), MESSAGES_PER_ADDRESS [fairway.R512]"
        )
        assert metrics.rate_limited.values == {"messages_per_address": 1}

    async def test_all_sockets_of_one_count_together(
        self, served: Served, settings: Settings
    ) -> None:
        """Two sockets of one address share its limit; one of another has its own."""
        settings.FAIRWAY = {"MESSAGES_PER_ADDRESS": 60, "MESSAGES_BURST": 2}
        first, second = [await _opened(served) for _ in range(2)]
        other = await _opened(served, "/ws/", "X-Forwarded-For: 192.0.2.1")
        for peer in (first, second, other):
            await peer.text("a")
            assert (await peer.frame()).payload == b"a"
        await second.text("b")
        assert await second.close_code() == 1008
        await other.text("b")
        assert (await other.frame()).payload == b"b"

    async def test_a_class_has_limits_of_its_own(self, served: Served, settings: Settings) -> None:
        """Attributes of a consumer take the place of the settings, and count for it alone."""
        settings.FAIRWAY = {"MESSAGES_PER_ADDRESS": 60, "MESSAGES_BURST": 2}
        for given, expected in (("/unlimited/", 20), ("/chatty/", 5), ("/ws/", 2)):
            peer = await _opened(served, given)
            for number in range(20):
                await peer.text(str(number))
            for number in range(expected):
                assert (await peer.frame()).payload == str(number).encode()
            if expected < 20:
                assert await peer.close_code() == 1008

    async def test_a_class_needs_no_setting(self, served: Served) -> None:
        """A limit of a class holds where the settings have none."""
        peer = await _opened(served, "/chatty/")
        for _ in range(6):
            await peer.text("a")
        assert await peer.close_code() == 1008

    async def test_users(self, settings: Settings) -> None:
        """A user's messages count over all sockets, those of others apart."""
        settings.FAIRWAY = {"MESSAGES_PER_USER": 2}
        application = Application(Pages())
        for user, expected in ((1, 2), (2, 2), (1, 0)):
            communicator = _communicator(application)
            communicator.scope["user"] = SimpleNamespace(is_authenticated=True, pk=user)
            assert (await communicator.connect())[0]
            for _ in range(3):
                await communicator.send_to(text_data="a")
            for _ in range(expected):
                assert await communicator.receive_from() == "a"
            closed = await communicator.receive_output()
            assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
            await communicator.disconnect()

    async def test_who_is_known_only_later(self, settings: Settings) -> None:
        """Whoever says in a message who it is counts from then on, and before it as nobody."""
        settings.FAIRWAY = {"MESSAGES_PER_USER": 2}
        communicator = WebsocketCommunicator(Application(Pages()), "/introduced/")
        assert (await communicator.connect())[0]
        for text in ("hello", "hello", "hello", "bob", "hello", "hello"):
            await communicator.send_to(text_data=text)
            assert await communicator.receive_from() == text
        await communicator.send_to(text_data="hello")
        closed = await communicator.receive_output()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
        await communicator.disconnect()

    async def test_a_wrong_limit_behind_a_router_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        """Where no start looks at the class, each connection fails before it is known anywhere."""
        monkeypatch.setattr(Chatty, "messages_per_address", "9")
        settings.FAIRWAY = {}  # Nothing is remembered of the class.
        attached: list[Any] = []
        monkeypatch.setattr(Chatty, "_fairway_open_source", lambda *given: attached.append(given))
        communicator = WebsocketCommunicator(URLRouter([route("chatty/", Chatty)]), "/chatty/")
        with pytest.raises(ConfigurationError, match="must be a whole number"):
            await communicator.connect()
        assert attached == []

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("9", "must be a whole number, not '9'"),
            (-1, "must be between 0 and 1e[+]07 per minute"),
        ],
    )
    def test_a_wrong_limit_is_named(
        self, monkeypatch: pytest.MonkeyPatch, settings: Settings, value: Any, message: str
    ) -> None:
        """A mistake in a class says at the start which attribute of which class."""
        monkeypatch.setattr(Chatty, "messages_per_address", value)
        settings.FAIRWAY = {}  # Nothing is remembered of the class.
        with pytest.raises(ConfigurationError, match=rf"Chatty\.messages_per_address {message}"):
            Application(Pages()).build()


class TestCost:
    """
    What is not asked for is not there.
    """

    async def test_without_a_limit_nothing_is_put_in_the_way(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server's own source stays what the consumer awaits."""
        made: list[Any] = []

        def remember(source: Any, *given: Any) -> Any:
            made.append(source)
            return count_messages(source, *given)

        monkeypatch.setattr("fairway.consumers.base.count_messages", remember)
        for limits, counted in (({}, 0), ({"MESSAGES_PER_ADDRESS": 1}, 1)):
            settings.FAIRWAY = limits
            communicator = _communicator(Application(Pages()))
            assert (await communicator.connect())[0]
            await communicator.disconnect()
            assert len(made) == counted

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("fe80::1%eth0", bytes.fromhex("fe80000000000000")),
            ("::1", bytes(8)),
            ("no:address", "no:address"),
            ("x" * 500, "x" * 64),
            ("", None),
        ],
    )
    def test_addresses(self, host: str, expected: Any) -> None:
        """Whatever stands in a scope as an address becomes a short key."""
        assert address_of({"client": (host, 1)}) == expected


async def _never(message: Any) -> None:
    """
    Not called.
    """
    raise AssertionError


def _communicator(application: Any, given: str = "/ws/", **scope: Any) -> WebsocketCommunicator:
    """
    Make a WebSocket client with an address.
    """
    communicator = WebsocketCommunicator(application, given, [(b"host", b"testserver")])
    communicator.scope.update({"client": ("192.0.2.1", 1), **scope})
    return communicator


async def _connects(application: Any, **scope: Any) -> bool:
    """
    Whether a WebSocket is accepted.
    """
    communicator = _communicator(application, **scope)
    connected, _ = await communicator.connect()
    if connected:
        await communicator.disconnect()
    return connected


async def _opened(served: Served, given: str = "/ws/", *fields: str) -> WebSocket:
    """
    Open a WebSocket.
    """
    peer = await served.websocket(given, *fields)
    assert (await peer.response()).status == 101
    return peer
