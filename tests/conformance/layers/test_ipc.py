"""
The channel layer of one machine's processes keeps what every layer promises, between two brokers.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway.layers import IPCChannelLayer
from fairway.layers.hub import GROUP
from fairway.testing.conformance import BrokeredLayerConformance
from tests.conformance.layers.under_server import UnderServer


class TestIPCWithoutServer(BrokeredLayerConformance):
    """
    All hubs live on the thread fairway-io, and meet in a directory.
    """

    @pytest.fixture(autouse=True)
    def _directory(self) -> Iterator[None]:
        """
        Give each test a directory with a short name, as sockets need it.
        """
        self.directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="fw"))
        self.made: list[IPCChannelLayer] = []
        yield
        shutil.rmtree(self.directory)

    async def make_layer(self, **config: Any) -> IPCChannelLayer:
        """
        Make a layer whose namespace is its own.
        """
        layer = IPCChannelLayer(self.directory, f"n{len(self.made)}", **config)
        self.made.append(layer)
        return layer

    async def make_peer(self, layer: IPCChannelLayer, **config: Any) -> IPCChannelLayer:
        """
        Make a layer with a broker of its own, which meets the other one.
        """
        peer = IPCChannelLayer(self.directory, layer.directory.name, **config)
        self.made.append(peer)
        return peer

    async def end_layer(self, layer: IPCChannelLayer) -> None:
        """
        End a layer and its peers.
        """
        await super().end_layer(layer)
        for made in self.made:
            await made.close()

    async def inject(self, layer: Any, group: str, data: bytes) -> None:
        """
        Have another process publish the bytes.
        """
        peer = await self.make_peer(layer)
        await peer.hub.run(peer.broker.publish, GROUP + group, data)


class TestIPCUnderServer(UnderServer, TestIPCWithoutServer):
    """
    The hubs live on the loop of the test, as they do on a server's.
    """
