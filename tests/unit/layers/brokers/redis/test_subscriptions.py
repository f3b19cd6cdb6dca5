"""
Which subjects are asked for, and which are confirmed.
"""

from __future__ import annotations

import asyncio

import pytest

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.redis.subscriptions import Subscriptions

pytestmark = pytest.mark.one_loop


def begun(*subjects: str) -> Subscriptions:
    """
    Give subscriptions of which some are confirmed.
    """
    subscriptions = Subscriptions()
    subscriptions.begin()
    for subject in subjects:
        subscriptions.want(subject)
    for _ in subscriptions.take(0, 100):
        for _ in subjects:
            subscriptions.confirm()
    return subscriptions


def is_confirmed(subscriptions: Subscriptions, subject: str) -> bool:
    """
    Whether a subject is known and confirmed.
    """
    known = subscriptions.get(subject)
    return known is not None and known.confirmed


def test_a_subject_is_asked_for_once() -> None:
    """
    However often it is wanted.
    """
    subscriptions = begun()
    subscriptions.want("a")
    subscriptions.want("a")
    assert subscriptions.take(0, 100) == [(True, ["a"])]
    subscriptions.want("a")
    assert subscriptions.take(0, 100) == []
    assert not is_confirmed(subscriptions, "a")
    confirmed = subscriptions.confirm()
    assert confirmed is not None
    assert confirmed.subject == "a"
    assert is_confirmed(subscriptions, "a")


def test_one_turn_is_few_commands() -> None:
    """
    Subjects of one turn share commands of a bounded size.
    """
    subscriptions = begun()
    for number in range(5):
        subscriptions.want(str(number))
    assert subscriptions.take(0, 2) == [(True, ["0", "1"]), (True, ["2", "3"]), (True, ["4"])]


async def test_each_join_waits_for_its_own_confirmation() -> None:
    """
    What the server said to others is no answer.
    """
    subscriptions = begun()
    loop = asyncio.get_running_loop()
    waiters = []
    for subject in "ab":
        waiters.append(loop.create_future())
        subscriptions.want(subject).waiters.append(waiters[-1])
    subscriptions.take(0, 100)
    subscriptions.confirm()
    assert [waiter.done() for waiter in waiters] == [True, False]
    subscriptions.confirm()
    assert [waiter.done() for waiter in waiters] == [True, True]


def test_leaving_takes_effect_later() -> None:
    """
    Nothing is written before it is due, and then once.
    """
    subscriptions = begun("a")
    subscriptions.unwant("a", 10)
    assert subscriptions.expire(9) == 10
    assert subscriptions.take(9, 100) == []
    assert subscriptions.expire(10) is None
    assert subscriptions.take(10, 100) == [(False, ["a"])]
    subscriptions.confirm()
    assert len(subscriptions) == 0


def test_coming_back_in_time_costs_nothing() -> None:
    """
    A subject wanted again before it was ended is still confirmed.
    """
    subscriptions = begun("a")
    subscriptions.unwant("a", 10)
    assert subscriptions.want("a").confirmed
    subscriptions.expire(10)
    assert subscriptions.take(10, 100) == []
    subscriptions.unwant("a", 20)
    assert subscriptions.expire(15) == 20


def test_coming_back_too_late_is_confirmed_anew() -> None:
    """
    Confirmed by the SUBSCRIBE behind the UNSUBSCRIBE, not by what came before.
    """
    subscriptions = begun("a")
    subscriptions.unwant("a", 10)
    subscriptions.expire(10)
    assert subscriptions.take(10, 100) == [(False, ["a"])]
    assert not subscriptions.want("a").confirmed
    assert subscriptions.take(10, 100) == [(True, ["a"])]
    assert subscriptions.confirm() is None
    assert not is_confirmed(subscriptions, "a")
    confirmed = subscriptions.confirm()
    assert confirmed is not None
    assert is_confirmed(subscriptions, "a")


def test_wanted_and_left_in_one_turn() -> None:
    """
    What nobody wants any more is never asked for.
    """
    subscriptions = begun()
    subscriptions.want("a")
    subscriptions.unwant("a", 10)
    assert subscriptions.take(0, 100) == []
    subscriptions.expire(10)
    assert len(subscriptions) == 0


def test_left_before_it_was_confirmed() -> None:
    """
    It is ended after its confirmation came.
    """
    subscriptions = begun()
    subscriptions.want("a")
    subscriptions.take(0, 100)
    subscriptions.unwant("a", 10)
    subscriptions.expire(10)
    assert subscriptions.take(10, 100) == [(False, ["a"])]
    subscriptions.confirm()
    assert not is_confirmed(subscriptions, "a")
    subscriptions.confirm()
    assert len(subscriptions) == 0


def test_a_new_link_asks_for_everything_wanted() -> None:
    """
    And for nothing that was about to end; what had been confirmed is known to be broken.
    """
    subscriptions = begun("a", "b")
    subscriptions.want("new")
    subscriptions.unwant("b", 10)
    subscriptions.begin()
    assert subscriptions.generation == 2
    assert subscriptions.take(0, 100) == [(True, ["a", "new"])]
    broken = []
    for _ in range(2):
        confirmed = subscriptions.confirm()
        assert confirmed is not None
        broken.append(confirmed.broken)
    assert broken == [True, False]
    assert subscriptions.expire(10) is None
    assert len(subscriptions) == 2


def test_a_link_that_ends_at_once_hides_no_break() -> None:
    """
    A subject stays broken until it is confirmed.
    """
    subscriptions = begun("a")
    subscriptions.begin()
    subscriptions.begin()
    subscriptions.take(0, 100)
    confirmed = subscriptions.confirm()
    assert confirmed is not None
    assert confirmed.broken


async def test_a_refusal_ends_the_wait() -> None:
    """
    Of the subjects of that command; asked again, they may be granted.
    """
    subscriptions = begun()
    waiter = asyncio.get_running_loop().create_future()
    subscriptions.want("a").waiters.append(waiter)
    subscriptions.take(0, 100)
    subscriptions.want("b")
    subscriptions.take(0, 100)
    subscriptions.refuse(ChannelLayerUnavailable("no"))
    with pytest.raises(ChannelLayerUnavailable, match="no"):
        await waiter
    confirmed = subscriptions.confirm()
    assert confirmed is not None
    assert confirmed.subject == "b"
    assert not is_confirmed(subscriptions, "a")
    subscriptions.revive()
    assert subscriptions.take(0, 100) == [(True, ["a"])]


async def test_closing_tells_who_waits() -> None:
    """
    And nothing is left.
    """
    subscriptions = begun("a")
    waiter = asyncio.get_running_loop().create_future()
    subscriptions.want("b").waiters.append(waiter)
    subscriptions.close(ChannelLayerUnavailable("closed"))
    with pytest.raises(ChannelLayerUnavailable, match="closed"):
        await waiter
    assert len(subscriptions) == 0


def test_answers_to_nothing_are_harmless() -> None:
    """
    A server that says too much confirms nothing.
    """
    subscriptions = begun()
    assert subscriptions.confirm() is None
    subscriptions.refuse(ChannelLayerUnavailable("no"))
