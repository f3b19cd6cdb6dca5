"""
What every channel layer has in common, under Channels' names: rules for names and capacities.

Third parties subclass ``BaseChannelLayer`` for layers of their own; Fairway's
``ChannelLayer`` does too. Nothing is sent or stored here.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = ["BaseChannelLayer"]

Capacities = Mapping["str | re.Pattern[str]", int]


class BaseChannelLayer:
    """
    The interface of a channel layer, and the checks every implementation makes.

    Attributes:
        expiry: Seconds after which an unread message is worthless.
        capacity: Unread messages of one channel, where no pattern says otherwise.
        channel_capacity: Patterns of channel names with their own capacity, in order.
    """

    MAX_NAME_LENGTH = 100
    channel_name_regex = re.compile(r"[a-zA-Z\d\-_.]+(\![\d\w\-_.]*)?\Z", re.ASCII)
    group_name_regex = re.compile(r"[a-zA-Z\d\-_.]+\Z", re.ASCII)
    invalid_name_error = (
        "{} name must be a valid unicode string with length < 100 containing only ASCII "
        "alphanumerics, hyphens, underscores, or periods."
    )
    extensions: ClassVar[Sequence[str]] = ()

    def __init__(
        self,
        expiry: float = 60,
        capacity: int = 100,
        channel_capacity: Capacities | None = None,
    ) -> None:
        self.expiry = expiry
        self.capacity = capacity
        self.channel_capacity: Any = self.compile_capacities(channel_capacity or {})

    def compile_capacities(self, channel_capacity: Capacities) -> list[tuple[re.Pattern[str], int]]:
        """
        Turn globs into compiled patterns; compiled ones stay as they are.
        """
        return [
            (re.compile(fnmatch.translate(name)) if isinstance(name, str) else name, capacity)
            for name, capacity in channel_capacity.items()
        ]

    def get_capacity(self, channel: str) -> int:
        """
        Give the capacity of a channel: that of the first pattern its name matches, or the default.
        """
        for pattern, capacity in self.channel_capacity:
            if pattern.match(channel):
                return int(capacity)
        return self.capacity

    def match_type_and_length(self, name: object) -> bool:
        """
        Whether a name is text and short enough.
        """
        return isinstance(name, str) and len(name) < self.MAX_NAME_LENGTH

    def require_valid_channel_name(self, name: object, receive: bool = False) -> bool:
        """
        Raise TypeError unless a channel may have this name.

        Args:
            name: Anything.
            receive: Whether to refuse a name that goes on after its ``!``.
        """
        if not isinstance(name, str) or not self.match_type_and_length(name):
            raise TypeError(self._invalid("Channel", name))
        if not self.channel_name_regex.match(name):
            raise TypeError(self._invalid("Channel", name))
        if receive and "!" in name and not name.endswith("!"):
            raise TypeError("Specific channel names in receive() must end at the !")
        return True

    def require_valid_group_name(self, name: object) -> bool:
        """
        Raise TypeError unless a group may have this name.
        """
        if not isinstance(name, str) or not self.match_type_and_length(name):
            raise TypeError(self._invalid("Group", name))
        if not self.group_name_regex.match(name):
            raise TypeError(self._invalid("Group", name))
        return True

    valid_channel_name = require_valid_channel_name
    valid_group_name = require_valid_group_name

    def valid_channel_names(self, names: Sequence[str], receive: bool = False) -> bool:
        """
        Raise TypeError unless this is a list of valid channel names, and not an empty one.
        """
        if not isinstance(names, list) or not names:
            raise TypeError(f"names must be a non-empty list, not {names!r}")
        return all(self.require_valid_channel_name(name, receive=receive) for name in names)

    def non_local_name(self, name: str) -> str:
        """
        Give the part of a name that says which process it belongs to: all up to its ``!``.
        """
        head, mark, _ = name.partition("!")
        return head + mark

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """
        Send a message to one channel.
        """
        raise NotImplementedError("send() should be implemented in a channel layer")

    async def receive(self, channel: str) -> dict[str, Any]:
        """
        Wait for the next message of a channel.
        """
        raise NotImplementedError("receive() should be implemented in a channel layer")

    async def new_channel(self, prefix: str = "specific") -> str:
        """
        Make a channel name for use in this process.
        """
        raise NotImplementedError("new_channel() should be implemented in a channel layer")

    async def flush(self) -> None:
        """
        Forget all messages and groups.
        """
        raise NotImplementedError("flush() not implemented (flush extension)")

    async def group_add(self, group: str, channel: str) -> None:
        """
        Add a channel to a group.
        """
        raise NotImplementedError("group_add() not implemented (groups extension)")

    async def group_discard(self, group: str, channel: str) -> None:
        """
        Take a channel out of a group.
        """
        raise NotImplementedError("group_discard() not implemented (groups extension)")

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """
        Send a message to every channel of a group.
        """
        raise NotImplementedError("group_send() not implemented (groups extension)")

    def _invalid(self, what: str, name: object) -> str:
        """
        Say which name was given, after Channels' own words.
        """
        return f"{self.invalid_name_error.format(what)} Got {name!r}."
