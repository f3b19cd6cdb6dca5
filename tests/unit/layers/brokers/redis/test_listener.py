"""
The subscriber's side of a node: what is heard, confirmed, and given up.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import hiredis
import pytest

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.redis import listener as module
from fairway.layers.brokers.redis.commands import Refused
from fairway.layers.brokers.redis.link import Link
from fairway.layers.brokers.redis.listener import Listener
from tests.integration.layers.fleet import until
from tests.unit.layers.brokers.redis.fakes import FakeLink

pytestmark = pytest.mark.one_loop


class Ear:
    """
    A listener and what it told.
    """

    def __init__(self, timeout: float = 60) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.gaps: list[str] = []
        self.refusals: list[Refused] = []
        self.listener = Listener(
            "redis",
            b"p:",
            self.hear,
            self.gaps.append,
            self.refusals.append,
            delay=60,
            timeout=timeout,
        )
        self.link = FakeLink()

    def hear(self, subject: str, payload: bytes) -> None:
        """
        Take a message, or fail as a hub might.
        """
        if payload == b"fail":
            raise ArithmeticError
        self.heard.append((subject, payload))

    def attach(self) -> None:
        """
        Give it a new link.
        """
        self.link = FakeLink()
        self.listener.attach(cast("Link", self.link))

    def say(self, *replies: Any) -> None:
        """
        Have the server say something.
        """
        for reply in replies:
            self.listener.on_reply(reply)


async def test_messages_of_wanted_subjects_are_heard() -> None:
    """
    Whatever one of them does to who hears it, and however late others come.
    """
    ear = Ear()
    ear.attach()
    ear.listener.want("a")
    await asyncio.sleep(0)
    assert ear.link.written == ["SUBSCRIBE p:a"]
    ear.say([b"subscribe", b"p:a", 1])
    ear.say([b"message", b"p:a", b"fail"], [b"message", b"p:a", b"1"], [b"message", b"p:b", b"2"])
    ear.listener.unsubscribe("a")
    ear.say([b"message", b"p:a", b"3"])
    assert ear.heard == [("a", b"1")]


async def test_breaks_are_told_once_confirmed_again() -> None:
    """
    Not before, and only where something had been confirmed.
    """
    ear = Ear()
    ear.attach()
    ear.listener.want("a")
    await asyncio.sleep(0)
    ear.say([b"subscribe", b"p:a", 1])
    ear.listener.detach(ChannelLayerUnavailable("cut"))
    ear.listener.want("b")
    ear.attach()
    assert ear.link.written == ["SUBSCRIBE p:a p:b"]
    assert ear.gaps == []
    ear.say([b"subscribe", b"p:a", 1], [b"subscribe", b"p:b", 2])
    assert ear.gaps == ["a"]


async def test_joining_has_a_deadline() -> None:
    """
    While a server is away it is waited for; after that nobody waits any more.
    """
    ear = Ear(timeout=0.05)
    waiting = ear.listener.subscribe("a")
    assert waiting is not None
    ear.listener.explain(ChannelLayerUnavailable("connection refused"))
    with pytest.raises(ChannelLayerUnavailable, match=r"^connection refused \(waited for 0\.05 s"):
        await waiting
    await asyncio.sleep(0.01)
    at_once = ear.listener.subscribe("b")
    assert at_once is not None
    assert at_once.done()
    with pytest.raises(ChannelLayerUnavailable, match=r"^connection refused$"):
        await at_once


async def test_a_server_that_confirms_nothing_is_given_up() -> None:
    """
    One that only takes long is not.
    """
    ear = Ear(timeout=0.1)
    ear.attach()
    first, second = ear.listener.subscribe("a"), ear.listener.subscribe("b")
    assert first is not None
    assert second is not None
    await asyncio.sleep(0.05)
    ear.say([b"subscribe", b"p:a", 1])
    await first
    with pytest.raises(ChannelLayerUnavailable, match="did not confirm a subscription"):
        await second
    assert not ear.link.lost
    third = ear.listener.subscribe("c")
    assert third is not None
    with pytest.raises(ChannelLayerUnavailable):
        await third
    await ear.link.ended.wait()
    assert "no answer within" in ear.link.lost


async def test_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    To whoever waits and to the node; and the subject is asked for again.
    """
    monkeypatch.setattr(module, "REVIVAL_SECONDS", 0.0)
    ear = Ear()
    ear.attach()
    refused = ear.listener.subscribe("a")
    assert refused is not None
    await asyncio.sleep(0)
    ear.say(hiredis.ReplyError("NOPERM not you"))
    with pytest.raises(ChannelLayerUnavailable, match="NOPERM"):
        await refused
    assert [refusal.code for refusal in ear.refusals] == ["NOPERM"]
    await until(lambda: ear.link.written == ["SUBSCRIBE p:a"] * 2)


async def test_pings_are_answered_or_fail() -> None:
    """
    In both ways that servers answer them.
    """
    ear = Ear()
    with pytest.raises(ChannelLayerUnavailable, match="away"):
        await ear.listener.ping()
    ear.attach()
    for answer in (b"PONG", [b"pong", b""]):
        alive = ear.listener.ping()
        ear.say(answer)
        await alive
    alive = ear.listener.ping()
    ear.listener.detach(ChannelLayerUnavailable("cut"))
    with pytest.raises(ChannelLayerUnavailable, match="cut"):
        await alive


@pytest.mark.parametrize("answer", [b"OK", 5, None, [], [b"pmessage", b"a", b"b", b"c"], [[]]])
async def test_other_answers_end_the_link(answer: Any) -> None:
    """
    Nobody knows what follows them.
    """
    ear = Ear()
    ear.attach()
    ear.say(answer)
    assert "nobody asked for" in ear.link.lost


async def test_closing_tells_who_waits() -> None:
    """
    And ends every timer.
    """
    ear = Ear()
    waiting = ear.listener.subscribe("a")
    ear.listener.want("b")
    ear.listener.unsubscribe("b")
    ear.listener.close()
    assert waiting is not None
    with pytest.raises(ChannelLayerUnavailable, match="closed"):
        await waiting
