"""
Several processes that share a channel layer, all of them well.
"""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tests.integration.layers.fleet import (
    Fleet,
    all_do,
    assert_complete,
    calm,
    join_all,
    quick,
    reach,
    settle,
    until,
)

pytestmark = pytest.mark.one_loop

PATIENT = {"pace_seconds": 4.5}
MARGIN = 0.75
"""
Seconds that a busy machine may add to a time that is promised.
"""


@pytest.mark.slow(60, reason="starts sixteen processes")
async def test_sixteen_processes_hear_each_other_in_full(fleet: Fleet) -> None:
    """Every message of every process arrives once at every process, in order."""
    members = await fleet.start("abcdefghijklmnop", quick())
    await join_all(members, "room")
    await all_do(members, "flood", groups=["room"], rate=100, count=25)
    last = {member.name: 25 for member in members}
    await all_do(members, "hear", subject="room", senders=last)
    for report in await all_do(members, "report"):
        assert_complete(report, "room", last)
        assert report["gaps"] == []


async def test_messages_of_a_megabyte_arrive_whole(fleet: Fleet) -> None:
    """The largest message there may be, from and to four processes at once."""
    members = await fleet.start("abcd", {**quick(), **PATIENT})
    await join_all(members, "room")
    # The head of the message is content, too, of the 1,048,576 bytes.
    await all_do(members, "flood", groups=["room"], size=1_048_400, count=12)
    last = {member.name: 12 for member in members}
    await all_do(members, "hear", subject="room", senders=last)
    for report in await all_do(members, "report"):
        assert_complete(report, "room", last)
        assert report["gaps"] == []


async def test_messages_larger_than_a_queue_are_paced_too(fleet: Fleet) -> None:
    """One message may fill the queue of a link many times, and the next waits for it."""
    members = await fleet.start("abc", {**quick(link_bytes_max=65536), **PATIENT})
    await settle(members, "room")
    await all_do(members, "flood", groups=["room"], size=1_000_000, count=10)
    last = await calm(members, "room")
    for report in await all_do(members, "report"):
        assert_complete(report, "room", last)
        assert report["gaps"] == []


async def test_a_layer_that_moves_between_loops_is_heard_in_full(fleet: Fleet) -> None:
    """While its hub moves it sends on, all of that arrives, and what it misses is counted."""
    members = await fleet.start("abc", quick())
    await settle(members, "room")
    moving, others = members[0], members[1:]
    floods = [
        await member.begin("flood", groups=["room"], rate=500, count=500) for member in members
    ]
    await moving.do("move", times=5)
    sent = await asyncio.gather(*floods)
    await all_do(others, "hear", subject="room", senders={moving.name: sent[0]["room"]})
    for report in await all_do(others, "report"):
        assert_complete(report, "room", {moving.name: 500})
        assert_complete(report, "room", {other.name: 500 for other in others})
    report = await moving.do("report")
    heard = [report["heard"]["room"][other.name] for other in others]
    assert not any(one["repeated"] or one["torn"] for one in heard)
    holes = sum(after - before - 1 for one in heard for before, after in one["holes"])
    assert holes == sum(lost or 0 for _, lost in report["gaps"])


async def test_a_join_that_returned_misses_nothing(fleet: Fleet) -> None:
    """Whatever others begin to send once a join has returned arrives, however much they send."""
    members = await fleet.start("abcd", quick())
    groups = [f"room-{number}" for number in range(10)]
    joiner, senders = members[0], members[1:]
    await join_all(senders, "room-0")
    floods = [await sender.begin("flood", groups=groups, rate=100) for sender in senders]
    joined = {group: (await joiner.do("join", groups=[group]))["at"] for group in groups}
    firsts = {}
    for sender in senders:
        for group in groups:
            asking = partial(sender.do, "first_after", group=group, at=joined[group])
            firsts[sender.name, group] = await until(asking)
    await all_do(senders, "calm")
    await asyncio.gather(*floods)
    for sender in senders:
        sent = (await sender.do("report"))["sent"]
        for group in groups:
            await joiner.do("hear", subject=group, senders={sender.name: sent[group]})
    report = await joiner.do("report")
    for (name, group), first in firsts.items():
        heard = report["heard"][group][name]
        assert heard["first"] <= first
        assert heard["count"] == heard["last"] - heard["first"] + 1


async def test_a_join_waits_for_those_who_are_busy(fleet: Fleet) -> None:
    """Even one whose loop stands still while it is joined sends to the group from then on."""
    members = await fleet.start("abc", quick())
    await settle(members, "room")
    joiner, *busy = members
    floods = [await sender.begin("flood", groups=["new"], rate=1000) for sender in busy]
    blocking = [await sender.begin("stand_still", seconds=0.5) for sender in busy]
    await until(lambda: all(sender.still for sender in busy))
    joined = await joiner.do("join", groups=["new"])
    await asyncio.gather(*blocking)
    firsts = [await sender.do("first_after", group="new", at=joined["at"]) for sender in busy]
    assert await all_do(busy, "calm")
    for sender, first, flood in zip(busy, firsts, floods, strict=True):
        last = (await flood)["new"]
        await joiner.do("hear", subject="new", senders={sender.name: last})
        heard = (await joiner.do("report"))["heard"]["new"][sender.name]
        assert heard["first"] <= (first or last)
    assert 0.1 < joined["slowest"] < 4


async def test_a_thousand_joins_at_once_are_confirmed_in_time(fleet: Fleet) -> None:
    """Three processes join a thousand groups each; then each group's next message reaches all."""
    members = await fleet.start("abc", quick())
    groups = [f"room-{number}" for number in range(1000)]
    joins = await all_do(members, "join", groups=groups)
    assert max(join["slowest"] for join in joins) < 1 + MARGIN
    await members[0].do("flood", groups=groups, count=1)
    for group in groups[::99]:
        await all_do(members, "hear", subject=group, senders={members[0].name: 1})
    for report in await all_do(members, "report"):
        assert sum(members[0].name in report["heard"].get(group, ()) for group in groups) == 1000
    await all_do(members, "leave", groups=groups)
    await reach(members, 0, *groups[::199])


async def test_joining_and_leaving_in_turn_ends_where_it_should(fleet: Fleet) -> None:
    """However fast a process leaves and joins a group, others send to it exactly while it is in."""
    members = await fleet.start("ab", quick())
    for _ in range(50):
        await members[0].do("join", groups=["room"])
        await members[0].do("leave", groups=["room"])
    await reach(members, 0, "room")
    await members[0].do("join", groups=["room"])
    assert await members[1].do("send", group="room") == 1
    await members[0].do("hear", subject="room", senders={members[1].name: 1})


async def test_messages_to_channels_of_other_processes_keep_their_order(fleet: Fleet) -> None:
    """What one process sends to a channel of another arrives in full, whoever sends besides."""
    members = await fleet.start("abc", quick())
    await all_do(members, "join", groups=["room"])
    target = members[0]
    telling = [
        await member.begin("tell", channel=target.channel, count=500) for member in members[1:]
    ]
    assert await asyncio.gather(*telling) == [500, 500]
    last = {member.name: 500 for member in members[1:]}
    await target.do("hear", subject=target.channel, senders=last)
    assert_complete(await target.do("report"), target.channel, last)


async def test_a_flood_is_paced_and_loses_nothing(fleet: Fleet) -> None:
    """Processes that send as fast as they can wait for those that read, instead of dropping."""
    members = await fleet.start("abc", {**quick(link_bytes_max=262144), **PATIENT})
    await settle(members, "room")
    await all_do(members, "flood", groups=["room"], size=4096, count=1500)
    last = await calm(members, "room")
    assert set(last.values()) == {1500}
    for report in await all_do(members, "report"):
        assert_complete(report, "room", last)
        assert report["gaps"] == []


async def test_a_job_is_done_once_by_one_process(fleet: Fleet) -> None:
    """Three processes share the jobs that two send, in the order they came while one reads."""
    members = await fleet.start("abc", {**quick(), "layer": {"capacity": 1000}})
    await all_do(members, "consume", queue="jobs")
    await asyncio.gather(
        members[0].do("push", queue="jobs", numbers=list(range(100))),
        members[1].do("push", queue="jobs", numbers=list(range(100, 200))),
    )
    await until(lambda: sum(len(member.done) for member in members) >= 200)
    assert sorted(number for member in members for _, number in member.done) == list(range(200))
    await all_do(members[1:], "abstain", queue="jobs")
    await members[1].do("push", queue="jobs", numbers=list(range(200, 250)))
    await until(lambda: ("jobs", 249) in members[0].done)
    assert [number for _, number in members[0].done[-50:]] == list(range(200, 250))
