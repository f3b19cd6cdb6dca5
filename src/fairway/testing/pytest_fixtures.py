"""
Fixtures for projects that are tested with pytest-django, and channel layers empty for each test.

They are synchronous, so they serve ordinary and asynchronous tests alike, with pytest-asyncio in
either mode or another runner. Django and the package are imported when a test asks for them.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest import TestCase

import pytest

if TYPE_CHECKING:
    from fairway.testing import LiveServer, WebsocketCommunicator

__all__: list[str] = []

FLUSH_SECONDS = 1.0
"""
Time that a channel layer gets to forget what one test has left.
"""


@pytest.fixture
def live_fairway_server(
    request: pytest.FixtureRequest, transactional_db: None
) -> Iterator[LiveServer]:
    """
    Serve the project beside one test, by the real server: pages, WebSockets, static files.

    It listens where pytest-django's ``live_server`` would. Ends before the database is emptied,
    so no consumer outlives its test.
    """
    from fairway.testing import LiveServer

    address = request.config.getoption("liveserver", None)
    address = address or os.environ.get("DJANGO_LIVE_TEST_SERVER_ADDRESS") or "localhost"
    host, _, port = address.partition(":")
    server = LiveServer(host=host, port=int(port or 0))
    _in_thread_of_queries(request, server.start)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def ws_client(client: Any) -> Callable[..., WebsocketCommunicator]:
    """
    Give what opens WebSockets of the project without a server, for the user of ``client``.

    ``async with ws_client("/ws/chat/lobby/") as ws:`` goes through the project's whole stack with
    the cookies of Django's test client; ``user=`` and everything that ``WebsocketCommunicator``
    takes may be given too.
    """
    from fairway.asgi import resolve_application
    from fairway.testing import WebsocketCommunicator

    application = resolve_application().application

    def connect(path: str, **arguments: Any) -> WebsocketCommunicator:
        return WebsocketCommunicator(application, path, **{"client": client, **arguments})

    return connect


@pytest.fixture(name="captured_broadcasts")
def give_captured_broadcasts() -> Any:
    """
    Give ``fairway.testing.captured_broadcasts``, for ``with captured_broadcasts() as sent:``.
    """
    from fairway.testing import captured_broadcasts

    return captured_broadcasts


def _in_thread_of_queries(request: pytest.FixtureRequest, function: Callable[[], None]) -> None:
    """
    Call a function in the thread in which a test's own queries run, whose databases it then meets.

    Those of a coroutine run in asgiref's thread, as long as no ``async_to_sync`` is around it.
    """
    from asgiref.sync import SyncToAsync

    is_case = request.cls is not None and issubclass(request.cls, TestCase)
    if inspect.iscoroutinefunction(request.function) and not is_case:
        SyncToAsync.single_thread_executor.submit(function).result()
    else:
        function()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """
    Have no test meet the groups and messages of another.

    Costs a look at ``sys.modules`` as long as nobody has used a channel layer.
    """
    yield
    registry = sys.modules.get("fairway.layers.registry")
    if registry is not None and registry.channel_layers.backends:
        forget_members(registry.channel_layers.backends.values())


def forget_members(layers: Any) -> None:
    """
    Empty the layers that nobody outside of this process knows.

    Those of a server that goes on, because a class or a module started it, keep its sockets.
    """
    from fairway.exceptions import ChannelLayerUnavailable
    from fairway.layers import InMemoryChannelLayer
    from fairway.layers.owner import has_server

    if has_server():
        return
    for layer in list(layers):
        if isinstance(layer, InMemoryChannelLayer) and layer.hub.owner.lives:
            with suppress(ChannelLayerUnavailable, TimeoutError):
                layer.hub.owner.run_or_enter(layer.hub.flush).result(FLUSH_SECONDS)
