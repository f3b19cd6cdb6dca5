"""
The channel layer's own rules, and what tests of projects look at.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import fairway.layers
from fairway.exceptions import ChannelFull, ConfigurationError, MessageTooLarge
from fairway.layers import BaseChannelLayer, ChannelLayer, InMemoryChannelLayer
from fairway.layers.codec import Kind
from fairway.layers.owner import bind, release
from tests.unit.layers.fakes import FakeInbox, FakeOutbox, LoopThread, until


async def test_one_mebibyte_encoded_passes_and_one_byte_more_does_not() -> None:
    """
    The limit counts the encoded message, whatever its kind, before anything is sent.
    """
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    limit = 1_048_576
    overhead = len(b"\x82\xa4type\xa1x\xa4data\xc6....")
    fits = {"type": "x", "data": b"x" * (limit - overhead)}
    await layer.send(channel, fits)
    await layer.group_send("room", fits)
    assert await layer.receive(channel) == fits
    assert await layer.receive(channel) == fits
    await layer.broadcast("room", b"x" * limit, kind=Kind.TEXT)
    above = {"type": "x", "data": b"x" * (limit - overhead + 1)}
    for attempt in (
        layer.send(channel, above),
        layer.send("queue", above),
        layer.group_send("room", above),
        layer.broadcast("room", b"x" * (limit + 1), kind=Kind.TEXT),
    ):
        with pytest.raises(MessageTooLarge, match=r"1048577 bytes encoded, .* at most 1048576"):
            await attempt
    with pytest.raises(MessageTooLarge):
        layer.submit("room", b"x" * (limit + 1), kind=Kind.TEXT)
    with pytest.raises(MessageTooLarge):
        layer.require_sendable("room", b"x" * (limit + 1))


async def test_a_group_name_ends_at_1024_bytes() -> None:
    """
    1,024 bytes of UTF-8 pass, one more does not.
    """
    layer = InMemoryChannelLayer()
    assert layer.require_valid_group_name("x" * 1024)
    assert layer.require_valid_group_name("é" * 512)
    for name in ("x" * 1025, "é" * 512 + "x", ""):
        with pytest.raises(TypeError, match="1 to 1024 bytes long"):
            layer.require_valid_group_name(name)
    with pytest.raises(TypeError, match="UTF-8"):
        layer.require_valid_group_name("\ud800")
    with pytest.raises(TypeError, match="a str, not bytes"):
        layer.require_valid_group_name(b"x")


async def test_channel_names_tell_their_process() -> None:
    """
    A prefix is kept, with or without a period, as long as the name is valid.
    """
    layer = InMemoryChannelLayer()
    process = layer.hub.process
    assert await layer.new_channel() == f"specific.{process}!1"
    assert await layer.new_channel("mine.") == f"mine.{process}!2"
    assert await layer.new_channel(prefix="a.b") == f"a.b.{process}!3"
    for prefix in ("a b", "x" * 90, "a!b"):
        with pytest.raises(TypeError, match="Channel name"):
            await layer.new_channel(prefix)


async def test_a_socket_is_reached_from_everywhere() -> None:
    """
    An attached channel gets what is sent to it, to its groups, and what is broadcast.
    """
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    inbox, outbox = FakeInbox(), FakeOutbox()
    layer.attach(channel, inbox=inbox, outbox=outbox)
    await layer.group_add("room", channel)
    await layer.send(channel, {"type": "to.it"})
    await layer.group_send("room", {"type": "to.all"})
    await layer.group_send("room", {"type": "websocket.send", "text": "1"})
    await layer.broadcast("room", b'{"n":2}', kind=Kind.JSON)
    await layer.broadcast("room", b"3", kind=Kind.BINARY)
    await layer.broadcast("room", b"4", kind=Kind.TEXT, exclude=channel)
    await asyncio.wrap_future(layer.submit("room", b"5", kind=Kind.TEXT))
    await until(lambda: len(outbox.prepared) == 4)
    assert [message["type"] for message in inbox.messages] == ["to.it", "to.all"]
    assert outbox.texts == ["1", '{"n":2}', b"3", "5"]
    layer.detach(channel)
    await layer.group_send("room", {"type": "to.nobody"})
    assert layer.groups == {}
    assert len(inbox.items) == 2


async def test_under_a_server_nothing_waits() -> None:
    """
    On the owning loop attaching, joining and sending are done when the call returns.
    """
    layer = InMemoryChannelLayer()
    loop = asyncio.get_running_loop()
    await bind(loop)
    await layer.group_send("nobody", {"type": "x"})
    channel = await layer.new_channel()
    inbox = FakeInbox(capacity=1)
    layer.attach(channel, inbox=inbox)
    sending = layer.send(channel, {"type": "x"})
    with pytest.raises(StopIteration):
        sending.send(None)
    assert inbox.messages == [{"type": "x"}]
    with pytest.raises(ChannelFull, match=channel):
        await layer.send(channel, {"type": "x"})
    layer.submit("nobody", b"x", kind=Kind.TEXT).result(0)
    layer.detach(channel)
    await release(loop)


async def test_a_message_for_the_socket_reads_as_its_event() -> None:
    """
    A reader without a direct path gets the ASGI event, and consumers the kind besides.
    """
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.broadcast("room", b"[1]", kind=Kind.JSON)
    await layer.broadcast("room", b"[2]", kind=Kind.JSON)
    assert await layer.receive(channel) == {"type": "websocket.send", "text": "[1]"}
    envelope = await layer.receive_envelope(channel)
    assert (envelope.kind, envelope.payload) == (Kind.JSON, b"[2]")


async def test_a_closed_layer_begins_again_with_its_groups() -> None:
    """
    close() ends the connection, not the membership.
    """
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.close()
    assert not layer.broker.connected
    await layer.group_send("room", {"type": "x"})
    assert await layer.receive(channel) == {"type": "x"}


async def test_tests_of_projects_may_look_into_groups_and_channels() -> None:
    """
    The in-memory layer shows who is in which group and which channels hold messages.
    """
    layer = InMemoryChannelLayer()
    assert (layer.groups, layer.channels) == ({}, {})
    first, second = await layer.new_channel(), await layer.new_channel()
    await layer.group_add("room", first)
    await layer.group_add("room", second)
    await layer.group_add("empty", first)
    await layer.group_discard("empty", first)
    assert list(layer.groups) == ["room"]
    assert set(layer.groups["room"]) == {first, second}
    assert layer.channels == {}
    await layer.group_send("room", {"type": "x"})
    await layer.send("queue", {"type": "x"})
    await layer.send("queue", {"type": "x"})
    assert set(layer.channels) == {first, second, "queue"}
    assert layer.channels["queue"].qsize() == 2
    assert not layer.channels[first].empty()
    await layer.receive(first)
    assert set(layer.channels) == {second, "queue"}


@pytest.mark.parametrize("name", ["test-channel-1", "specific.x!1"])
async def test_expired_messages_are_cleaned_up_when_somebody_reads(name: str) -> None:
    """
    An unread channel disappears once its messages have expired and anybody has read.
    """
    layer = InMemoryChannelLayer(expiry=0.05)
    await layer.send(name, {"type": "x"})
    await asyncio.sleep(0.06)
    await layer.send("test-channel-2", {"type": "y"})
    assert set(layer.channels) == {name, "test-channel-2"}
    assert await layer.receive("test-channel-2") == {"type": "y"}
    reader = asyncio.ensure_future(layer.receive(name))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])
    assert layer.channels == {}


async def test_capacity_of_a_channel_is_that_of_its_pattern() -> None:
    """
    Members of groups keep to it too.
    """
    layer = InMemoryChannelLayer(channel_capacity={"small.*": 1})
    small = await layer.new_channel("small")
    await layer.group_add("room", small)
    for _ in range(3):
        await layer.group_send("room", {"type": "x"})
    assert layer.channels[small].qsize() == 1


async def test_an_attached_inbox_keeps_to_the_layers_capacity() -> None:
    """
    The stricter of the server's limit and the layer's counts.
    """
    layer = InMemoryChannelLayer(capacity=50, channel_capacity={"small*": 2})
    for prefix, capacity, expected in (("small", 100, 2), ("wide", 100, 50), ("wide", 10, 10)):
        inbox = FakeInbox(capacity)
        layer.attach(await layer.new_channel(prefix), inbox=inbox)
        assert inbox.capacity == expected


async def test_another_loop_attaches_and_detaches() -> None:
    """
    A socket on another loop than the hub's is a member like any other.
    """
    layer = InMemoryChannelLayer()
    with LoopThread() as other:
        channel = await layer.new_channel()
        inbox = FakeInbox()

        async def connect() -> None:
            layer.attach(channel, inbox=inbox)
            await layer.group_add("room", channel)

        async def disconnect() -> None:
            layer.detach(channel)

        await other.run(connect())
        await layer.group_send("room", {"type": "x"})
        await layer.send(channel, {"type": "y"})
        await other.run(disconnect())
        await layer.group_send("room", {"type": "z"})
        assert layer.groups == {}
    assert [message["type"] for message in inbox.messages] == ["x", "y"]


async def test_the_audience_of_a_group_is_counted_in_processes() -> None:
    """
    One if it has members here, whatever their number, else none.
    """
    layer = InMemoryChannelLayer()
    assert await layer.audience("room") == 0
    for _ in range(2):
        await layer.group_add("room", await layer.new_channel())
    assert await layer.audience("room") == 1
    with pytest.raises(TypeError, match="a group name must be a str"):
        await layer.audience(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        ({"hosts": []}, TypeError, "unknown option 'hosts'; there are capacity, expiry"),
        ({"capacity": 0}, ConfigurationError, "capacity must be at least 1 messages, not 0"),
        ({"expiry": 0}, ConfigurationError, "expiry must be at least 0.01 s"),
        ({"message_bytes_max": 1023}, ConfigurationError, "at least 1024 bytes"),
        ({"publish_timeout": 61}, ConfigurationError, "between 0.01 and 60 s"),
    ],
)
def test_a_wrong_option_is_refused_when_the_layer_is_made(
    config: dict[str, Any], error: type[Exception], text: str
) -> None:
    """
    Names and bounds are checked before anything is sent.
    """
    with pytest.raises(error, match=text):
        InMemoryChannelLayer(**config)


def test_the_layer_is_what_subclassers_and_readers_expect() -> None:
    """
    Channels' attributes are there under their names.
    """
    layer = InMemoryChannelLayer(expiry=30, group_expiry=10, capacity=5)
    assert isinstance(layer, ChannelLayer | BaseChannelLayer)
    assert (layer.expiry, layer.group_expiry, layer.capacity) == (30, 10, 5)
    assert list(layer.extensions) == ["groups", "flush"]


def test_the_package_gives_its_names_on_first_use() -> None:
    """
    What is public is listed, and anything else is an AttributeError.
    """
    assert set(fairway.layers.__all__) <= set(dir(fairway.layers))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = fairway.layers.Nothing
