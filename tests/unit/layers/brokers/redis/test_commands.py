"""
Commands on links that come and go: what is answered, repeated, given up.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import hiredis
import pytest

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.redis.commands import Commands, Refused
from fairway.layers.brokers.redis.link import Link
from tests.unit.layers.brokers.redis.fakes import FakeLink

pytestmark = pytest.mark.one_loop


class Line:
    """
    Commands, with the links they had.
    """

    def __init__(self, timeout: float = 60, bytes_max: int = 10_000, **others: Any) -> None:
        self.read_only = 0
        self.commands = Commands("redis", timeout, bytes_max, self._note_read_only, **others)
        self.link = FakeLink()

    def _note_read_only(self) -> None:
        self.read_only += 1

    def attach(self) -> FakeLink:
        """
        Give them a new link.
        """
        self.link = FakeLink()
        self.commands.attach(cast("Link", self.link))
        return self.link


async def test_replies_are_matched_in_order() -> None:
    """
    Whatever they are: also nothing and zero.
    """
    line = Line()
    line.attach()
    futures = [line.commands.execute("ECHO", number) for number in range(3)]
    assert line.link.written == ["ECHO 0", "ECHO 1", "ECHO 2"]
    for reply in (0, None, b"x"):
        line.commands.on_reply(reply)
    assert [await future for future in futures] == [0, None, b"x"]


async def test_commands_wait_for_a_link() -> None:
    """
    In their order, and those that nobody awaits any more are left out.
    """
    line = Line()
    futures = [line.commands.execute("ECHO", number) for number in range(3)]
    futures[1].cancel()
    assert line.attach().written == ["ECHO 0", "ECHO 2"]


async def test_what_may_be_repeated_is_sent_again() -> None:
    """
    Before what was asked later; all else fails, since nobody knows whether it was done.
    """
    line = Line()
    line.attach()
    one = line.commands.execute("PUBLISH", "a", 1, repeatable=True)
    push = line.commands.execute("RPUSH", "a", 1)
    two = line.commands.execute("PUBLISH", "a", 2, repeatable=True)
    line.commands.on_reply(1)
    line.commands.detach(ChannelLayerUnavailable("cut"))
    three = line.commands.execute("PUBLISH", "a", 3, repeatable=True)
    with pytest.raises(ChannelLayerUnavailable, match="cut"):
        await push
    assert line.attach().written == ["PUBLISH a 2", "PUBLISH a 3"]
    for reply in (2, 3):
        line.commands.on_reply(reply)
    assert [await one, await two, await three] == [1, 2, 3]


async def test_a_refusal_is_told_to_its_own_command() -> None:
    """
    With the word that it begins with.
    """
    line = Line()
    line.attach()
    refused, done = line.commands.execute("A"), line.commands.execute("B")
    line.commands.on_reply(hiredis.ReplyError("NOPERM not you"))
    line.commands.on_reply(b"OK")
    with pytest.raises(Refused, match="redis at redis refuses: NOPERM not you") as caught:
        await refused
    assert caught.value.code == "NOPERM"
    assert await done == b"OK"
    assert not line.read_only


async def test_a_server_that_takes_no_writes_is_noticed() -> None:
    """
    By its answer to any command.
    """
    line = Line()
    line.attach()
    refused = line.commands.execute("A")
    line.commands.on_reply(hiredis.ReplyError("READONLY You can't write"))
    with pytest.raises(Refused):
        await refused
    assert line.read_only == 1


async def test_a_moved_key_is_followed() -> None:
    """
    The same command goes to the node that is named, and its answer is the answer.
    """
    other, asked = Line(), []
    other.attach()

    def elsewhere(place: str) -> Commands:
        asked.append(place)
        return other.commands

    line = Line(elsewhere=elsewhere)
    line.attach()
    moved, refused = line.commands.execute("GET", "a"), line.commands.execute("GET", "b")
    for _ in range(2):
        line.commands.on_reply(hiredis.ReplyError("MOVED 7 10.0.0.1:6380"))
    assert asked == ["10.0.0.1:6380"] * 2
    assert other.link.written == ["GET a", "GET b"]
    other.commands.on_reply(b"1")
    other.commands.on_reply(hiredis.ReplyError("NOPERM"))
    assert await moved == b"1"
    with pytest.raises(Refused):
        await refused


async def test_a_silent_server_is_given_up() -> None:
    """
    What was late fails, what was not is repeated elsewhere.
    """
    line = Line(timeout=0.05)
    line.attach()
    late = line.commands.execute("PUBLISH", "a", 1, repeatable=True)
    await line.link.ended.wait()
    assert "command_timeout" in line.link.lost
    line.commands.detach(ChannelLayerUnavailable(line.link.lost))
    with pytest.raises(ChannelLayerUnavailable, match="no answer within"):
        await late
    assert line.attach().written == []


async def test_a_new_link_is_not_blamed_for_the_one_before() -> None:
    """
    What is late by then fails in time, and its answer is not taken for that of another.
    """
    line = Line(timeout=0.2)
    line.attach()
    late = line.commands.execute("PUBLISH", "a", 1, repeatable=True)
    await asyncio.sleep(0.15)
    line.commands.detach(ChannelLayerUnavailable("cut"))
    line.attach()
    after = line.commands.execute("PUBLISH", "a", 2, repeatable=True)
    with pytest.raises(ChannelLayerUnavailable, match="cut; no answer within"):
        await late
    assert not line.link.lost
    for reply in (1, 2):
        line.commands.on_reply(reply)
    assert await after == 2
    # One that is silent itself is given up when it has had its time.
    line.commands.execute("PUBLISH", "a", 3, repeatable=True)
    await line.link.ended.wait()
    assert "command_timeout" in line.link.lost


async def test_waiting_for_a_link_is_bounded() -> None:
    """
    Once a server has been away for that long, nobody waits for it any more.
    """
    line = Line(timeout=0.05)
    line.commands.explain(ChannelLayerUnavailable("connection refused"))
    with pytest.raises(ChannelLayerUnavailable, match=r"^connection refused \(waited for 0\.05 s"):
        await line.commands.execute("A")
    await asyncio.sleep(0.01)
    with pytest.raises(ChannelLayerUnavailable, match=r"^connection refused$"):
        line.commands.execute("A")
    line.attach()
    line.commands.execute("A")
    assert line.link.written == ["A"]


async def test_commands_wait_again_once_a_link_is_expected() -> None:
    """
    A server that is there again gets what was asked before the link to it is ready.
    """
    line = Line(timeout=0.01)
    with pytest.raises(ChannelLayerUnavailable):
        await line.commands.execute("A")
    await asyncio.sleep(0.01)
    line.commands.expect_link()
    line.commands.execute("B")
    assert line.attach().written == ["B"]


async def test_what_waits_is_bounded() -> None:
    """
    By its bytes, which are free again once they are answered; one command may be any size.
    """
    line = Line(bytes_max=1000)
    line.attach()
    line.commands.execute("SET", "a", "x" * 5000)
    with pytest.raises(ChannelLayerUnavailable, match="link_bytes_max"):
        line.commands.execute("A")
    line.commands.on_reply(b"OK")
    line.commands.execute("A")


async def test_an_answer_that_nobody_asked_for_ends_the_link() -> None:
    """
    Since nobody knows what those behind it belong to.
    """
    line = Line()
    line.attach()
    line.commands.on_reply(b"surprise")
    assert "nobody asked for" in line.link.lost


async def test_settling_waits_for_answers() -> None:
    """
    And not for ever.
    """
    line = Line()
    line.attach()
    await line.commands.settle(60)
    line.commands.execute("A")
    await line.commands.settle(0.01)
    settling = asyncio.create_task(line.commands.settle(60))
    await asyncio.sleep(0)
    line.commands.on_reply(b"OK")
    await settling


async def test_closing_fails_what_waits() -> None:
    """
    And whatever comes later.
    """
    line = Line()
    waiting = line.commands.execute("A")
    line.commands.close()
    with pytest.raises(ChannelLayerUnavailable, match="closed"):
        await waiting
    with pytest.raises(ChannelLayerUnavailable, match="closed"):
        line.commands.execute("A")
