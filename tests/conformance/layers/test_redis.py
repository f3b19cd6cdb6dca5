"""
The channel layer over Redis keeps what every layer promises, between two brokers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from fairway.layers import RedisChannelLayer
from fairway.layers.brokers.redis import RedisBroker
from fairway.layers.hub import GROUP
from fairway.testing.conformance import ServedLayerConformance
from tests.conformance.layers.under_server import UnderServer
from tests.integration.layers.redis_server import RedisServer, redis_server

numbers = count()

assert RedisBroker.__name__  # Imported here, since a layer would read it on the test's loop.


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """
    Give a server of this module's own.
    """
    with redis_server() as server:
        yield server


class TestRedisWithoutServer(ServedLayerConformance):
    """
    All hubs live on the thread fairway-io, each with its own connections.
    """

    config: dict[str, Any] = {  # noqa: RUF012 - changed by no one
        "connect_timeout": 1.5,
        "command_timeout": 1.5,
    }

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        """
        Give each test the server, and names of its own on it.
        """
        self.server = server
        self.made: list[RedisChannelLayer] = []

    async def make_layer(self, **config: Any) -> RedisChannelLayer:
        """
        Make a layer whose prefix is its own.
        """
        return self.make(f"test{next(numbers)}", config)

    async def make_peer(self, layer: RedisChannelLayer, **config: Any) -> RedisChannelLayer:
        """
        Make a layer with a broker of its own, which meets the other one.
        """
        return self.make(layer.prefix, config)

    def make(self, prefix: str, config: dict[str, Any]) -> RedisChannelLayer:
        """
        Make a layer, which is closed at the end of the test.
        """
        layer = RedisChannelLayer([self.server.address], prefix, **{**self.config, **config})
        self.made.append(layer)
        return layer

    async def end_layer(self, layer: RedisChannelLayer) -> None:
        """
        End a layer and its peers.
        """
        await super().end_layer(layer)
        for made in self.made:
            await made.close()

    async def take_away(self) -> None:
        """
        Kill the server.
        """
        await asyncio.to_thread(self.server.kill)

    async def bring_back(self) -> None:
        """
        Start it again, empty.
        """
        await asyncio.to_thread(self.server.start)

    async def cut_off(self) -> None:
        """
        End all connections.
        """
        clients = await asyncio.to_thread(self.server.clients)
        await asyncio.to_thread(self.server.cut, *clients)

    async def inject(self, layer: Any, group: str, data: bytes) -> None:
        """
        Have another process publish the bytes.
        """
        peer = await self.make_peer(layer)
        await peer.hub.run(peer.broker.publish, GROUP + group, data)


class TestRedisUnderServer(UnderServer, TestRedisWithoutServer):
    """
    The hubs live on the loop of the test, as they do on a server's.
    """


@pytest.mark.one_loop
class TestRedisEncrypted(TestRedisWithoutServer):
    """
    What Redis gets to see is encrypted.
    """

    config = {**TestRedisWithoutServer.config, "symmetric_encryption_keys": ["a secret"]}  # noqa: RUF012 - changed by no one
