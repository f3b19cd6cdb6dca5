"""
The channel layer of one process keeps what every layer promises, wherever its hub lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fairway.layers import InMemoryChannelLayer
from fairway.layers.hub import GROUP
from fairway.layers.owner import bind, release
from fairway.testing.conformance import BrokeredLayerConformance


class TestInMemoryWithoutServer(BrokeredLayerConformance):
    """
    The hub lives on the thread fairway-io, and everybody enters from outside.
    """

    async def make_layer(self, **config: Any) -> InMemoryChannelLayer:
        """
        Make an empty layer.
        """
        return InMemoryChannelLayer(**config)

    async def inject(self, layer: Any, group: str, data: bytes) -> None:
        """
        Play the broker.
        """
        await layer.hub.run(layer.hub.deliver, GROUP + group, data)


class TestInMemoryUnderServer(TestInMemoryWithoutServer):
    """
    The hub lives on the loop of the test, as it does on a server's.
    """

    @asynccontextmanager
    async def layer(self, **config: Any) -> AsyncIterator[Any]:
        """
        Be the server for the time of one test.
        """
        loop = asyncio.get_running_loop()
        await bind(loop)
        try:
            async with super().layer(**config) as layer:
                yield layer
        finally:
            await release(loop)
