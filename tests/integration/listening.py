"""
Members of a group that say what has reached them, and a layer put in the default one's place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from asgiref.sync import async_to_sync

from fairway.layers.codec import Envelope, Kind
from fairway.layers.layer import ChannelLayer
from fairway.layers.registry import channel_layers


class Listener:
    """
    A member of a group that says what has reached it so far.
    """

    def __init__(self, layer: ChannelLayer, group: str) -> None:
        self.layer = layer
        self.channel = async_to_sync(layer.new_channel)()
        async_to_sync(layer.group_add)(group, self.channel)

    def heard(self) -> list[tuple[Kind, bytes]]:
        """
        Give what came, in order, up to a message sent now.
        """
        async_to_sync(self.layer.send)(self.channel, {"type": "end"})
        heard: list[tuple[Kind, bytes]] = []
        while (envelope := self._next()).kind is not Kind.HANDLER:
            heard.append((envelope.kind, envelope.payload))
        return heard

    def _next(self) -> Envelope:
        return async_to_sync(self.layer.receive_envelope)(self.channel)


@asynccontextmanager
async def default_layer(layer: ChannelLayer) -> AsyncIterator[ChannelLayer]:
    """
    Have a layer be the default one for a while, in a test on a loop.
    """
    previous = channel_layers.set("default", layer)
    try:
        yield layer
    finally:
        channel_layers.set("default", previous)
        await layer.close()


@contextmanager
def default_layer_in_thread(layer: ChannelLayer) -> Iterator[ChannelLayer]:
    """
    Have a layer be the default one for a while, in a test without a loop.
    """
    previous = channel_layers.set("default", layer)
    try:
        yield layer
    finally:
        channel_layers.set("default", previous)
        async_to_sync(layer.close)()
