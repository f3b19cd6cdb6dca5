"""
The channel layer over Redis, as settings describe it; nothing here connects.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.core import mail
from django.test import override_settings

from fairway.exceptions import ConfigurationError, InvalidChannelLayerError
from fairway.layers import RedisChannelLayer, channel_layers, get_channel_layer
from fairway.layers.namespace import derive_namespace
from fairway.options import LayerOptions


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    channel_layers.backends = {}
    yield
    channel_layers.backends = {}


def configured(backend: str = "fairway.layers.RedisChannelLayer", **config: Any) -> Any:
    """
    Set CHANNEL_LAYERS to one layer.
    """
    return override_settings(CHANNEL_LAYERS={"default": {"BACKEND": backend, "CONFIG": config}})


def described(**config: Any) -> str:
    """
    Give what a layer made of some configuration says of itself.
    """
    with configured(**config):
        text: str = get_channel_layer().broker.describe()
        return text


@pytest.mark.parametrize(
    "backend",
    [
        "fairway.layers.RedisChannelLayer",
        "channels_redis.core.RedisChannelLayer",
        "channels_redis.pubsub.RedisPubSubChannelLayer",
    ],
)
def test_names(backend: str) -> None:
    """
    The layers of channels_redis are this one, with all that they were told.
    """
    config = {
        "hosts": [("redis", 6380)],
        "prefix": "mine",
        "expiry": 5,
        "group_expiry": 100,
        "capacity": 7,
        "channel_capacity": {"jobs*": 1000},
        "symmetric_encryption_keys": ["a secret"],
        "random_prefix_length": 8,
        "serializer_format": "json",
        "on_disconnect": "redis.lost",
        "on_reconnect": "redis.back",
    }
    with configured(backend, **config):
        layer = get_channel_layer()
    assert isinstance(layer, RedisChannelLayer)
    assert layer.broker.describe() == "redis, redis:6380/0, prefix mine"
    assert layer.options == LayerOptions(capacity=7, expiry=5)
    assert (layer.get_capacity("jobs.a"), layer.get_capacity("other")) == (1000, 7)
    assert layer.group_expiry == 100


def test_arguments_have_the_order_of_channels_redis() -> None:
    """
    For whoever makes a layer by hand.
    """
    layer = RedisChannelLayer([("redis", 1)], "mine", 5, 100, 7, {"a": 3})
    assert layer.options == LayerOptions(capacity=7, expiry=5)
    assert layer.get_capacity("a") == 3
    assert layer.prefix == "mine"
    assert RedisChannelLayer().broker.describe() == "redis, localhost:6379/0, prefix fairway"


def test_prefix() -> None:
    """
    Without one, that of the project.
    """
    with configured():
        assert get_channel_layer().prefix == f"fairway:{derive_namespace()}"
    with override_settings(FAIRWAY={"NAMESPACE": "shop"}):
        assert described() == "redis, localhost:6379/0, prefix fairway:shop"
        assert described(prefix="mine") == "redis, localhost:6379/0, prefix mine"


def test_tests_have_a_prefix_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Also where the layer was made before they began.
    """
    with configured(prefix="mine"):
        layer = get_channel_layer()
    monkeypatch.delattr(mail, "outbox", raising=False)
    assert layer.place(layer.prefix) == "mine"
    monkeypatch.setattr(mail, "outbox", [], raising=False)
    assert re.fullmatch(r"mine:test:.+:\d+", layer.place(layer.prefix))


def test_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A single URL, or that of the environment where no other is written down.
    """
    assert "one:6379/1" in described(url="redis://:secret@one/1")
    monkeypatch.setenv("REDIS_URL", "redis://other/2")
    assert "other:6379/2" in described()
    assert "other:6379/2" in described(hosts=[])
    assert "one:6379/1" in described(url="redis://one/1")
    assert "two:6379/0" in described(hosts=["redis://two"])
    monkeypatch.setenv("REDIS_URL", "other:6379")
    with pytest.raises(InvalidChannelLayerError, match="url from the variable REDIS_URL: url is"):
        described()


def test_the_environment_alone_makes_no_redis_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Many a project has a REDIS_URL for something else.
    """
    monkeypatch.setenv("REDIS_URL", "redis://other/2")
    with override_settings(CHANNEL_LAYERS={}):
        assert not isinstance(get_channel_layer(), RedisChannelLayer)


def test_options() -> None:
    """
    From FAIRWAY and from CONFIG, which has the last word.
    """
    given = {"REDIS_PROBE_INTERVAL": 5, "REDIS_COMMAND_TIMEOUT": 1, "LAYER_CAPACITY": 9}
    with override_settings(FAIRWAY=given), configured(command_timeout=2.0):
        layer = get_channel_layer()
    assert layer.broker._options.probe_interval == 5
    assert layer.broker._options.command_timeout == 2
    assert layer.options.capacity == 9


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"hosts": "redis://a"}, "CONFIG of default: hosts must be a list"),
        ({"hosts": ["redis://a"], "url": "redis://b"}, "exclude each other"),
        ({"prefix": 5}, "prefix must be text, not 5"),
        ({"serializer_format": "pickle"}, "serializer_format must be one of json, msgpack"),
        ({"symmetric_encryption_keys": "secret"}, "must be a list of keys"),
        ({"symmetric_encryption_keys": ""}, "must be a list of keys"),
        ({"on_disconnect": print}, "on_disconnect must be the type of a message"),
        ({"probe_interval": 0}, "probe_interval must be between"),
        ({"prob_interval": 5}, "unknown option 'prob_interval'; did you mean 'probe_interval'?"),
        ({"host": [("a", 1)]}, "unknown option 'host'; did you mean 'hosts'?"),
        ({"connection_kwargs": {}}, "unknown option 'connection_kwargs'; there are capacity,"),
        ({"namespace": "a/b"}, "namespace must be"),
    ],
)
def test_mistakes(config: dict[str, Any], says: str) -> None:
    """
    A mistake is told with the alias it is under.
    """
    with configured(**config), pytest.raises(InvalidChannelLayerError, match=re.escape(says)):
        get_channel_layer()


@pytest.mark.parametrize("config", [{"hosts": "redis://a"}, {"symmetric_encryption_keys": "a"}])
def test_a_text_instead_of_a_list_is_a_value_error(config: dict[str, Any]) -> None:
    """
    As with channels_redis, for those who make a layer by themselves.
    """
    with pytest.raises(ValueError, match="must be a list"):
        RedisChannelLayer(**config)


@pytest.mark.parametrize("library", ["redis", "hiredis"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With what to install.
    """
    for name in list(sys.modules):
        if name.split(".")[0] in {"redis", "hiredis"} or name.startswith(
            "fairway.layers.brokers.redis"
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=r'pip install "fairway\[redis\]"'):
        RedisChannelLayer()


def test_making_a_layer_imports_it_late() -> None:
    """
    Whoever does not use Redis does not need its library.
    """
    code = (
        "import sys, fairway.layers.registry, fairway.layers.redis; print('redis' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


async def test_who_wants_to_know_hears_of_a_break() -> None:
    """
    Every channel of this process gets a message of the type that was asked for.
    """
    layer = RedisChannelLayer(on_disconnect="redis.lost", on_reconnect="redis.back")
    told: list[str] = []
    channel = await layer.new_channel()

    class Inbox:
        """
        Notes what it gets.
        """

        capacity = 10
        idle = True

        def put(self, envelope: Any) -> bool:
            """
            Note the type of a message.
            """
            told.append(envelope.message()["type"])
            return True

        async def next_event(self) -> Any:
            """
            Never be asked.
            """

    layer.hub.attach(channel, Inbox(), None, asyncio.get_running_loop())
    layer.hub._roster.here = asyncio.get_running_loop()
    layer.hub._on_state(False)
    layer.hub._on_state(True)
    assert told == ["redis.lost", "redis.back"]
