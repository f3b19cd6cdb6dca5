"""
The channel layers: Channels' API over a hub and a broker.

Names, messages and sizes are checked here, in the caller's thread, so that a
mistake is an exception where it was made. Who gets a message is the hub's
business, how it travels the broker's.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from dataclasses import fields
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fairway.exceptions import ConfigurationError, MessageTooLarge
from fairway.faults import Fault
from fairway.layers.base import BaseChannelLayer, Capacities
from fairway.layers.brokers.local import LocalBroker
from fairway.layers.codec import Envelope, Kind, sort
from fairway.layers.hub import GROUP, Hub
from fairway.options import IPCOptions, LayerOptions, Options, ProjectOptions, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fairway.layers.brokers.base import Broker
    from fairway.types import Inbox, Outbox

__all__ = ["INTERNAL", "ChannelLayer", "IPCChannelLayer", "InMemoryChannelLayer", "fill"]

GROUP_NAME_BYTES_MAX = 1024

SPECIFIC = "specific"
"""
What the name of a consumer's own channel begins with.
"""

INTERNAL = "fairway.internal."
"""
What the names of groups begin with that are Fairway's own.
"""

RUNTIME_DIR = "/tmp/fairway-{}"  # noqa: S108 - used only if it is this user's own
"""
Where the processes of one user meet: the same place whatever the environment says.
"""


class ChannelLayer(BaseChannelLayer):
    """
    A channel layer of Fairway's, over any broker.

    Every coroutine here may be awaited on any loop. What is sent is encoded before the first
    wait, so a message may be changed afterwards.

    Attributes:
        areas: The areas of options that are arguments of the class, by their fields' names.
        broker: Carries the messages.
        hub: The members of this process and their groups.
        options: The limits.
        group_expiry: Kept for those who read it: membership lasts as long as its channel.
    """

    areas: ClassVar[tuple[type[Options], ...]] = (LayerOptions,)
    extensions: ClassVar[Sequence[str]] = ("groups", "flush")

    def __init__(
        self,
        broker: Broker,
        options: LayerOptions,
        *,
        channel_capacity: Capacities | None = None,
        group_expiry: float = 86400,
    ) -> None:
        """
        Make a layer that begins at first use.

        Args:
            broker: Carries its messages; nobody else uses it.
            options: The limits.
            channel_capacity: Globs or compiled patterns of channel names with their own
                capacity; the first that matches counts.
            group_expiry: Accepted and ignored.
        """
        validate(options)
        super().__init__(options.expiry, options.capacity, channel_capacity)
        self.options = options
        self.group_expiry = group_expiry
        self.broker = broker
        self.hub = Hub(broker, options, self.get_capacity)
        self._numbers = count(1)

    # --- Channels ----------------------------------------------------------------------------

    async def new_channel(self, prefix: str = SPECIFIC) -> str:
        """
        Make a channel name for use in this process.

        Args:
            prefix: How the name begins.
        """
        name = f"{prefix.rstrip('.')}.{self.hub.process}!{next(self._numbers):x}"
        if prefix != SPECIFIC:  # A name that is ours in all its parts needs no judging.
            self.require_valid_channel_name(name)
        return name

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """
        Send a message to one channel.

        Raises:
            ChannelFull: A channel of this process, or a queue, holds too many unread messages.
            MessageTooLarge: The encoded message is above the limit.
            ChannelLayerUnavailable: The broker did not take it in bounded time.
            TypeError: The name is none of a channel, or the message cannot travel.
        """
        self.require_valid_channel_name(channel)
        kind, payload = sort(message)
        self._require_size(payload)
        await self.hub.run(self.hub.send, channel, kind, payload)

    async def receive(self, channel: str) -> dict[str, Any]:
        """
        Wait for the next message of a channel. A cancelled call loses nothing.

        Each message is read by one reader, on whichever loop and in whichever process.
        """
        return (await self.receive_envelope(channel)).message()

    async def receive_envelope(self, channel: str) -> Envelope:
        """
        Wait for the next message of a channel, as consumers take it. As ``receive`` otherwise.
        """
        self.require_valid_channel_name(channel)
        return await self.hub.receive(channel)

    def attach(self, channel: str, *, inbox: Inbox, outbox: Outbox | None = None) -> None:
        """
        Have a channel's messages put into an inbox. Called on the loop the inbox belongs to.

        Args:
            channel: A name that ``new_channel`` gave.
            inbox: Takes its messages from now on; ``receive`` gives none of them.
            outbox: Takes messages for the socket itself, around the consumer; None where the
                consumer is to see all of them.
        """
        loop = asyncio.get_running_loop()
        inbox.capacity = min(inbox.capacity, self.get_capacity(channel))
        if self.hub.owner.here():
            self.hub.attach(channel, inbox, outbox, loop)
        else:
            self.hub.owner.enter(self.hub.attach, channel, inbox, outbox, loop)

    def detach(self, channel: str) -> None:
        """
        Forget a channel of this process, in all its groups. From any thread.
        """
        if self.hub.owner.here():
            self.hub.detach(channel)
        else:
            self.hub.owner.enter(self.hub.detach, channel)

    # --- Groups ------------------------------------------------------------------------------

    async def group_add(self, group: str, channel: str) -> None:
        """
        Add a channel to a group. Once this returns, the group's next message reaches it.

        Raises:
            ChannelLayerUnavailable: The broker did not confirm it in bounded time.
            TypeError: A name is invalid, or the channel is a queue that processes share.
        """
        self._require_member_names(group, channel)
        await self.hub.run(self.hub.join, group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """
        Take a channel out of a group. Does nothing if it is not in it.
        """
        self._require_member_names(group, channel)
        await self.hub.run(self.hub.leave, group, channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """
        Send a message to every channel of a group, in all processes.

        A member with too many unread messages does not get it, which is counted.

        Raises:
            MessageTooLarge: The encoded message is above the limit.
            ChannelLayerUnavailable: The broker did not take it in bounded time.
            TypeError: The name is none of a group, or the message cannot travel.
        """
        self.require_valid_group_name(group)
        kind, payload = sort(message)
        self._require_size(payload)
        await self.hub.group_send(group, kind, payload)

    async def broadcast(
        self, group: str, payload: bytes, *, kind: Kind, exclude: str | None = None
    ) -> None:
        """
        Send text, JSON or bytes to every socket of a group, without a handler per socket.

        Args:
            group: The group's name.
            payload: Encoded: UTF-8 for TEXT and JSON.
            kind: TEXT, JSON or BINARY.
            exclude: A channel that is to get nothing.

        Raises:
            MessageTooLarge: The payload is above the limit.
            ChannelLayerUnavailable: The broker did not take it in bounded time.
            TypeError: The name is none of a group.
        """
        self.require_sendable(group, payload)
        await self.hub.group_send(group, kind, payload, exclude)

    def submit(
        self, group: str, payload: bytes, *, kind: Kind, exclude: str | None = None
    ) -> Future[None]:
        """
        Do as ``broadcast`` without waiting, from any thread, with a loop or without.

        Returns:
            What is done once the broker has taken the message, and raises if it did not.
        """
        self.require_sendable(group, payload)
        return self.hub.submit(group, kind, payload, exclude)

    async def audience(self, group: str) -> int:
        """
        Give the number of processes in which the group has members at present.

        Raises:
            ChannelLayerUnavailable: The broker did not answer in bounded time.
            TypeError: The name is none of a group.
        """
        self.require_valid_group_name(group)
        reached: int = await self.hub.run(self.broker.audience, GROUP + group)
        return reached

    # --- The whole layer ---------------------------------------------------------------------

    async def flush(self) -> None:
        """
        Forget all groups of this process and all unread messages.
        """
        await self.hub.run(self.hub.flush)

    async def close(self) -> None:
        """
        End the connection to the broker. The next use begins a new one.
        """
        await self.hub.owner.retire()

    def require_valid_group_name(self, name: object) -> bool:
        """
        Raise TypeError unless a group may have this name: any text up to 1,024 bytes.
        """
        if not isinstance(name, str):
            raise TypeError(f"a group name must be a str, not {type(name).__name__}")
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise TypeError(f"a group name must be text that UTF-8 can say, not {name!r}") from None
        if not 0 < size <= GROUP_NAME_BYTES_MAX:
            raise TypeError(
                f"a group name must be 1 to {GROUP_NAME_BYTES_MAX} bytes long, not {size}: "
                f"{name[:100]!r}"
            )
        return True

    def require_sendable(self, group: object, payload: bytes) -> None:
        """
        Raise what ``broadcast`` would, before it is time to send.
        """
        self.require_valid_group_name(group)
        self._require_size(payload)

    def _require_member_names(self, group: str, channel: str) -> None:
        """
        Raise TypeError unless this channel may be in this group.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        if "!" not in channel:
            raise TypeError(
                f"{channel!r} is a queue that processes share, and cannot be in a group. "
                "Hint: send() to it, or use a name from new_channel()."
            )

    def _require_size(self, payload: bytes) -> None:
        """
        Raise MessageTooLarge above the limit.
        """
        limit = self.options.message_bytes_max
        if len(payload) > limit:
            raise MessageTooLarge(
                f"the message has {len(payload)} bytes encoded, the layer carries at most {limit}"
            )


class InMemoryChannelLayer(ChannelLayer):
    """
    The channel layer of one process, for tests and for machines where nothing else works.
    """

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Capacities | None = None,
        **limits: Any,
    ) -> None:
        """
        Make an empty layer.

        Args:
            expiry: Seconds after which an unread message is worthless.
            group_expiry: Accepted and ignored.
            capacity: Unread messages of one channel.
            channel_capacity: Patterns of channel names with a capacity of their own.
            limits: Other fields of ``LayerOptions``.
        """
        (options,) = fill(self.areas, {"expiry": expiry, "capacity": capacity, **limits})
        super().__init__(
            LocalBroker(expiry),
            options,
            channel_capacity=channel_capacity,
            group_expiry=group_expiry,
        )

    @property
    def channels(self) -> dict[str, Any]:
        """
        The queues of unread messages by channel, to look at in tests.
        """
        assert isinstance(self.broker, LocalBroker)  # noqa: S101 - made above
        return {**self.broker.queues, **self.hub.mailboxes}

    @property
    def groups(self) -> dict[str, dict[str, None]]:
        """
        The project's groups with their channels, to look at in tests.
        """
        return {
            group: dict.fromkeys(channels)
            for group, channels in self.hub.groups.items()
            if not group.startswith(INTERNAL)
        }


class IPCChannelLayer(ChannelLayer):
    """
    The channel layer of the processes of one machine, without a server between them.

    Those meet that run as one user with the same directory and namespace.

    Attributes:
        place: Gives the directory that is really used, each time the layer begins on a loop.
    """

    areas: ClassVar[tuple[type[Options], ...]] = (LayerOptions, IPCOptions, ProjectOptions)

    def __init__(
        self,
        runtime_dir: str | os.PathLike[str] | None = None,
        namespace: str | None = None,
        *,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Capacities | None = None,
        **limits: Any,
    ) -> None:
        """
        Make a layer that meets others at first use.

        Args:
            runtime_dir: An absolute path; None for ``/tmp/fairway-<uid>``.
            namespace: What the processes of one project have in common.
                ``get_channel_layer()`` derives it from the settings.
            expiry: Seconds after which an unread message is worthless.
            group_expiry: Accepted and ignored.
            capacity: Unread messages of one channel.
            channel_capacity: Patterns of channel names with a capacity of their own.
            limits: Other fields of ``LayerOptions``, and those of ``IPCOptions``.

        Raises:
            ConfigurationError: There is no namespace, or a value is out of bounds.
        """
        # Imported here since not every system has Unix sockets.
        from fairway.layers.brokers.ipc.broker import IPCBroker

        root = None if runtime_dir is None else os.fspath(runtime_dir)
        given = {"runtime_dir": root, "namespace": namespace}
        layer, ipc, project = fill(
            self.areas, {"expiry": expiry, "capacity": capacity, **given, **limits}
        )
        validate(ipc)
        validate(project)
        if namespace is None:
            raise ConfigurationError(
                "IPCChannelLayer needs a namespace, got None: give one, or have "
                "get_channel_layer() derive it from the settings",
                fault=Fault.LAYER_INVALID,
            )
        self._root = root
        self._namespace = namespace
        self.place: Callable[[Path], Path] = _as_it_is
        super().__init__(
            IPCBroker(self._locate, ipc, expiry=expiry, namespace=namespace),
            layer,
            channel_capacity=channel_capacity,
            group_expiry=group_expiry,
        )

    @property
    def directory(self) -> Path:
        """
        Where they meet. The user counts who this process runs as now: it may have begun as root.
        """
        return Path(self._root or RUNTIME_DIR.format(os.geteuid()), self._namespace)

    def _locate(self) -> Path:
        """
        Give the directory to begin in.
        """
        return self.place(self.directory)


def _as_it_is(directory: Path) -> Path:
    """
    Have the directory used that the layer was made for.
    """
    return directory


def fill(
    areas: Sequence[type[Options]], values: dict[str, Any], others: Iterable[str] = ()
) -> list[Any]:
    """
    Distribute values to the areas of options that have a field of the name.

    Args:
        areas: The areas.
        values: The values by name.
        others: Names that may have been meant, beside those of fields.

    Raises:
        TypeError: There is none.
    """
    names = [{field.name for field in fields(area)} for area in areas]
    unknown = values.keys() - set().union(*names)
    if unknown:
        known = sorted(set(others).union(*names))
        near = get_close_matches(min(unknown), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise TypeError(f"unknown option {min(unknown)!r}; {hint}")
    return [
        area(**{name: value for name, value in values.items() if name in fields_of})
        for area, fields_of in zip(areas, names, strict=True)
    ]
