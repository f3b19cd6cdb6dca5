"""
Where options come from: default, settings, environment or flag.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from fairway.conf import (
    UnknownSetting,
    changed_options,
    resolve_options,
    resolve_server_options,
    unknown_settings,
)
from fairway.exceptions import ConfigurationError
from fairway.options import LayerOptions, ProjectOptions, ServerOptions


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FAIRWAY_") or name in {"PORT", "ASGI_THREADS", "WEB_CONCURRENCY"}:
            monkeypatch.delenv(name)


def test_without_a_word_everything_is_default() -> None:
    """
    Every field has a value and a source.
    """
    options, sources = resolve_server_options()
    assert options == ServerOptions()
    assert sources == {spec.name: "default" for spec in fields(ServerOptions)}
    layer, layer_sources = resolve_options(LayerOptions)
    assert layer == LayerOptions()
    assert set(layer_sources.values()) == {"default"}


def test_flags_win_over_environment_over_settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Each value's source is remembered; a flag that was not given is None.
    """
    settings.FAIRWAY = {"THREADS": 2, "DRAIN": 3, "PINGS_MISSED": 5}
    monkeypatch.setenv("FAIRWAY_THREADS", "6")
    monkeypatch.setenv("FAIRWAY_DRAIN", "7.5")
    options, sources = resolve_server_options({"threads": 8, "drain": None, "port": None})
    assert (options.threads, sources["threads"]) == (8, "flag")
    assert (options.drain, sources["drain"]) == (7.5, "environment")
    assert (options.pings_missed, sources["pings_missed"]) == (5, "settings")
    assert (options.port, sources["port"]) == (8000, "default")


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({"PORT": "9000"}, "port", 9000),
        ({"FAIRWAY_PORT": "9001", "PORT": "9000"}, "port", 9001),
        ({"ASGI_THREADS": "12"}, "threads", 12),
        ({"FAIRWAY_HOST": "::"}, "host", "::"),
        ({"FAIRWAY_FD": "3"}, "fd", 3),
        ({"FAIRWAY_UDS": "/run/x.sock"}, "uds", "/run/x.sock"),
        ({"FAIRWAY_HEAD_TIMEOUT": " 5 "}, "head_timeout", 5.0),
        ({"FAIRWAY_ACCESS_LOG": "yes"}, "access_log", True),
        ({"FAIRWAY_ACCESS_LOG": "Off"}, "access_log", False),
        ({"FAIRWAY_LOOP": "asyncio"}, "loop", "asyncio"),
    ],
    ids=str,
)
def test_the_environment_is_read_as_each_field_wants_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str, value: Any
) -> None:
    """
    Numbers and switches are read; variables known from elsewhere count, ours win over them.
    """
    for variable, text in variables.items():
        monkeypatch.setenv(variable, text)
    options, sources = resolve_server_options()
    assert getattr(options, name) == value
    assert sources[name] == "environment"


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As shells and compose files leave them.
    """
    monkeypatch.setenv("PORT", "")
    assert resolve_server_options()[0].port == 8000


def test_settings_of_layers_carry_a_prefix(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Both areas know a message's size; only values that are not defaults are passed on.
    """
    settings.FAIRWAY = {"MESSAGE_BYTES_MAX": 5000, "LAYER_MESSAGE_BYTES_MAX": 6000}
    monkeypatch.setenv("FAIRWAY_LAYER_EXPIRY", "10")
    assert resolve_server_options()[0].message_bytes_max == 5000
    assert changed_options(LayerOptions) == {"message_bytes_max": 6000, "expiry": 10.0}


@pytest.mark.parametrize(
    ("fairway", "text"),
    [
        ({"THREADS": "four"}, r"FAIRWAY\['THREADS'\] must be a whole number, not 'four'"),
        ({"THREADS": True}, "must be a whole number, not True"),
        ({"THREADS": 1.5}, "must be a whole number, not 1.5"),
        ({"THREADS": None}, "must be a whole number, not None"),
        ({"DRAIN": "soon"}, "must be a number, not 'soon'"),
        ({"ACCESS_LOG": 1}, "must be true or false, not 1"),
        ({"ACCESS_LOG": "maybe"}, "must be true or false, not 'maybe'"),
        ({"ROOT_PATH": b"/x"}, "must be text, not b'/x'"),
        ({"THREADS": 0}, "threads must be between 1 and 1000 threads, not 0"),
        ({"LOOP": "trio"}, "loop must be one of auto, asyncio, uvloop, not 'trio'"),
        ({"HEALTH_PATH": "up"}, "health_path must be empty or a path that begins with /, not 'up'"),
        (["THREADS"], "FAIRWAY must be a dict, not list"),
    ],
)
def test_a_wrong_value_names_its_place(settings: Settings, fairway: Any, text: str) -> None:
    """
    Type and bounds are checked, and the message says where the value stands.
    """
    settings.FAIRWAY = fairway
    with pytest.raises(ConfigurationError, match=text):
        resolve_server_options()


@pytest.mark.parametrize(
    ("fairway", "text"),
    [
        (
            {"COMPRESS_BYTES_MIN": 100000},
            (
                "compress_bytes_min must be at most compress_bytes_max (65536 bytes), not 100000: "
                "lower the one or raise the other"
            ),
        ),
        (
            {"COMPRESS_BYTES_MAX": 100},
            "compress_bytes_min must be at most compress_bytes_max (100 bytes), not 512: ",
        ),
        ({"RESPAWN_DELAY": 30}, "must be at most respawn_delay_max (10.0 s), not 30.0: "),
        (
            {"HEALTH_PATH": "/up", "READY_PATH": "/up"},
            (
                "ready_path must not be '/up', as health_path is, since one of them alone would "
                "answer: choose another path, or none"
            ),
        ),
        ({"METRICS_PATH": "/-/ready"}, "metrics_path must not be '/-/ready', as ready_path is"),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    settings: Settings, fairway: Any, text: str
) -> None:
    """
    Each would do by itself; together one of them would silently do nothing.
    """
    settings.FAIRWAY = fairway
    with pytest.raises(ConfigurationError, match=re.escape(text)):
        resolve_server_options()


@pytest.mark.parametrize(
    "fairway",
    [
        {"COMPRESS_BYTES_MIN": 1000000, "COMPRESS_BYTES_MAX": 1000000},
        {"RESPAWN_DELAY": 30, "RESPAWN_DELAY_MAX": 60},
        {"HEALTH_PATH": "", "READY_PATH": "", "METRICS_PATH": ""},
    ],
)
def test_values_that_go_together_pass(settings: Settings, fairway: Any) -> None:
    """
    A bound that is moved moves what is bounded by it.
    """
    settings.FAIRWAY = fairway
    options, _ = resolve_server_options()
    assert all(getattr(options, key.lower()) == value for key, value in fairway.items())


def test_a_wrong_variable_or_flag_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The reader knows where to look.
    """
    with pytest.raises(ConfigurationError, match="--head-timeout must be a number, not 'x'"):
        resolve_server_options({"head_timeout": "x"})
    monkeypatch.setenv("PORT", "http")
    with pytest.raises(ConfigurationError, match="PORT must be a whole number, not 'http'"):
        resolve_server_options()


def test_whole_numbers_do_for_numbers(settings: Settings) -> None:
    """
    Five seconds may be written 5.
    """
    settings.FAIRWAY = {"DRAIN": 5}
    drain = resolve_server_options()[0].drain
    assert (drain, type(drain)) == (5.0, float)


def test_unknown_keys_are_found_with_the_nearest(settings: Settings) -> None:
    """
    What E001 reports: misspelt, in lower case, meant for a flag, or nothing like any.
    """
    settings.FAIRWAY = {
        "THREDS": 4,
        "drain": 1,
        "LAYER_CAPACTY": 1,
        "THREADS": 4,
        "COLOUR_OF_MAGIC": 1,
        5: 1,
    }
    assert unknown_settings() == [
        UnknownSetting("THREDS", "THREADS"),
        UnknownSetting("drain", "DRAIN"),
        UnknownSetting("LAYER_CAPACTY", "LAYER_CAPACITY"),
        UnknownSetting("COLOUR_OF_MAGIC", None),
        UnknownSetting("5", None),
    ]


def test_what_only_a_flag_may_say_is_no_setting(settings: Settings) -> None:
    """
    Where to listen differs from machine to machine, so it does not belong into settings.
    """
    settings.FAIRWAY = {"PORT": 9}
    assert resolve_server_options()[0].port == 8000
    assert [found.key for found in unknown_settings()] == ["PORT"]


def test_a_process_without_django_settings_has_defaults_and_environment() -> None:
    """
    The server serves any ASGI application, so settings may be missing altogether.
    """
    script = """
from fairway.conf import django_setting, resolve_server_options, unknown_settings
options, sources = resolve_server_options()
print(options.port, sources["port"], unknown_settings(), django_setting("DEBUG", "none"))
"""
    environ = {
        name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
        env={**environ, "PORT": "9000"},
    )
    assert (done.stdout, done.stderr) == ("9000 environment [] none\n", "")


@pytest.mark.parametrize("value", ["10.0.0.0/8, ::1", ["10.0.0.0/8", "::1"], ("10.0.0.0/8", "::1")])
def test_a_list_is_written_as_a_list_or_with_commas(value: Any, settings: Settings) -> None:
    """
    Environment and flags hold a list as text with commas, settings as a list or so too.
    """
    settings.FAIRWAY = {"TRUSTED_PROXIES": value}
    assert resolve_server_options()[0].trusted_proxies == ("10.0.0.0/8", "::1")


def test_a_list_of_something_else_is_refused(settings: Settings) -> None:
    """
    Numbers are no addresses.
    """
    settings.FAIRWAY = {"TRUSTED_PROXIES": [10]}
    with pytest.raises(ConfigurationError, match="a list of texts"):
        resolve_server_options()


def test_a_path_does_for_text(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As settings build theirs from BASE_DIR.
    """
    settings.FAIRWAY = {"RUNTIME_DIR": Path("/srv") / "run"}
    assert changed_options(ProjectOptions) == {"runtime_dir": "/srv/run"}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("NAMESPACE", "..", "namespace must be 1 to 64 letters, digits and - _ ., not '..'"),
        ("NAMESPACE", "a/b", "not 'a/b'"),
        ("NAMESPACE", "a" * 65, "1 to 64"),
        ("NAMESPACE", "site\n", "1 to 64"),
        ("RUNTIME_DIR", "run", "runtime_dir must be an absolute path, not 'run'"),
    ],
)
def test_text_has_to_match_what_is_asked_for(
    settings: Settings, key: str, value: str, text: str
) -> None:
    """
    A namespace becomes part of a path, and must not lead elsewhere.
    """
    settings.FAIRWAY = {key: value}
    with pytest.raises(ConfigurationError, match=re.escape(text)):
        resolve_options(ProjectOptions)
