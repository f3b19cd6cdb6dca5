"""
A layer whose hub lives where it does under a server: on the loop that serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fairway.layers.owner import bind, release
from fairway.testing.conformance import BrokeredLayerConformance


class UnderServer(BrokeredLayerConformance):
    """
    Plays the server for a suite that stands behind it among the bases.
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
