"""
Layers by alias, as CHANNEL_LAYERS describes them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.test import override_settings
from pytest_django import Settings

import fairway
from fairway.exceptions import ConfigurationError, InvalidChannelLayerError
from fairway.layers import (
    DEFAULT_CHANNEL_LAYER,
    BaseChannelLayer,
    InMemoryChannelLayer,
    IPCChannelLayer,
    channel_layers,
    get_channel_layer,
    namespace,
    registry,
)

INMEMORY = "channels.layers.InMemoryChannelLayer"
IPC = "fairway.layers.IPCChannelLayer"


class OtherLayer(BaseChannelLayer):
    """
    A layer of somebody else's.
    """

    def __init__(self, hosts: list[str]) -> None:
        super().__init__()
        self.hosts = hosts


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(namespace, "_own", {})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    channel_layers.backends = {}
    yield
    channel_layers.backends = {}


def layers(**configs: Any) -> Any:
    """
    Set CHANNEL_LAYERS.
    """
    return override_settings(CHANNEL_LAYERS=configs)


def test_default_is_always_a_layer() -> None:
    """
    Without a setting, and with one for other aliases only, there is one for default.
    """
    assert isinstance(get_channel_layer(), InMemoryChannelLayer)
    assert fairway.get_channel_layer() is get_channel_layer() is channel_layers["default"]
    assert get_channel_layer("other") is None
    with layers(other={"BACKEND": INMEMORY}):
        assert isinstance(get_channel_layer(), InMemoryChannelLayer)
        assert get_channel_layer("other") is not get_channel_layer()
        assert "other" in channel_layers
        assert "third" not in channel_layers
    with override_settings(CHANNEL_LAYERS=None):
        assert get_channel_layer() is not None
    assert DEFAULT_CHANNEL_LAYER == "default"


@pytest.mark.parametrize("path", [INMEMORY, "fairway.layers.InMemoryChannelLayer"])
def test_our_layer_goes_by_two_names(path: str) -> None:
    """
    Channels' name for the in-memory layer gives ours, with its CONFIG.
    """
    with layers(default={"BACKEND": path, "CONFIG": {"capacity": 7, "expiry": 5}}):
        layer = get_channel_layer()
    assert type(layer) is InMemoryChannelLayer
    assert (layer.capacity, layer.expiry) == (7, 5)


def test_a_layer_of_somebody_elses_works_by_its_path() -> None:
    """
    Its CONFIG is its own business.
    """
    config = {"BACKEND": f"{__name__}.OtherLayer", "CONFIG": {"hosts": ["here"]}}
    with layers(default=config), override_settings(FAIRWAY={"LAYER_CAPACITY": 3}):
        layer = get_channel_layer()
        assert layer.hosts == ["here"]


def test_settings_of_all_layers_count_where_a_layer_says_nothing() -> None:
    """
    FAIRWAY gives the value, CONFIG wins.
    """
    with (
        layers(default={"BACKEND": INMEMORY}, own={"BACKEND": INMEMORY, "CONFIG": {"capacity": 9}}),
        override_settings(FAIRWAY={"LAYER_CAPACITY": 3, "LAYER_EXPIRY": 5}),
    ):
        assert (get_channel_layer().capacity, get_channel_layer().expiry) == (3, 5)
        assert (get_channel_layer("own").capacity, get_channel_layer("own").expiry) == (9, 5)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "No BACKEND specified for default"),
        (
            {"BACKEND": "no.such.Layer"},
            "Cannot import BACKEND 'no.such.Layer' specified for default",
        ),
        ({"BACKEND": "fairway.layers.Nothing"}, "Cannot import BACKEND"),
        (
            {"BACKEND": "channels_redis.core.RedisLayer"},
            r"did you mean 'channels_redis.core.RedisChannelLayer'\?",
        ),
        ({"BACKEND": None}, "Cannot import BACKEND 'None'"),
        ({"BACKEND": INMEMORY, "ROUTING": "x"}, "ROUTING key found for default"),
        (
            {"BACKEND": INMEMORY, "CONFIG": {"hosts": []}},
            "CONFIG of default: unknown option 'hosts'",
        ),
        ({"BACKEND": INMEMORY, "CONFIG": {"capacity": 0}}, "CONFIG of default: capacity must be"),
        (
            {"BACKEND": INMEMORY, "CONFIG": {"capacity": "many"}},
            "CONFIG of default: capacity must be a number, not 'many'",
        ),
        (
            INMEMORY,
            r"must have a dict for each layer, .*, but CHANNEL_LAYERS\['default'\] is a str",
        ),
        (
            {"BACKEND": INMEMORY, "CONFIG": ["redis://redis"]},
            r"but CHANNEL_LAYERS\['default'\]\['CONFIG'\] is a list",
        ),
    ],
)
def test_a_configuration_that_describes_no_layer_is_refused(
    config: dict[str, Any] | str, text: str
) -> None:
    """
    The error names the alias and what is wrong; it is a ValueError, as in Channels.
    """
    with layers(default=config), pytest.raises(InvalidChannelLayerError, match=text) as caught:
        get_channel_layer()
    assert isinstance(caught.value, ValueError)


def test_test_config_makes_a_layer_for_tests() -> None:
    """
    Without one that is an error.
    """
    with layers(default={"BACKEND": INMEMORY, "TEST_CONFIG": {"expiry": 100500}}):
        assert channel_layers.make_test_backend("default").expiry == 100500
    with (
        layers(default={"BACKEND": INMEMORY}),
        pytest.raises(InvalidChannelLayerError, match="No TEST_CONFIG specified for default"),
    ):
        channel_layers.make_test_backend("default")


@pytest.mark.parametrize("name", ["CHANNEL_LAYERS", "FAIRWAY"])
def test_layers_are_made_anew_when_their_settings_change(name: str) -> None:
    """
    override_settings gives new layers inside and outside.
    """
    outside = get_channel_layer()
    with override_settings(**{name: {}}):
        assert channel_layers.backends == {}
        inside = get_channel_layer()
        assert inside is not outside
    assert channel_layers.backends == {}
    assert get_channel_layer() is not inside


async def test_a_layer_of_former_settings_lets_its_broker_go() -> None:
    """
    What is no longer configured ends its connection, and still works if somebody kept it.
    """
    layer = get_channel_layer()
    await layer.group_send("room", {"type": "x"})
    assert layer.broker.connected
    with override_settings(CHANNEL_LAYERS={}):
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x"})
        assert await layer.receive(channel) == {"type": "x"}


def test_a_test_may_put_its_own_layer_in_place() -> None:
    """
    set() gives the layer it replaces, and None begins anew.
    """
    mine = InMemoryChannelLayer()
    assert channel_layers.set("default", mine) is None
    assert get_channel_layer() is mine
    assert channel_layers.set("default", None) is mine
    assert get_channel_layer() is not mine


class TestIPC:
    """
    The layer of the processes of one machine: the default outside of tests.
    """

    @pytest.fixture(autouse=True)
    def _outside_tests(self, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
        monkeypatch.delattr(mail, "outbox")
        monkeypatch.delenv("FAIRWAY_RUNTIME_DIR")
        settings.FAIRWAY = {}

    def test_is_the_default(self) -> None:
        """
        Without a word in the settings the processes of the project meet.
        """
        layer = get_channel_layer()
        assert type(layer) is IPCChannelLayer
        assert layer.directory == Path(f"/tmp/fairway-{os.geteuid()}", namespace.derive_namespace())
        assert layer.place(layer.directory) == layer.directory

    def test_the_place_is_that_of_who_this_process_is_now(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A server that begins as root and becomes somebody else meets those of that user.
        """
        layer = get_channel_layer()
        monkeypatch.setattr(os, "geteuid", lambda: 4321)
        assert layer.directory.parent == Path("/tmp/fairway-4321")

    def test_without_unix_sockets_memory_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        There the processes cannot meet, and one works.
        """
        monkeypatch.delattr(socket, "AF_UNIX")
        assert type(get_channel_layer()) is InMemoryChannelLayer

    def test_settings_name_the_place_and_the_limits(self, settings: Settings) -> None:
        """
        FAIRWAY and the environment give the values, CONFIG wins.
        """
        settings.FAIRWAY = {
            "RUNTIME_DIR": Path("/run/site"),
            "NAMESPACE": "site",
            "IPC_JOIN_TIMEOUT": 0.5,
            "LAYER_CAPACITY": 3,
        }
        with layers(other={"BACKEND": IPC, "CONFIG": {"namespace": "other", "capacity": 4}}):
            default, other = get_channel_layer(), get_channel_layer("other")
        assert default.directory == Path("/run/site/site")
        assert other.directory == Path("/run/site/other")
        assert (default.capacity, other.capacity) == (3, 4)

    @pytest.mark.parametrize(
        ("config", "text"),
        [
            ({"namespace": "../x"}, "namespace must be 1 to 64 letters, digits and - _ ., not"),
            ({"namespace": ""}, "namespace must be 1 to 64 letters"),
            ({"runtime_dir": "run"}, "runtime_dir must be an absolute path, not 'run'"),
            ({"heartbeat": 0}, "heartbeat must be between 0.01 and 60 s, not 0"),
            ({"hosts": []}, "unknown option 'hosts'; there are capacity, expiry, heartbeat"),
        ],
    )
    def test_a_place_that_cannot_be_is_refused(self, config: dict[str, Any], text: str) -> None:
        """
        A namespace becomes the name of a directory, so it may not lead elsewhere.
        """
        described = {"BACKEND": IPC, "CONFIG": config}
        with layers(default=described), pytest.raises(InvalidChannelLayerError, match=text):
            get_channel_layer()

    def test_needs_a_namespace_where_nobody_derives_one(self) -> None:
        """
        Two programs that have nothing in common must not meet by omission.
        """
        with pytest.raises(ConfigurationError, match="needs a namespace, got None"):
            IPCChannelLayer()

    def test_a_layer_made_before_the_tests_begin_has_a_place_of_its_own_in_them(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """
        As one that a module keeps which is imported while tests are collected.
        """
        layer = get_channel_layer()
        with monkeypatch.context() as tests:
            tests.setattr(mail, "outbox", [], raising=False)
            assert layer.place(layer.directory) != layer.directory

    def test_is_described_for_people(self, settings: Settings) -> None:
        """
        With its namespace and how many others there are, and without meeting them.
        """
        settings.FAIRWAY = {"NAMESPACE": "site"}
        assert registry.describe_default() == "ipc, namespace site, 0 other processes"
        assert get_channel_layer().hub.owner.loop is None


def test_in_tests_an_explicit_ipc_layer_has_a_place_of_its_own() -> None:
    """
    Even one with a namespace, which the running server has too.
    """
    described = {"BACKEND": IPC, "CONFIG": {"namespace": "site"}}
    with layers(default=described):
        layer = get_channel_layer()
        assert type(layer) is IPCChannelLayer
        assert layer.place(layer.directory) != layer.directory


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"BACKEND": INMEMORY}, "memory, this process alone"),
        ({"BACKEND": f"{__name__}.OtherLayer", "CONFIG": {"hosts": []}}, f"{__name__}.OtherLayer"),
    ],
)
def test_every_default_layer_is_described(config: dict[str, Any], text: str) -> None:
    """
    Somebody else's by its class.
    """
    with layers(default=config):
        assert registry.describe_default() == text


async def test_a_layer_described_wrongly_ends_a_servers_start() -> None:
    """
    In one line, before anybody could connect.
    """
    loop = asyncio.get_running_loop()
    try:
        with (
            layers(default={"BACKEND": "no.such.Layer"}),
            pytest.raises(ConfigurationError, match="Cannot import BACKEND"),
        ):
            await registry.bind(loop)
    finally:
        await registry.release(loop)


async def test_the_default_layer_begins_with_a_projects_server() -> None:
    """
    So that others find it, and what is wrong with it shows at once.
    """
    loop = asyncio.get_running_loop()
    await registry.bind(loop)
    try:
        assert get_channel_layer().broker.connected
    finally:
        await registry.release(loop)


async def test_a_server_gets_the_hubs_of_all_layers() -> None:
    """
    Those that exist move to its loop, those made later begin there.
    """
    loop = asyncio.get_running_loop()
    with layers(late={"BACKEND": INMEMORY}):
        early = get_channel_layer()
        await registry.bind(loop)
        assert early.hub.owner.loop is loop
        late = get_channel_layer("late")
        await late.group_send("room", {"type": "x"})
        assert late.hub.owner.loop is loop
        await registry.release(loop)
        assert early.hub.owner.loop is late.hub.owner.loop is None


def test_a_child_process_does_not_wait_for_its_parents_threads() -> None:
    """
    A thread that was making a layer at the moment of a fork is none of the child's.
    """
    manager = registry.ChannelLayerManager()
    with manager._lock:
        manager.forked()
        assert manager["default"] is manager["default"]
