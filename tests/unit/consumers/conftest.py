"""
A channel layer of each test's own, on the loop of the test as it is on that of a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fairway.layers.layer import InMemoryChannelLayer
from fairway.layers.registry import bind, channel_layers, release


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
