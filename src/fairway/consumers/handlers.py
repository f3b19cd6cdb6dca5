"""
From the ``type`` of a message to the method of a consumer that handles it.

The rule is Channels': dots become underscores, a leading underscore is refused.
Two things are Fairway's: a name that its own classes define (``send``, ``close``,
``group_add``, ...) is never a handler, and ``websocket.send`` or
``websocket.close`` without a handler of that name go to the socket itself. Which
message is handled when is in ``base``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from fairway import metrics
from fairway.exceptions import NoHandler

__all__ = ["find_handler", "get_handler_name", "overrides", "report"]

logger = logging.getLogger("fairway.consumers")

RELAY = "_fairway_relay"
"""
The method of a consumer that passes a message on to its socket.
"""

RELAYED = frozenset({"http.response.body", "websocket.close", "websocket.send"})
"""
ASGI send types that a group message may have; the first is nothing for a WebSocket.
"""

EVENT_HANDLERS = frozenset(
    {
        "http_disconnect",
        "http_request",
        "websocket_connect",
        "websocket_disconnect",
        "websocket_receive",
    }
)
"""
Methods of Fairway's classes that are handlers: one for each event of a server.
"""

INSTANCE_NAMES = frozenset({"base_send", "channel_layer", "channel_name", "scope"})
"""
Attributes that every running consumer has without its class having them.
"""

REPORTS_MAX = 1000
"""
Pairs of consumer class and message type remembered as reported, so that types made up at
run time cost neither memory nor a log that never ends.
"""

_reported: set[tuple[type, str]] = set()


def get_handler_name(message: Mapping[str, Any]) -> str:
    """
    Give the name of the method that handles a message.

    Raises:
        NoHandler: The message has no usable type.
    """
    if "type" not in message:
        raise NoHandler("Incoming message has no 'type' attribute", message)
    kind = message["type"]
    if not isinstance(kind, str):
        raise NoHandler(f"Incoming message has a 'type' that is no string: {kind!r}", message)
    name = kind.replace(".", "_")
    if name.startswith("_"):
        raise NoHandler("Malformed type in message (leading underscore)", message)
    return name


def find_handler(consumer: Any, message: Mapping[str, Any]) -> Callable[[Any], Any]:
    """
    Give the method that handles a message.

    Hot path: once per message. Names are remembered per class and type.

    Raises:
        NoHandler: There is none.
    """
    try:
        names = consumer._fairway_handler_names  # noqa: SLF001 - kept for this module
        handler: Callable[[Any], Any] = getattr(consumer, names[message["type"]])
    except (AttributeError, KeyError, TypeError):
        return _search_handler(consumer, message)
    return handler


def _search_handler(consumer: Any, message: Mapping[str, Any]) -> Callable[[Any], Any]:
    """
    Find the method that handles a message, and remember its name.
    """
    name = get_handler_name(message)
    cls, kind = type(consumer), message["type"]
    handler = None if name in _own_names(cls) else getattr(consumer, name, None)
    if not callable(handler):
        if kind not in RELAYED or (
            kind == "http.response.body" and consumer.scope["type"] == "websocket"
        ):
            raise NoHandler(_explain(cls, kind, name), message)
        name = RELAY
        handler = getattr(consumer, RELAY)
    # Only what the class itself has is remembered: that much is finite.
    if hasattr(cls, name):
        cls._fairway_handler_names[kind] = name
    found: Callable[[Any], Any] = handler
    return found


def overrides(cls: type, names: tuple[str, ...]) -> bool:
    """
    Whether a consumer class of a project defines one of the names, itself or by a base.
    """
    return any(name in vars(one) for one in cls.__mro__ if not _is_own(one) for name in names)


def report(consumer: Any, error: NoHandler) -> None:
    """
    Count a channel layer message that nobody handles, and log the first of its type and class.

    A mistyped ``type`` would otherwise end every socket of the group it is sent to.
    """
    metrics.drops.add("no_handler")
    case = type(consumer), str(error.message.get("type"))
    if case not in _reported and len(_reported) < REPORTS_MAX:
        _reported.add(case)
        name = type(consumer).__qualname__
        text = str(error) if name in str(error) else f"{name}: {error}"
        logger.warning("%s [%s]", text, error.fault)


def _own_names(cls: type) -> set[str]:
    """
    Names that Fairway's own classes give a consumer and that are no handlers.
    """
    names = set(INSTANCE_NAMES)
    for one in cls.__mro__:
        if _is_own(one):
            names.update(vars(one))
    return names - EVENT_HANDLERS


def _is_own(cls: type) -> bool:
    """
    Whether a class is one of this package's consumers (or ``object``), and not a project's.
    """
    return cls is object or cls.__module__.startswith("fairway.consumers.")


def _explain(cls: type, kind: str, name: str) -> str:
    """
    Say what was looked for, and what was probably meant.
    """
    text = f"No handler for message type {kind}: {cls.__qualname__} has no method {name}()."
    own = _own_names(cls)
    if name in own:
        return (
            f"No handler for message type {kind}: {name} is a name of Fairway's own and never "
            f"a handler. Hint: give the handler in {cls.__qualname__} and the type another name."
        )
    methods = [one for one in dir(cls) if not one.startswith("_") and one not in own]
    near = get_close_matches(name, methods, n=1, cutoff=0.8)
    if not near:
        return text
    meant = near[0].replace("_", ".") if "." in kind else near[0]
    return f"{text} Hint: did you mean {meant!r}?"
