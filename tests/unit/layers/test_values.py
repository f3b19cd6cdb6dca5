"""
What may travel through a channel layer, and what is refused where it is sent.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pytest
from django.db.models import IntegerChoices, TextChoices
from django.utils.functional import SimpleLazyObject, lazy, lazystr
from django.utils.safestring import mark_safe

from fairway.layers.values import decode, encode


class Color(TextChoices):
    """
    Choices as models have them, text.
    """

    RED = "red"


class Size(IntegerChoices):
    """
    Choices as models have them, numbers.
    """

    LARGE = 3


def round_trip(value: Any) -> Any:
    """
    Send a value and receive it.
    """
    return decode(encode({"type": "x", "value": value}))["value"]


@pytest.mark.parametrize(
    "value",
    [
        "text",
        b"bytes",
        None,
        True,
        -(2**63),
        2**64 - 1,
        1.5,
        float("inf"),
        [1, [2, {"three": [4]}]],
        {1: "int", -1: "key", "s": "str"},
        dt.datetime(2024, 2, 29, 23, 59, 59, 999999),  # noqa: DTZ001 - stays naive
        dt.datetime(2024, 2, 29, tzinfo=dt.UTC),
        dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(hours=-5, minutes=-30))),
        dt.date(2024, 2, 29),
        dt.time(12, 30, 15, 1),
        dt.timedelta.min,
        dt.timedelta(days=1, seconds=2, microseconds=3),
        UUID(int=0),
        uuid4(),
        Decimal("0.10"),
        Decimal("-1E+400"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_arrives_with_its_value_and_type(value: Any) -> None:
    """
    What can travel arrives as it was, with its own type.
    """
    got = round_trip(value)
    assert got == value
    assert type(got) is type(value)


def test_offsets_of_times_are_kept() -> None:
    """
    A datetime keeps its offset from UTC, though not the name of its zone.
    """
    there = dt.datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Asia/Kolkata"))
    got = round_trip(there)
    assert got == there
    assert got.utcoffset() == dt.timedelta(hours=5, minutes=30)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (("a", ("b",)), ["a", ["b"]]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (mark_safe("<b>"), "<b>"),
        (lazystr("later"), "later"),
        (lazy(lambda: 7, int)(), 7),
        (Color.RED, "red"),
        (Size.LARGE, 3),
        (OrderedDict(a=1), {"a": 1}),
        ({mark_safe("k"): mark_safe("v")}, {"k": "v"}),
        ({lazystr("k"): [lazystr("v")]}, {"k": ["v"]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_arrives_as_the_plain_type_it_stands_for(value: Any, expected: Any) -> None:
    """
    Subclasses, proxies and tuples arrive as str, int, bytes, dict and list themselves.
    """
    got = round_trip(value)
    assert got == expected
    assert type(got) is type(expected)


class Opaque:
    """
    Something nobody can encode.
    """


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"a": Opaque()}, r"message\['a'\] is of type .*Opaque"),
        ({"a": [0, {"b": Opaque()}]}, r"message\['a'\]\[1\]\['b'\]"),
        ({"a": (Opaque(),)}, r"message\['a'\]\[0\]"),
        ({"a": {1, 2}}, r"Hint: send a list"),
        ({"a": frozenset()}, r"Hint: send a list"),
        ({"a": 2**64}, r"message\['a'\] is an integer beyond 64 bits"),
        ({"a": [-(2**63) - 1]}, r"message\['a'\]\[0\] is an integer"),
        ({"a": Decimal(1), "b": 2**64}, r"message\['b'\] is an integer"),
        ({"a": "\ud800"}, r"message\['a'\] holds half a surrogate pair"),
        ({"\udfff": 1}, r"a key of message holds half"),
        ({2**64: 1}, r"a key of message is an integer"),
        ({"a": {b"x": 1}}, r"message\['a'\] has the key b'x' \(bytes\)"),
        ({None: 1}, r"has the key None"),
        ({"a": {True: 1}}, r"has the key True"),
        ({"a": {1.5: 1}}, r"has the key 1.5"),
        ({"a": SimpleLazyObject(Opaque)}, r"message\['a'\] is of type"),
        ({"a": 1j}, r"message\['a'\] is of type builtins.complex"),
        ({"a": msgspec.msgpack.Ext(1, b"x")}, r"Ext, which cannot"),
    ],
    ids=[str(number) for number in range(18)],
)
def test_a_refusal_names_the_place(message: dict[Any, Any], text: str) -> None:
    """
    Everything else is a TypeError that says where it is and what to do.
    """
    with pytest.raises(TypeError, match=text):
        encode(message)


def test_only_a_dict_is_a_message() -> None:
    """
    A message is a dict without the key that layers reserve.
    """
    with pytest.raises(TypeError, match="must be a dict, not list"):
        encode([])  # type: ignore[arg-type] # that is the point
    with pytest.raises(TypeError, match="reserved"):
        encode({"__asgi_channel__": "x"})


@pytest.mark.parametrize("leaf", [1, Decimal(1)])
def test_nesting_has_an_end(leaf: Any) -> None:
    """
    A message that is nested too deeply, or holds itself, is a TypeError and no crash.
    """
    deep: Any = leaf
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TypeError, match="nested too deeply"):
        encode({"a": deep})
    loop: dict[str, Any] = {"leaf": leaf}
    loop["loop"] = loop
    with pytest.raises(TypeError, match="nested too deeply"):
        encode(loop)
    while isinstance(deep, list):
        [deep] = deep


def test_the_message_is_not_changed() -> None:
    """
    Encoding leaves the sender's message alone.
    """
    inner = {"safe": mark_safe("x"), "tuple": (1,)}
    message = {"inner": inner}
    encode(message)
    assert message == {"inner": inner}
    assert inner == {"safe": mark_safe("x"), "tuple": (1,)}


def test_each_decoding_gives_a_new_dict() -> None:
    """
    Nobody shares what was decoded.
    """
    data = encode({"items": [1]})
    first, second = decode(data), decode(data)
    first["items"].append(2)
    assert second == {"items": [1]}


EXT_BAD_DATE = b"\x81\xa1a\xc7\x03\x02xyz"
EXT_UNKNOWN = b"\x81\xa1a\xd4\x63x"
EXT_BAD_DECIMAL = b"\x81\xa1a\xc7\x03\x06xyz"
EXT_NOT_ASCII = b"\x81\xa1a\xc7\x02\x05\xff\xff"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81\xa1a",
        b"\x01",
        b"\x91\x01",
        b"\x81\xa1a\xa1\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 100_000,
        EXT_BAD_DATE,
        EXT_UNKNOWN,
        EXT_BAD_DECIMAL,
        EXT_NOT_ASCII,
    ],
    ids=lambda data: data[:8].hex() or "empty",
)
def test_what_encode_did_not_make_is_a_value_error(data: bytes) -> None:
    """
    Bytes from elsewhere fail in one way only.
    """
    with pytest.raises(ValueError, match="not an encoded message"):
        decode(data)
