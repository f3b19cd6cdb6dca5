"""
Values to bytes and back: what may travel through a channel layer, the same for every broker.

What MessagePack carries, plus dates, times, UUIDs and decimals as extensions of
ours; lazy and safe strings become plain ones. Everything else is a TypeError at
the sender, naming the place, and never a surprise at the receiver. No names,
brokers or clocks here: ``codec`` puts an address and a time on the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

__all__ = ["decode", "encode"]

_PLAIN = frozenset({str, int, float, bytes, bool, type(None)})
"""
Leaves that the encoder takes as they are. (Integers beyond 64 bits it refuses by itself.)
"""

_RESERVED = "__asgi_channel__"


def encode(message: dict[str, Any]) -> bytes:
    """
    Encode one message. May be called from any thread.

    Args:
        message: A dict of what the module says; it is not changed, nor kept.

    Raises:
        TypeError: It is no dict, uses the reserved key, or holds something that cannot travel;
            the text names the place.
    """
    if not isinstance(message, dict):
        raise TypeError(f"a message must be a dict, not {type(message).__name__}")
    if _RESERVED in message:
        raise TypeError(f"the key {_RESERVED!r} is reserved for channel layers; use another one")
    try:
        # Telling that a message is plain costs a fraction of making a plain copy of it.
        return _encoder.encode(message if _is_plain(message) else _plain(message, "message"))
    except (OverflowError, UnicodeEncodeError):
        _plain(message, "message", look_closer=True)
        raise
    except RecursionError:
        raise TypeError("the message is nested too deeply, or contains itself") from None


def decode(data: bytes) -> dict[str, Any]:
    """
    Give what ``encode`` was given, tuples as lists, as a dict nobody else has.

    Raises:
        ValueError: These bytes do not come from ``encode``.
    """
    try:
        message = _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not an encoded message: {error}") from None
    if not isinstance(message, dict):
        raise ValueError(f"not an encoded message: {type(message).__name__} instead of dict")  # noqa: TRY004 - the bytes' fault, not the caller's
    return message


def _is_plain(value: dict[Any, Any] | list[Any]) -> bool:
    """
    Whether the encoder may take a container as it is.
    """
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                return False
        items: Any = value.values()
    else:
        items = value
    for item in items:
        kind = type(item)
        if kind not in _PLAIN and not (
            (kind is dict or kind is list or kind is tuple) and _is_plain(item)
        ):
            return False
    return True


def _plain(value: Any, path: str, *, look_closer: bool = False) -> Any:
    """
    Copy a value into types that the encoder takes.

    Args:
        value: Anything.
        path: How the sender would write the place, for the error.
        look_closer: Refuse integers and strings that only the encoder finds wrong.
    """
    if isinstance(value, str):
        return _plain_str(value, path, look_closer=look_closer)
    if isinstance(value, int):
        return _plain_int(value, path, look_closer=look_closer)
    if value is None or isinstance(value, float):
        return value if value is None else float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {
            _plain_key(key, path, look_closer=look_closer): _plain(
                item, f"{path}[{key!r}]", look_closer=look_closer
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _plain(item, f"{path}[{index}]", look_closer=look_closer)
            for index, item in enumerate(value)
        ]
    for extension in _EXTENSIONS:
        if isinstance(value, extension.type):
            return msgspec.msgpack.Ext(extension.code, extension.write(value).encode("ascii"))
    if _is_lazy(value):
        return _plain(_evaluate(value), path, look_closer=look_closer)
    raise TypeError(_refusal(value, path))


def _plain_key(key: Any, path: str, *, look_closer: bool) -> str | int:
    """
    Copy a key of a dict: text or a whole number.
    """
    if _is_lazy(key):
        key = _evaluate(key)
    if isinstance(key, str):
        return _plain_str(key, f"a key of {path}", look_closer=look_closer)
    if isinstance(key, int) and not isinstance(key, bool):
        return _plain_int(key, f"a key of {path}", look_closer=look_closer)
    raise TypeError(
        f"keys must be str or int, but {path} has the key {key!r} ({type(key).__name__}). "
        "Hint: use str(key)."
    )


def _plain_str(value: str, path: str, *, look_closer: bool) -> str:
    """
    Copy text, without what a subclass such as SafeString adds.
    """
    text = str.__str__(value)
    if look_closer:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise TypeError(
                f"{path} holds half a surrogate pair, which is no text. "
                'Hint: text.encode(errors="replace").decode().'
            ) from None
    return text


def _plain_int(value: int, path: str, *, look_closer: bool) -> int:
    """
    Copy a whole number (booleans are told apart by the encoder).
    """
    if look_closer and not -(2**63) <= value < 2**64:
        raise TypeError(f"{path} is an integer beyond 64 bits. Hint: send it as str.")
    return value if type(value) is bool else int(value)


def _is_lazy(value: Any) -> bool:
    """
    Whether a value is one of Django's lazily evaluated ones, told without importing Django.
    """
    return any(
        base.__name__ == "Promise" and base.__module__ == "django.utils.functional"
        for base in type(value).__mro__
    )


def _evaluate(value: Any) -> Any:
    """
    Evaluate a lazy value. One that gives anything but text says so by its own methods.
    """
    cast = getattr(value, "_proxy____cast", None)
    return cast() if cast is not None else str(value)


def _refusal(value: Any, path: str) -> str:
    """
    Say what cannot travel, where it is, and what to send instead.
    """
    hint = "send what identifies it, such as its primary key"
    if isinstance(value, set | frozenset):
        hint = "send a list"
    return (
        f"{path} is of type {type(value).__module__}.{type(value).__qualname__}, which cannot "
        f"travel through a channel layer. Hint: {hint}."
    )


def _write_timedelta(value: timedelta) -> str:
    """
    Write a duration exactly, in Python's own three numbers.
    """
    return f"{value.days} {value.seconds} {value.microseconds}"


def _read_timedelta(text: str) -> timedelta:
    """
    Read what ``_write_timedelta`` wrote.
    """
    days, seconds, microseconds = map(int, text.split(" "))
    return timedelta(days, seconds, microseconds)


class _Extension(NamedTuple):
    """
    A type that MessagePack lacks: its code on the wire, and how it gets there and back.
    """

    code: int
    type: type
    write: Callable[[Any], str]
    read: Callable[[str], Any]


# A datetime is a date, so it stands first. ISO 8601 keeps naive times naive and offsets as
# they are, which MessagePack's own timestamp does not.
_EXTENSIONS = (
    _Extension(1, datetime, datetime.isoformat, datetime.fromisoformat),
    _Extension(2, date, date.isoformat, date.fromisoformat),
    _Extension(3, time, time.isoformat, time.fromisoformat),
    _Extension(4, timedelta, _write_timedelta, _read_timedelta),
    _Extension(5, UUID, str, UUID),
    _Extension(6, Decimal, str, Decimal),
)
_READERS = {extension.code: extension.read for extension in _EXTENSIONS}


def _read_extension(code: int, data: memoryview) -> Any:
    """
    Read one of our extensions; the decoder calls this.
    """
    read = _READERS.get(code)
    if read is None:
        raise ValueError(f"unknown extension {code}")
    return read(str(data, "ascii"))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ext_hook=_read_extension)
