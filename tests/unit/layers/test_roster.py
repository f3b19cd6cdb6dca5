"""
The roster: which channels are here, in which groups, and how a message gets to one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic

import pytest

from fairway.exceptions import ChannelFull
from fairway.layers.codec import Envelope, Kind, encode
from fairway.layers.roster import Roster
from tests.unit.layers.fakes import FakeInbox, FakeOutbox, capacity_of_three

HANDLER_MESSAGE = {"type": "x"}


def handler() -> Envelope:
    """
    Make a message for a handler.
    """
    return Envelope(Kind.HANDLER, encode(HANDLER_MESSAGE), expires=monotonic() + 60)


def text() -> Envelope:
    """
    Make a message for the socket.
    """
    return Envelope(Kind.TEXT, b"hello", expires=monotonic() + 60)


@pytest.fixture
async def roster() -> Roster:
    """
    A roster on the loop of the test.
    """
    roster = Roster(60, capacity_of_three)
    roster.here = asyncio.get_running_loop()
    return roster


@pytest.fixture
def elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """
    Another loop, which does not run.
    """
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


async def test_groups_begin_and_end_with_their_members(roster: Roster) -> None:
    """
    The first join begins a group, the last leave ends it; the hub is told of both.
    """
    assert roster.join("room", "a!1")
    assert not roster.join("room", "a!1")
    assert not roster.join("room", "a!2")
    assert len(roster.groups["room"]) == 2
    assert not roster.leave("room", "a!1")
    assert not roster.leave("room", "a!1")
    assert not roster.leave("room", "unknown!1")
    assert roster.leave("room", "a!2")
    assert roster.groups == {}
    assert roster.member("a!1") is None


async def test_members_stand_where_the_fan_out_wants_them(
    roster: Roster, elsewhere: asyncio.AbstractEventLoop
) -> None:
    """
    Direct members, members with a taker and members elsewhere are kept apart.
    """
    inbox, outbox = FakeInbox(), FakeOutbox()
    here = asyncio.get_running_loop()
    roster.attach("direct!1", inbox, outbox, here)
    roster.attach("handled!1", inbox, None, here)
    roster.attach("remote!1", inbox, outbox, elsewhere)
    for channel in ("direct!1", "handled!1", "remote!1", "mailbox!1"):
        roster.join("room", channel)
    group = roster.groups["room"]
    assert group.direct == {outbox: roster.member("direct!1")}
    assert list(group.takers) == ["handled!1", "mailbox!1"]
    assert list(group.remote[elsewhere]) == ["remote!1"]
    assert len(group) == 4
    assert group.channels() == ["direct!1", "handled!1", "mailbox!1", "remote!1"]
    roster.move(elsewhere)
    assert group.direct == {outbox: roster.member("remote!1")}
    assert list(group.takers) == ["mailbox!1"]
    assert list(group.remote[here]) == ["direct!1", "handled!1"]
    for channel in group.channels():
        roster.leave("room", channel)
    assert group.remote == {}
    assert len(group) == 0


async def test_detaching_leaves_every_group(roster: Roster) -> None:
    """
    A channel that goes is gone everywhere; the groups that ended with it are named.
    """
    roster.attach("a!1", FakeInbox(), FakeOutbox(), asyncio.get_running_loop())
    for group in ("one", "two", "shared"):
        roster.join(group, "a!1")
    roster.join("shared", "b!1")
    assert sorted(roster.detach("a!1")) == ["one", "two"]
    assert list(roster.groups) == ["shared"]
    assert roster.detach("a!1") == []


async def test_an_inbox_takes_over_what_its_channel_had(roster: Roster) -> None:
    """
    Attaching keeps groups and unread messages of a channel that had only a mailbox.
    """
    roster.join("room", "a!1")
    unread = handler()
    roster.give("a!1", unread)
    inbox = FakeInbox()
    roster.attach("a!1", inbox, FakeOutbox(), asyncio.get_running_loop())
    assert inbox.items == [unread]
    assert list(roster.groups["room"].direct.values()) == [roster.member("a!1")]
    assert not roster.groups["room"].takers
    assert roster.mailboxes.snapshot() == {}


@pytest.mark.parametrize("idle", [True, False])
async def test_a_direct_member_gets_its_message_in_order(roster: Roster, *, idle: bool) -> None:
    """
    What is for the socket goes there, unless an earlier message is still with the consumer.
    """
    inbox, outbox = FakeInbox(), FakeOutbox()
    inbox.idle = idle
    roster.attach("a!1", inbox, outbox, asyncio.get_running_loop())
    closing = Envelope(Kind.CLOSE, encode({"code": 4000}), expires=monotonic() + 60)
    for envelope in (text(), closing, handler()):
        roster.give("a!1", envelope)
    assert outbox.texts == (["hello"] if idle else [])
    assert outbox.closed == ([(4000, "")] if idle else [])
    assert [item.kind for item in inbox.items] == (
        [Kind.HANDLER] if idle else [Kind.TEXT, Kind.CLOSE, Kind.HANDLER]
    )


async def test_a_full_inbox_or_mailbox_is_said_so(roster: Roster) -> None:
    """
    A channel without room raises ChannelFull with its name.
    """
    roster.attach("inbox!1", FakeInbox(capacity=3), None, asyncio.get_running_loop())
    for channel in ("inbox!1", "mailbox!1"):
        for _ in range(3):
            assert roster.give(channel, text()) is None
        with pytest.raises(ChannelFull, match=channel):
            roster.give(channel, text())


async def test_a_message_to_another_loop_is_given_there(roster: Roster) -> None:
    """
    The hub's loop hears whether there was room on the other one.
    """
    other = asyncio.new_event_loop()
    inbox = FakeInbox(capacity=1)
    roster.attach("a!1", inbox, None, other)
    runs = asyncio.to_thread(other.run_forever)
    running = asyncio.ensure_future(runs)
    first = roster.give("a!1", handler())
    assert first is not None
    await first
    assert inbox.messages == [HANDLER_MESSAGE]
    second = roster.give("a!1", handler())
    assert second is not None
    with pytest.raises(ChannelFull):
        await second
    other.call_soon_threadsafe(other.stop)
    await running
    other.close()
    assert roster.give("a!1", handler()) is None
    assert roster.ended_loops() == [other]


async def test_channels_of_an_ended_loop_are_forgotten(
    roster: Roster, elsewhere: asyncio.AbstractEventLoop
) -> None:
    """
    They leave their groups, and the hub is told how many went and what ended.
    """
    roster.attach("gone!1", FakeInbox(), None, elsewhere)
    roster.attach("gone!2", FakeInbox(), None, elsewhere)
    roster.join("theirs", "gone!1")
    roster.join("shared", "gone!2")
    roster.join("shared", "stays!1")
    assert roster.lose(elsewhere) == (2, ["theirs"])
    assert roster.groups["shared"].channels() == ["stays!1"]
    assert roster.lose(elsewhere) == (0, [])


async def test_clearing_keeps_what_is_attached(roster: Roster) -> None:
    """
    A flush ends groups and messages, not sockets.
    """
    inbox = FakeInbox()
    roster.attach("a!1", inbox, None, asyncio.get_running_loop())
    roster.join("room", "a!1")
    roster.join("other", "b!1")
    roster.give("c!1", text())
    assert sorted(roster.clear()) == ["other", "room"]
    assert roster.groups == {}
    assert roster.mailboxes.snapshot() == {}
    roster.give("a!1", handler())
    assert inbox.messages == [HANDLER_MESSAGE]
    assert roster.join("room", "a!1")
