"""
The channel layer of one process keeps what every layer promises, wherever its hub lives.
"""

from __future__ import annotations

from typing import Any

from fairway.layers import InMemoryChannelLayer
from fairway.layers.hub import GROUP
from fairway.testing.conformance import BrokeredLayerConformance
from tests.conformance.layers.under_server import UnderServer


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


class TestInMemoryUnderServer(UnderServer, TestInMemoryWithoutServer):
    """
    The hub lives on the loop of the test, as it does on a server's.
    """
