"""
The channel layer over Redis, with the arguments that channels_redis gave its two.

The library is imported when a layer is made, so that only those who use one need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from fairway.exceptions import ConfigurationError, InvalidChannelLayerError
from fairway.faults import Fault
from fairway.layers.base import Capacities
from fairway.layers.codec import sort
from fairway.layers.layer import ChannelLayer, fill
from fairway.options import LayerOptions, Options, ProjectOptions, RedisOptions, validate

__all__ = ["RedisChannelLayer"]

HINT = 'pip install "fairway[redis]"'

NAMES = (
    "channel_capacity", "hosts", "on_disconnect", "on_reconnect", "prefix",
    "symmetric_encryption_keys", "url",
)  # fmt: skip
"""
What may be meant beside fields of options.
"""

FORMATS = frozenset({"msgpack", "json"})
"""
What channels_redis encodes messages as; here both mean Fairway's own way.
"""


class RedisChannelLayer(ChannelLayer):
    """
    The channel layer of processes on many machines, with Redis between them.

    Attributes:
        prefix: What names in Redis begin with.
        place: Gives the prefix that is really used, each time the layer begins on a loop.
    """

    areas: ClassVar[tuple[type[Options], ...]] = (LayerOptions, RedisOptions, ProjectOptions)

    def __init__(  # noqa: PLR0913, PLR0917 - channels_redis has them, in this order
        self,
        hosts: Any = None,
        prefix: str | None = None,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Capacities | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
        random_prefix_length: int = 12,
        serializer_format: str = "msgpack",
        *,
        url: str | None = None,
        namespace: str | None = None,
        on_disconnect: str | None = None,
        on_reconnect: str | None = None,
        **limits: Any,
    ) -> None:
        """
        Make a layer that connects at first use.

        Args:
            hosts: The servers, in any of the forms that channels_redis takes; several share
                the groups and queues among them.
            prefix: What the names of channels and keys in Redis begin with; None for one made
                of the namespace.
            expiry: Seconds after which an unread message is worthless.
            group_expiry: Accepted and ignored.
            capacity: Unread messages of one channel.
            channel_capacity: Patterns of channel names with a capacity of their own.
            symmetric_encryption_keys: Secrets that encrypt what Redis gets to see; the first
                one encrypts, all of them decrypt.
            random_prefix_length: Accepted and ignored.
            serializer_format: ``msgpack`` or ``json``, accepted and ignored.
            url: A single server instead of ``hosts``.
            namespace: What the processes of one project have in common.
                ``get_channel_layer()`` derives it from the settings.
            on_disconnect: Type of a message that every channel of this process gets when Redis
                is away.
            on_reconnect: Type of one that they get when it is back.
            limits: Other fields of ``LayerOptions``, and those of ``RedisOptions``.

        Raises:
            ConfigurationError: A library is missing, or an option is out of bounds.
            InvalidChannelLayerError: An argument is none of its kind; a ValueError, too.
        """
        try:
            from fairway.layers.brokers.redis.broker import RedisBroker
            from fairway.layers.brokers.redis.hosts import read_hosts
        except ImportError as error:
            raise ConfigurationError(
                f"RedisChannelLayer needs the libraries redis and hiredis ({error}): {HINT}",
                fault=Fault.LAYER_INVALID,
            ) from error
        given = {"expiry": expiry, "capacity": capacity, "namespace": namespace}
        layer, redis, project = fill(self.areas, {**given, **limits}, NAMES)
        validate(redis)
        validate(project)
        if serializer_format not in FORMATS:
            raise _invalid(
                f"serializer_format must be one of {', '.join(sorted(FORMATS))}, not "
                f"{serializer_format!r}: Fairway encodes messages in a way of its own"
            )
        for name, kind in (("on_disconnect", on_disconnect), ("on_reconnect", on_reconnect)):
            if kind is not None and not isinstance(kind, str):
                raise _invalid(f"{name} must be the type of a message, not {kind!r}")
        try:
            read = read_hosts(hosts, url)
            cipher = self._cipher(symmetric_encryption_keys)
        except ValueError as error:
            raise _invalid(str(error)) from None
        self.prefix = _prefix(prefix, namespace)
        self.place: Callable[[str], str] = _as_it_is
        broker = RedisBroker(
            read, redis, prefix=self._locate, project=namespace or "", cipher=cipher
        )
        super().__init__(
            broker, layer, channel_capacity=channel_capacity, group_expiry=group_expiry
        )
        if on_disconnect or on_reconnect:
            self.hub.on_state = partial(self._announce, on_disconnect, on_reconnect)

    @staticmethod
    def _cipher(keys: Sequence[str | bytes] | None) -> Any:
        """
        Give what encrypts with these keys, None without any.
        """
        if keys is None or (isinstance(keys, list | tuple) and not keys):
            return None  # And not for an empty text, which is a variable that nobody has set.
        from fairway.layers.crypto import AESCipher

        return AESCipher(keys)

    def _locate(self) -> str:
        """
        Give the prefix to begin with.
        """
        return self.place(self.prefix)

    def _announce(
        self, on_disconnect: str | None, on_reconnect: str | None, connected: bool
    ) -> None:
        """
        Have every channel of this process hear of a break and of its end.
        """
        kind = on_reconnect if connected else on_disconnect
        if kind is not None:
            self.hub.tell_all(*sort({"type": kind}))


def _prefix(prefix: str | None, namespace: str | None) -> str:
    """
    Give what names in Redis begin with.
    """
    if prefix is None:
        return "fairway" if namespace is None else f"fairway:{namespace}"
    if not isinstance(prefix, str):
        raise _invalid(f"prefix must be text, not {prefix!r}")
    return prefix


def _invalid(text: str) -> InvalidChannelLayerError:
    """
    Make what says that an argument cannot be used: a ValueError, as with channels_redis.
    """
    return InvalidChannelLayerError(text)


def _as_it_is(prefix: str) -> str:
    """
    Have the prefix used that the layer was made with.
    """
    return prefix
