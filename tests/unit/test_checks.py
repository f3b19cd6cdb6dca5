"""
What `manage.py check` says about a project's settings.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from pytest_django import Settings

from fairway.checks import check_settings


def test_a_project_without_settings_is_fine() -> None:
    """There is nothing that must be set."""
    assert check_settings() == []


def test_is_registered_under_its_tag() -> None:
    """`check --tag fairway` runs it."""
    registered: set[Any] = set(checks.registry.registry.get_checks())
    assert check_settings in registered
    assert "fairway" in checks.registry.registry.tags_available()


@pytest.mark.parametrize(
    ("name", "value", "expected", "found", "hint"),
    [
        ("FAIRWAY", {"HEAD_TIMEUOT": 5}, "E001", "no key 'HEAD_TIMEUOT'", "'HEAD_TIMEOUT'?"),
        ("FAIRWAY", {"zzz": 5}, "E001", "no key 'zzz'", "Remove it."),
        ("FAIRWAY", {"HEAD_TIMEOUT": "soon"}, "E002", "must be a number, not 'soon'", "default"),
        ("FAIRWAY", {"HEAD_TIMEOUT": -1}, "E002", "must be between", "default"),
        ("FAIRWAY", {"LAYER_CAPACITY": 0}, "E002", "must be at least 1", "default"),
        ("FAIRWAY", ["HEAD_TIMEOUT"], "E002", "FAIRWAY must be a dict, not list", "default"),
        ("ASGI_APPLICATION", "fairway.asgj.application", "W001", "'fairway.asgi'", "remove it"),
        (
            "CHANNEL_LAYERS",
            {"default": {"BACKEND": "fairway.layers.X", "CONFIG": {"group_expiry": 1}}},
            "W002",
            "CHANNEL_LAYERS['default'] sets group_expiry, which is ignored",
            "Remove group_expiry",
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
        ("ASGI_APPLICATION", "fairway.asgi.application"),
        ("CHANNEL_LAYERS", {"default": {"BACKEND": "other.Layer", "CONFIG": {"group_expiry": 1}}}),
        ("CHANNEL_LAYERS", {"default": {"BACKEND": "fairway.layers.InMemoryChannelLayer"}}),
    ],
)
def test_is_quiet_about_what_is_right(settings: Settings, name: str, value: Any) -> None:
    """Settings that do what they say raise no message."""
    setattr(settings, name, value)
    assert check_settings() == []
