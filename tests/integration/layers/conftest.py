"""
Processes that share a channel layer, for the tests of what happens between them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.layers.fleet import Fleet


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """
    Processes and the directory they meet in; killed and removed afterwards.
    """
    fleet = Fleet()
    yield fleet
    await fleet.close()
