"""
What `manage.py check` says about a project's settings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.core import checks, mail
from django.urls import include, path
from pytest_django import Settings

import fairway.checks
from fairway import AsyncWebsocketConsumer
from fairway.checks import (
    check_databases,
    check_deployment,
    check_redis,
    check_settings,
    require_shared_layers,
)
from fairway.exceptions import ConfigurationError
from fairway.options import ServerOptions

MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
IPC = {"BACKEND": "fairway.layers.IPCChannelLayer"}
REDIS = "channels_redis.core.RedisChannelLayer"


@pytest.fixture(autouse=True)
def _on_a_bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *fairway.checks.PLATFORM_VARIABLES,
        "WEB_CONCURRENCY",
        *(name for name in os.environ if name.startswith("FAIRWAY_")),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fairway.checks, "PLATFORM_FILES", {})


@pytest.fixture
def outside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As if this were no test.
    """
    monkeypatch.delattr(mail, "outbox")


def test_a_project_without_settings_is_fine() -> None:
    """There is nothing that must be set."""
    assert check_settings() == []


def test_is_registered_under_its_tag() -> None:
    """`check --tag fairway` runs it."""
    registered: set[Any] = set(checks.registry.registry.get_checks())
    assert {check_settings, check_databases} <= registered
    assert check_databases.tags == ("fairway", checks.Tags.database)  # type: ignore[attr-defined]
    assert not {check_deployment, check_redis} & registered
    with_deployment = checks.registry.registry.get_checks(include_deployment_checks=True)
    assert {check_deployment, check_redis} <= set[Any](with_deployment)
    assert "fairway" in checks.registry.registry.tags_available()


@pytest.mark.parametrize(
    ("name", "value", "expected", "found", "hint"),
    [
        ("FAIRWAY", {"HEAD_TIMEUOT": 5}, "E001", "no key 'HEAD_TIMEUOT'", "'HEAD_TIMEOUT'?"),
        ("FAIRWAY", {"zzz": 5}, "E001", "no key 'zzz'", "Remove it."),
        ("FAIRWAY", {"HEAD_TIMEOUT": "soon"}, "E002", "must be a number, not 'soon'", "default"),
        ("FAIRWAY", {"HEAD_TIMEOUT": -1}, "E002", "must be between", "default"),
        ("FAIRWAY", {"LAYER_CAPACITY": 0}, "E002", "must be at least 1", "default"),
        ("FAIRWAY", {"NAMESPACE": "a/b"}, "E002", "must be 1 to 64 letters", "default"),
        ("FAIRWAY", {"RUNTIME_DIR": "run"}, "E002", "must be an absolute path", "default"),
        ("FAIRWAY", {"COMPRESS_BYTES_MAX": 9}, "E002", "at most compress_bytes_max (9", "default"),
        ("FAIRWAY", ["HEAD_TIMEOUT"], "E002", "FAIRWAY must be a dict, not list", "default"),
        ("ASGI_APPLICATION", "fairway.asgj.application", "W001", "'fairway.asgi'", "remove it"),
        (
            "CHANNEL_LAYERS",
            {"default": {"BACKEND": "fairway.layers.X", "CONFIG": {"group_expiry": 1}}},
            "W002",
            "CHANNEL_LAYERS['default'] sets group_expiry, which is ignored",
            "Remove group_expiry",
        ),
        ("CHANNEL_LAYERS", {"BACKEND": "x.Layer"}, "E004", "must have a dict for each", "remove"),
        ("CHANNEL_LAYERS", "x.Layer", "E004", "CHANNEL_LAYERS is a str", "remove it"),
        (
            "CHANNEL_LAYERS",
            {"other": {"BACKEND": REDIS, "CONFIG": {"hosts": "redis://here"}}},
            "W005",
            "CONFIG of other: hosts must be a list",
            "Correct CHANNEL_LAYERS",
        ),
    ],
)
def test_says_what_is_wrong_and_what_to_do(
    settings: Settings, name: str, value: Any, expected: str, found: str, hint: str
) -> None:
    """Each mistake has an id, names what was found and hints at the fix."""
    setattr(settings, name, value)
    (message,) = check_settings()
    assert message.id == f"fairway.{expected}"
    assert found in message.msg
    assert hint in str(message.hint)
    assert message.is_serious() is (expected[0] == "E")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FAIRWAY", {"HEAD_TIMEOUT": 5, "LAYER_CAPACITY": 7}),
        ("FAIRWAY", {"RUNTIME_DIR": Path("/run/site"), "NAMESPACE": "site-1.b_c"}),
        ("ASGI_APPLICATION", "fairway.asgi.application"),
        ("CHANNEL_LAYERS", {"default": {"BACKEND": "other.Layer", "CONFIG": {"group_expiry": 1}}}),
        ("CHANNEL_LAYERS", {"default": {"BACKEND": "fairway.layers.InMemoryChannelLayer"}}),
        ("CHANNEL_LAYERS", {"default": {"BACKEND": REDIS, "CONFIG": {"hosts": [("x", 1)]}}}),
    ],
)
def test_is_quiet_about_what_is_right(settings: Settings, name: str, value: Any) -> None:
    """Settings that do what they say raise no message."""
    setattr(settings, name, value)
    assert check_settings() == []


@pytest.mark.parametrize("path", [MEMORY["BACKEND"], "fairway.layers.InMemoryChannelLayer"])
@pytest.mark.usefixtures("outside_tests")
def test_memory_for_several_processes_is_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Settings or environment ask for several, and the layer knows one, by either name."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": path}, "other": IPC}
    assert check_settings() == []
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    (message,) = check_settings()
    assert (message.id, message.is_serious()) == ("fairway.E202", True)
    assert "CHANNEL_LAYERS['default'] keeps messages within one process" in message.msg
    assert "4 processes are to serve" in message.msg
    assert "fairway.layers.IPCChannelLayer" in str(message.hint)


@pytest.mark.usefixtures("outside_tests")
def test_as_many_processes_as_cpus_count_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WORKERS = 0 takes what the machine grants."""
    settings.CHANNEL_LAYERS = {"default": MEMORY}
    settings.FAIRWAY = {"WORKERS": 0}
    for granted, messages in ((1, 0), (3, 1)):
        monkeypatch.setattr(fairway.checks, "granted_cpus", lambda granted=granted: granted)
        assert len(check_settings()) == messages


@pytest.mark.parametrize("layers", [{}, {"default": IPC}, {"default": {"BACKEND": "other.Layer"}}])
@pytest.mark.usefixtures("outside_tests")
def test_other_layers_may_have_several_processes(settings: Settings, layers: Any) -> None:
    """The default is one of them."""
    settings.CHANNEL_LAYERS = layers
    settings.FAIRWAY = {"WORKERS": 4}
    assert check_settings() == []


def test_memory_is_right_in_tests(settings: Settings) -> None:
    """They run in one process, whatever the environment says of servers."""
    settings.CHANNEL_LAYERS = {"default": MEMORY}
    settings.FAIRWAY = {"WORKERS": 4}
    assert check_settings() == []


@pytest.mark.usefixtures("outside_tests")
def test_a_server_is_refused_that_flags_give_several_processes(settings: Settings) -> None:
    """A check knows no flags, so the server looks itself."""
    settings.CHANNEL_LAYERS = {"default": MEMORY}
    require_shared_layers(ServerOptions())
    with pytest.raises(ConfigurationError, match=r"2 processes are to serve.*\(fairway.E202\)$"):
        require_shared_layers(ServerOptions(workers=2))
    settings.CHANNEL_LAYERS = {}
    require_shared_layers(ServerOptions(workers=2))


@pytest.mark.usefixtures("outside_tests")
@pytest.mark.parametrize(
    ("variable", "platform"),
    [("KUBERNETES_SERVICE_HOST", "Kubernetes"), ("DYNO", "Heroku"), ("FLY_APP_NAME", "Fly.io")],
)
def test_ipc_in_a_container_is_worth_a_look(
    monkeypatch: pytest.MonkeyPatch, variable: str, platform: str
) -> None:
    """`check --deploy` names what shows that there may be several."""
    assert check_containers() == []
    monkeypatch.setenv(variable, "web.1")
    (message,) = check_containers()
    assert (message.id, message.is_serious()) == ("fairway.W203", False)
    assert f"{variable} is set: {platform}" in message.msg
    assert "SILENCED_SYSTEM_CHECKS" in str(message.hint)


@pytest.mark.usefixtures("outside_tests")
def test_a_container_is_known_by_its_files_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Docker and Podman leave them."""
    sign = tmp_path / ".dockerenv"
    monkeypatch.setattr(fairway.checks, "PLATFORM_FILES", {str(sign): "Docker"})
    assert check_containers() == []
    sign.touch()
    assert f"({sign} exists: Docker)" in check_containers()[0].msg


def test_a_layer_with_a_broker_may_live_in_containers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what knows one machine is looked for."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "other.Layer"}}
    monkeypatch.setenv("DYNO", "web.1")
    assert check_containers() == []


def check_containers() -> list[checks.CheckMessage]:
    """
    What is said for deployment, but for limits.
    """
    return [message for message in check_deployment() if message.id != "fairway.W204"]


def test_no_limit_on_connects_is_worth_a_look(settings: Settings) -> None:
    """`check --deploy` says so until one is set."""
    assert [message.id for message in check_deployment()] == ["fairway.W204"]
    for key in ("CONNECTS_PER_ADDRESS", "CONNECTS_PER_USER"):
        settings.FAIRWAY = {key: 60}
        assert check_deployment() == []
    # Wrong, which another check says.
    settings.FAIRWAY = {"CONNECTS_PER_USER": -1}
    assert check_deployment() == []


def test_a_class_in_urls_is_worth_a_look(settings: Settings) -> None:
    """A consumer without .as_asgi() is named with its route, in includes too."""
    bare: Any = AsyncWebsocketConsumer
    inner = include([path("chat/", bare), path("other/", bare.as_asgi())])
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": [path("ws/", inner)]})
    (message,) = check_settings()
    assert (message.id, message.is_serious()) == ("fairway.W003", False)
    assert "route 'ws/chat/' has the class AsyncWebsocketConsumer itself" in message.msg
    assert message.hint == "Write AsyncWebsocketConsumer.as_asgi()."


def test_names_that_nothing_reads_are_worth_a_look(settings: Settings) -> None:
    """A consumer's names are compared with Fairway's; those of the project's own stay."""

    class Chat(AsyncWebsocketConsumer):
        login_requried = True
        group = reconnect = disconnected = room = None

        async def recieve(self, text_data: str) -> None:
            """Never called."""

        async def connect(self) -> None:
            """Called."""

    urls = [path("ws/", Chat.as_asgi()), path("wss/", Chat.as_asgi())]
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": urls})
    messages = check_settings()
    assert [(one.id, str(one.msg).split(",")[0], one.hint) for one in messages] == [
        (
            "fairway.W004",
            "Chat has login_requried",
            "Did you mean 'login_required'? Else silence this.",
        ),
        ("fairway.W004", "Chat has recieve", "Did you mean 'receive'? Else silence this."),
    ]


def test_groups_that_are_a_text_are_an_error(settings: Settings) -> None:
    """Each letter would be a group."""
    chat: Any = type("Chat", (AsyncWebsocketConsumer,), {"groups": "lobby"})
    urls = [path("ws/", chat.as_asgi())]
    settings.ROOT_URLCONF = type("Urls", (), {"urlpatterns": urls})
    (message,) = check_settings()
    assert (message.id, message.hint) == ("fairway.E005", "Write groups = ['lobby'].")


def test_routes_that_lead_nowhere(settings: Settings) -> None:
    """FAIRWAY["URLCONF"] is looked at as at the start; of a wrong type it is told once."""
    for setting, expected in (("no.such.urls", "fairway.E003"), (3, "fairway.E002")):
        settings.FAIRWAY = {"URLCONF": setting}
        (message,) = check_settings()
        assert (message.id, message.is_serious()) == (expected, True)
    settings.FAIRWAY = {"URLCONF": "tests.integration.routing.hosted_urls"}
    assert check_settings() == []


@pytest.mark.parametrize("databases", [None, [], ["default"]])
def test_databases_without_such_a_limit_are_left_alone(databases: list[str] | None) -> None:
    """SQLite takes any number of connections, and without a name none is opened."""
    assert check_databases(databases=databases) == []
