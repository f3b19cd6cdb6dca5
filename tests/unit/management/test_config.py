"""
`manage.py fairway config`: each option with its value and source, and what is wrong.
"""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from fairway.options import AREAS


def choose(scope: object) -> None:
    """
    Stand in a setting.
    """


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """
    Run the command and give its lines.
    """
    call_command("fairway", "config", *arguments)
    return capsys.readouterr().out.splitlines()


def test_every_option_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """
    With its value and unit, and the variables that would change it.
    """
    lines = shown(capsys)
    keys = [AREAS[area] + spec.name.upper() for area in AREAS for spec in fields(area)]
    assert [line.split()[0] for line in lines[1 : len(keys) + 1]] == keys
    rows = {line.split()[0]: line.split()[1:] for line in lines[: len(keys) + 1]}
    assert rows["HEAD_TIMEOUT"] == ["10.0", "s", "default", "FAIRWAY_HEAD_TIMEOUT"]
    assert rows["WORKERS"][2:] == ["default", "FAIRWAY_WORKERS,", "WEB_CONCURRENCY"]


def test_where_a_value_comes_from(
    capsys: pytest.CaptureFixture[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The setting or variable is named; what has its default can be left out.
    """
    monkeypatch.delenv("FAIRWAY_RUNTIME_DIR")
    settings.FAIRWAY = {
        "HEAD_TIMEOUT": 5,
        "TRUSTED_PROXIES": ["10.0.0.1", "10.0.0.2"],
        "THREADS": 2,
        "URLCONF": choose,
    }
    monkeypatch.setenv("ASGI_THREADS", "3")
    heading, *lines = shown(capsys, "--changed")
    cells = [line.split("  ") for line in lines[: lines.index("")]]
    assert heading.split() == ["OPTION", "VALUE", "SOURCE", "VARIABLES"]
    assert [[cell.strip() for cell in row if cell.strip()][:3] for row in cells] == [
        ["TRUSTED_PROXIES", "10.0.0.1, 10.0.0.2", "settings: FAIRWAY['TRUSTED_PROXIES']"],
        ["HEAD_TIMEOUT", "5.0 s", "settings: FAIRWAY['HEAD_TIMEOUT']"],
        ["THREADS", "3 threads", "environment: ASGI_THREADS"],
        ["URLCONF", f"{__name__}.choose", "settings: FAIRWAY['URLCONF']"],
    ]


def test_what_is_wrong_is_told_with_all_the_rest(
    capsys: pytest.CaptureFixture[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Wrong values, unknown keys and unknown variables: each in a line, and status 1.
    """
    settings.FAIRWAY = {"HEAD_TIMEOT": 5, "THREADS": 0, "KEEP_ALIVE": "long"}
    monkeypatch.setenv("FAIRWAY_THREDS", "3")
    with pytest.raises(CommandError, match="4 problems in the options") as caught:
        call_command("fairway", "config")
    assert caught.value.returncode == 1
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("!")] == [
        "! FAIRWAY['KEEP_ALIVE'] must be a number, not 'long'",
        "! threads must be between 1 and 1000 threads, not 0",
        "! FAIRWAY['HEAD_TIMEOT'] means nothing; did you mean HEAD_TIMEOUT?",
        "! FAIRWAY_THREDS means nothing; did you mean FAIRWAY_THREADS?",
    ]
    assert "MESSAGE_BYTES_MAX" in out
    settings.FAIRWAY = 3
    with pytest.raises(CommandError, match="FAIRWAY must be a dict, not int"):
        call_command("fairway", "config")


def test_what_contradicts_each_other_is_told(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """
    Two values that do not go together are one problem, beside others; two that do are none.
    """
    settings.FAIRWAY = {"COMPRESS_BYTES_MAX": 100, "THREADS": 0, "RESPAWN_DELAY": "soon"}
    settings.FAIRWAY |= {"RESPAWN_DELAY_MAX": 0.01}
    with pytest.raises(CommandError, match="3 problems in the options"):
        call_command("fairway", "config")
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("!")]
    assert found[0] == "! FAIRWAY['RESPAWN_DELAY'] must be a number, not 'soon'"
    assert found[1].startswith("! compress_bytes_min must be at most compress_bytes_max (100")
    settings.FAIRWAY = {"COMPRESS_BYTES_MIN": 90000, "COMPRESS_BYTES_MAX": 100000}
    call_command("fairway", "config")


def test_layers_without_their_secrets(
    capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """
    How each layer is configured, with stars for passwords and keys wherever they stand.
    """
    settings.CHANNEL_LAYERS = {
        "other": {
            "BACKEND": "fairway.layers.InMemoryChannelLayer",
            "CONFIG": {
                "hosts": [
                    "redis://user:hidden@example.com/0",
                    ("localhost", 6379),
                    b"redis://:hidden/hidden@hidden@example.com",
                    "rediss://hidden@example.com?ssl_cert_reqs=none",
                    "redis://example.com?db=1&password=hidden",
                ],
                "symmetric_encryption_keys": ["hidden"],
                "sentinel": {"password": "hidden", "port": 3},
                "capacity": 7,
            },
        }
    }
    content = json.loads("\n".join(shown(capsys, "--json")))
    other, default = content["layers"]
    assert default["alias"] == "default"
    assert other["config"] == {
        "hosts": [
            "redis://user:********@example.com/0",
            ["localhost", 6379],
            "redis://:********@example.com",
            "rediss://********@example.com?ssl_cert_reqs=none",
            "redis://example.com?db=1&password=********",
        ],
        "symmetric_encryption_keys": "********",
        "sentinel": {"password": "********", "port": 3},
        "capacity": 7,
    }
    assert content["problems"] == []
    assert "hidden" not in "".join(shown(capsys))
