"""
The hub: from one publish to every member, on every loop and in every process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from fairway import metrics
from fairway.exceptions import ChannelFull, ChannelLayerUnavailable
from fairway.layers import hub as module, mailbox
from fairway.layers.brokers.base import Broker
from fairway.layers.brokers.local import LocalBroker
from fairway.layers.codec import Envelope, Kind, encode, pack
from fairway.layers.hub import GROUP, PROCESS, Hub
from fairway.layers.owner import bind, release
from fairway.options import LayerOptions
from fairway.server.inbox import Inbox
from tests.unit.layers.fakes import (
    Bus,
    BusBroker,
    FakeInbox,
    FakeOutbox,
    LoopThread,
    capacity_of_three,
    until,
)

SHORT = LayerOptions(publish_timeout=0.05)
HELLO = encode({"type": "hello"})


@asynccontextmanager
async def serving() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """
    Make the loop of the test a server's.
    """
    loop = asyncio.get_running_loop()
    await bind(loop)
    try:
        yield loop
    finally:
        await release(loop)


@pytest.fixture
async def here() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """
    The loop of the test, which owns all hubs.
    """
    async with serving() as loop:
        yield loop


def make_hub(broker: Broker | None = None, options: LayerOptions | None = None) -> Hub:
    """
    Make a hub whose channels hold three messages.
    """
    return Hub(broker or LocalBroker(60), options or LayerOptions(), capacity_of_three)


def attach(
    hub: Hub, channel: str, *groups: str, direct: bool = True
) -> tuple[FakeInbox, FakeOutbox]:
    """
    Give a channel an inbox on this loop, in some groups.
    """
    inbox, outbox = FakeInbox(), FakeOutbox()
    hub.attach(channel, inbox, outbox if direct else None, asyncio.get_running_loop())
    for group in groups:
        assert hub.join(group, channel) is None
    return inbox, outbox


def counted(name: str) -> int:
    """
    Give how many messages were dropped so far for a reason.
    """
    return metrics.drops.values.get(name, 0)


# --- The direct path -----------------------------------------------------------------------------


async def test_a_hundred_sockets_cost_no_task_and_one_encoding(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    One publish is one message at the broker, one encoding, and a hundred offers at once.
    """
    broker = LocalBroker(60)
    hub = make_hub(broker)
    await hub.run(int)
    sockets = [attach(hub, f"a!{number}", "room")[1] for number in range(100)]
    tasks: list[object] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        tasks.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    here.set_task_factory(factory)
    encoded, delivered = metrics.prepared.value, metrics.delivered.value
    await hub.group_send("room", Kind.TEXT, b"hello")
    here.set_task_factory(None)
    assert tasks == []
    assert metrics.prepared.value - encoded == 1
    assert metrics.delivered.value - delivered == 100
    assert broker.published == 1
    assert all(socket.texts == ["hello"] for socket in sockets)
    assert len({id(socket.frames[0]) for socket in sockets}) == 1


async def test_consumers_share_an_envelope_and_read_their_own_dict(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    A handler's message goes to every consumer, direct or not, and each decodes for itself.
    """
    hub = make_hub()
    await hub.run(int)
    inboxes = [attach(hub, f"a!{n}", "room", direct=n > 0)[0] for n in range(3)]
    await hub.group_send("room", Kind.HANDLER, encode({"type": "x", "items": []}))
    assert len({id(inbox.items[0]) for inbox in inboxes}) == 1
    for inbox in inboxes:
        message = inbox.items[0].message()
        assert message == {"type": "x", "items": []}
        message["items"].append("mine")


async def test_a_busy_consumer_gets_direct_messages_behind_its_own(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    Order holds between handler messages and direct ones.
    """
    hub = make_hub()
    await hub.run(int)
    inbox, outbox = attach(hub, "a!1", "room")
    await hub.group_send("room", Kind.TEXT, b"1")
    await hub.group_send("room", Kind.HANDLER, encode({"type": "x"}))
    inbox.idle = False
    await hub.group_send("room", Kind.TEXT, b"2")
    await hub.group_send("room", Kind.CLOSE, encode({"type": "websocket.close", "code": 4000}))
    inbox.idle = True
    await hub.group_send("room", Kind.BINARY, b"3")
    await hub.group_send("room", Kind.CLOSE, encode({"type": "websocket.close", "code": 4001}))
    assert outbox.texts == ["1", b"3"]
    assert outbox.closed == [(4001, "")]
    assert [item.kind for item in inbox.items] == [Kind.HANDLER, Kind.TEXT, Kind.CLOSE]


async def test_a_handlers_message_to_one_channel_is_kept_in_front_of_a_groups(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    Order holds between what is sent to a channel and to its groups, however often it was idle.
    """
    hub = make_hub()
    await hub.run(int)
    outbox, inbox = FakeOutbox(), Inbox(here, 100, None)
    hub.attach("a!1", inbox, outbox, here)
    hub.join("room", "a!1")
    for number in range(3):
        await hub.group_send("room", Kind.TEXT, b"%d straight" % number)
        hub.send("a!1", Kind.HANDLER, encode({"type": "x"}))
        await hub.group_send("room", Kind.TEXT, b"%d behind" % number)
        for kind in (Kind.HANDLER, Kind.TEXT):
            event = await inbox.next_event()
            assert isinstance(event, Envelope)
            assert event.kind is kind
        waiting = asyncio.create_task(inbox.next_event())
        await asyncio.sleep(0)
        waiting.cancel()
    assert outbox.texts == ["0 straight", "1 straight", "2 straight"]


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.HANDLER])
async def test_the_excluded_channel_gets_nothing(
    here: asyncio.AbstractEventLoop, kind: Kind
) -> None:
    """
    Excluding works for members of every sort, and only for that message.
    """
    hub = make_hub()
    await hub.run(int)
    payload = b"hello" if kind is Kind.TEXT else HELLO
    inbox, outbox = attach(hub, "direct!1", "room")
    handled, _ = attach(hub, "handled!1", "room", direct=False)
    hub.join("room", "mailbox!1")
    with LoopThread() as other:
        remote = FakeInbox()
        hub.attach("remote!1", remote, None, other.loop)
        hub.join("room", "remote!1")
        channels = ["direct!1", "handled!1", "mailbox!1", "remote!1", "unknown!1"]
        for channel in channels:
            await hub.group_send("room", kind, payload, channel)
        await other.run(asyncio.sleep(0))
    assert len(outbox.prepared) + len(inbox.items) == 4
    assert len(handled.items) == 4
    assert len(remote.items) == 4
    assert hub.mailboxes["mailbox!1"].qsize() == 3
    assert sorted(hub.groups["room"]) == sorted(channels[:-1])


async def test_a_member_excluded_from_a_group_it_is_not_in_stays_out(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    Excluding a stranger adds nobody.
    """
    hub = make_hub()
    await hub.run(int)
    _, member = attach(hub, "a!1", "room")
    _, stranger = attach(hub, "b!1", "other")
    for _ in range(2):
        await hub.group_send("room", Kind.TEXT, b"x", "b!1")
    assert hub.groups["room"] == ["a!1"]
    assert member.texts == ["x", "x"]
    assert stranger.texts == []


async def test_a_group_message_without_room_is_dropped_and_counted(
    here: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """
    group_send never raises; the newest message goes, and one line says so.
    """
    hub = make_hub()
    await hub.run(int)
    hub.join("room", "slow!1")
    _, fast = attach(hub, "fast!1", "room")
    before = counted("full")
    for number in range(6):
        await hub.group_send("room", Kind.TEXT, str(number).encode())
    assert counted("full") - before == 3
    assert fast.texts == ["0", "1", "2", "3", "4", "5"]
    got = [(await hub.receive("slow!1")).message()["text"] for _ in range(3)]
    assert got == ["0", "1", "2"]
    assert len([one for one in caplog.messages if "read too slowly" in one]) == 1


async def test_a_mailbox_nobody_reads_leaves_its_groups(
    here: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A consumer that died without a word does not stay a member for ever.
    """
    hub = make_hub()
    await hub.run(int)
    hub.join("room", "dead!1")
    _, alive = attach(hub, "alive!1", "room")
    later = monotonic() + 60 * mailbox.ABANDONED_AFTER + 1
    monkeypatch.setattr(mailbox, "monotonic", lambda: later)
    await hub.group_send("room", Kind.TEXT, b"x", "alive!1")
    assert hub.groups == {"room": ["alive!1"]}
    await hub.group_send("room", Kind.TEXT, b"y")
    assert alive.texts == ["y"]


# --- Other loops ---------------------------------------------------------------------------------


async def test_members_on_another_loop_cost_it_one_wake_up_per_message(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    However many members a loop has, one call brings them a message.
    """
    hub = make_hub()
    await hub.run(int)
    with LoopThread() as other:
        ends = [(FakeInbox(), FakeOutbox()) for _ in range(10)]
        for number, (inbox, outbox) in enumerate(ends):
            hub.attach(f"a!{number}", inbox, outbox if number else None, other.loop)
            hub.join("room", f"a!{number}")
        calls = []
        wake = other.loop.call_soon_threadsafe

        def count(*args: Any, **kwargs: Any) -> asyncio.Handle:
            calls.append(args)
            return wake(*args, **kwargs)

        other.loop.call_soon_threadsafe = count  # type: ignore[method-assign,assignment] # to look on
        await hub.group_send("room", Kind.TEXT, b"hello")
        assert len(calls) == 1
        del other.loop.call_soon_threadsafe
        await other.run(asyncio.sleep(0))
        assert [inbox.messages for inbox, _ in ends[:1]] == [
            [{"type": "websocket.send", "text": "hello"}]
        ]
        assert all(outbox.texts == ["hello"] for _, outbox in ends[1:])
        full = FakeInbox(capacity=0)
        hub.attach("a!0", full, None, other.loop)
        before = counted("full")
        await hub.group_send("room", Kind.TEXT, b"hello")
        await other.run(asyncio.sleep(0))
        assert counted("full") - before == 1


async def test_members_of_an_ended_loop_are_removed_and_counted(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    The group goes on without them, and ends if nobody else is in it.
    """
    hub = make_hub()
    await hub.run(int)
    other = LoopThread()
    hub.attach("gone!1", FakeInbox(), None, other.loop)
    hub.join("room", "gone!1")
    hub.join("theirs", "gone!1")
    _, outbox = attach(hub, "a!1", "room")
    other.loop.close()
    before = metrics.members_lost.value
    await hub.group_send("theirs", Kind.TEXT, b"x")
    await hub.group_send("room", Kind.TEXT, b"y", "a!1")
    await hub.group_send("room", Kind.TEXT, b"z")
    assert hub.groups == {"room": ["a!1"]}
    assert metrics.members_lost.value - before == 1
    assert outbox.texts == ["z"]


async def test_members_of_loops_that_ended_do_not_move_along() -> None:
    """
    A hub that comes to a new loop leaves behind whose loop is gone.
    """
    hub = make_hub()
    other = LoopThread()
    other.loop.close()
    await hub.run(hub.attach, "gone!1", FakeInbox(), None, other.loop)
    await hub.run(hub.join, "room", "gone!1")
    await hub.run(hub.join, "room", "stays!1")
    async with serving():
        assert hub.groups == {"room": ["stays!1"]}


async def test_a_member_goes_on_when_its_server_takes_the_hub_over() -> None:
    """
    A socket attached before the hub came to its loop gets messages before, during and after.
    """
    hub = make_hub()
    inbox, outbox = FakeInbox(), FakeOutbox()
    await hub.run(hub.attach, "a!1", inbox, outbox, asyncio.get_running_loop())
    await hub.run(hub.join, "room", "a!1")
    await hub.group_send("room", Kind.TEXT, b"before")
    async with serving():
        await hub.group_send("room", Kind.TEXT, b"under")
    await hub.group_send("room", Kind.TEXT, b"after")
    assert outbox.texts == ["before", "under", "after"]


# --- Processes -----------------------------------------------------------------------------------


async def test_a_group_spans_processes(here: asyncio.AbstractEventLoop) -> None:
    """
    A message reaches the members of every process, and processes without members not at all.
    """
    bus = Bus()
    hubs = [make_hub(BusBroker(bus)) for _ in range(3)]
    for number, hub in enumerate(hubs[:2]):
        await hub.run(hub.join, "room", f"specific.{hub.process}!{number}")
    await hubs[2].run(int)
    uninterested = metrics.delivered_uninterested.value
    await hubs[2].group_send("room", Kind.HANDLER, HELLO)
    for number, hub in enumerate(hubs[:2]):
        got = await asyncio.wait_for(hub.receive(f"specific.{hub.process}!{number}"), 5)
        assert got.message() == {"type": "hello"}
        assert got.sender == hubs[2].process
    assert bus.brokers[2].received == 0
    assert metrics.delivered_uninterested.value == uninterested


async def test_a_channel_of_another_process_is_sent_to_through_it(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    Its own process gives it the message, or drops what it has no room for and counts that.
    """
    bus = Bus()
    one, two = make_hub(BusBroker(bus)), make_hub(BusBroker(bus))
    await two.run(int)
    channel = f"specific.{two.process}!1"
    before = counted("full")
    for number in range(4):
        await one.run(one.send, channel, Kind.HANDLER, encode({"type": "n", "n": number}))
    got = [(await asyncio.wait_for(two.receive(channel), 5)).message()["n"] for _ in range(3)]
    assert got == [0, 1, 2]
    await until(lambda: counted("full") - before == 1)
    with pytest.raises(ChannelFull):
        await asyncio.gather(*(two.run(two.send, channel, Kind.HANDLER, HELLO) for _ in range(4)))


async def test_a_channel_of_another_process_joins_and_leaves_through_it(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    Its own process knows its groups.
    """
    bus = Bus()
    one, two = make_hub(BusBroker(bus)), make_hub(BusBroker(bus))
    await two.run(int)
    channel = f"specific.{two.process}!1"
    await one.run(one.join, "room", channel)
    await until(lambda: two.groups == {"room": [channel]})
    assert one.groups == {}
    await one.run(one.leave, "room", channel)
    await until(lambda: two.groups == {})


async def test_a_message_for_nobody_here_is_dropped(here: asyncio.AbstractEventLoop) -> None:
    """
    Bytes that name no channel of this process, or are none of ours, reach nobody.
    """
    hub = make_hub(BusBroker(Bus()))
    await hub.run(int)
    before = counted("malformed")
    for channel, kind in ((None, Kind.TEXT), ("specific.other!1", Kind.TEXT)):
        envelope = Envelope(kind, b"x", expires=monotonic() + 5, sequence=1, channel=channel)
        hub.deliver(PROCESS + hub.process, pack(envelope, monotonic()))
    hub.deliver(PROCESS + hub.process, b"junk")
    mine = f"specific.{hub.process}!1"
    for kind, payload in ((Kind.TEXT, b"\xff"), (Kind.JOIN, b"\xff")):
        envelope = Envelope(kind, payload, expires=monotonic() + 5, sequence=2, channel=mine)
        envelope.sender = kind.name
        hub.deliver(PROCESS + hub.process, pack(envelope, monotonic()))
    assert counted("malformed") - before == 5
    assert hub.groups == {}
    assert hub.mailboxes == {}


async def test_a_message_for_a_group_that_ended_is_counted(here: asyncio.AbstractEventLoop) -> None:
    """
    What was on its way when the last member left is told apart from losses.
    """
    hub = make_hub()
    await hub.run(int)
    before = metrics.delivered_uninterested.value
    envelope = Envelope(Kind.TEXT, b"x", expires=monotonic() + 5, sender="p", sequence=1)
    hub.deliver(GROUP + "empty", pack(envelope, monotonic()))
    assert metrics.delivered_uninterested.value - before == 1


async def test_malformed_messages_of_a_group_are_dropped(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    Neither broken envelopes nor broken contents reach members or end the loop.
    """
    hub = make_hub()
    await hub.run(int)
    inbox, outbox = attach(hub, "a!1", "room")
    before = counted("malformed")
    for kind, payload in ((Kind.TEXT, b"\xff"), (Kind.HANDLER, b"\xc1"), (Kind.JOIN, b"x")):
        envelope = Envelope(kind, payload, expires=monotonic() + 5, sender="p", sequence=1)
        hub.deliver(GROUP + "room", pack(envelope, monotonic()))
    hub.deliver(GROUP + "room", b"")
    assert counted("malformed") - before == 4
    assert (inbox.items, outbox.prepared) == ([], [])


async def test_malformed_messages_of_a_queue_are_passed_over(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    A reader of a queue gets the next message that is one.
    """
    broker = LocalBroker(60)
    hub = make_hub(broker)
    before = counted("malformed")
    broken = Envelope(Kind.HANDLER, b"\xc1", expires=monotonic() + 5)
    broker.push("jobs", b"junk", lifetime=5, capacity=9)
    broker.push("jobs", pack(broken, monotonic()), lifetime=5, capacity=9)
    await hub.run(hub.send, "jobs", Kind.HANDLER, HELLO)
    assert (await hub.receive("jobs")).message() == {"type": "hello"}
    assert counted("malformed") - before == 2


async def test_losses_between_processes_are_counted(
    here: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A hole in a sender's numbers is as many lost messages, and a break of the broker's one gap.
    """
    bus = Bus()
    one, two = make_hub(BusBroker(bus)), make_hub(BusBroker(bus))
    channel = f"specific.{two.process}!1"
    await two.run(two.join, "room", channel)
    before, breaks = metrics.missing.value, metrics.gaps.value
    await one.group_send("room", Kind.TEXT, b"1")
    bus.brokers[0].lose = 2
    for text in (b"2", b"3", b"4"):
        await one.group_send("room", Kind.TEXT, text)
    got = [(await two.receive(channel)).payload for _ in range(2)]
    assert got == [b"1", b"4"]
    assert metrics.missing.value - before == 2
    bus.brokers[1].on_gap(GROUP + "room", None)
    bus.brokers[1].on_gap(GROUP + "room", 3)
    assert metrics.missing.value - before == 5
    assert metrics.gaps.value - breaks == 1
    assert "2 messages of 'group:room' were lost on their way" in caplog.text


async def test_a_message_that_comes_twice_is_delivered_once(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    What a broker repeats is dropped and counted.
    """
    hub = make_hub()
    await hub.run(int)
    _, outbox = attach(hub, "a!1", "room")
    before = counted("duplicate")
    envelope = Envelope(Kind.TEXT, b"x", expires=monotonic() + 5, sender="p", sequence=1)
    for _ in range(3):
        hub.deliver(GROUP + "room", pack(envelope, monotonic()))
    assert outbox.texts == ["x"]
    assert counted("duplicate") - before == 2


async def test_a_queue_is_shared_by_processes(here: asyncio.AbstractEventLoop) -> None:
    """
    A full one is known to the sender even when the broker answers later.
    """
    bus = Bus()
    one, two = make_hub(BusBroker(bus)), make_hub(BusBroker(bus))
    for number in range(3):
        await one.run(one.send, "jobs", Kind.HANDLER, encode({"type": "n", "n": number}))
    with pytest.raises(ChannelFull, match="jobs"):
        await one.run(one.send, "jobs", Kind.HANDLER, HELLO)
    got = [(await two.receive("jobs")).message()["n"] for _ in range(3)]
    assert got == [0, 1, 2]


# --- A broker that is away -----------------------------------------------------------------------


async def test_joining_waits_for_the_brokers_word(here: asyncio.AbstractEventLoop) -> None:
    """
    The first to join waits, those who join meanwhile wait with it, later ones do not.
    """
    broker = BusBroker(Bus())
    hub = make_hub(broker, SHORT)
    await hub.run(int)
    mine = f"specific.{hub.process}!"
    broker.silent = True
    broker_answers = asyncio.Event()

    async def answer() -> None:
        await broker_answers.wait()

    broker._answer = answer  # type: ignore[method-assign] # to say when
    joins = [asyncio.ensure_future(hub.run(hub.join, "room", f"{mine}{n}")) for n in range(2)]
    await asyncio.sleep(0)
    assert not any(join.done() for join in joins)
    broker_answers.set()
    await asyncio.gather(*joins)
    assert hub.join("room", f"{mine}3") is None


@pytest.mark.parametrize("fault", ["silent", "down"])
async def test_a_join_that_is_not_confirmed_is_undone(
    here: asyncio.AbstractEventLoop, fault: str
) -> None:
    """
    In bounded time the caller hears of it, and the channel is in no group.
    """
    broker = BusBroker(Bus())
    hub = make_hub(broker, SHORT)
    await hub.run(int)
    setattr(broker, fault, True)
    channel = f"specific.{hub.process}!1"
    for _ in range(2):
        with pytest.raises(ChannelLayerUnavailable):
            await hub.run(hub.join, "room", channel)
        await asyncio.sleep(0.01)
        assert hub.groups == {}
    setattr(broker, fault, False)
    await hub.run(hub.join, "room", channel)
    await hub.group_send("room", Kind.TEXT, b"x")
    assert (await hub.receive(channel)).payload == b"x"


async def test_who_is_taken_out_while_joining_waits_no_more(
    here: asyncio.AbstractEventLoop,
) -> None:
    """
    The join ends without a word, as nobody cancelled its caller, and may be done again.
    """
    broker = BusBroker(Bus())
    hub = make_hub(broker, SHORT)
    await hub.run(int)
    channel = f"specific.{hub.process}!1"
    broker.silent = True
    joining = asyncio.ensure_future(hub.run(hub.join, "room", channel))
    await asyncio.sleep(0)
    hub.leave("room", channel)
    await asyncio.wait_for(joining, SHORT.publish_timeout / 2)
    assert hub.groups == {}
    broker.silent = False
    await hub.run(hub.join, "room", channel)
    assert hub.groups == {"room": [channel]}


@pytest.mark.parametrize("fault", ["silent", "down"])
@pytest.mark.parametrize("inside", [True, False])
async def test_a_publish_fails_in_bounded_time(fault: str, *, inside: bool) -> None:
    """
    Whoever sends on whichever loop hears of it, and no consumer ends.
    """
    broker = BusBroker(Bus())
    hub = make_hub(broker, SHORT)
    await hub.run(int)
    if inside:
        await bind(asyncio.get_running_loop())
    setattr(broker, fault, True)
    started = monotonic()
    with pytest.raises(ChannelLayerUnavailable):
        await hub.group_send("room", Kind.TEXT, b"x")
    with pytest.raises(ChannelLayerUnavailable):
        await asyncio.wrap_future(hub.submit("room", Kind.TEXT, b"x"))
    assert monotonic() - started < 5
    if inside:
        await release(asyncio.get_running_loop())


async def test_the_brokers_comings_and_goings_are_said(
    here: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """
    One line when it goes, one when it is back; not one each where it does so all the time.
    """
    caplog.set_level("INFO")
    broker = BusBroker(Bus())
    hub = make_hub(broker)
    await hub.run(int)
    broker.on_state(False)
    broker.on_state(True)
    assert caplog.messages == ["the broker went away; reconnecting", "the broker is back"]
    for connected in (False, True) * 3:
        broker.on_state(connected)
    assert len(caplog.messages) == 2


# --- Moves ---------------------------------------------------------------------------------------


async def test_a_move_restores_subscriptions_and_goes_on_counting() -> None:
    """
    The broker begins on the new loop with every subject, and numbers continue.
    """
    bus = Bus()
    broker = BusBroker(bus)
    hub, other = make_hub(broker), make_hub(BusBroker(bus))
    channel = f"specific.{hub.process}!1"
    theirs = f"specific.{other.process}!1"
    await other.run(other.join, "echo", theirs)
    await hub.run(hub.join, "room", channel)
    await hub.group_send("echo", Kind.TEXT, b"1")
    async with serving() as loop:
        assert broker.starts[-1] == (loop, {PROCESS + hub.process, GROUP + "room"})
        assert broker.closes == 1
        await hub.group_send("echo", Kind.TEXT, b"2")
        await other.group_send("room", Kind.TEXT, b"here?")
        assert (await asyncio.wait_for(hub.receive(channel), 5)).payload == b"here?"
    got = [await asyncio.wait_for(other.receive(theirs), 5) for _ in range(2)]
    assert [(one.payload, one.sequence) for one in got] == [(b"1", 1), (b"2", 2)]
    assert len({one.sender for one in got}) == 1
    await until(lambda: broker.starts[-1][0] is not loop)


async def test_submitted_messages_keep_their_order(here: asyncio.AbstractEventLoop) -> None:
    """
    Without waiting, on the owning loop or not, one thread's messages stay in order.
    """
    hub = make_hub()
    _, outbox = attach_later(hub)
    await hub.run(int)
    expected = []
    for number in range(50):
        text = str(number).encode()
        expected.append(text.decode())
        if number % 2:
            hub.submit("room", Kind.TEXT, text)
        else:
            await hub.group_send("room", Kind.TEXT, text)
    assert outbox.texts == expected

    def from_thread() -> None:
        for number in range(50):
            hub.submit("room", Kind.TEXT, b"t%d" % number)
        hub.submit("room", Kind.TEXT, b"last").result(5)

    await asyncio.to_thread(from_thread)
    assert outbox.texts[50:] == [f"t{number}" for number in range(50)] + ["last"]


def attach_later(hub: Hub) -> tuple[FakeInbox, FakeOutbox]:
    """
    Give a hub a member before it has a loop.
    """
    inbox, outbox = FakeInbox(), FakeOutbox()
    hub.owner.enter(hub.attach, "a!1", inbox, outbox, asyncio.get_running_loop())
    hub.owner.enter(hub.join, "room", "a!1")
    return inbox, outbox


async def test_a_submission_that_fails_says_so_in_its_future(
    here: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An error on the way is the future's, not the caller's.
    """
    hub = make_hub()
    await hub.run(int)

    def fail(envelope: Envelope, now: float) -> bytes:
        raise KeyError("broken")

    monkeypatch.setattr(module, "pack", fail)
    with pytest.raises(KeyError, match="broken"):
        hub.submit("room", Kind.TEXT, b"x").result(0)


async def test_a_child_process_has_another_name_and_no_members() -> None:
    """
    What the parent knew stays the parent's.
    """
    hub = make_hub()
    channel = f"specific.{hub.process}!1"
    await hub.run(hub.join, "room", channel)
    await hub.run(hub.send, channel, Kind.TEXT, b"x")
    name = hub.process
    hub.owner.forked()
    assert hub.process != name
    assert (hub.groups, hub.mailboxes) == ({}, {})
    mine = f"specific.{hub.process}!1"
    await hub.run(hub.join, "room", mine)
    await hub.group_send("room", Kind.TEXT, b"y")
    assert (await hub.receive(mine)).payload == b"y"


async def test_reading_a_queue_first_begins_the_hub() -> None:
    """
    A worker that only reads is on a loop like any other.
    """
    bus = Bus()
    broker = BusBroker(bus)
    hub = make_hub(broker)
    reader = asyncio.ensure_future(hub.receive("jobs"))
    await until(lambda: broker.starts)
    bus.queues.push(
        "jobs",
        pack(Envelope(Kind.HANDLER, HELLO, expires=monotonic() + 5), monotonic()),
        lifetime=5,
        capacity=1,
    )
    assert (await asyncio.wait_for(reader, 5)).message() == {"type": "hello"}
