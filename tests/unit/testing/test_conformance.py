"""
The conformance suite fails a layer that breaks a promise.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fairway.layers import InMemoryChannelLayer
from fairway.testing.conformance import ChannelLayerConformance


class Doubling(InMemoryChannelLayer):
    """
    Sends everything to groups twice.
    """

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """
        Send, and send again.
        """
        await super().group_send(group, message)
        await super().group_send(group, message)


class Sharing(InMemoryChannelLayer):
    """
    Gives every reader of the same message the same dict.
    """

    seen: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - sharing it is the mistake

    async def receive(self, channel: str) -> dict[str, Any]:
        """
        Read, and remember what was read.
        """
        return self.seen.setdefault("message", await super().receive(channel))


class Forgetful(InMemoryChannelLayer):
    """
    Loses what a cancelled reader was about to get.
    """

    async def receive(self, channel: str) -> dict[str, Any]:
        """
        Read in a task that nobody cancels.
        """
        return await asyncio.shield(asyncio.ensure_future(super().receive(channel)))


class Quiet(InMemoryChannelLayer):
    """
    Swallows messages that cannot be sent, and that have no room.
    """

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """
        Send, or not.
        """
        await asyncio.gather(super().send(channel, message), return_exceptions=True)


class Slack(InMemoryChannelLayer):
    """
    Says that a channel is in a group before it is.
    """

    async def group_add(self, group: str, channel: str) -> None:
        """
        Add it some time.
        """
        asyncio.get_running_loop().call_later(
            0.05, lambda: self.hub.owner.enter(self.hub.join, group, channel)
        )


@pytest.mark.parametrize(
    ("layer_class", "promise"),
    [
        (Doubling, "a_member_gets_each_message_once"),
        (Doubling, "messages_of_one_sender_keep_their_order"),
        (Sharing, "a_receiver_may_change_its_message"),
        (Forgetful, "a_cancelled_receive_loses_nothing"),
        (Quiet, "send_says_that_a_channel_is_full"),
        (Quiet, "only_dicts_without_the_reserved_key_are_messages"),
        (Slack, "a_member_gets_the_next_message_of_its_group"),
    ],
)
async def test_a_broken_promise_fails_its_test(
    layer_class: type[InMemoryChannelLayer], promise: str
) -> None:
    """
    The test that is named after the promise notices.
    """

    class Suite(ChannelLayerConformance):
        patience = 0.3

        async def make_layer(self, **config: Any) -> InMemoryChannelLayer:
            return layer_class(**config)

    arguments = {"message": None} if promise.startswith("only_dicts") else {}
    with pytest.raises((AssertionError, TimeoutError, pytest.fail.Exception)):
        await getattr(Suite(), f"test_{promise}")(**arguments)


async def test_a_layer_must_be_made_by_the_suite_that_tests_it() -> None:
    """
    Both things a layer's own suite has to say are asked for.
    """
    suite = ChannelLayerConformance()
    with pytest.raises(NotImplementedError):
        await suite.make_layer()
    layer = object()
    assert await suite.make_peer(layer) is layer
