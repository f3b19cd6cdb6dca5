"""
The base class that third parties build layers on.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from fairway.layers.base import BaseChannelLayer


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "a!", "specific.x!y", "x" * 99])
def test_a_valid_channel_name_passes(name: str) -> None:
    """
    Letters, digits, hyphens, underscores, periods, and one exclamation mark.
    """
    layer = BaseChannelLayer()
    assert layer.require_valid_channel_name(name)
    assert layer.valid_channel_name(name)
    assert layer.valid_channel_names([name, name])


@pytest.mark.parametrize(
    "name", ["", "x" * 100, "a b", "é", "a!b!c", "!a", "a!é", "a\n", "a!b\n", b"a", None, 1]
)
def test_an_invalid_name_is_a_type_error_that_shows_it(name: Any) -> None:
    """
    Channels' text, and the name.
    """
    layer = BaseChannelLayer()
    with pytest.raises(TypeError, match="Channel name must be a valid unicode string") as caught:
        layer.require_valid_channel_name(name)
    assert repr(name) in str(caught.value)
    with pytest.raises(TypeError, match="Group name must be a valid unicode string"):
        layer.require_valid_group_name(name)


def test_a_group_name_has_no_exclamation_mark() -> None:
    """
    The mark is for channels of a process.
    """
    layer = BaseChannelLayer()
    assert layer.valid_group_name("a-1_b.c")
    with pytest.raises(TypeError):
        layer.require_valid_group_name("a!b")


def test_names_to_receive_from_end_at_the_mark() -> None:
    """
    Channels' rule for receivers that serve a whole process.
    """
    layer = BaseChannelLayer()
    assert layer.require_valid_channel_name("a!", receive=True)
    with pytest.raises(TypeError, match="end at the !"):
        layer.require_valid_channel_name("a!b", receive=True)


@pytest.mark.parametrize("names", [[], "abc", ("a",), None])
def test_channel_names_come_in_a_list(names: Any) -> None:
    """
    Anything but a list with names in it is refused.
    """
    with pytest.raises(TypeError, match="non-empty list"):
        BaseChannelLayer().valid_channel_names(names)


def test_the_process_of_a_name_ends_at_its_mark() -> None:
    """
    A queue's name has no such part, and stays whole.
    """
    layer = BaseChannelLayer()
    assert layer.non_local_name("specific.p!x") == "specific.p!"
    assert layer.non_local_name("queue") == "queue"


def test_the_first_pattern_that_matches_gives_the_capacity() -> None:
    """
    Globs match whole names, compiled patterns from the start; order counts.
    """
    layer = BaseChannelLayer(
        capacity=7,
        channel_capacity={"http.*": 1, re.compile(r"http\.x|ws"): 2, "ws*": 3, "job?": 4},
    )
    names = ["http.x", "wsx", "job1", "job10", "other"]
    assert [layer.get_capacity(name) for name in names] == [1, 2, 4, 7, 7]


async def test_what_a_subclass_has_to_do_is_said_so() -> None:
    """
    Each method a layer may lack names itself.
    """
    layer = BaseChannelLayer()
    for attempt, name in (
        (layer.send("a", {}), "send"),
        (layer.receive("a"), "receive"),
        (layer.new_channel(), "new_channel"),
        (layer.flush(), "flush"),
        (layer.group_add("g", "a"), "group_add"),
        (layer.group_discard("g", "a"), "group_discard"),
        (layer.group_send("g", {}), "group_send"),
    ):
        with pytest.raises(NotImplementedError, match=name):
            await attempt
