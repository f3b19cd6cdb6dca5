"""
Processes that are killed, stopped or stand still, and what the others notice of it.

Each process floods a group while it happens. What the others say to each other must arrive,
whole, once and in order; nobody waits for the faulty one longer than stated.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
from functools import partial
from typing import Any

import pytest

from tests.integration.layers.fleet import (
    Fleet,
    Member,
    all_do,
    assert_complete,
    calm,
    quick,
    reach,
    settle,
    sockets_in,
    unbroken,
    until,
)

pytestmark = [pytest.mark.fault, pytest.mark.one_loop]

JOIN_TIMEOUT = 0.25
MARGIN = 0.75
"""
Seconds that a busy machine may add to a time that is promised.
"""

Flood = asyncio.Future[Any]


async def flood(members: list[Member], **options: Any) -> list[Flood]:
    """
    Have all processes send to ``room``, and wait until each has heard all of them.
    """
    floods = [await member.begin("flood", groups=["room"], **options) for member in members]
    first = {member.name: 5 for member in members}
    await all_do(members, "hear", subject="room", senders=first)
    return floods


async def slowest_join(member: Member, name: str, times: int) -> float:
    """
    Have a process join one new group after another; give the seconds the slowest took.
    """
    joins = [await member.do("join", groups=[f"{name}-{number}"]) for number in range(times)]
    return max(float(join["slowest"]) for join in joins)


async def assert_nothing_lost(members: list[Member]) -> None:
    """
    End the floods and show that what these processes said to each other arrived.
    """
    last = await calm(members, "room")
    for report in await all_do(members, "report"):
        assert_complete(report, "room", last)


async def hears_anew(member: Member, others: list[Member], number: int = 5) -> None:
    """
    Wait until a process has heard, of each of the others, so many messages sent from now on.
    """
    sent = {other.name: (await other.do("report"))["sent"]["room"] for other in others}
    senders = {name: last + number for name, last in sent.items()}
    await member.do("hear", subject="room", senders=senders)


async def all_hear_anew(members: list[Member], other: Member) -> None:
    """
    Wait until each process has heard messages that one sends from now on.
    """
    await asyncio.gather(*(hears_anew(member, [other]) for member in members))


@pytest.mark.parametrize("victim", [0, 3])
async def test_a_killed_member_costs_the_others_nothing(fleet: Fleet, victim: int) -> None:
    """Whoever is killed while all send, the others hear each other in full."""
    members = await fleet.start("abcd", quick(join_timeout=JOIN_TIMEOUT))
    await settle(members, "room")
    await flood(members, rate=300)
    killed = members.pop(victim)
    await killed.kill()
    slowest = await slowest_join(members[0], "after", 10)
    await reach(members, 3, "room")
    await assert_nothing_lost(members)
    assert slowest < JOIN_TIMEOUT + MARGIN
    for report in await all_do(members, "report"):
        heard = report["heard"]["room"][killed.name]
        assert heard["first"] == 1
        assert unbroken(heard)
        assert report["gaps"] == []
        assert report["slowest_publish"] < JOIN_TIMEOUT + MARGIN


async def test_a_restarted_member_is_a_member_again(fleet: Fleet) -> None:
    """One that is killed and started anew under load hears and is heard from its join on."""
    members = await fleet.start("abc", quick())
    await settle(members, "room")
    others, again = members[:2], members[2]
    before = [report["descriptors"] for report in await all_do(others, "report")]
    await flood(others, rate=300)
    for _ in range(3):
        await again.kill()
        await again.start()
        joined = await again.do("join", groups=["room"])
        last = await again.do("send", group="room", count=20)
        await all_do(others, "hear", subject="room", senders={again.name: last})
        for other in others:
            first = await until(partial(other.do, "first_after", group="room", at=joined["at"]))
            await again.do("hear", subject="room", senders={other.name: first + 10})
            heard = (await again.do("report"))["heard"]["room"][other.name]
            assert heard["first"] <= first
            assert unbroken(heard)
    await assert_nothing_lost(others)
    for report in await all_do(others, "report"):
        assert_complete(report, "room", {again.name: 20})
        assert report["gaps"] == []
    await again.kill()
    await reach(others, 2, "room")
    after = [report["descriptors"] for report in await all_do(others, "report")]
    # Two links to each other process that there is.
    assert after == [number - 2 for number in before]


async def test_what_killed_members_left_is_cleaned_away(fleet: Fleet) -> None:
    """Their sockets stay where they were until the next process comes, and then no longer."""
    members = await fleet.start("abcde", quick())
    await settle(members, "room")
    assert len(sockets_in(fleet.directory)) == 5
    await asyncio.gather(*(member.kill() for member in members))
    assert len(sockets_in(fleet.directory)) == 5
    members = await fleet.start("fg", quick())
    await settle(members, "room")
    assert len(sockets_in(fleet.directory)) == 2
    assert [await member.quit() for member in members] == [0, 0]
    assert sockets_in(fleet.directory) == []


async def test_a_stopped_member_stalls_nobody(fleet: Fleet) -> None:
    """Others send on, join in time and keep little for it; once it goes on, it hears again."""
    options = quick(join_timeout=JOIN_TIMEOUT, link_bytes_max=65536)
    members = await fleet.start("abcd", options)
    await settle(members, "room")
    await flood(members, rate=250, size=8192)
    stopped, others = members[3], members[:3]
    before = [report["memory"] for report in await all_do(others, "report")]
    await stopped.pause()
    slowest = await slowest_join(others[0], "during", 5)
    sent = {other.name: (await other.do("report"))["sent"]["room"] for other in others}
    # As much again as makes 8 MiB for the one that takes nothing, through a queue of 64 KiB.
    much = {name: number + 350 for name, number in sent.items()}
    await all_do(others, "hear", subject="room", senders=much)
    slowest = max(slowest, await slowest_join(others[1], "later", 5))
    reports = await all_do(others, "report")
    assert slowest < JOIN_TIMEOUT + MARGIN
    for report, bytes_before in zip(reports, before, strict=True):
        assert report["slowest_publish"] < JOIN_TIMEOUT + MARGIN
        assert report["memory"] - bytes_before < 4 * 2**20
    stopped.resume()
    await hears_anew(stopped, others)
    await all_hear_anew(others, stopped)
    report = await stopped.do("report")
    resets = [lost for subject, lost in report["gaps"] if subject == "group:room" and lost is None]
    assert 1 <= len(resets) <= len(others)
    await assert_nothing_lost(others)


async def test_a_short_stop_loses_nothing(fleet: Fleet) -> None:
    """One that stands still for less than the time of silence has missed nothing afterwards."""
    members = await fleet.start("abc", quick(silence=5.0))
    await settle(members, "room")
    await flood(members, rate=200)
    await members[0].pause()
    await hears_anew(members[1], members[2:], 100)
    members[0].resume()
    await assert_nothing_lost(members)
    assert [report["gaps"] for report in await all_do(members, "report")] == [[], [], []]


async def test_a_machine_that_slept_has_lost_nothing(fleet: Fleet) -> None:
    """When all stand still together, longer than the time of silence, nobody is given up for it."""
    members = await fleet.start("abc", quick())
    await settle(members, "room")
    await flood(members, rate=200)
    await asyncio.gather(*(member.pause() for member in members))
    await asyncio.sleep(1.0)
    for member in members:
        member.resume()
    await assert_nothing_lost(members)
    assert [report["gaps"] for report in await all_do(members, "report")] == [[], [], []]


async def test_a_loop_that_stood_still_is_no_lost_link_for_long(fleet: Fleet) -> None:
    """A consumer that blocks its process past the time of silence delays its process alone."""
    members = await fleet.start("abc", quick(join_timeout=JOIN_TIMEOUT))
    await settle(members, "room")
    await flood(members, rate=100)
    blocking = await members[0].begin("stand_still", seconds=1.2)
    await until(lambda: members[0].still)
    assert await slowest_join(members[1], "during", 4) < JOIN_TIMEOUT + MARGIN
    await asyncio.wait_for(blocking, 10)
    await hears_anew(members[0], members[1:])
    await all_hear_anew(members[1:], members[0])
    await assert_nothing_lost(members[1:])


async def test_members_may_stop_while_others_begin(fleet: Fleet) -> None:
    """A new process joins in time though half of the others do not answer, and meets them later."""
    members = await fleet.start("abcd", quick(join_timeout=JOIN_TIMEOUT))
    await settle(members, "room")
    await asyncio.gather(*(member.pause() for member in members[2:]))
    (new,) = await fleet.start("e", quick(join_timeout=JOIN_TIMEOUT))
    join = await new.do("join", groups=["room"])
    # Once to begin and once to join.
    assert join["slowest"] < 2 * JOIN_TIMEOUT + MARGIN
    last = await new.do("send", group="room", count=10)
    await all_do(members[:2], "hear", subject="room", senders={new.name: last})
    for member in members[2:]:
        member.resume()
    # Nothing is known of what these wanted, and so everything was kept for them.
    await all_do(members[2:], "hear", subject="room", senders={new.name: last})
    await reach([*members, new], 5, "room")
    await flood([*members, new], rate=50)
    await calm([*members, new], "room")


async def test_a_stopped_member_may_be_killed(fleet: Fleet) -> None:
    """A process that ends without ever going on is forgotten, and its socket cleaned away."""
    members = await fleet.start("abc", quick(link_bytes_max=65536))
    await settle(members, "room")
    await flood(members, rate=200, size=1024)
    await members[0].pause()
    await hears_anew(members[1], members[2:], 200)
    await members[0].kill()
    await reach(members[1:], 2, "room")
    await assert_nothing_lost(members[1:])
    await members[0].start()
    await settle(members, "room")
    assert len(sockets_in(fleet.directory)) == 3


async def test_long_stops_end_in_one_gap_each(fleet: Fleet) -> None:
    """However often others try to reach a stopped process, each tells it once of what it missed."""
    members = await fleet.start("abc", quick(silence=0.2, heartbeat=0.05))
    await settle(members, "room", "quiet")
    stopped, others = members[0], members[1:]
    await flood(others, rate=100)
    await stopped.pause()
    await hears_anew(others[0], others[1:], 300)
    stopped.resume()
    await hears_anew(stopped, others)
    gaps = [tuple(gap) for gap in (await stopped.do("report"))["gaps"]]
    assert 1 <= gaps.count(("group:room", None)) <= 2
    assert 1 <= gaps.count(("group:quiet", None)) <= 2
    await assert_nothing_lost(others)


async def test_nobody_works_for_a_stopped_member(fleet: Fleet) -> None:
    """While one stands still, and nothing is sent, the others are at rest."""
    members = await fleet.start("abc", quick(link_bytes_max=65536))
    await settle(members, "room")
    stopped, others = members[0], members[1:]
    await stopped.pause()
    await others[0].do("flood", groups=["room"], size=16384, count=50)
    before = [report["processor"] for report in await all_do(others, "report")]
    await asyncio.sleep(1.0)
    for began, report in zip(before, await all_do(others, "report"), strict=True):
        assert report["processor"] - began < 0.2


async def test_a_lack_of_descriptors_is_survived(fleet: Fleet) -> None:
    """One that can take nobody in does not keep trying all the time, nor delay a new one."""
    members = await fleet.start("ab", quick(join_timeout=JOIN_TIMEOUT))
    await settle(members, "room")
    short, other = members
    assert short.process is not None
    before = await short.do("report")
    limits = resource.prlimit(short.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(
        short.process.pid, resource.RLIMIT_NOFILE, (before["descriptors"] - 1, limits[1])
    )
    (new,) = await fleet.start("c", quick(join_timeout=JOIN_TIMEOUT))
    join = await new.do("join", groups=["room"])
    assert join["slowest"] < 2 * JOIN_TIMEOUT + MARGIN
    await reach([other], 3, "room")
    last = await other.do("send", group="room", count=10)
    await all_do([short, new], "hear", subject="room", senders={other.name: last})
    await asyncio.sleep(0.5)
    resource.prlimit(short.process.pid, resource.RLIMIT_NOFILE, limits)
    await reach([*members, new], 3, "room")
    assert (await short.do("report"))["processor"] - before["processor"] < 0.3
    await flood([*members, new], rate=100)
    await assert_nothing_lost([*members, new])


@pytest.mark.parametrize("what", ["directory", "sockets"])
async def test_a_directory_cleared_under_running_processes_fills_again(
    fleet: Fleet, what: str
) -> None:
    """Whoever clears /tmp breaks no link, and those who come later meet those who were there."""
    members = await fleet.start("ab", quick())
    await settle(members, "room")
    await flood(members, rate=200)
    if what == "directory":
        shutil.rmtree(fleet.directory)
    else:
        for name in sockets_in(fleet.directory):
            (fleet.directory / name).unlink()
    (new,) = await fleet.start("c", quick())
    await new.do("join", groups=["room"])
    await reach([*members, new], 3, "room")
    await assert_nothing_lost(members)
    assert [report["gaps"] for report in await all_do(members, "report")] == [[], []]
    last = await new.do("send", group="room", count=10)
    await all_do(members, "hear", subject="room", senders={new.name: last})


async def test_messages_of_a_megabyte_cut_by_a_kill_reach_nobody_in_part(fleet: Fleet) -> None:
    """What a killed process had sent in half is not delivered, and harms nobody."""
    members = await fleet.start("abcd", quick())
    await settle(members, "room")
    killed, others = members[0], members[1:]
    await killed.begin("flood", groups=["room"], size=1_000_000)
    await all_do(others, "hear", subject="room", senders={killed.name: 5})
    await killed.kill()
    await reach(others, 3, "room")
    await all_do(others, "send", group="room", count=10)
    last = {other.name: 10 for other in others}
    await all_do(others, "hear", subject="room", senders=last)
    for report in await all_do(others, "report"):
        assert_complete(report, "room", last)
        assert unbroken(report["heard"]["room"][killed.name])


async def test_a_member_that_ends_well_takes_its_messages_to_the_others(fleet: Fleet) -> None:
    """All that was sent before the end arrives, nobody counts a gap, and no socket stays."""
    members = await fleet.start("abc", quick())
    await settle(members, "room")
    ending, others = members[0], members[1:]
    await flood(others, rate=200)
    sent = await ending.do("send", group="room", count=2000, size=2000)
    assert await ending.quit() == 0
    await all_do(others, "hear", subject="room", senders={ending.name: sent})
    await reach(others, 2, "room")
    await assert_nothing_lost(others)
    for report in await all_do(others, "report"):
        assert_complete(report, "room", {ending.name: sent})
        assert report["gaps"] == []
    assert len(sockets_in(fleet.directory)) == 2


async def test_jobs_of_killed_consumers_are_done_by_others(fleet: Fleet) -> None:
    """A killed process takes with it at most the job it has in hand, and none is done twice."""
    members = await fleet.start("abcd", {**quick(queue_poll=0.2), "layer": {"capacity": 1000}})
    pusher, consumers = members[0], members[1:]
    await all_do(consumers, "consume", queue="jobs")
    await pusher.do("push", queue="jobs", numbers=list(range(100)))
    pushing = await pusher.begin("push", queue="jobs", numbers=list(range(100, 400)))
    await consumers[0].kill()
    await asyncio.wait_for(pushing, 10)
    await consumers[1].kill()
    await pusher.do("push", queue="jobs", numbers=[400])
    await until(lambda: ("jobs", 400) in consumers[2].done)
    done = sorted(number for consumer in consumers for _, number in consumer.done)
    assert len(done) == len(set(done))
    assert len(done) >= 401 - 2


async def test_jobs_wait_while_nobody_lives(fleet: Fleet) -> None:
    """What was sent to a queue outlives its sender, and waits for a process that begins later."""
    (first,) = await fleet.start("a", quick(queue_poll=0.2))
    await first.do("push", queue="jobs", numbers=[1, 2, 3])
    await first.kill()
    (second,) = await fleet.start("b", quick(queue_poll=0.2))
    await second.do("consume", queue="jobs")
    await until(lambda: len(second.done) >= 3)
    assert second.done == [("jobs", 1), ("jobs", 2), ("jobs", 3)]
