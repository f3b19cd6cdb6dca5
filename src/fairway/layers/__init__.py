"""
Channel layers: how messages reach channels and groups, in this process and in others.

``get_channel_layer()`` gives the one that settings describe. Names are found on
first use, so that a broker's client library is imported only where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.lazy import lazy_names

if TYPE_CHECKING:
    from fairway.layers.base import BaseChannelLayer
    from fairway.layers.layer import ChannelLayer, InMemoryChannelLayer, IPCChannelLayer
    from fairway.layers.redis import RedisChannelLayer
    from fairway.layers.registry import (
        DEFAULT_CHANNEL_LAYER,
        ChannelLayerManager,
        channel_layers,
        get_channel_layer,
    )

_HOMES = {
    "BaseChannelLayer": "fairway.layers.base",
    "ChannelLayer": "fairway.layers.layer",
    "ChannelLayerManager": "fairway.layers.registry",
    "DEFAULT_CHANNEL_LAYER": "fairway.layers.registry",
    "IPCChannelLayer": "fairway.layers.layer",
    "InMemoryChannelLayer": "fairway.layers.layer",
    "RedisChannelLayer": "fairway.layers.redis",
    "channel_layers": "fairway.layers.registry",
    "get_channel_layer": "fairway.layers.registry",
}

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "BaseChannelLayer",
    "ChannelLayer",
    "ChannelLayerManager",
    "IPCChannelLayer",
    "InMemoryChannelLayer",
    "RedisChannelLayer",
    "channel_layers",
    "get_channel_layer",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
