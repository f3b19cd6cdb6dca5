"""
The default application under Fairway's own server: refusals on the wire, and the direct path.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.urls import path
from pytest_django import Settings

from fairway import AsyncWebsocketConsumer
from fairway.asgi import Application, Pages
from fairway.types import is_transparent
from tests.protocol import harness
from tests.protocol.harness import Served

# A thread that answers pages may have a connection open since an earlier test.
pytestmark = pytest.mark.django_db(transaction=True)

SEEN: list[tuple[bool, str]] = []


class Greeter(AsyncWebsocketConsumer):
    """
    Notes whether messages may go around it, and whom it greets.
    """

    async def connect(self) -> None:
        """
        Note it and accept.
        """
        extension = self.scope["extensions"]["fairway"]
        direct = is_transparent(self.base_send) and extension["outbox"] is not None
        SEEN.append((direct, str(self.scope["user"])))
        await self.accept()


class Urls:
    """
    A project with one socket.
    """

    greeter: Any = Greeter.as_asgi()
    urlpatterns = [path("ws/", greeter)]  # noqa: RUF012 - as a module has it


@pytest.fixture(autouse=True)
def project(settings: Settings) -> None:
    """
    A project on the host that the raw client names.
    """
    settings.ROOT_URLCONF = Urls
    settings.ALLOWED_HOSTS = ["a"]
    SEEN.clear()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """
    The default application, served.
    """
    served = await harness.serve(Application(Pages()))
    yield served
    await served.close()


async def status(served: Served, given: str, *fields: str) -> int:
    """
    Send a handshake and give the status of the answer.
    """
    peer = await served.websocket(given, *fields)
    return (await peer.response()).status


async def test_messages_go_straight_to_the_socket(served: Served) -> None:
    """Session and user leave the server's own send in place."""
    assert await status(served, "/ws/") == 101
    assert SEEN == [(True, "AnonymousUser")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), 101),
        (("Origin: null",), 403),
        (("Origin: https://evil.net",), 403),
        (("X-Forwarded-Proto: https", "Origin: https://a"), 101),
        (("X-Forwarded-Proto: https", "Origin: http://a"), 403),
        (("X_Forwarded_Proto: https", "Origin: https://a"), 403),
    ],
)
async def test_origins_on_the_wire(
    served: Served, settings: Settings, fields: tuple[str, ...], expected: int
) -> None:
    """A proxy's scheme header counts once the settings name it, and imitations never do."""
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert await status(served, "/ws/", *fields) == expected


async def test_origins_behind_a_trusted_proxy() -> None:
    """The server takes the scheme from a proxy it trusts, so no setting of Django is needed."""
    served = await harness.serve(Application(Pages()), trusted_proxies=("127.0.0.1",))
    https = "X-Forwarded-Proto: https"
    statuses = [
        await status(served, "/ws/", *fields)
        for fields in (
            (https, "Origin: https://a"),
            (https, "Origin: http://a"),
            ("Origin: https://a",),
            ("Origin: http://a",),
        )
    ]
    await served.close()
    assert statuses == [101, 403, 403, 101]


@pytest.mark.parametrize(
    ("given", "field", "expected", "line"),
    [
        ("/ws/", "Origin: https://evil.net", 403, 'CSRF_TRUSTED_ORIGINS = ["https://evil.net"]'),
        ("/ws", "X-Nothing: 1", 404, "Did you mean '/ws/'?"),
        ("/page/", "X-Nothing: 1", 404, "No route found for path '/page/'."),
    ],
)
async def test_refusals_are_one_line(
    served: Served,
    caplog: pytest.LogCaptureFixture,
    given: str,
    field: str,
    expected: int,
    line: str,
) -> None:
    """The peer gets a status, the log one record without a traceback."""
    assert await status(served, given, field) == expected
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert line in record.getMessage()
    assert record.exc_info is None
