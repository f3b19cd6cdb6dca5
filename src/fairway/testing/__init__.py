"""
What Fairway gives to the tests of projects and of channel layers.

Names are found on first use (PEP 562), so that a project's tests import only what they ask for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairway.testing.communicators import (
        ApplicationCommunicator,
        HttpCommunicator,
        WebsocketCommunicator,
    )

_HOMES = {
    "ApplicationCommunicator": "fairway.testing.communicators",
    "HttpCommunicator": "fairway.testing.communicators",
    "WebsocketCommunicator": "fairway.testing.communicators",
}

__all__ = [
    "ApplicationCommunicator",
    "HttpCommunicator",
    "WebsocketCommunicator",
]


def __getattr__(name: str) -> Any:
    """
    Import a public name from its home on first use.
    """
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'fairway.testing' has no attribute {name!r}") from None
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """
    Give the public names, loaded or not.
    """
    return sorted({*globals(), *__all__})
