"""
``broadcast()`` and ``abroadcast()``: a message to every socket of a group, from anywhere.

``broadcast()`` waits for the transaction it is called in, so nobody hears of what is
rolled back. It is for views, signals, tasks and the shell, where a broker that is away
is no reason to fail; so it counts and logs what it could not send. How a message
travels is the business of ``layers``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import Future
from functools import partial
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.utils.connection import ConnectionDoesNotExist
from django.utils.functional import Promise

from fairway import metrics
from fairway.exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from fairway.layers.codec import Kind, pack_event
from fairway.layers.layer import ChannelLayer
from fairway.layers.notices import Notices
from fairway.layers.registry import DEFAULT_CHANNEL_LAYER, channel_layers, get_channel_layer

__all__ = ["abroadcast", "broadcast"]

notices = Notices(logging.getLogger("fairway.layers"))


def broadcast(
    group: str,
    message: Any,
    *,
    exclude: str | None = None,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's own word
    using: str | None = None,
    strict: bool = False,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """
    Send a message to every socket of a group, once the open transaction is committed.

    May be called from any thread, with an event loop or without; does not wait, unless
    ``strict``. The message is encoded now, so it may be changed afterwards. Without an
    open transaction it is sent now, and no database is touched. A transaction that is
    rolled back, or the savepoint around the call, takes the message along.

    Args:
        group: The group's name.
        message: A ``str`` or ``bytes``, sent as it is, or anything that
            ``DjangoJSONEncoder`` can say.
        exclude: A channel name that is to get nothing, often the sender's.
        event: Name of the event that event streams get; WebSockets get the message alone.
        id: Its id there, which comes back as ``last_event_id`` or a cursor.
        using: The database whose transaction counts. Needed only while transactions
            are open on several databases and none of them is ``default``.
        strict: Wait until the broker has taken the message, and raise if it does not.
        layer: Alias of the channel layer.

    Raises:
        TypeError: The message cannot be sent, or the name is none of a group.
        MessageTooLarge: The encoded message is above the layer's limit.
        ValueError: Transactions are open on several databases and ``using`` is missing.
        ChannelLayerUnavailable: With ``strict``, the broker did not take it.
    """
    target = own_layer(layer)
    kind, payload = encode(message, event, id)
    target.require_sendable(group, payload)
    send = partial(_send, target, group, payload, kind, exclude, strict=strict)
    alias = transaction_to_wait_for(using)
    if alias is None:
        send()
    else:
        # A failure must not stop what else waits for the commit, unless it is asked for.
        transaction.on_commit(send, using=alias, robust=not strict)


async def abroadcast(
    group: str,
    message: Any,
    *,
    exclude: str | None = None,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's own word
    strict: bool = False,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """
    Send a message to every socket of a group now, and wait until the broker has taken it.

    Args:
        group: The group's name.
        message: As for ``broadcast()``.
        exclude: A channel name that is to get nothing, often ``self.channel_name``.
        event: Name of the event that event streams get; WebSockets get the message alone.
        id: Its id there, which comes back as ``last_event_id`` or a cursor.
        strict: Raise if the broker does not take the message, instead of counting it.
        layer: Alias of the channel layer.

    Raises:
        TypeError: The message cannot be sent, or the name is none of a group.
        MessageTooLarge: The encoded message is above the layer's limit.
        ChannelLayerUnavailable: With ``strict``, the broker did not take it.
    """
    kind, payload = encode(message, event, id)
    try:
        await own_layer(layer).broadcast(group, payload, kind=kind, exclude=exclude)
    except ChannelLayerUnavailable as error:
        if strict:
            raise
        _count_lost(group, error)


def encode(message: Any, event: str | None = None, id: str | None = None) -> tuple[Kind, bytes]:  # noqa: A002 - the field's own word
    """
    Encode a message as it goes to the sockets.

    Raises:
        TypeError: It is nothing that can be sent.
        LocalProtocolError: The event's name or id could break its line.
    """
    if isinstance(message, bytes | bytearray | memoryview):
        if event is not None or id is not None:
            raise TypeError("an event with a name or id holds text, not bytes")
        return Kind.BINARY, bytes(message)
    if isinstance(message, str | Promise):
        kind, text = Kind.TEXT, str(message)
    else:
        kind = Kind.JSON
        text = json.dumps(message, cls=DjangoJSONEncoder, separators=(",", ":"), ensure_ascii=False)
    try:
        if event is not None or id is not None:
            return Kind.EVENT, pack_event(text, event, id, is_json=kind is Kind.JSON)
        return kind, text.encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"the message holds text that UTF-8 cannot say: {error}") from None


def transaction_to_wait_for(using: str | None) -> str | None:
    """
    Find the database whose commit a message waits for; None to send it now.

    Looks only at connections of this thread that exist already, and opens none.

    Raises:
        ValueError: Several transactions are open, none of them on ``default``, and
            ``using`` does not say which one counts.
        ConnectionDoesNotExist: ``using`` is no database of the project.
    """
    if using is not None and using not in connections:
        raise ConnectionDoesNotExist(f"The connection '{using}' doesn't exist.")
    aliases = [
        connection.alias
        for connection in connections.all(initialized_only=True)
        if connection.in_atomic_block
    ]
    if using is not None:
        return using if using in aliases else None
    if len(aliases) <= 1:
        return aliases[0] if aliases else None
    if DEFAULT_DB_ALIAS in aliases:
        return DEFAULT_DB_ALIAS
    raise ValueError(
        f"Transactions are open on {', '.join(sorted(aliases))}. "
        "Hint: broadcast(..., using=...) says whose commit to wait for."
    )


def own_layer(alias: str) -> ChannelLayer:
    """
    Give the layer of an alias.

    Raises:
        InvalidChannelLayerError: There is none, or none of Fairway's.
    """
    found = get_channel_layer(alias)
    if isinstance(found, ChannelLayer):
        return found
    if found is None:
        known = ", ".join(sorted(channel_layers.configs))
        raise InvalidChannelLayerError(f"There is no channel layer {alias!r}, only {known}.")
    raise InvalidChannelLayerError(
        f"broadcast() needs a channel layer of Fairway's; {alias!r} is a {type(found).__name__}. "
        'Hint: "BACKEND": "fairway.layers.IPCChannelLayer".'
    )


def _send(
    target: ChannelLayer,
    group: str,
    payload: bytes,
    kind: Kind,
    exclude: str | None,
    *,
    strict: bool,
) -> None:
    """
    Hand a message to its layer; see to failures later, or wait for them if ``strict``.
    """
    if strict and _is_on_loop():
        raise RuntimeError(
            "broadcast(strict=True) waits for the broker and would stop this event loop. "
            "Hint: await abroadcast(strict=True)."
        )
    try:
        future = target.submit(group, payload, kind=kind, exclude=exclude)
        if strict:
            _wait(future, target)
    except ChannelLayerUnavailable as error:
        if strict:
            raise
        _count_lost(group, error)
    else:
        future.add_done_callback(partial(_look_at, group))


def _wait(future: Future[None], target: ChannelLayer) -> None:
    """
    Wait for a broker, a little longer than it is given, in case its loop stands still.
    """
    seconds = 2 * target.options.publish_timeout
    try:
        future.result(seconds)
    except TimeoutError:
        future.cancel()
        raise ChannelLayerUnavailable(
            f"the channel layer did not answer within {seconds:g} s"
        ) from None


def _look_at(group: str, future: Future[None]) -> None:
    """
    Count and log a message that did not leave.
    """
    error = None if future.cancelled() else future.exception()
    if error is not None:
        _count_lost(group, error)


def _count_lost(group: str, error: BaseException) -> None:
    metrics.drops.add("unavailable")
    notices.say("unavailable", "a message for group %r could not be sent: %s", group[:100], error)


def _is_on_loop() -> bool:
    """
    Whether an event loop runs in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
