"""
``disconnect()``, ``adisconnect()``, and the orders they and Django's signals give to all processes.

An order is one message to one group, whoever it is about, and leaves once the transaction it
was given in is committed. Who hears it is in ``roll``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from django.db import transaction

from fairway import broadcasting
from fairway.broadcasting import Broadcast, after_commit, own_layer, transaction_to_wait_for
from fairway.exceptions import FairwayError
from fairway.faults import Fault
from fairway.layers.codec import Kind, encode, read_close
from fairway.layers.layer import ChannelLayer
from fairway.layers.notices import Notices
from fairway.layers.registry import DEFAULT_CHANNEL_LAYER, get_channel_layer
from fairway.revocation import rolls
from fairway.revocation.hearing import ORDER
from fairway.revocation.names import control_group, digest, seal, session_key_of, user_text
from fairway.wire import codes

__all__ = [
    "adisconnect",
    "announce_end",
    "announce_look",
    "announce_rotation",
    "disconnect",
    "held_back",
]

notices = Notices(logging.getLogger("fairway.auth"))

_held: ContextVar[list[dict[str, Any]] | None] = ContextVar("fairway.revocation.held", default=None)


def disconnect(
    *,
    user: Any = None,
    session: Any = None,
    group: str | None = None,
    code: int = codes.UNAUTHENTICATED,
    reason: str = "",
    using: str | None = None,
    strict: bool = False,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """
    Close the sockets of a user, a session or a group in all processes, after the commit.

    May be called from any thread, with an event loop or without; does not wait, unless
    ``strict``. Event streams and long polls end too. Without an open transaction it happens now,
    and no database is touched; one that is rolled back takes the call along. Nothing keeps
    anybody from connecting again: that is for ``login_required`` and the like.

    Args:
        user: A user, or a user's primary key.
        session: A session, or a session's key.
        group: The group's name.
        code: The close code that the clients get.
        reason: At most 123 bytes for them.
        using: The database whose transaction counts, as for ``broadcast()``.
        strict: Wait until the broker has taken the order, and raise if it does not.
        layer: Alias of the group's channel layer.

    Raises:
        TypeError: Not exactly one of user, session and group is given, or the group's name is none.
        ValueError: The user or session has no key yet, code or reason cannot be sent, or
            transactions are open on several databases and ``using`` is missing.
        RuntimeError: With ``strict``, an event loop runs in this thread.
        ChannelLayerUnavailable: With ``strict``, the broker did not take it.
    """
    if strict and broadcasting.is_on_loop():
        raise RuntimeError(
            "disconnect(strict=True) waits for the broker and would stop this event loop. "
            "Hint: await adisconnect(strict=True)."
        )
    order = _order(user, session, group, code, reason, using=using, strict=strict, layer=layer)
    after_commit(order.transmit, using, strict=strict)


async def adisconnect(
    *,
    user: Any = None,
    session: Any = None,
    group: str | None = None,
    code: int = codes.UNAUTHENTICATED,
    reason: str = "",
    strict: bool = False,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """
    Close the sockets of a user, a session or a group in all processes, now.

    Waits until the broker has taken the order. Otherwise as ``disconnect()``.

    Args:
        user: A user, or a user's primary key.
        session: A session, or a session's key.
        group: The group's name.
        code: The close code that the clients get.
        reason: At most 123 bytes for them.
        strict: Raise if the broker does not take the order, instead of counting it.
        layer: Alias of the group's channel layer.

    Raises:
        TypeError: Not exactly one of user, session and group is given, or the group's name is none.
        ValueError: The user or session has no key yet, or code or reason cannot be sent.
        ChannelLayerUnavailable: With ``strict``, the broker did not take it.
    """
    order = _order(user, session, group, code, reason, using=None, strict=strict, layer=layer)
    future = order.transmit()
    if future is not None:
        # Its failure is counted and logged whoever waits for it.
        outcome = asyncio.wrap_future(future)
        await asyncio.wait([outcome])
        error = outcome.exception()
        if strict and error is not None:
            raise error


def announce_end(*, user: Any = None, session: str | None = None, using: str | None = None) -> None:
    """
    Have all connections of a user or session closed, once a database has committed it.

    Never raises: whoever logs out has nothing to do with brokers.

    Args:
        user: The user; or None.
        session: The session's key; or None.
        using: The database; None where it is done already.
    """
    content: dict[str, Any] = {"do": "close", "code": codes.UNAUTHENTICATED, "reason": ""}
    if user is not None:
        content["user"] = user_text(user)
    if session is not None:
        content["session"] = digest(session)
    _announce(content, using)


def announce_look(user: Any, using: str | None) -> None:
    """
    Have it looked up whether a user's connections may go on, once a database has committed.
    """
    _announce({"do": "look", "user": user_text(user)}, using)


def announce_rotation(old: str, new: str, using: str | None) -> None:
    """
    Say that a session goes on under another key, once a database has committed it.
    """
    _announce({"do": "move", "session": digest(old), "sealed": seal(new)}, using)


@contextmanager
def held_back() -> Iterator[None]:
    """
    Hold announcements of this task back until the block is over, in its threads too.
    """
    held: list[dict[str, Any]] = []
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)
        for content in held:
            _give(content)


def _announce(content: dict[str, Any], using: str | None) -> None:
    """
    Give an order after the commit of one database, or now.
    """
    held = _held.get()
    if _target_reaches_nobody():
        return
    if using is not None and transaction_to_wait_for(using) is not None:
        transaction.on_commit(partial(_give, content), using=using, robust=True)
    elif held is not None:
        held.append(content)
    else:
        _give(content)


def _target_reaches_nobody() -> bool:
    """
    Whether this process is all that the layer reaches, and nobody is here: as in most tests.
    """
    if rolls.exist():
        return False
    target = _layer()
    return isinstance(target, ChannelLayer) and target.broker.alone


def _give(content: dict[str, Any]) -> None:
    """
    Give an order to all processes, or to this one if the channel layer is none of Fairway's.
    """
    target = _layer()
    if isinstance(target, ChannelLayer):
        _to_all(target, content).transmit()
    else:
        rolls.hear_everywhere(content)


def _layer() -> Any:
    """
    Give the channel layer for orders; None if it is described wrongly, which is logged.
    """
    try:
        return get_channel_layer()
    except FairwayError as error:
        notices.say(
            "order",
            f"other processes could not be told that a login ended: %s [{Fault.ORDER_NOT_SENT}]",
            error,
        )
        return None


def _to_all(target: ChannelLayer, content: dict[str, Any], **given: Any) -> Broadcast:
    """
    Make the message of an order.
    """
    message = {"type": ORDER, **content}
    return _message(control_group(), message, Kind.HANDLER, target, **given)


def _message(
    group: str,
    message: dict[str, Any],
    kind: Kind,
    target: ChannelLayer,
    *,
    using: str | None = None,
    strict: bool = False,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> Broadcast:
    """
    Encode a message to a group.
    """
    payload = encode(message)
    target.require_sendable(group, payload)
    return Broadcast(group, message, kind, payload, None, None, None, using, layer, strict, target)


def _order(
    user: Any,
    session: Any,
    group: str | None,
    code: int,
    reason: str,
    *,
    using: str | None,
    strict: bool,
    layer: str,
) -> Broadcast:
    """
    Make the message of ``disconnect()`` out of its arguments, or raise what is wrong with them.
    """
    given = [each for each in (user, session, group) if each is not None]
    if len(given) != 1:
        raise TypeError(
            f"disconnect() takes exactly one of user, session and group, not {len(given)}"
        )
    close = {"type": "websocket.close", "code": code, "reason": reason}
    read_close(close)
    if group is not None:
        target = own_layer(layer)
        return _message(group, close, Kind.CLOSE, target, using=using, strict=strict, layer=layer)
    content: dict[str, Any] = {"do": "close", "code": code, "reason": reason}
    if user is not None:
        content["user"] = user_text(user)
        if content["user"] is None:
            raise ValueError(f"disconnect() needs a user with a primary key, got {user!r}")
    else:
        key = session_key_of(session)
        if key is None:
            raise ValueError(f"disconnect() needs a session with a key, got {session!r}")
        content["session"] = digest(key)
    target = own_layer(DEFAULT_CHANNEL_LAYER)
    return _to_all(target, content, using=using, strict=strict)
