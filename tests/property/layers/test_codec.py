"""
Whatever is sent arrives, and whatever else arrives is refused in one way.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta, timezone
from typing import Any

from hypothesis import given, strategies as st

from fairway.layers.codec import Envelope, Kind, pack, sort, unpack
from fairway.layers.values import decode, encode

texts = st.text(st.characters(exclude_categories=["Cs"]))
integers = st.integers(min_value=-(2**63), max_value=2**64 - 1)
zones = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
    lambda offset: timezone(timedelta(seconds=int(offset.total_seconds())))
)
leaves = st.one_of(
    texts,
    integers,
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.binary(),
    st.datetimes(timezones=st.none() | zones),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.dictionaries(texts | integers, inner),
    max_leaves=12,
)
messages = st.dictionaries(texts.filter(lambda key: key != "__asgi_channel__"), values, max_size=5)


def typed(value: Any) -> Any:
    """
    Give a value in a form that tells types apart which compare equal.
    """
    if isinstance(value, dict):
        return {(type(key), key): typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), str(value)


@given(messages)
def test_a_message_arrives_with_values_and_types(message: dict[str, Any]) -> None:
    """
    Decoding undoes encoding.
    """
    assert typed(decode(encode(message))) == typed(message)


@given(messages)
def test_every_message_has_a_kind_that_reads_back(message: dict[str, Any]) -> None:
    """
    Sorting loses nothing, whatever the keys.
    """
    kind, payload = sort(message)
    got = Envelope(kind, payload, expires=0).message()
    assert typed(got) == typed(message)


@given(st.binary())
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    """
    Nothing but ValueError comes of bytes from elsewhere.
    """
    for read in (decode, lambda data: unpack(data, 0.0).verify()):
        with suppress(ValueError):
            read(data)


@given(
    st.sampled_from(Kind),
    st.binary(),
    st.floats(0, 1e6),
    texts,
    st.integers(0, 2**63),
    st.none() | texts,
    st.none() | texts,
)
def test_an_envelope_arrives_whole(
    kind: Kind,
    payload: bytes,
    lifetime: float,
    sender: str,
    sequence: int,
    channel: str | None,
    exclude: str | None,
) -> None:
    """
    Unpacking undoes packing.
    """
    sent = Envelope(
        kind,
        payload,
        expires=lifetime,
        sender=sender,
        sequence=sequence,
        channel=channel,
        exclude=exclude,
    )
    got = unpack(pack(sent, 0.0), 0.0)
    for name in ("kind", "payload", "expires", "sender", "sequence", "channel", "exclude"):
        assert getattr(got, name) == getattr(sent, name)
