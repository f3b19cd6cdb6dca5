"""
Several brokers in one directory: who hears what, in which order, from when on.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from fairway import metrics
from fairway.exceptions import (
    ChannelFull,
    ChannelLayerUnavailable,
    ConfigurationError,
    MessageTooLarge,
)
from fairway.layers import IPCChannelLayer
from fairway.layers.brokers.ipc import IPCBroker
from fairway.layers.brokers.ipc.frames import Message
from fairway.layers.iothread import THREAD_NAME
from fairway.layers.owner import bind, release
from fairway.options import IPCOptions
from tests.integration.layers.brokers.ipc.site import Member, meeting
from tests.unit.layers.fakes import LoopThread, until


async def test_a_broker_alone_delivers_at_once_and_waits_for_nobody(directory: Path) -> None:
    """
    Without others it is the broker of one process.
    """
    async with meeting(directory) as site:
        alone = await site.enter("a")
        connected = [alone.connected]
        assert alone.subscribe("b") is None
        for subject in ("a", "b", "c"):
            assert alone.publish(subject, b"1") is None
        assert alone.got == [("a", b"1"), ("b", b"1")]
        assert (alone.published, alone.received, alone.peers) == (3, 2, 0)
    assert [*connected, alone.connected] == [True, False]
    with pytest.raises(ChannelLayerUnavailable, match="closed"):
        alone.publish("a", b"2")


async def test_a_join_that_returned_hears_everybody(directory: Path) -> None:
    """
    After the awaitable of subscribe is done, whatever others publish arrives, once.
    """
    async with meeting(directory) as site:
        first, second, third = [await site.enter() for _ in range(3)]
        await second.join("room")
        for sender in (first, second, third):
            await sender.send("room", b"hello")
        await until(lambda: len(second.got) == 3)
        assert (first.got, third.got) == ([], [])
        assert await first.audience("room") == 1
        assert await second.audience("room") == 1
        assert await second.audience("other") == 0


async def test_one_who_begins_later_knows_who_listens(directory: Path) -> None:
    """
    A publish right after start reaches those who joined before.
    """
    async with meeting(directory) as site:
        first = await site.enter("room")
        for number in range(5):
            late = await site.enter()
            assert await late.audience("room") == 1
            await late.send("room", b"%d" % number)
            await late.close()
        await first.gets(*(b"%d" % number for number in range(5)))
        await until(lambda: first.peers == 0)


async def test_subjects_given_at_the_start_are_known_when_it_returns(directory: Path) -> None:
    """
    What a hub was subscribed to before a move needs no word of its own.
    """
    async with meeting(directory) as site:
        first = await site.enter()
        second = await site.enter("x", "y")
        await first.send("y", b"1")
        await second.gets(b"1")


async def test_who_left_hears_no_more(directory: Path) -> None:
    """
    A process without a member of a group receives nothing for it.
    """
    async with meeting(directory) as site:
        first, second = await site.enter(), await site.enter("room", "mark")
        second.unsubscribe("room")
        await until(lambda: not first.mesh.interests.of("room"))
        before = metrics.delivered_uninterested.value
        await first.send("room", b"1")
        await first.send("mark", b"2")
        await second.gets(b"2")
        assert metrics.delivered_uninterested.value == before


async def test_a_message_that_crosses_a_leaving_is_dropped(directory: Path) -> None:
    """
    What was on its way when the subscription ended is not delivered.
    """
    async with meeting(directory) as site:
        first, second = await site.enter(), await site.enter("room", "mark")
        first.publish("room", b"1")
        first.publish("mark", b"2")
        second.unsubscribe("room")
        await second.gets(b"2")


async def test_messages_of_one_sender_keep_their_order(directory: Path) -> None:
    """
    Over all subjects, however many loop turns the sending takes.
    """
    async with meeting(directory) as site:
        sender, receiver = await site.enter("a"), await site.enter("a", "b")
        for number in range(2000):
            await sender.send("ab"[number % 2], b"%d" % number)
            if not number % 100:
                await asyncio.sleep(0)
        await receiver.gets(*(b"%d" % number for number in range(2000)))
        assert [int(payload) for _, payload in sender.got] == list(range(0, 2000, 2))


async def test_what_a_delivery_publishes_comes_after_what_caused_it(directory: Path) -> None:
    """
    A process that answers within deliver does not overtake itself.
    """
    async with meeting(directory) as site:
        answering, receiver = site.make(), await site.enter("a")

        def answer(subject: str, payload: bytes) -> None:
            if payload == b"question":
                answering.publish("a", b"answer")

        await answering.start(answer, lambda subject, lost: None, lambda connected: None, ["a"])
        answering.publish("a", b"question")
        await receiver.gets(b"question", b"answer")


async def test_a_failing_delivery_ends_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    It is logged, and the next message arrives.
    """
    async with meeting(directory) as site:
        sender, receiver = await site.enter(), site.make()
        got: list[bytes] = []

        def deliver(subject: str, payload: bytes) -> None:
            got.append(payload)
            if payload == b"bad":
                raise RuntimeError("cannot take it")

        await receiver.start(deliver, lambda subject, lost: None, lambda connected: None, ["a"])
        sender.publish("a", b"bad")
        sender.publish("a", b"good")
        await until(lambda: len(got) == 2)
        assert [record.message for record in caplog.records] == [
            "a message of another process could not be delivered"
        ]


@pytest.mark.parametrize("count", [2, 3, 6])
async def test_all_who_begin_at_once_hear_each_other(directory: Path, count: int) -> None:
    """
    Whoever of them is found by whom, each hears what each other publishes after its start.
    """
    for _ in range(10):
        async with meeting(directory) as site:
            members = [site.make() for _ in range(count)]

            async def begin(member: Member, number: int) -> None:
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                await member.begin("all")

            await asyncio.gather(*(begin(member, place) for place, member in enumerate(members)))
            for member in members:
                assert member.peers == count - 1
                await member.send("all", member.mesh.name.encode())
            expected = sorted(member.mesh.name.encode() for member in members)
            for member in members:
                await until(lambda member=member: len(member.got) == count)  # type: ignore[misc]
                assert sorted(payload for _, payload in member.got) == expected


async def test_brokers_of_several_loops_and_threads_begin_at_once(directory: Path) -> None:
    """
    As processes do: none waits for another's loop.
    """
    async with meeting(directory) as site:
        with LoopThread() as one, LoopThread() as two:
            threads = [one, two, one, two]
            members = [site.make() for _ in threads]
            await asyncio.gather(
                *(
                    thread.run(member.begin("all"))
                    for thread, member in zip(threads, members, strict=True)
                )
            )
            for thread, member in zip(threads, members, strict=True):
                await thread.run(member.send("all", b"hello"))
            for member in members:
                await until(lambda member=member: len(member.got) == 4)  # type: ignore[misc]
            for thread, member in zip(threads, members, strict=True):
                await thread.run(member.close())


async def test_a_megabyte_reaches_sixteen_others_whole(directory: Path) -> None:
    """
    The frame is made once, and the links take it as fast as they can.
    """
    async with meeting(directory) as site:
        sender = await site.enter()
        others = [await site.enter("big") for _ in range(16)]
        payloads = [bytes([number]) * 1_048_576 for number in range(4)]
        for payload in payloads:
            await sender.send("big", payload)
        for other in others:
            await until(lambda other=other: len(other.got) == 4)  # type: ignore[misc]
            assert [payload for _, payload in other.got] == payloads


async def test_a_flood_waits_for_its_readers(directory: Path) -> None:
    """
    More than fits is paced, and nothing is lost.
    """
    async with meeting(directory) as site:
        sender = await site.enter(link_bytes_max=65_536)
        receiver = await site.enter("a")
        before = dict(metrics.drops.values)
        waited = 0
        for number in range(5000):
            pending = sender.publish("a", b"%06d" % number + bytes(200))
            if pending is not None:
                waited += 1
                await pending
        await until(lambda: len(receiver.got) == 5000)
        assert [int(payload[:6]) for _, payload in receiver.got] == list(range(5000))
        assert waited
        assert metrics.drops.values == before


async def test_many_joins_in_one_turn_are_one_question(directory: Path) -> None:
    """
    A thousand groups joined at once wait for one acknowledgement.
    """
    async with meeting(directory) as site:
        first, second = await site.enter(), await site.enter()
        asked = second.mesh._asked
        await asyncio.gather(*(second.join(f"group {number}") for number in range(1000)))
        assert second.mesh._asked == asked + 1
        await first.send("group 999", b"1")
        await second.gets(b"1")


async def test_a_closed_broker_is_forgotten_and_may_begin_again(directory: Path) -> None:
    """
    Closing says so to the others; beginning again is beginning.
    """
    async with meeting(directory) as site:
        first, second = await site.enter("a"), await site.enter("a")
        await second.close()
        await until(lambda: first.peers == 0)
        assert first.subscribe("b") is None
        await second.begin("a")
        await first.send("a", b"1")
        await second.gets(b"1")
        assert (first.gaps, second.gaps) == ([], [])


async def test_a_broker_moves_to_another_loop(directory: Path) -> None:
    """
    Closed on one loop and started on another, it hears what is published from then on.
    """
    async with meeting(directory) as site:
        first, mover = await site.enter(), site.make()
        with LoopThread() as thread:
            await thread.run(mover.begin("a"))
            await first.send("a", b"1")
            await until(lambda: mover.got)
            await thread.run(mover.close())
        await mover.begin("a")
        await first.send("a", b"2")
        await mover.gets(b"1", b"2")


async def test_a_server_that_starts_later_takes_the_members_over(place: Path) -> None:
    """
    Groups joined on fairway-io hear on, in order and twice nothing, while another process sends.
    """
    layer, other = (
        IPCChannelLayer(place / "root", "project", capacity=100_000, join_timeout=5.0)
        for _ in range(2)
    )
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    sending = True

    async def send() -> int:
        number = 0
        while sending:
            await other.group_send("room", {"type": "n", "n": number})
            number += 1
            await asyncio.sleep(0)
        return number

    missing = metrics.missing.value
    flood = asyncio.ensure_future(send())
    got = [(await layer.receive(channel))["n"]]
    loop = asyncio.get_running_loop()
    await bind(loop)
    assert layer.hub.owner.here()
    await asyncio.sleep(0.05)
    await release(loop)
    await layer.group_add("another", channel)
    sending = False
    count = await flood + 1
    await other.group_send("room", {"type": "n", "n": count - 1})
    while got[-1] < count - 1:
        got.append((await asyncio.wait_for(layer.receive(channel), 5))["n"])
    assert got == sorted(set(got))
    assert count - len(got) == metrics.missing.value - missing
    for one in (layer, other):
        await one.close()


async def test_a_broker_leaves_a_loop_that_has_ended(directory: Path) -> None:
    """
    A loop that was closed without a word leaves neither a descriptor nor an entry.
    """
    async with meeting(directory) as site:
        first, mover = await site.enter(), site.make()
        with LoopThread() as thread:
            await thread.run(mover.begin("a"))
        ended = mover.mesh
        await mover.begin("a")
        assert not ended.links.open
        assert len(site.sockets()) == 2
        await first.send("a", b"1")
        await mover.gets(b"1")
        await until(lambda: first.peers == 1)


async def test_a_broker_leaves_a_loop_that_stands_still(directory: Path) -> None:
    """
    What it had there is closed as soon as that loop goes on.
    """
    async with meeting(directory) as site:
        first, mover = await site.enter(), site.make(join_timeout=0.1)
        go_on = threading.Event()
        with LoopThread() as thread:
            await thread.run(mover.begin("a"))
            stuck = mover.mesh
            thread.loop.call_soon_threadsafe(go_on.wait)
            await mover.begin("a")
            await first.send("a", b"1")
            await mover.gets(b"1")
            go_on.set()
            await until(lambda: not stuck.links.open)
        await until(lambda: first.peers == 1)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
async def test_a_loop_that_goes_on_after_it_was_left_hears_nothing(
    directory: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """
    What lies in its sockets was sent to the new one too, or is counted as missing there.
    """
    async with meeting(directory) as site:
        first, mover = await site.enter(), site.make(join_timeout=0.1)
        stands, go_on = threading.Event(), threading.Event()
        with LoopThread(new_loop()) as thread:
            await thread.run(mover.begin("a"))
            stuck = mover.mesh
            thread.loop.call_soon_threadsafe(stands.set)
            thread.loop.call_soon_threadsafe(go_on.wait)
            assert stands.wait(5)
            await first.send("a", b"1")
            await mover.begin("a")
            assert f"{stuck.name}.sock" not in site.sockets()
            await first.send("a", b"2")
            await mover.gets(b"2")
            go_on.set()
            await until(lambda: not stuck.links.open)
        stuck.receive(Message("a", b"3"))
        stuck.gap()
        await mover.gets(b"2")
        assert (mover.gaps, mover.states) == ([], [])
        assert mover.connected


async def test_joins_that_wait_fail_when_the_broker_closes(directory: Path) -> None:
    """
    Nobody waits for ever, nor is told that it is confirmed.
    """
    async with meeting(directory) as site:
        await site.enter()
        closing = await site.enter()
        pending, other = closing.subscribe("a"), closing.subscribe("b")
        assert pending is not None
        assert other is not None
        await closing.close()
        for wait in (pending, other):
            with pytest.raises(ChannelLayerUnavailable):
                await wait
        gc.collect()


async def test_a_directory_that_cannot_be_used_is_said_in_one_line(place: Path) -> None:
    """
    The start raises what the rendezvous found, and leaves nothing open.
    """
    (place / "file").touch()
    broker = Member(place / "file" / "project")
    with pytest.raises(ConfigurationError, match="file"):
        await broker.begin()
    assert not broker.connected
    await broker.close()


async def test_a_directory_may_be_found_at_each_start(place: Path) -> None:
    """
    Whoever makes the broker may decide late where the processes meet.
    """
    places = iter([place / "root" / "one", place / "root" / "two"])
    broker = IPCBroker(lambda: next(places), IPCOptions(), expiry=60, namespace="x")
    nobody = (lambda subject, payload: None, lambda subject, lost: None, lambda connected: None)
    for name in ("one", "two"):
        await broker.start(*nobody)
        assert len(list((place / "root" / name).glob("*.sock"))) == 1
        pushed = broker.push("jobs", name.encode(), lifetime=60, capacity=1)
        assert pushed is not None
        await pushed
        assert await broker.pop("jobs") == name.encode()
        await broker.close()


async def test_after_a_fork_it_is_another_process(directory: Path) -> None:
    """
    The child's broker is closed, knows nobody, and touches neither the loop nor the entry.
    """
    async with meeting(directory) as site:
        parent = await site.enter("a")
        await site.enter()
        mesh = parent.mesh
        loop = asyncio.get_running_loop()
        for link in mesh.links.open:  # What the child would not have: this is the parent's loop.
            loop.remove_reader(link._sock.fileno())
        assert mesh._door._sock is not None
        loop.remove_reader(mesh._door._sock.fileno())
        parent.forked()
        assert (parent.connected, parent.peers, await parent.audience("a")) == (False, 0, 0)
        assert len(site.sockets()) == 2
        await parent.begin("b")
        assert parent.mesh.name != mesh.name
        (directory / f"{mesh.name}.sock").unlink(missing_ok=True)


async def test_a_message_that_no_frame_can_carry_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    However large messages a layer allows.
    """
    monkeypatch.setattr("fairway.layers.brokers.ipc.frames.FRAME_BYTES_MAX", 1000)
    async with meeting(directory) as site:
        first = await site.enter()
        await site.enter("a")
        with pytest.raises(MessageTooLarge):
            first.publish("a", bytes(1000))


async def test_it_describes_itself(directory: Path) -> None:
    """
    A derived namespace is cut to what people can tell apart; one they gave stays as it is.
    """
    async with meeting(directory) as site:
        first = await site.enter()
        assert first.describe() == "ipc, namespace project, 0 other processes"
        await site.enter()
        assert first.describe() == "ipc, namespace project, 1 other process"
    derived = IPCBroker(directory, IPCOptions(), expiry=60, namespace="3f2a9c" * 4)
    assert derived.describe() == "ipc, namespace 3f2a9c, 0 other processes"


# --- A publisher that finds nobody ------------------------------------------------------------


async def test_a_lonely_publisher_is_told_once(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A process without a server and without members says where it looked, and what it may be.
    """
    broker = Member(directory)

    async def publish() -> None:
        await broker.begin()
        broker.publish("a", b"1")
        broker.publish("a", b"2")
        await broker.close()

    thread = threading.Thread(target=lambda: asyncio.run(publish()), name=THREAD_NAME)
    thread.start()
    await asyncio.to_thread(thread.join)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"(namespace project, in {directory})" in record.message


async def test_a_server_whose_browsers_are_not_there_yet_says_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A single server that publishes before anybody connects is no mistake.
    """
    async with meeting(directory) as site:
        (await site.enter()).publish("a", b"1")
    assert caplog.records == []


# --- Queues -----------------------------------------------------------------------------------


async def test_a_queue_wakes_readers_in_other_processes(directory: Path) -> None:
    """
    One reader gets it, long before it would have looked by itself.
    """
    async with meeting(directory) as site:
        first, second = [await site.enter(queue_poll=60.0) for _ in range(2)]
        reading = asyncio.ensure_future(second.pop("jobs"))
        await until(lambda: first.mesh.interests.known("queue:jobs"))
        pushed = first.push("jobs", b"1", lifetime=60, capacity=1)
        assert pushed is not None
        await pushed
        assert await asyncio.wait_for(reading, 5) == b"1"
        assert (first.published, second.received) == (1, 1)


async def test_a_push_is_made_known_by_a_broker_that_closes_at_once(directory: Path) -> None:
    """
    Also when nobody waits for it to be written, as at the end of a command.
    """
    async with meeting(directory) as site:
        reader = await site.enter(queue_poll=60.0)
        reading = asyncio.ensure_future(reader.pop("jobs"))
        await until(lambda: "queue:jobs" in reader._subjects)
        for number in range(5):
            command = await site.enter()
            pushed = command.push("jobs", b"%d" % number, lifetime=60, capacity=1)
            await command.close()
            assert await asyncio.wait_for(reading, 5) == b"%d" % number
            assert command.published == 1
            assert pushed is not None
            await pushed
            reading = asyncio.ensure_future(reader.pop("jobs"))
        reading.cancel()


async def test_a_push_that_crosses_a_beginning_reader_is_found(directory: Path) -> None:
    """
    Who pushed before knowing of the reader made nothing known; the reader looks once more.
    """
    async with meeting(directory) as site:
        writer = await site.enter()
        with LoopThread() as thread:
            reader = site.make(queue_poll=60.0)
            await thread.run(reader.begin())
            await until(lambda: reader.mesh.peers)
            # Its loop stands still between the first look at the file and telling others.
            queues = reader._open_queues()
            go_on = threading.Event()
            reading = asyncio.ensure_future(reader.pop("jobs"))
            thread.loop.call_soon_threadsafe(go_on.wait)
            await asyncio.sleep(0)
            await until(lambda: queues._lane is not None and not queues._lane.looks)
            pushed = writer.push("jobs", b"1", lifetime=60, capacity=1)
            assert pushed is not None
            await pushed
            go_on.set()
            assert await asyncio.wait_for(reading, 5) == b"1"
            await thread.run(reader.close())


async def test_an_abandoned_reader_may_be_collected_at_any_time(directory: Path) -> None:
    """
    The collector ends its call in the middle of another one, on the same thread.
    """
    async with meeting(directory) as site:
        broker = await site.enter()
        with broker._reading:
            abandoned = broker.pop("jobs")
            abandoned.send(None)
            abandoned.close()
        assert not broker._readers


async def test_a_full_queue_says_so(directory: Path) -> None:
    """
    And after a flush there is room.
    """
    async with meeting(directory) as site:
        broker = await site.enter()
        for number in range(2):
            pushed = broker.push("jobs", b"%d" % number, lifetime=60, capacity=1)
            assert pushed is not None
            if number:
                with pytest.raises(ChannelFull):
                    await pushed
                await broker.flush()
            else:
                await pushed
        pushed = broker.push("jobs", b"2", lifetime=60, capacity=1)
        assert pushed is not None
        await pushed
        assert await broker.pop("jobs") == b"2"


async def test_a_reader_waits_through_a_move(directory: Path) -> None:
    """
    Readers live on any loop, and go on waiting while the broker changes its own.
    """
    async with meeting(directory) as site:
        first, mover = await site.enter(queue_poll=60.0), site.make(queue_poll=60.0)
        with LoopThread() as thread:
            await thread.run(mover.begin())
            reading = asyncio.ensure_future(mover.pop("jobs"))
            await until(lambda: first.mesh.interests.known("queue:jobs"))
            await thread.run(mover.close())
        await mover.begin()
        await until(lambda: first.mesh.interests.known("queue:jobs"))
        pushed = first.push("jobs", b"1", lifetime=60, capacity=1)
        assert pushed is not None
        await pushed
        assert await asyncio.wait_for(reading, 5) == b"1"


async def test_a_queue_without_readers_is_not_heard_of_for_long(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Readers come and go without a word to others; when none came for a while, there is one.
    """
    monkeypatch.setattr("fairway.layers.brokers.ipc.broker.HEARING_SECONDS", 0.05)
    async with meeting(directory) as site:
        first, second = await site.enter(), await site.enter()
        reading = asyncio.ensure_future(second.pop("jobs"))
        await until(lambda: first.mesh.interests.known("queue:jobs"))
        await asyncio.sleep(0.06)
        assert first.mesh.interests.known("queue:jobs")
        reading.cancel()
        await until(lambda: not first.mesh.interests.known("queue:jobs"))


async def test_a_queue_of_a_broker_never_started_is_unavailable(directory: Path) -> None:
    """
    Nobody has said where the file is.
    """
    broker = Member(directory)
    with pytest.raises(ChannelLayerUnavailable):
        await broker.pop("jobs")
    await broker.close()
