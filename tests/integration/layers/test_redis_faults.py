"""
What becomes of members while Redis is away, forgets, stands still or refuses.

Each scene has a server of its own, and somebody who sends all the time. Whatever happens: who
was a member stays one, everything is subscribed again within a second of the server's return,
a message is refused by the one exception in bounded time, and what did not arrive is counted.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db.models.signals import post_save

from fairway import abroadcast, broadcast, metrics
from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers import RedisChannelLayer, owner
from tests.integration.layers.fleet import until
from tests.integration.layers.members import Script
from tests.integration.layers.redis_members import (
    BACK_SECONDS,
    PREFIX,
    QUICK,
    Chatter,
    assert_whole,
    back_after,
    channel_of,
    party,
    settled,
)
from tests.integration.layers.redis_server import (
    RedisServer,
    cluster_of_three,
    fail_over,
    free_port,
    redis_server,
    sentinel_server,
)
from tests.integration.layers.relay import relay
from tests.integration.listening import default_layer

pytestmark = pytest.mark.fault

BOUND_SECONDS = 2.5
"""
Time within which a message is taken or refused: what ``party`` allows, and a busy machine.
"""


@pytest.fixture(autouse=True)
async def served() -> AsyncIterator[None]:
    """
    Have the layers live on the loop of the test, as they do on a server's.
    """
    loop = asyncio.get_running_loop()
    await owner.bind(loop)
    yield
    await owner.release(loop)


@pytest.mark.parametrize("ending", ["stop", "kill"])
async def test_a_server_that_restarts_ends_nothing(ending: str) -> None:
    """Members of a server that ended, well or not, are members of the one in its place."""
    with redis_server() as server:
        async with party([server.address], "abc", **QUICK) as members:
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
                getattr(server, ending)()
                await chatter.refuses()
                server.start()
                await back_after(server, members)
                await chatter.heard_by(members)
            assert chatter.slowest < BOUND_SECONDS
            assert_whole(members, breaks=1)
            assert len(server.clients()) == 2 * len(members)


async def test_a_server_that_stands_still_is_left_and_found_again() -> None:
    """Who sends learns within the time given, and nobody waits for a reply that never comes."""
    with redis_server() as server:
        async with party([server.address], **QUICK) as members:
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
                server.freeze()
                await chatter.refuses()
                # The probe may not have found the listening connections dead by then.
                await until(lambda: not any(member.layer.broker.connected for member in members))
                server.thaw()
                await back_after(server, members)
                await chatter.heard_by(members)
            assert chatter.slowest < BOUND_SECONDS
            assert_whole(members, breaks=None)


async def test_a_cut_subscriber_is_subscribed_again() -> None:
    """What came in between is counted, each subject says so once, and nobody is refused."""
    with redis_server() as server:
        async with party([server.address], "abc") as members:
            gaps, missing = metrics.gaps.value, metrics.missing.value
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
                server.cut(*server.subscribers())
                await back_after(server, members)
                await chatter.heard_by(members)
            assert chatter.refused == 0
            assert_whole(members, breaks=1)
            counts = [count for member in members for _, count in member.gaps]
            assert metrics.gaps.value - gaps == counts.count(None) == 3 * len(members)
            assert metrics.missing.value - missing == sum(count or 0 for count in counts)


async def test_a_cut_commander_costs_nothing() -> None:
    """A publish whose answer was lost is sent again, and heard once."""
    with redis_server() as server:
        async with party([server.address], "abc") as members:
            async with Chatter(members[0]) as chatter:
                for _ in range(3):
                    await chatter.heard_by(members)
                    server.cut(*server.commanders())
                    await until(lambda: len(server.commanders()) == len(members))
                await chatter.heard_by(members)
            assert chatter.refused == 0
            assert_whole(members, breaks=0)
            for member in members:
                assert member.ear.heard["room"]["a"].holes == []


async def test_a_server_that_ends_idle_connections_ends_nothing_else() -> None:
    """With ``timeout``, connections come and go while nobody speaks, and nothing is missed."""
    with redis_server(timeout=1) as server:
        async with party([server.address]) as members:
            before = {client["id"] for client in server.commanders()}
            await until(lambda: not before & {client["id"] for client in server.clients()})
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
            assert chatter.refused == 0
            assert_whole(members, breaks=0)


async def test_a_server_that_takes_no_writes_carries_groups_and_refuses_queues() -> None:
    """Groups go on, a job is refused at once, and its readers get the next one it takes."""
    with redis_server() as server:
        async with party([server.address], **QUICK) as members:
            sender, reader = members
            taken = Jobs(reader)
            async with Chatter(sender) as chatter:
                await sender.push("jobs", [1])
                await taken.come([1])
                server.do("REPLICAOF", "127.0.0.1", free_port())
                with pytest.raises(ChannelLayerUnavailable, match="READONLY"):
                    await sender.push("jobs", [2])
                await chatter.heard_by(members)
                server.do("REPLICAOF", "NO", "ONE")
                await sender.push("jobs", [3])
                await taken.come([1, 3])
                await chatter.heard_by(members)
            await taken.end()
            assert chatter.refused == 0
            assert_whole(members, breaks=0)


async def test_the_last_connection_a_server_takes_is_waited_for() -> None:
    """With ``maxclients`` reached members try on, and are back once there is room."""
    with redis_server(maxclients=40) as server, ExitStack() as stack:
        async with party([server.address], **QUICK) as members:
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
                server.cut(*server.clients())
                crowd = [stack.enter_context(greeted(server)) for _ in range(39)]
                await chatter.refuses()
                assert int(server.info("stats")["rejected_connections"]) > 0
                assert {client["name"] for client in server.clients()} == {""}
                for one in crowd:
                    one.close()
                await until(lambda: server.info("clients")["connected_clients"] != "40")
                await back_after(server, members)
                await chatter.heard_by(members)
            assert_whole(members, breaks=1)


async def test_a_thousand_who_join_at_once_need_two_connections() -> None:
    """Nobody is refused, and whoever has joined hears what is sent then."""
    number = 1000
    with redis_server() as server:
        async with party([server.address]) as (sender, crowd):
            layer = crowd.layer
            channels = [await layer.new_channel() for _ in range(number)]

            async def join(channel: str) -> None:
                await asyncio.gather(
                    layer.group_add("all", channel), layer.group_add(channel, channel)
                )

            await asyncio.gather(*(join(channel) for channel in channels))
            assert server.listeners(channel_of("group:all")) == 1
            await sender.layer.group_send("all", {"type": "all"})
            for channel in channels:
                await sender.layer.group_send(channel, {"type": "one"})
            for channel in channels:
                assert [(await layer.receive(channel))["type"] for _ in range(2)] == ["all", "one"]
            assert len(server.clients()) == 4
            # The subjects of one loop turn are one command.
            assert server.calls("subscribe") < 20
            channels_before = server.channels()
            server.cut(*server.subscribers())
            assert server.channels() == []
            begin = monotonic()
            await until(lambda: server.channels() == channels_before)
            assert monotonic() - begin < BACK_SECONDS
            for channel in channels:
                layer.detach(channel)


async def test_who_joins_while_redis_is_away_has_joined_once_it_is_back() -> None:
    """A short absence refuses nobody who comes in it: they wait, and hear what is sent then."""
    groups = [f"group-{number}" for number in range(300)]
    with redis_server() as server:
        async with party([server.address]) as (sender, member):
            server.kill()
            joining = asyncio.create_task(member.join(groups))
            await until(lambda: not member.layer.broker.connected)
            assert not joining.done()
            server.start()
            await joining
            for group in groups:
                last = await sender.send(group)
                await member.hear(group, {sender.name: last})


@pytest.mark.one_loop
async def test_what_is_sent_while_redis_is_away_is_heard_once_it_is_back() -> None:
    """A message that waited for Redis is not sent before those who listen are there again."""
    with redis_server() as server:
        async with party([server.address], "abcdef") as members:
            sender = members[0]
            server.kill()
            await until(lambda: not any(one.layer.broker.connected for one in members))
            sending = asyncio.create_task(sender.send("room"))
            # So long that attempts come at their slowest pace.
            await asyncio.sleep(0.5)
            server.start()
            assert await sending == 1
            for member in members:
                await member.hear("room", {sender.name: 1})
            assert_whole(members, breaks=1)


async def test_a_layer_moves_to_another_loop_while_redis_is_away() -> None:
    """A server that starts or ends amid an absence has its members subscribed afterwards."""
    loop = asyncio.get_running_loop()
    with redis_server() as server:
        async with party([server.address], **QUICK) as members:
            for move in (owner.release, owner.bind):
                server.kill()
                await until(lambda: not any(one.layer.broker.connected for one in members))
                await move(loop)
                server.start()
                await settled(server, members)
                async with Chatter(members[0]) as chatter:
                    await chatter.heard_by(members)
                assert chatter.refused == 0
            assert len(server.clients()) == 2 * len(members)


async def test_who_has_joined_hears_although_the_subscriber_is_slow() -> None:
    """Joining takes as long as the confirmation does, so that nothing is missed after it."""
    with redis_server() as server:
        async with (
            relay(server.port) as hop,
            party([("127.0.0.1", hop.port)]) as (member, _),
            party([server.address], "c") as (sender,),
        ):
            hop.delay = 0.05
            for number in range(8):
                group = f"group-{number}"
                await member.join([group])
                await sender.send(group)
                await member.hear(group, {sender.name: 1})
            hop.delay = 0.0


@pytest.mark.parametrize("fault", ["deafen", "silence", "garble"])
async def test_a_subscription_that_is_half_dead_is_found(fault: str) -> None:
    """No message to oneself, no answer, or one of something else: the connection is made anew."""
    with redis_server() as server:
        async with (
            relay(server.port) as hop,
            party([("127.0.0.1", hop.port)], "ab", **QUICK) as members,
            party([server.address], "c") as (sender,),
        ):
            async with Chatter(sender) as chatter:
                await chatter.heard_by(members)
                listening = {client["id"] for client in server.subscribers()}
                getattr(hop, fault)()
                await until(lambda: len(listening - {one["id"] for one in server.clients()}) == 2)
                await settled(server, [*members, sender])
                await chatter.heard_by(members)
            assert chatter.refused == 0
            assert_whole(members, breaks=1)


@pytest.mark.one_loop
async def test_what_is_half_dead_is_found_with_the_other_half() -> None:
    """A new connection for commands has the listening one probed now, not after 30 s."""
    with redis_server() as server:
        async with (
            relay(server.port) as hop,
            party([("127.0.0.1", hop.port)], "a", command_timeout=0.3) as members,
            party([server.address], "c") as (sender,),
        ):
            async with Chatter(sender) as chatter:
                await chatter.heard_by(members)
                listening = {client["id"] for client in server.subscribers()}
                hop.deafen()
                server.cut(*server.commanders())
                await until(lambda: len(listening - {one["id"] for one in server.clients()}) == 1)
                await settled(server, [*members, sender])
                await chatter.heard_by(members)
            assert_whole(members, breaks=1)


@pytest.mark.one_loop
async def test_a_connection_that_is_ended_at_once_comes_back_with_pauses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever ends it as often as it is opened gets a few attempts a second, and a few lines."""
    with redis_server() as server:
        async with relay(server.port) as hop, party([("127.0.0.1", hop.port)], "a") as members:
            hop.hangs_up = True
            server.cut(*server.subscribers())
            await asyncio.sleep(1)
            assert 3 <= hop.hung_up <= 12
            hop.hangs_up = False
            await back_after(server, members)
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
            assert_whole(members, breaks=1)
    assert caplog.text.count("the broker went away") == 1
    assert len(caplog.records) < 6


async def test_who_reads_too_slowly_is_dropped_by_the_server_and_comes_back() -> None:
    """What does not fit into the output buffer is lost, which every receiver counts."""
    with redis_server(client_output_buffer_limit="pubsub 256kb 0 0") as server:
        async with party([server.address], **QUICK) as members:
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
                # Nobody reads meanwhile: it is done in the thread of their loop.
                while server.subscribers():
                    server.do("PUBLISH", channel_of("group:room"), b"\0" * 1_000_000)
                await back_after(server, members)
                await chatter.heard_by(members)
            assert_whole(members, breaks=1)


async def test_rights_that_are_taken_away_are_missed_and_found_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A user who must not listen any more stays a member, says so once, and is back at once."""
    with redis_server() as server:
        async with party([server.address], **QUICK) as members:
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
                server.do("ACL", "SETUSER", "default", "resetchannels")
                await chatter.refuses()
                await until(lambda: "refuses: NOPERM" in caplog.text)
                server.do("ACL", "SETUSER", "default", "allchannels")
                await back_after(server, members)
                await chatter.heard_by(members)
            assert_whole(members, breaks=1)
    told = [line for line in caplog.messages if "refuses: NOPERM" in line]
    assert len(told) == len(members)


@pytest.mark.one_loop
async def test_a_password_that_changes_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is refused with the old one tries on, without telling it, and is back with it."""
    with redis_server(requirepass="opensesame") as server:
        async with party([{**place_of(server), "password": "opensesame"}], **QUICK) as members:
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
                server.set("requirepass", "other")
                # Who is in stays in.
                await chatter.heard_by(members)
                server.cut(*server.clients())
                await chatter.refuses()
                server.set("requirepass", "opensesame")
                await back_after(server, members)
                await chatter.heard_by(members)
            assert_whole(members, breaks=1)
    assert "opensesame" not in caplog.text


@pytest.mark.one_loop
async def test_a_master_that_became_a_replica_is_left_for_where_its_name_leads() -> None:
    """Without Sentinels, who only sends to groups finds out by itself; nothing is lost by it."""
    with redis_server() as server:
        async with party([server.address], **QUICK) as members:
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
                before = {client["id"] for client in server.commanders()}
                server.do("REPLICAOF", "127.0.0.1", free_port())
                await until(lambda: not before & {one["id"] for one in server.commanders()})
                await chatter.heard_by(members)
            assert chatter.refused == 0
            assert_whole(members, breaks=0)


async def test_hostile_bytes_are_dropped_and_counted() -> None:
    """Whatever lies on a channel or in a queue, the messages before and after it arrive."""
    hostile = [b"", b"\x00", b"\xff" * 40, b"\x80" * 40, b"{}", bytes(range(256)), b"A" * 300_000]
    with redis_server() as server:
        async with party([server.address]) as members:
            sender, member = members
            process = f"process:{member.layer.hub.process}"
            probe = server_channels(server, "probe:")
            async with Chatter(sender) as chatter:
                await chatter.heard_by(members)
                dropped = metrics.drops.values.get("malformed", 0)
                for data in hostile:
                    server.do("PUBLISH", channel_of("group:a"), data)
                    server.do("PUBLISH", channel_of(process), data)
                    for channel in probe:
                        server.do("PUBLISH", channel, data)
                await chatter.heard_by(members)
                assert metrics.drops.values["malformed"] == dropped + 2 * len(hostile)
            assert member.layer.broker.connected
            assert_whole(members, breaks=0)


async def test_one_server_of_several_is_missed_by_its_own_subjects_alone() -> None:
    """Groups on the servers that are there go on as if nothing had happened."""
    with redis_server() as first, redis_server() as second:
        async with party([first.address, second.address], **QUICK) as members:
            sender, member = members
            groups = [f"group-{number}" for number in range(12)]
            await member.join(groups)
            away = [name for name in groups if second.listeners(channel_of(f"group:{name}"))]
            here = [name for name in groups if first.listeners(channel_of(f"group:{name}"))]
            assert away
            assert here
            assert len(away) + len(here) == len(groups)
            second.kill()
            for group in away:
                with pytest.raises(ChannelLayerUnavailable):
                    await sender.send(group)
            for group in here:
                last = await sender.send(group, 3)
                await member.hear(group, {sender.name: last})
            second.start()
            begin = monotonic()
            await until(lambda: all(second.listeners(channel_of(f"group:{name}")) for name in away))
            await until(lambda: sender.layer.broker.connected)
            assert monotonic() - begin < BACK_SECONDS
            for group in groups:
                last = await sender.send(group, 3)
                await member.hear(group, {sender.name: last})
            told = {subject for subject, count in member.gaps if count is None}
            assert told >= {f"group:{name}" for name in away}
            assert not told & {f"group:{name}" for name in here}


@pytest.mark.one_loop
@pytest.mark.parametrize("how", ["planned", "killed", "frozen"])
async def test_a_failover_is_followed(how: str) -> None:
    """Members go where the Sentinels say, and are there within a second of its being so."""
    with (
        redis_server() as server,
        redis_server(replicaof=replica_of(server)) as other,
        sentinel_server(server) as sentinel,
    ):
        # The first one to be asked is gone.
        sentinels = [("127.0.0.1", free_port()), sentinel.address]
        hosts = [{"sentinels": sentinels, "master_name": "mymaster"}]
        # No probe helps: who only listens follows the Sentinels.
        async with party(hosts, **{**QUICK, "probe_interval": 30}) as members:
            await follow(members, sentinel, server, other, how)


async def follow(
    members: list[Script],
    sentinel: RedisServer,
    server: RedisServer,
    other: RedisServer,
    how: str,
) -> None:
    """
    Have a replica take over from a master, and show that the members take part.
    """
    place = [str(part).encode() for part in other.address]
    asked = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
    taken = Jobs(members[1])
    assert len(server.clients()) == 2 * len(members) + 2  # Two are the Sentinel's.
    async with Chatter(members[0]) as chatter:
        await chatter.heard_by(members)
        await members[0].push("jobs", [1])
        await taken.come([1])
        if how == "planned":
            fail_over(sentinel)
        elif how == "killed":
            server.kill()
        else:
            server.freeze()
        await until(lambda: other.info("replication")["role"] == "master")
        await until(lambda: sentinel.do(*asked) == place)
        await back_after(other, members)
        await chatter.heard_by(members)
        if how == "frozen":
            # It takes itself for the master until it is told otherwise.
            server.thaw()
            await until(lambda: server.info("replication")["role"] == "slave")
            await chatter.heard_by(members)
        await members[0].push("jobs", [2])
        await taken.come([1, 2])
    await taken.end()
    assert chatter.slowest < BOUND_SECONDS
    assert_whole(members, breaks=1)


@pytest.mark.one_loop
async def test_a_cluster_carries_groups_and_queues() -> None:
    """Members at different nodes of a cluster reach each other, and share its queues."""
    with cluster_of_three() as nodes:
        first, second, third = ([node.address] for node in nodes)
        async with (
            party(first, "a") as (one,),
            party(second, "b") as (two,),
            party(third, "c") as (three,),
        ):
            members = [one, two, three]
            for sender in members:
                last = await sender.send("room", 5)
                for member in members:
                    await member.hear("room", {sender.name: last})
            assert_whole(members, breaks=0)
            # Their keys are on different nodes.
            for queue in ("jobs", "mail", "more", "rest"):
                taken = Jobs(two, queue)
                await one.push(queue, [1])
                await three.push(queue, [2])
                await taken.come([1, 2])
                await taken.end()


@pytest.mark.django_db(transaction=True)
async def test_what_only_broadcasts_never_fails() -> None:
    """Saving a row, and a request, go on at once without Redis; who asks with ``strict`` learns."""

    def announce(instance: Group, **_: object) -> None:
        broadcast("room", {"saved": instance.name})

    with redis_server() as server:
        layer = RedisChannelLayer([server.address], prefix=PREFIX, publish_timeout=2.0, **QUICK)
        async with default_layer(layer), party([server.address], "a", **QUICK) as (member,):
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            server.kill()
            await until(lambda: not layer.broker.connected and not member.layer.broker.connected)
            lost = metrics.drops.values.get("unavailable", 0)
            post_save.connect(announce, sender=Group)
            try:
                begin = monotonic()
                await Group.objects.acreate(name="editors")
                await abroadcast("room", "hello")
                assert monotonic() - begin < BOUND_SECONDS
            finally:
                post_save.disconnect(announce, sender=Group)
            await until(lambda: metrics.drops.values["unavailable"] == lost + 2)
            for publish in (
                abroadcast("room", "hello", strict=True),
                asyncio.to_thread(broadcast, "room", "hello", strict=True),
                layer.group_send("room", {"type": "hello"}),
            ):
                with pytest.raises(ChannelLayerUnavailable):
                    await publish
            server.start()
            await until(lambda: layer.broker.connected)
            await abroadcast("room", "back", strict=True)
            assert (await layer.receive(channel))["text"] == "back"
            layer.detach(channel)


@pytest.mark.one_loop
@pytest.mark.slow(40, "the time for which a server is away, and then everybody idle, is the point")
async def test_long_absences_and_long_silence() -> None:
    """Whatever lasts longer than the times given by default ends nobody either."""
    await asyncio.gather(
        away_for_long(stands_still=False),
        away_for_long(stands_still=True),
        idle_for_long(timeout=0),
        idle_for_long(timeout=5),
    )


async def away_for_long(*, stands_still: bool) -> None:
    """
    Have a server away, or stand still, for 8 s.
    """
    with redis_server() as server:
        async with party([server.address], layer={"publish_timeout": 5.0}) as members:
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
                (server.freeze if stands_still else server.kill)()
                await asyncio.sleep(8)
                (server.thaw if stands_still else server.start)()
                await back_after(server, members)
                await chatter.heard_by(members)
            assert chatter.refused > 0
            assert chatter.slowest < 5 + 0.5
            assert_whole(members, breaks=0 if stands_still else 1)


async def idle_for_long(timeout: int) -> None:
    """
    Have nobody send for longer than redis-py waits for an answer, or the server for a word.

    It stands for a minute with the probes every 30 s that are the default: nothing here waits
    for longer than 5 s, or less often than the probe, which comes as often as it would then.
    """
    with redis_server(timeout=timeout) as server:
        async with party([server.address], probe_interval=5.5) as members:
            await asyncio.sleep(12)
            async with Chatter(members[0]) as chatter:
                await chatter.heard_by(members)
            assert chatter.refused == 0
            assert_whole(members, breaks=0)


class Jobs:
    """
    What a member takes from a queue.
    """

    def __init__(self, member: Script, queue: str = "jobs") -> None:
        self._member = member
        self._queue = queue
        self._taken: list[int] = []
        self._task = asyncio.create_task(self._take())

    async def come(self, expected: list[int]) -> None:
        """
        Wait until just these were taken.
        """
        await until(lambda: len(self._taken) >= len(expected))
        assert self._taken == expected

    async def end(self) -> None:
        """
        Take no more.
        """
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _take(self) -> None:
        while True:
            message = await self._member.layer.receive(self._queue)
            self._taken.append(message["number"])


def greeted(server: RedisServer) -> socket.socket:
    """
    Open a connection to a server that has answered there, if only to refuse.
    """
    connection = socket.create_connection(server.address, timeout=5)
    connection.sendall(b"PING\r\n")
    connection.recv(100)
    return connection


def place_of(server: RedisServer) -> dict[str, Any]:
    """
    Say where a server is, as settings do.
    """
    return dict(zip(("host", "port"), server.address, strict=True))


def replica_of(server: RedisServer) -> str:
    """
    Say whose replica a server is.
    """
    return "{} {}".format(*server.address)


def server_channels(server: RedisServer, subject: str) -> list[bytes]:
    """
    Give the channels that subjects of this kind are.
    """
    return [name for name in server.channels() if channel_of(subject).encode() in name]
