"""
Fairway's own server for consumers, on the loop of the test, with the channel layer bound to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from fairway import db
from fairway.layers.layer import InMemoryChannelLayer
from fairway.layers.registry import bind, channel_layers, release
from tests.protocol import harness

Open = Callable[..., Awaitable[ClientConnection]]


@pytest.fixture(autouse=True)
def connections_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Leave alone what other tests of this process left open: pytest-django forbids to touch it.
    """
    monkeypatch.setattr(db, "close_old_connections", lambda **signal: None)


@pytest.fixture
async def layer() -> AsyncIterator[InMemoryChannelLayer]:
    """
    The default channel layer, new and empty.
    """
    layer = InMemoryChannelLayer()
    previous = channel_layers.set("default", layer)
    loop = asyncio.get_running_loop()
    await bind(loop)
    yield layer
    await release(loop)
    channel_layers.set("default", previous)


@pytest.fixture
async def serve(layer: InMemoryChannelLayer) -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """
    Serve an application until the test ends; gives the address.
    """
    running: list[harness.Served] = []

    async def start(application: Any, **options: Any) -> str:
        served = await harness.serve(application, **options)
        running.append(served)
        return f"ws://127.0.0.1:{served.sock.getsockname()[1]}/"

    yield start
    for served in running:
        await served.close()


@pytest.fixture
async def open_socket(serve: Callable[..., Awaitable[str]]) -> AsyncIterator[Open]:
    """
    Serve a consumer class and open a WebSocket to it.
    """
    clients: list[ClientConnection] = []

    async def start(consumer: Any, scope: dict[str, Any] | None = None) -> ClientConnection:
        application = consumer.as_asgi()

        async def in_scope(given: Any, receive: Any, send: Any) -> None:
            await application({**given, **(scope or {})}, receive, send)

        client = await connect(await serve(in_scope), proxy=None)
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()
