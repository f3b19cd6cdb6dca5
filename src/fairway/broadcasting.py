"""
``broadcast()`` and ``abroadcast()``: a message to every socket of a group, from anywhere.

``broadcast()`` waits for the transaction it is called in, so nobody hears of what is
rolled back. It is for views, signals, tasks and the shell, where a broker that is away
is no reason to fail; so it counts and logs what it could not send. How a message
travels is the business of ``layers``, what tests see of it that of ``testing.broadcasts``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.utils.connection import ConnectionDoesNotExist
from django.utils.functional import Promise

from fairway import metrics
from fairway.exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from fairway.faults import Fault
from fairway.layers.codec import Kind, pack_event
from fairway.layers.layer import ChannelLayer
from fairway.layers.notices import Notices
from fairway.layers.registry import DEFAULT_CHANNEL_LAYER, channel_layers, get_channel_layer

__all__ = ["Broadcast", "Capture", "abroadcast", "broadcast", "captures"]

notices = Notices(logging.getLogger("fairway.layers"))


class Capture(Protocol):
    """
    What takes broadcasts in a test, before they are sent. Called from any thread.
    """

    def take(self, broadcast: Broadcast) -> bool:
        """
        Note a message whose time to be sent has come.

        Returns:
            Whether it goes on: to the capture around this one, or its layer.
        """

    def expect(self, broadcast: Broadcast, connection: Any) -> None:
        """
        Note a message that waits for the commit of a database connection's transaction.
        """


captures: list[Capture] = []
"""
Those that are open in this process, the innermost last; empty outside of tests.
"""


@dataclass(eq=False, slots=True)
class Broadcast:
    """
    One message to a group as it was given, and encoded.

    Attributes:
        group: The group's name.
        message: What was given; ``payload`` does not follow later changes of it.
        kind: How it travels: TEXT, JSON, BINARY, or EVENT if it has an event's name or id.
        payload: The message encoded, as the layer takes it.
        exclude: The channel name that is to get nothing, or None.
        event: Name of the event that event streams get, or None.
        id: Its id there, or None.
        using: The database that was named, or None.
        layer: Alias of the channel layer.
        strict: Whether a failure is to be raised.
        target: The layer itself.
        left: Whether its time to be sent has come and it was sent, or taken by a test.
    """

    group: str
    message: Any
    kind: Kind
    payload: bytes = field(repr=False)
    exclude: str | None
    event: str | None
    id: str | None
    using: str | None
    layer: str
    strict: bool
    target: ChannelLayer = field(repr=False)
    left: bool = field(default=False, repr=False)

    def leave(self) -> None:
        """
        Send it, unless that was done before or a test takes it. Waits only if ``strict``.

        Raises:
            ChannelLayerUnavailable: With ``strict``, the broker did not take it.
        """
        if not self.left and self.goes_past(captures):
            self.transmit()

    def goes_past(self, around: list[Capture]) -> bool:
        """
        Show it to the captures around it, the innermost first, until one keeps it.

        Returns:
            Whether none kept it.
        """
        self.left = True
        return not around or all(capture.take(self) for capture in reversed(around))

    def transmit(self) -> Future[None] | None:
        """
        Hand it to its layer; see to failures later, or wait for them if ``strict``.

        Returns:
            What is done once the broker has taken it; None if it certainly does not.

        Raises:
            ChannelLayerUnavailable: With ``strict``, the broker did not take it.
        """
        try:
            future = self.target.submit(
                self.group, self.payload, kind=self.kind, exclude=self.exclude
            )
            if self.strict and not is_on_loop():
                _wait(future, self.target)
        except ChannelLayerUnavailable as error:
            if self.strict:
                raise
            _count_lost(self.group, error)
            return None
        future.add_done_callback(partial(_look_at, self.group))
        return future


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
        RuntimeError: With ``strict``, an event loop runs in this thread.
        ChannelLayerUnavailable: With ``strict``, the broker did not take it.
    """
    if strict and is_on_loop():
        raise RuntimeError(
            "broadcast(strict=True) waits for the broker and would stop this event loop. "
            "Hint: await abroadcast(strict=True)."
        )
    made = _make(group, message, exclude, event, id, using=using, strict=strict, layer=layer)
    alias = after_commit(made.leave, using, strict=strict)
    if alias is not None and captures:
        captures[-1].expect(made, connections[alias])


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
    made = _make(group, message, exclude, event, id, using=None, strict=strict, layer=layer)
    if not made.goes_past(captures):
        return
    try:
        await made.target.broadcast(group, made.payload, kind=made.kind, exclude=exclude)
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
    # Mostly it is text: looked at first, since each union of types is made anew.
    is_text = isinstance(message, str)
    if not is_text and isinstance(message, bytes | bytearray | memoryview):
        if event is not None or id is not None:
            raise TypeError("an event with a name or id holds text, not bytes")
        return Kind.BINARY, bytes(message)
    if is_text or isinstance(message, Promise):
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


def after_commit(call: Callable[[], object], using: str | None, *, strict: bool) -> str | None:
    """
    Call once the open transaction is committed; now, if none is open.

    Args:
        call: What is to happen.
        using: The database whose transaction counts, as for ``broadcast()``.
        strict: Whether a failure may stop what else waits for the commit.

    Returns:
        The database whose commit is waited for, None if it was called now.
    """
    alias = transaction_to_wait_for(using)
    if alias is None:
        call()
    else:
        transaction.on_commit(call, using=alias, robust=not strict)
    return alias


def transaction_to_wait_for(using: str | None) -> str | None:
    """
    Find the database whose commit a message waits for; None to send it now.

    Looks only at connections of this thread that exist already, and opens none. The blocks that
    ``TestCase`` opens around a test count only where the test's code opened none of its own.

    Raises:
        ValueError: Several transactions are open, none of them on ``default``, and
            ``using`` does not say which one counts.
        ConnectionDoesNotExist: ``using`` is no database of the project.
    """
    if using is None and not settings.configured:
        return None  # Without settings, as in a script, there are no databases.
    if using is not None and using not in connections:
        raise ConnectionDoesNotExist(f"The connection '{using}' doesn't exist.")
    opened = [each for each in connections.all(initialized_only=True) if each.in_atomic_block]
    if using is not None:
        return using if any(each.alias == using for each in opened) else None
    if not opened:
        return None
    own = [each.alias for each in opened if not _is_of_a_test(each)]
    aliases = own or [each.alias for each in opened]
    if len(aliases) == 1:
        return aliases[0]
    if DEFAULT_DB_ALIAS in aliases:
        return DEFAULT_DB_ALIAS
    if not own:
        return aliases[0]
    raise ValueError(
        f"Transactions are open on {', '.join(sorted(aliases))}. "
        "Hint: broadcast(..., using=...) says whose commit to wait for."
    )


def _is_of_a_test(connection: Any) -> bool:
    """
    Whether its only blocks are those around a test, which are never committed.
    """
    blocks = connection.atomic_blocks
    return bool(blocks) and getattr(blocks[-1], "_from_testcase", False)


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


def _make(
    group: str,
    message: Any,
    exclude: str | None,
    event: str | None,
    id: str | None,  # noqa: A002 - the field's own word
    *,
    using: str | None,
    strict: bool,
    layer: str,
) -> Broadcast:
    """
    Encode a message, and raise what its layer would, before it is time to send.
    """
    target = own_layer(layer)
    kind, payload = encode(message, event, id)
    target.require_sendable(group, payload)
    return Broadcast(
        group, message, kind, payload, exclude, event, id, using, layer, strict, target
    )


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
    notices.say(
        "unavailable",
        f"a message for group %r could not be sent: %s [{Fault.MESSAGE_NOT_SENT}]",
        group[:100],
        error,
    )


def is_on_loop() -> bool:
    """
    Whether an event loop runs in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
