"""
What every channel layer must do, as tests that a layer's own suite subclasses.

::

    from fairway.testing.conformance import ChannelLayerConformance

    class TestMyLayer(ChannelLayerConformance):
        async def make_layer(self, **config):
            return MyLayer(hosts=["localhost"], **config)

Needs pytest and pytest-asyncio. The tests know nothing of any layer but the API
that Channels defined, and what Fairway promises beyond: each is named after the
promise it holds a layer to.
"""

# ruff: noqa: S101 - a test consists of asserts

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

from fairway.exceptions import ChannelFull, ChannelLayerUnavailable, MessageTooLarge

__all__ = ["BrokeredLayerConformance", "ChannelLayerConformance", "ServedLayerConformance"]

T = TypeVar("T")

PLAIN = {
    "text": "Grüße, 世界 🎈",
    "empty": "",
    "bytes": b"\x00\xff",
    "none": None,
    "true": True,
    "float": -1.5e300,
    "int64": -(2**63),
    "uint64": 2**64 - 1,
    "list": [1, [2, [3]], {}],
    "dict": {"a": {"b": {"c": "d"}}},
    "int keys": {1: "one", -2: "minus two"},
}
"""
What every layer carries, exactly.
"""

RICH = {
    "aware datetime": datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
    "naive datetime": datetime(2024, 2, 29, 12, 30),  # noqa: DTZ001 - a naive one is the point
    "date": date(2024, 2, 29),
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
    "decimal": Decimal("0.10"),
    "lazy string": lazystr("later"),
    "safe string": mark_safe("<b>safe</b>"),
    "timedelta": timedelta(days=-1, microseconds=1),
}
"""
What a layer carries exactly, or refuses with a TypeError.
"""

UNSENDABLE = {
    "object": object(),
    "set": {1, 2},
    "function": len,
    "int beyond 64 bits": 2**64,
}

INVALID_CHANNELS = ["", "white space", "café", "a!b!c", "!", "x" * 100, b"bytes", None, "new\nline"]


class ChannelLayerConformance:
    """
    The promises of a channel layer whose processes all run here.

    Attributes:
        patience: Seconds after which a message that should come counts as lost.
        drops: Which messages a full channel loses: ``"newest"`` or ``"oldest"``.
        channel_full: What ``send`` raises when a channel has no room.
        message_too_large: What sending raises above ``message_bytes_max``.
        message_bytes_max: How large an encoded message may be, at least a million bytes.
        invalid_groups: Names that no group may have.
    """

    pytestmark = pytest.mark.asyncio

    patience: float = 5.0
    drops: str = "newest"
    channel_full: type[Exception] = ChannelFull
    message_too_large: type[Exception] = MessageTooLarge
    message_bytes_max: int = 1_048_576
    invalid_groups: Iterable[Any] = ("", "x" * 1025, "é" * 513, b"bytes", None, "\ud800")

    # --- What a layer's own suite says -------------------------------------------------------

    async def make_layer(self, **config: Any) -> Any:
        """
        Make a layer that shares nothing with those made before.

        Args:
            config: As in ``CONFIG``: ``capacity``, ``channel_capacity``, ``expiry``.
        """
        raise NotImplementedError

    async def make_peer(self, layer: Any, **config: Any) -> Any:
        """
        Make what another process would have: a second layer on the same broker.

        For a layer of one process, that is the layer itself.
        """
        return layer

    async def end_layer(self, layer: Any) -> None:
        """
        Leave nothing behind of a layer.
        """
        await layer.flush()
        if hasattr(layer, "close"):
            await layer.close()

    # --- Tools -------------------------------------------------------------------------------

    @asynccontextmanager
    async def layer(self, **config: Any) -> AsyncIterator[Any]:
        """
        Give a layer for the time of one test.
        """
        layer = await self.make_layer(**config)
        try:
            yield layer
        finally:
            await self.end_layer(layer)

    async def soon(self, awaitable: Awaitable[T]) -> T:
        """
        Await something that must happen.
        """
        async with asyncio.timeout(self.patience):
            return await awaitable

    async def receive(self, layer: Any, channel: str, count: int) -> list[dict[str, Any]]:
        """
        Receive some messages that must come.
        """
        return [await self.soon(layer.receive(channel)) for _ in range(count)]

    async def members(self, layer: Any, group: str, count: int) -> list[str]:
        """
        Make channels and add them to a group.
        """
        channels = [await layer.new_channel() for _ in range(count)]
        for channel in channels:
            await layer.group_add(group, channel)
        return channels

    # --- Groups ------------------------------------------------------------------------------

    async def test_a_member_gets_the_next_message_of_its_group(self) -> None:
        """
        Once group_add has returned, the group's next message arrives, whoever sends it.
        """
        async with self.layer() as layer:
            peer = await self.make_peer(layer)
            [channel] = await self.members(layer, "room", 1)
            await peer.group_send("room", {"type": "hello", "n": 1})
            assert await self.receive(layer, channel, 1) == [{"type": "hello", "n": 1}]

    async def test_a_member_that_left_gets_no_more(self) -> None:
        """
        Once group_discard has returned, nothing of the group arrives any more.
        """
        async with self.layer() as layer:
            stays, leaves = await self.members(layer, "room", 2)
            await layer.group_add("exit", leaves)
            await layer.group_discard("room", leaves)
            await layer.group_send("room", {"type": "late"})
            await layer.group_send("exit", {"type": "mark"})
            assert await self.receive(layer, stays, 1) == [{"type": "late"}]
            assert await self.receive(layer, leaves, 1) == [{"type": "mark"}]

    async def test_leaving_a_group_one_is_not_in_does_nothing(self) -> None:
        """
        Discarding a stranger leaves the members where they are.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)
            await layer.group_discard("room", await layer.new_channel())
            await layer.group_discard("nowhere", member)
            await layer.group_send("room", {"type": "hello"})
            assert await self.receive(layer, member, 1) == [{"type": "hello"}]

    async def test_a_group_without_members_swallows_messages(self) -> None:
        """
        Sending to nobody is no error.
        """
        async with self.layer() as layer:
            await layer.group_send("nobody", {"type": "hello"})

    async def test_messages_of_one_sender_keep_their_order(self) -> None:
        """
        Each member gets the messages of one sender to one group in the order sent.
        """
        async with self.layer(capacity=200) as layer:
            peer = await self.make_peer(layer)
            channels = await self.members(layer, "room", 3)
            for number in range(100):
                await peer.group_send("room", {"type": "count", "n": number})
            for channel in channels:
                got = await self.receive(layer, channel, 100)
                assert [message["n"] for message in got] == list(range(100))

    async def test_a_member_gets_each_message_once(self) -> None:
        """
        Joining twice does not double what arrives, and one discard ends it.
        """
        async with self.layer() as layer:
            [channel] = await self.members(layer, "room", 1)
            await layer.group_add("room", channel)
            await layer.group_add("other", channel)
            await layer.group_send("room", {"type": "first"})
            await layer.group_send("other", {"type": "second"})
            await layer.group_discard("room", channel)
            await layer.group_send("room", {"type": "unheard"})
            await layer.group_send("other", {"type": "third"})
            got = await self.receive(layer, channel, 3)
            assert [message["type"] for message in got] == ["first", "second", "third"]

    async def test_a_thousand_members_join_at_once(self) -> None:
        """
        A storm of joins refuses nobody, and one message reaches all.
        """
        async with self.layer() as layer:
            channels = [await layer.new_channel() for _ in range(1000)]
            await self.soon(
                asyncio.gather(*(layer.group_add("storm", channel) for channel in channels))
            )
            await layer.group_send("storm", {"type": "hello"})
            for channel in channels:
                assert await self.soon(layer.receive(channel)) == {"type": "hello"}

    # --- Messages ----------------------------------------------------------------------------

    async def test_a_receiver_may_change_its_message(self) -> None:
        """
        No receiver sees what another one does to its message.
        """
        async with self.layer() as layer:
            first, second = await self.members(layer, "room", 2)
            await layer.group_send("room", {"type": "list", "items": [1]})
            [message] = await self.receive(layer, first, 1)
            message["items"].append(2)
            assert await self.receive(layer, second, 1) == [{"type": "list", "items": [1]}]

    async def test_a_sender_may_change_its_message_afterwards(self) -> None:
        """
        What was sent is what arrives.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)
            message = {"type": "list", "items": [1]}
            await layer.group_send("room", message)
            await layer.send(member, message)
            message["items"] = "changed"
            expected = {"type": "list", "items": [1]}
            assert await self.receive(layer, member, 2) == [expected, expected]

    @pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN)
    async def test_plain_values_arrive_as_they_are(self, value: Any) -> None:
        """
        What MessagePack carries arrives with value and type, by send and by group_send.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)
            await layer.send(member, {"type": "value", "value": value})
            await layer.group_send("room", {"type": "value", "value": value})
            for message in await self.receive(layer, member, 2):
                assert message == {"type": "value", "value": value}
                assert type(message["value"]) is type(value)

    async def test_a_tuple_arrives_as_a_list(self) -> None:
        """
        Tuples are lists to a receiver.
        """
        async with self.layer() as layer:
            channel = await layer.new_channel()
            await layer.send(channel, {"type": "value", "value": (1, (2,))})
            assert await self.receive(layer, channel, 1) == [{"type": "value", "value": [1, [2]]}]

    @pytest.mark.parametrize("value", RICH.values(), ids=RICH)
    async def test_rich_values_arrive_or_are_refused(self, value: Any) -> None:
        """
        A value of Django's world arrives equal, or is a TypeError at send: never something else.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)
            try:
                await layer.send(member, {"type": "value", "value": value})
            except TypeError:
                with pytest.raises(TypeError):
                    await layer.group_send("room", {"type": "value", "value": value})
                return
            await layer.group_send("room", {"type": "value", "value": value})
            for message in await self.receive(layer, member, 2):
                assert message["value"] == value

    @pytest.mark.parametrize("value", UNSENDABLE.values(), ids=UNSENDABLE)
    async def test_what_cannot_travel_is_a_type_error_at_the_sender(self, value: Any) -> None:
        """
        Nothing arrives of a message that cannot be sent, and the sender hears of it.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)
            with pytest.raises(TypeError):
                await layer.send(member, {"type": "value", "value": [value]})
            with pytest.raises(TypeError):
                await layer.group_send("room", {"type": "value", "value": {"deep": value}})
            await layer.send(member, {"type": "mark"})
            assert await self.receive(layer, member, 1) == [{"type": "mark"}]

    @pytest.mark.parametrize("message", [None, "text", [("type", "x")], {"__asgi_channel__": "x"}])
    async def test_only_dicts_without_the_reserved_key_are_messages(self, message: Any) -> None:
        """
        Anything but a dict, and the key that layers keep to themselves, is a TypeError.
        """
        async with self.layer() as layer:
            with pytest.raises(TypeError):
                await layer.send("queue", message)
            with pytest.raises(TypeError):
                await layer.group_send("room", message)

    async def test_a_megabyte_passes_and_more_is_refused_before_sending(self) -> None:
        """
        A message of a million bytes arrives; one above the layer's limit never leaves.
        """
        large = {"type": "big", "data": b"x" * self.message_bytes_max}
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)
            await layer.group_send("room", {"type": "big", "data": b"x" * 1_000_000})
            [message] = await self.receive(layer, member, 1)
            assert len(message["data"]) == 1_000_000
            for send in (layer.send(member, large), layer.group_send("room", large)):
                with pytest.raises(self.message_too_large):
                    await send
            await layer.send(member, {"type": "mark"})
            assert await self.receive(layer, member, 1) == [{"type": "mark"}]

    # --- Capacity and expiry -----------------------------------------------------------------

    async def test_a_slow_reader_does_not_affect_its_neighbour(self) -> None:
        """
        Capacity counts per channel; group_send never raises; the stated end is dropped.
        """
        async with self.layer(capacity=3) as layer:
            slow, fast = await self.members(layer, "room", 2)
            for number in range(5):
                await layer.group_send("room", {"type": "count", "n": number})
                assert await self.receive(layer, fast, 1) == [{"type": "count", "n": number}]
            kept = [message["n"] for message in await self.receive(layer, slow, 3)]
            assert kept == ([0, 1, 2] if self.drops == "newest" else [2, 3, 4])

    async def test_send_says_that_a_channel_is_full(self) -> None:
        """
        A channel of this process that holds as many messages as it may makes send raise.
        """
        async with self.layer(capacity=2) as layer:
            full, other = await layer.new_channel(), await layer.new_channel()
            await layer.send(full, {"type": "one"})
            await layer.send(full, {"type": "two"})
            with pytest.raises(self.channel_full):
                await layer.send(full, {"type": "three"})
            await layer.send(other, {"type": "one"})
            got = await self.receive(layer, full, 2)
            assert [message["type"] for message in got] == ["one", "two"]
            await layer.send(full, {"type": "four"})

    async def test_send_says_that_a_queue_is_full(self) -> None:
        """
        A queue without a reader keeps what fits, and send raises for the rest.
        """
        async with self.layer(capacity=2) as layer:
            await layer.send("queue", {"type": "one"})
            await layer.send("queue", {"type": "two"})
            with pytest.raises(self.channel_full):
                await layer.send("queue", {"type": "three"})
            got = await self.receive(layer, "queue", 2)
            assert [message["type"] for message in got] == ["one", "two"]

    async def test_the_first_pattern_that_matches_a_name_gives_its_capacity(self) -> None:
        """
        Globs count in their order, and leave other channels the default.
        """
        patterns = {"small*": 1, "smaller*": 3, "specific.*!*": 2}
        async with self.layer(capacity=4, channel_capacity=patterns) as layer:
            for channel, capacity in [("smaller", 1), ("q", 4), (await layer.new_channel(), 2)]:
                for _ in range(capacity):
                    await layer.send(channel, {"type": "fits"})
                with pytest.raises(self.channel_full):
                    await layer.send(channel, {"type": "does not"})

    async def test_an_expired_message_is_never_received(self) -> None:
        """
        Expiry is applied when a message is read, on channels and on queues.
        """
        async with self.layer(expiry=0.2) as layer:
            channel = await layer.new_channel()
            for name in (channel, "queue"):
                await layer.send(name, {"type": "old"})
            await asyncio.sleep(0.4)
            for name in (channel, "queue"):
                await layer.send(name, {"type": "new"})
                assert await self.receive(layer, name, 1) == [{"type": "new"}]

    async def test_expired_messages_make_room(self) -> None:
        """
        A channel full of expired messages is not full.
        """
        async with self.layer(expiry=0.2, capacity=1) as layer:
            channel = await layer.new_channel()
            for name in (channel, "queue"):
                await layer.send(name, {"type": "old"})
            await asyncio.sleep(0.4)
            for name in (channel, "queue"):
                await layer.send(name, {"type": "new"})

    # --- Queues and readers ------------------------------------------------------------------

    async def test_each_message_of_a_queue_has_one_reader(self) -> None:
        """
        Several readers, in several processes, share a queue: nothing is lost, nothing doubled.
        """
        async with self.layer() as layer:
            peer = await self.make_peer(layer)
            got: asyncio.Queue[int] = asyncio.Queue()

            async def read(reader: Any) -> None:
                while True:
                    await got.put((await reader.receive("jobs"))["n"])

            readers = [asyncio.ensure_future(read(one)) for one in (layer, peer, layer)]
            for number in range(30):
                await layer.send("jobs", {"type": "job", "n": number})
            numbers = [await self.soon(got.get()) for _ in range(30)]
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
            assert sorted(numbers) == list(range(30))
            assert got.empty()

    async def test_a_queue_keeps_messages_for_a_reader_to_come(self) -> None:
        """
        What was sent before anybody read arrives, in its order.
        """
        async with self.layer() as layer:
            peer = await self.make_peer(layer)
            for number in range(5):
                await peer.send("jobs", {"type": "job", "n": number})
            got = await self.receive(layer, "jobs", 5)
            assert [message["n"] for message in got] == list(range(5))

    async def test_a_cancelled_receive_loses_nothing(self) -> None:
        """
        A message that arrives while its reader is cancelled goes to the next reader.
        """
        async with self.layer() as layer:
            channel = await layer.new_channel()
            for name in (channel, "queue"):
                for delay in range(4):
                    reader = asyncio.ensure_future(layer.receive(name))
                    await asyncio.sleep(0)
                    await layer.send(name, {"type": "precious"})
                    for _ in range(delay):
                        await asyncio.sleep(0)
                    reader.cancel()
                    await asyncio.wait([reader])
                    again = layer.receive(name) if reader.cancelled() else reader
                    assert await self.soon(again) == {"type": "precious"}

    async def test_messages_to_one_channel_keep_their_order(self) -> None:
        """
        A channel with one reader is read in the order of sending.
        """
        async with self.layer() as layer:
            channel = await layer.new_channel()
            for number in range(50):
                await layer.send(channel, {"type": "count", "n": number})
            got = await self.receive(layer, channel, 50)
            assert [message["n"] for message in got] == list(range(50))

    # --- Names -------------------------------------------------------------------------------

    async def test_new_channels_have_valid_names_of_their_own(self) -> None:
        """
        No name is given twice; each begins as asked and may be used anywhere.
        """
        async with self.layer() as layer:
            names = [await layer.new_channel() for _ in range(100)]
            names.append(await layer.new_channel(prefix="worker"))
            assert len(set(names)) == len(names)
            assert names[-1].startswith("worker.")
            for name in names:
                await layer.send(name, {"type": "hello"})

    @pytest.mark.parametrize("name", INVALID_CHANNELS, ids=ascii)
    async def test_an_invalid_channel_name_is_a_type_error(self, name: Any) -> None:
        """
        Every method that takes a channel checks its name alike.
        """
        async with self.layer() as layer:
            for attempt in (
                layer.send(name, {"type": "hello"}),
                layer.receive(name),
                layer.group_add("room", name),
                layer.group_discard("room", name),
            ):
                with pytest.raises(TypeError):
                    await attempt

    async def test_an_invalid_group_name_is_a_type_error(self) -> None:
        """
        Every method that takes a group checks its name alike.
        """
        async with self.layer() as layer:
            channel = await layer.new_channel()
            for name in self.invalid_groups:
                for attempt in (
                    layer.group_add(name, channel),
                    layer.group_discard(name, channel),
                    layer.group_send(name, {"type": "hello"}),
                ):
                    with pytest.raises(TypeError):
                        await attempt

    @pytest.mark.parametrize(
        "name", ["x" * 1024, "é" * 512, "café", "white space", "a/b:c*?#\n\x00", "🎈"], ids=ascii
    )
    async def test_a_group_may_have_any_name(self, name: str) -> None:
        """
        Any text up to 1,024 bytes names a group, and no other group.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, name, 1)
            await layer.group_send(name[:-1] or "-", {"type": "not for it"})
            await layer.group_send(name, {"type": "hello"})
            assert await self.receive(layer, member, 1) == [{"type": "hello"}]

    async def test_a_queue_cannot_be_in_a_group(self) -> None:
        """
        A name that processes share is a TypeError in a group, which says what to do instead.
        """
        async with self.layer() as layer:
            with pytest.raises(TypeError, match="send"):
                await layer.group_add("room", "queue")

    # --- Loops and threads -------------------------------------------------------------------

    async def test_other_loops_and_threads_send_and_read(self) -> None:
        """
        A loop of another thread sends to members here and reads what is sent to it from here.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)
            await asyncio.to_thread(asyncio.run, layer.group_send("room", {"type": "thread"}))
            assert await self.receive(layer, member, 1) == [{"type": "thread"}]
            channel = await layer.new_channel()
            reader = asyncio.to_thread(asyncio.run, self.receive(layer, channel, 1))
            waiting = asyncio.ensure_future(reader)
            await layer.send(channel, {"type": "from here"})
            assert await self.soon(waiting) == [{"type": "from here"}]

    async def test_one_loop_after_another_sends(self) -> None:
        """
        A loop that has ended leaves nothing that the next one stumbles over.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)

            async def visit(number: int) -> None:
                mine = await layer.new_channel()
                await layer.group_add("room", mine)
                await layer.group_send("room", {"type": "visit", "n": number})
                assert await self.receive(layer, mine, 1) == [{"type": "visit", "n": number}]
                await layer.group_discard("room", mine)

            for number in range(3):
                await asyncio.to_thread(asyncio.run, visit(number))
            got = await self.receive(layer, member, 3)
            assert [message["n"] for message in got] == [0, 1, 2]

    async def test_synchronous_code_sends(self) -> None:
        """
        A thread without a loop sends by async_to_sync, as a Django view does.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)

            def view() -> None:
                async_to_sync(layer.group_send)("room", {"type": "view"})
                async_to_sync(layer.send)(member, {"type": "direct"})

            await asyncio.to_thread(view)
            got = await self.receive(layer, member, 2)
            assert [message["type"] for message in got] == ["view", "direct"]

    async def test_many_threads_send_at_once(self) -> None:
        """
        Messages of several threads all arrive, those of each in their order.
        """
        async with self.layer(capacity=1000) as layer:
            [member] = await self.members(layer, "room", 1)

            async def send(thread: int) -> None:
                for number in range(20):
                    await layer.group_send("room", {"type": "n", "thread": thread, "n": number})

            await asyncio.gather(*(asyncio.to_thread(asyncio.run, send(i)) for i in range(5)))
            got = await self.receive(layer, member, 100)
            for thread in range(5):
                numbers = [message["n"] for message in got if message["thread"] == thread]
                assert numbers == list(range(20))

    # --- The extensions ----------------------------------------------------------------------

    async def test_flush_forgets_messages_and_groups(self) -> None:
        """
        After flush nothing is unread and nobody is in a group.
        """
        async with self.layer() as layer:
            assert {"groups", "flush"} <= set(layer.extensions)
            [member] = await self.members(layer, "room", 1)
            await layer.send(member, {"type": "old"})
            await layer.send("queue", {"type": "old"})
            await layer.flush()
            await layer.group_send("room", {"type": "for nobody"})
            for name in (member, "queue"):
                await layer.send(name, {"type": "new"})
                assert await self.receive(layer, name, 1) == [{"type": "new"}]


class BrokeredLayerConformance(ChannelLayerConformance):
    """
    What holds besides for a layer whose messages come from a broker as bytes.
    """

    async def inject(self, layer: Any, group: str, data: bytes) -> None:
        """
        Have bytes arrive for a group as if the broker had sent them.
        """
        raise NotImplementedError

    @pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", b"x" * 5000, b"\x91" * 3000])
    async def test_malformed_bytes_are_dropped(self, data: bytes) -> None:
        """
        Bytes that no layer made reach nobody, and what follows them arrives.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)
            await self.inject(layer, "room", data)
            await layer.group_send("room", {"type": "hello"})
            assert await self.receive(layer, member, 1) == [{"type": "hello"}]


class ServedLayerConformance(BrokeredLayerConformance):
    """
    What holds besides for a layer whose broker is a server of its own, which may go away.

    Nobody's ``receive`` ends with it, whoever publishes meanwhile is told by one exception in
    bounded time, and all is as before within a second of its return.

    Attributes:
        back_within: Seconds after the server's return in which messages have to arrive again.
    """

    back_within: float = 1.0

    async def take_away(self) -> None:
        """
        Have the server end, or stop answering. It may forget everything.
        """
        raise NotImplementedError

    async def bring_back(self) -> None:
        """
        Have it serve again, in the same place; return once it does.
        """
        raise NotImplementedError

    async def cut_off(self) -> None:
        """
        Have it end everybody's connections, as servers do with those that were idle.
        """
        raise NotImplementedError

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """
        Take the server away for a while.
        """
        await self.take_away()
        try:
            yield
        finally:
            await self.bring_back()

    async def hears_again(self, layer: Any, heard: Iterable[asyncio.Task[Any]]) -> None:
        """
        See to it that those who have been receiving all the time get a message soon.
        """
        waiting = set(heard)
        assert not any(task.done() for task in waiting)
        async with asyncio.timeout(self.back_within):
            while waiting:
                with suppress(ChannelLayerUnavailable):
                    await layer.group_send("room", {"type": "again"})
                _, waiting = await asyncio.wait(waiting, timeout=0.02)
        assert {task.result()["type"] for task in heard} == {"again"}

    async def test_members_outlive_an_absence_of_the_server(self) -> None:
        """
        They go on receiving, and are subscribed again soon after it is back.
        """
        async with self.layer() as layer:
            peer = await self.make_peer(layer)
            members = await self.members(layer, "room", 3)
            heard = [asyncio.create_task(layer.receive(member)) for member in members]
            await asyncio.sleep(0)
            async with self.away():
                pass
            await self.hears_again(peer, heard)

    async def test_members_outlive_the_end_of_their_connections(self) -> None:
        """
        Again and again.
        """
        async with self.layer() as layer:
            members = await self.members(layer, "room", 3)
            for _ in range(3):
                heard = [asyncio.create_task(layer.receive(member)) for member in members]
                await asyncio.sleep(0)
                await self.cut_off()
                await self.hears_again(layer, heard)
                await self.drain(layer, members)

    async def test_publishing_to_a_server_that_is_away_is_told_in_bounded_time(self) -> None:
        """
        By one exception, whatever was to be done; afterwards it is possible again.
        """
        async with self.layer() as layer:
            [member] = await self.members(layer, "room", 1)
            async with self.away():
                for attempt in (
                    layer.group_send("room", {"type": "lost"}),
                    layer.send("queue", {"type": "lost"}),
                    layer.group_add("other", await layer.new_channel()),
                ):
                    with pytest.raises(ChannelLayerUnavailable):
                        await self.soon(attempt)
            await self.hears_again(layer, [asyncio.create_task(self.again(layer, member))])

    async def test_readers_of_queues_outlive_an_absence_of_the_server(self) -> None:
        """
        They wait on, and get what is sent once it is back.
        """
        async with self.layer() as layer:
            reader = asyncio.create_task(layer.receive("queue"))
            await asyncio.sleep(0)
            async with self.away():
                pass
            async with asyncio.timeout(self.patience):
                while not reader.done():
                    with suppress(ChannelLayerUnavailable):
                        await layer.send("queue", {"type": "again"})
                    await asyncio.wait([reader], timeout=0.05)
            assert (await reader)["type"] == "again"

    async def again(self, layer: Any, channel: str) -> dict[str, Any]:
        """
        Receive what was sent after the server's return, whatever may come before.
        """
        while (message := await layer.receive(channel))["type"] != "again":
            pass
        return message  # type: ignore[no-any-return]

    async def drain(self, layer: Any, channels: Iterable[str]) -> None:
        """
        Read what was sent to several channels, up to one last message.
        """
        await layer.group_send("room", {"type": "last"})
        for channel in channels:
            while (await self.soon(layer.receive(channel)))["type"] != "last":
                pass
