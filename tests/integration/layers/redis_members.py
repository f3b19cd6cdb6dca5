"""
Processes in miniature that share Redis servers: channel layers of their own, on one loop.

Each is a ``Script`` of ``members``, with a channel that notes what reaches it. What a test of
faults asks of each of them afterwards is here, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from types import TracebackType
from typing import Any, Self

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.redis import RedisBroker
from fairway.layers.brokers.redis.hosts import read_hosts
from fairway.layers.layer import ChannelLayer
from fairway.options import LayerOptions, RedisOptions
from tests.integration.layers.fleet import until
from tests.integration.layers.members import Script
from tests.integration.layers.redis_server import RedisServer

__all__ = [
    "BACK_SECONDS",
    "PREFIX",
    "QUICK",
    "Chatter",
    "assert_whole",
    "back_after",
    "channel_of",
    "party",
    "settled",
]

PREFIX = "test"

QUICK: dict[str, Any] = {"connect_timeout": 0.5, "command_timeout": 0.5, "probe_interval": 0.2}
"""
Options under which a server that does not answer is found out fast.
"""

BACK_SECONDS = 1.0
"""
Time after the return of a server within which everything is subscribed again.
"""

PACE_SECONDS = 0.01


@asynccontextmanager
async def party(
    hosts: Sequence[Any], names: str = "ab", *, layer: dict[str, Any] | None = None, **redis: Any
) -> AsyncIterator[list[Script]]:
    """
    Have members, each in ``room`` and in a group with its own name; ended afterwards.

    Args:
        hosts: As settings name them.
        names: A letter for each member.
        layer: Options of the channel layer.
        redis: Options of the connections.
    """
    members = []
    for name in names:
        broker = RedisBroker(read_hosts(hosts), RedisOptions(**redis), prefix=PREFIX)
        options = LayerOptions(**{"publish_timeout": 2.0, **(layer or {})})
        members.append(Script(ChannelLayer(broker, options), name))
    try:
        for member in members:
            await member.enter()
            await member.join(["room", member.name])
        yield members
    finally:
        for member in members:
            # Who still had a member would live on elsewhere.
            member.layer.detach(member.channel)
            await member.layer.close()


def channel_of(subject: str) -> str:
    """
    Give the channel of Redis that a subject of members is.
    """
    return f"{PREFIX}/0:{subject}"


async def settled(server: RedisServer, members: Sequence[Script]) -> None:
    """
    Wait until a server has the subscriptions of all members.
    """
    expected = {channel_of("group:room"): len(members)}
    for member in members:
        expected[channel_of(f"group:{member.name}")] = 1
        expected[channel_of(f"process:{member.layer.hub.process}")] = 1

    def subscribed() -> bool:
        found = server.do("PUBSUB", "NUMSUB", *expected)
        return list(found[1::2]) == list(expected.values())

    await until(subscribed)


async def back_after(server: RedisServer, members: Sequence[Script]) -> None:
    """
    Show that everything is subscribed again soon after a server is back, which it is now.
    """
    begin = monotonic()
    await settled(server, members)
    assert monotonic() - begin < BACK_SECONDS


def assert_whole(members: Sequence[Script], *, breaks: int | None) -> None:
    """
    Show that members heard each other once and in order, and counted what they did not hear.

    Args:
        members: All of them, of which those that sent did so to ``room``.
        breaks: How often each subject of each member was interrupted; None for once, or not at
            all where the listening connection outlived it.
    """
    for member in members:
        lost = 0
        for heard in member.ear.heard["room"].values():
            assert (heard.repeated, heard.torn) == ([], []), heard
            lost += heard.last - heard.first + 1 - heard.count
        numbered = [count for subject, count in member.gaps if count is not None]
        assert sum(numbered) == lost, (member.gaps, lost)
        told = sorted(subject for subject, count in member.gaps if count is None)
        subjects = ["group:room", f"group:{member.name}", f"process:{member.layer.hub.process}"]
        assert told == sorted(subjects * (bool(told) if breaks is None else breaks)), told


class Chatter:
    """
    A member that sends to ``room`` all the time, whatever comes of it, within a context.

    Attributes:
        refused: How many messages the layer refused, each with the one exception for it.
        slowest: The longest time that it took to say so, or to take a message.
    """

    def __init__(self, member: Script) -> None:
        self.member = member
        self.refused = 0
        self.slowest = 0.0
        self._goes_on = True
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._goes_on = False
        assert self._task is not None
        await self._task

    async def _send(self) -> None:
        while self._goes_on:
            begin = monotonic()
            try:
                await self.member.send("room")
            except ChannelLayerUnavailable:
                self.refused += 1
            self.slowest = max(self.slowest, monotonic() - begin)
            await asyncio.sleep(PACE_SECONDS)

    async def heard_by(self, members: Sequence[Script], number: int = 5) -> None:
        """
        Wait until members have heard so many messages that are sent from now on.
        """
        sender = self.member
        last = sender.sent["room"] + number
        await self._wait(lambda: all_hear(members, sender.name, last))

    async def refuses(self, number: int = 3) -> None:
        """
        Wait until so many further messages were refused.
        """
        enough = self.refused + number
        await until(lambda: self.refused >= enough)

    async def _wait(self, what: Callable[[], Awaitable[Any]]) -> None:
        async with asyncio.timeout(10):
            await what()


async def all_hear(members: Sequence[Script], sender: str, number: int) -> None:
    """
    Wait until members have heard a sender's message of this number or a later one.
    """
    for member in members:
        await member.hear("room", {sender: number})
