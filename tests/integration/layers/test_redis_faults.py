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
from typing import Any

import pytest

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers import owner
from tests.integration.layers.fleet import until
from tests.integration.layers.redis_members import (
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
