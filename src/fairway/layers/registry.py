"""
Channel layers by alias, made from ``CHANNEL_LAYERS``: the door between layers and settings.

``get_channel_layer()`` always gives a layer for ``default``: without a setting
the one that joins the processes of this project on this machine, and in tests the one
of this process alone. The names that Channels gave its layers work too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from fairway import conf
from fairway.exceptions import ConfigurationError, InvalidChannelLayerError
from fairway.faults import Fault
from fairway.layers import owner
from fairway.layers.layer import ChannelLayer, IPCChannelLayer
from fairway.layers.namespace import derive_namespace, in_tests, place, place_prefix
from fairway.layers.redis import RedisChannelLayer

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "IPC",
    "MEMORY",
    "OTHER_NAMES",
    "REDIS",
    "ChannelLayerManager",
    "bind",
    "channel_layers",
    "default_backend",
    "describe_default",
    "described_layers",
    "get_channel_layer",
    "release",
    "takes_url",
]

DEFAULT_CHANNEL_LAYER = "default"

IPC = "fairway.layers.IPCChannelLayer"
MEMORY = "fairway.layers.InMemoryChannelLayer"
REDIS = "fairway.layers.RedisChannelLayer"

REDIS_URL = "REDIS_URL"
"""
The variable that names the server of a Redis layer whose settings name none.
"""

OTHER_NAMES = {
    "channels.layers.InMemoryChannelLayer": MEMORY,
    "channels_redis.core.RedisChannelLayer": REDIS,
    "channels_redis.pubsub.RedisPubSubChannelLayer": REDIS,
}
"""
Backends under the names their users know them by.
"""


class ChannelLayerManager:
    """
    Makes channel layers at first use and keeps them. May be used from any thread.

    Attributes:
        backends: The layers made so far, by alias.
    """

    def __init__(self) -> None:
        self.backends: dict[str, Any] = {}
        self._lock = threading.Lock()
        setting_changed.connect(self._reset_backends)

    @property
    def configs(self) -> dict[str, Any]:
        """
        ``CHANNEL_LAYERS`` as it is now, with a layer for ``default`` in any case.

        Raises:
            InvalidChannelLayerError: It is no dict of a dict for each alias.
        """
        configs = described_layers()
        if DEFAULT_CHANNEL_LAYER in configs:
            return dict(configs)
        return {**configs, DEFAULT_CHANNEL_LAYER: {"BACKEND": default_backend()}}

    def make_backend(self, name: str) -> Any:
        """
        Make the layer of an alias.

        Raises:
            KeyError: There is no such alias.
            InvalidChannelLayerError: Its configuration describes no layer.
        """
        return self._make_backend(name, self.configs[name].get("CONFIG") or {})

    def make_test_backend(self, name: str) -> Any:
        """
        Make the layer of an alias as its ``TEST_CONFIG`` describes it.
        """
        try:
            config = self.configs[name]["TEST_CONFIG"]
        except KeyError:
            raise InvalidChannelLayerError(f"No TEST_CONFIG specified for {name}") from None
        return self._make_backend(name, config)

    def set(self, key: str, layer: Any) -> Any:
        """
        Have an alias mean another layer; None makes it anew at the next use.

        Returns:
            The layer it meant before, None if there was none yet.
        """
        with self._lock:
            old = self.backends.pop(key, None)
            if layer is not None:
                self.backends[key] = layer
        return old

    def __getitem__(self, key: str) -> Any:
        layer = self.backends.get(key)
        if layer is None:
            with self._lock:
                layer = self.backends.get(key)
                if layer is None:
                    layer = self.backends[key] = self.make_backend(key)
        return layer

    def __contains__(self, key: object) -> bool:
        return key in self.configs

    def _make_backend(self, name: str, config: dict[str, Any]) -> Any:
        described = self.configs[name]
        if "ROUTING" in described:
            raise InvalidChannelLayerError(
                f"ROUTING key found for {name} - routing is written in urls.py, or given to "
                "ProtocolTypeRouter"
            )
        if "BACKEND" not in described:
            raise InvalidChannelLayerError(f"No BACKEND specified for {name}")
        path = str(described["BACKEND"])
        try:
            backend = import_string(OTHER_NAMES.get(path, path))
        except ImportError as error:
            near = get_close_matches(path, [IPC, MEMORY, REDIS, *OTHER_NAMES], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidChannelLayerError(
                f"Cannot import BACKEND {path!r} specified for {name}: {error}{hint}"
            ) from error
        if not (isinstance(backend, type) and issubclass(backend, ChannelLayer)):
            return backend(**config)
        where = f"CONFIG of {name}"
        if issubclass(backend, RedisChannelLayer) and takes_url(config):
            config = {**config, "url": os.environ[REDIS_URL]}
            where += f", with url from the variable {REDIS_URL}"
        try:
            layer = backend(**{**_given_options(backend), **config})
        except (TypeError, ConfigurationError, InvalidChannelLayerError) as error:
            raise InvalidChannelLayerError(f"{where}: {error}") from error
        if isinstance(layer, IPCChannelLayer):
            layer.place = place
        elif isinstance(layer, RedisChannelLayer):
            layer.place = place_prefix
        return layer

    def forked(self) -> None:
        """
        Begin anew in a child process: a thread that it has not may have been making a layer.
        """
        self._lock = threading.Lock()

    def _reset_backends(self, setting: str, **kwargs: Any) -> None:
        """
        Forget the layers when a setting they are made from changes.
        """
        if setting in {"CHANNEL_LAYERS", "FAIRWAY"}:
            backends, self.backends = self.backends, {}
            for layer in backends.values():
                if isinstance(layer, ChannelLayer):
                    layer.hub.owner.retire_soon()


def described_layers() -> dict[str, dict[str, Any]]:
    """
    Give ``CHANNEL_LAYERS`` as it is now.

    Raises:
        InvalidChannelLayerError: It is no dict of a dict for each alias.
    """
    layers = conf.django_setting("CHANNEL_LAYERS", None) or {}
    _require_dict(layers, "CHANNEL_LAYERS")
    for alias, layer in layers.items():
        where = f"CHANNEL_LAYERS[{alias!r}]"
        _require_dict(layer, where)
        _require_dict(layer.get("CONFIG") or {}, f"{where}['CONFIG']")
    found: dict[str, dict[str, Any]] = layers
    return found


def _require_dict(value: object, where: str) -> None:
    """
    Raise unless some part of ``CHANNEL_LAYERS`` is a dict.
    """
    if not isinstance(value, dict):
        # Not what it is: there may be a password in it.
        raise InvalidChannelLayerError(
            'CHANNEL_LAYERS must have a dict for each layer, as {"default": {"BACKEND": '
            f'"{IPC}", "CONFIG": {{}}}}}} has, but {where} is a {type(value).__name__}'
        )


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> Any:
    """
    Give the channel layer of an alias, or None if there is no such alias.

    There always is one for ``default``.
    """
    try:
        return channel_layers[alias]
    except KeyError:
        return None


def default_backend() -> str:
    """
    Name the layer that ``default`` means without a setting.

    Tests get one that knows no other process, and so does a system without Unix sockets.
    """
    return MEMORY if in_tests() or not hasattr(socket, "AF_UNIX") else IPC


def describe_default() -> str:
    """
    Say for people which layer ``default`` is, and whom it reaches at present.
    """
    layer = get_channel_layer()
    if isinstance(layer, ChannelLayer):
        return layer.broker.describe()
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


async def bind(loop: asyncio.AbstractEventLoop) -> None:
    """
    Give the hubs of all layers, made already or later, to a server's loop: the running one.

    The default layer of a project begins now, so that what is wrong with it ends the start.

    Raises:
        ConfigurationError: A layer is described wrongly, or its broker can never work as
            configured.
    """
    await owner.bind(loop)
    if settings.configured:
        try:
            get_channel_layer()
        except InvalidChannelLayerError as error:
            raise ConfigurationError(str(error), fault=Fault.LAYER_INVALID) from error
    for layer in list(channel_layers.backends.values()):
        if isinstance(layer, ChannelLayer):
            await layer.hub.owner.move_to(loop)


async def release(loop: asyncio.AbstractEventLoop) -> None:
    """
    Take the hubs back from a server's loop that is about to end: the running one.
    """
    await owner.release(loop)


def _given_options(backend: type[ChannelLayer]) -> dict[str, Any]:
    """
    Give what settings and environment say about one class of layers.

    Raises:
        ConfigurationError: A value has the wrong type or is out of bounds.
    """
    given: dict[str, Any] = {}
    for area in backend.areas:
        given.update(conf.changed_options(area))
        if any(field.name == "namespace" for field in fields(area)):
            given.setdefault("namespace", derive_namespace())
    return given


def takes_url(config: Mapping[str, Any]) -> bool:
    """
    Whether a Redis layer names no server, and so uses the one of the environment.
    """
    return bool(os.environ.get(REDIS_URL)) and not (config.get("hosts") or config.get("url"))


channel_layers = ChannelLayerManager()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=channel_layers.forked)
