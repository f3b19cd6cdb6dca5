"""
Members that join, leave and send at once while connections are cut, beside a model.

What happens in one turn happens side by side; then everybody comes to rest. By then Redis knows
exactly the subscriptions that the model has, and what anybody sends reaches all members of a
group and nobody else. A message arrives once and in order, and it must arrive wherever neither
the membership nor the subscriber was touched in its turn. What is missing is counted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from itertools import count, product

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings, strategies as st

from fairway.layers import owner
from fairway.layers.brokers.redis import RedisBroker
from tests.integration.layers.fleet import until
from tests.integration.layers.members import Script
from tests.integration.layers.redis_members import channel_of, party
from tests.integration.layers.redis_server import RedisServer, redis_server

pytestmark = [pytest.mark.fault, pytest.mark.slow(60, "many turns with many faults")]

NAMES = "abc"
GROUPS = ("one", "two")

names, groups = st.sampled_from(NAMES), st.sampled_from(GROUPS)
# A restart outdoes all else in its turn, so there is one in a turn at times, and not in most.
DEEDS = ["join", "leave", "send", "send", "deafen", "gag"] * 2 + ["restart"]

deeds = st.tuples(st.sampled_from(DEEDS), names, groups)
turns = st.lists(st.lists(deeds, min_size=1, max_size=8), min_size=1, max_size=8)
Deed = tuple[str, str, str]
rounds = count(1)


class World:
    """
    The members, the server, and what the model knows of them.

    Attributes:
        joined: Who is in which group.
    """

    def __init__(self, server: RedisServer, members: list[Script]) -> None:
        self.server = server
        self.members = {member.name: member for member in members}
        self.prefix = f"{next(rounds)}-"
        self.joined: set[tuple[str, str]] = set()

    async def live(self, history: list[list[Deed]]) -> None:
        """
        Play all turns, and leave everything as it was.
        """
        for turn in history:
            await self.play(turn)
        leaving = [("leave", name, group) for name, group in self.joined]
        if leaving:
            await self.play(leaving)

    async def play(self, turn: list[Deed]) -> None:
        """
        Play one turn, come to rest, and compare.
        """
        before = set(self.joined)
        must: list[tuple[str, str, str, int]] = []
        touched = {(name, group) for deed, name, group in turn if deed in {"join", "leave"}}
        deaf = {name for deed, name, _ in turn if deed == "deafen"}
        if any(deed == "restart" for deed, _, _ in turn):
            deaf = set(NAMES)
        numbers: dict[tuple[str, str], int] = defaultdict(int)
        for deed, name, group in turn:
            if deed == "join":
                self.joined.add((name, group))
            elif deed == "leave":
                self.joined.discard((name, group))
            elif deed == "send":
                numbers[name, group] += 1
                number = self.members[name].sent[self.prefix + group] + numbers[name, group]
                must += [
                    (other, group, name, number)
                    for other in NAMES
                    if (other, group) in before - touched and other not in deaf
                ]
        await asyncio.gather(*(self._do(*deed) for deed in turn))
        await self._rest()
        await self._send_all()
        self._compare(must)

    async def _do(self, deed: str, name: str, group: str) -> None:
        """
        Do one thing; what cuts does so at once.
        """
        member, group = self.members[name], self.prefix + group
        if deed == "restart":
            self.server.kill()
            self.server.start()
        elif deed == "join":
            # Not by way of ``join``, whose own tasks would come behind what follows.
            await member.layer.group_add(group, member.channel)
        elif deed == "leave":
            await member.leave([group])
        elif deed == "send":
            await member.send(group)
        else:
            self.server.cut(*self._links(member, listens=deed == "deafen"))

    def _links(self, member: Script, *, listens: bool) -> list[dict[str, str]]:
        """
        Find a connection of a member among those that the server has.
        """
        broker = member.layer.broker
        assert isinstance(broker, RedisBroker)
        (node,) = broker._nodes
        keeper = node._listening if listens else node._commanding
        if keeper.link is None or keeper.link._transport is None:
            return []
        host, port = keeper.link._transport.get_extra_info("sockname")
        return [one for one in self.server.clients() if one["addr"] == f"{host}:{port}"]

    async def _rest(self) -> None:
        """
        Wait until the server knows what the model does, and the members know it too.
        """
        channels = [channel_of(f"group:{self.prefix}{group}") for group in GROUPS]
        expected = [sum(1 for _, joined in self.joined if joined == group) for group in GROUPS]

        def rests() -> bool:
            known = list(self.server.do("PUBSUB", "NUMSUB", *channels)[1::2]) == expected
            return known and all(self._is_confirmed(member) for member in self.members.values())

        await until(rests)

    def _is_confirmed(self, member: Script) -> bool:
        """
        Whether all that a member wants is confirmed, and it has nothing else.
        """
        broker = member.layer.broker
        assert isinstance(broker, RedisBroker)
        known = broker._nodes[0].listener.subscriptions._all.values()
        return broker.connected and all(one.wanted and one.confirmed for one in known)

    async def _send_all(self) -> None:
        """
        Have each member send to each group, and wait until it has arrived where it must.
        """
        for name, group in product(NAMES, GROUPS):
            last = await self.members[name].send(self.prefix + group)
            for other in NAMES:
                if (other, group) in self.joined:
                    await self.members[other].hear(self.prefix + group, {name: last})

    def _compare(self, must: list[tuple[str, str, str, int]]) -> None:
        """
        Show that everybody has heard what they must, in order, and counted the rest.
        """
        for name, group in product(NAMES, GROUPS):
            member, subject = self.members[name], self.prefix + group
            heard = member.ear.heard.get(subject, {})
            if (name, group) not in self.joined:
                assert not heard
                continue
            lost = 0
            for one in heard.values():
                assert (one.repeated, one.torn) == ([], [])
                lost += one.last - one.first + 1 - one.count
            gaps = [number for told, number in member.gaps if told == f"group:{subject}"]
            assert sum(number or 0 for number in gaps) == lost
        for name, group, sender, number in must:
            heard_one = self.members[name].ear.heard[self.prefix + group][sender]
            assert heard_one.first <= number
            assert not any(low < number < high for low, high in heard_one.holes)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """
    The loop that all turns are played on.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


def test_members_and_model_agree(runner: asyncio.Runner) -> None:
    """Whatever happens at once, at rest everybody is where they belong and nothing is lost."""

    async def meet() -> None:
        loop = asyncio.get_running_loop()
        await owner.bind(loop)
        try:
            # Pauses as short for all of them: by default most of the time would be spent in these.
            async with party(
                [server.address], NAMES, unsubscribe_delay=0.01, retry_delay_max=0.02
            ) as members:
                went = asyncio.Event()
                scene.append((members, went))
                ready.set()
                await went.wait()
        finally:
            await owner.release(loop)

    async def play(history: list[list[Deed]]) -> None:
        await World(server, scene[0][0]).live(history)

    @given(turns)
    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    def agree(history: list[list[Deed]]) -> None:
        runner.run(play(history))

    with redis_server() as server:
        scene: list[tuple[list[Script], asyncio.Event]] = []
        ready = asyncio.Event()
        meeting = runner.get_loop().create_task(meet())
        runner.run(asyncio.wait_for(ready.wait(), 10))
        try:
            agree()
        finally:
            scene[0][1].set()
            runner.run(asyncio.wait_for(meeting, 10))
