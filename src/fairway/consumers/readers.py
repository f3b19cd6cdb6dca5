"""
What a consumer class says about its readers: ``overflow``, ``outbox_bytes_max``, ``compress``.

The first two are about those who are too slow, the last about those who take messages smaller.
Fairway's server is told so before anything is accepted; other servers have no such thing, and
nothing is done there. What the words mean is known in ``server.overflow`` and ``wire.deflate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from fairway.options import ServerOptions, overridden
from fairway.types import Scope

__all__ = ["OF_WEBSOCKETS", "configure_outbox", "outbox_settings"]

NAMES = ("overflow", "outbox_bytes_max")
OF_WEBSOCKETS = (*NAMES, "compress")

# Classes may come and go, as in tests.
_by_class: WeakKeyDictionary[type[Any], dict[str, Any]] = WeakKeyDictionary()


def outbox_settings(consumer_class: type[Any], names: Sequence[str] = NAMES) -> dict[str, Any]:
    """
    Give what a class says, as the server's ``configure`` takes it; empty for nothing.

    Args:
        consumer_class: The class, of one kind of connection and so always with the same names.
        names: What that kind has.

    Raises:
        ConfigurationError: An attribute is none of what it may be.
    """
    try:
        return _by_class[consumer_class]
    except KeyError:
        own = {name: getattr(consumer_class, name, None) for name in names}
        # A method of such a name is the project's own.
        found = {
            name: own[name] for name in names if not (own[name] is None or callable(own[name]))
        }
        overridden(ServerOptions(), consumer_class, found)
        _by_class[consumer_class] = found
        return found


def configure_outbox(consumer_class: type[Any], scope: Scope) -> None:
    """
    Tell the server of a WebSocket what the class of its consumer says.

    An event stream says so itself, once it is known to be one.

    Raises:
        ConfigurationError: As above.
    """
    found = outbox_settings(consumer_class, OF_WEBSOCKETS)
    ends = (scope.get("extensions") or {}).get("fairway")
    if ends is not None and scope["type"] == "websocket":
        ends["configure"](**found)
