"""
A channel layer of each test's own, on the loop of the test as it is on that of a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fairway import db
from fairway.layers.registry import bind, channel_layers, release
from tests.unit.consumers.ends import NotingLayer


@pytest.fixture(autouse=True)
def connections_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Leave alone what other tests of this process left open: pytest-django forbids to touch it.
    """
    monkeypatch.setattr(db, "close_old_connections", lambda **signal: None)


@pytest.fixture
async def layer() -> AsyncIterator[NotingLayer]:
    """
    The default channel layer, new and empty.
    """
    layer = NotingLayer()
    previous = channel_layers.set("default", layer)
    loop = asyncio.get_running_loop()
    await bind(loop)
    yield layer
    await release(loop)
    channel_layers.set("default", previous)
