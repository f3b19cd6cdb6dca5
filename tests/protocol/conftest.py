"""
Fixtures for tests on real sockets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fairway.types import ASGIApplication
from tests.protocol import harness
from tests.protocol.harness import Puppet, Serve, Served


@pytest.fixture
async def app() -> Puppet:
    """
    An application that leaves everything to the test.
    """
    return Puppet()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """
    Serves applications on the test's loop until the test ends.
    """
    running: list[Served] = []

    async def start(application: ASGIApplication, **options: Any) -> Served:
        served = await harness.serve(application, **options)
        running.append(served)
        return served

    yield start
    for served in running:
        await served.close()


@pytest.fixture
async def served(app: Puppet, serve: Serve) -> Served:
    """
    The puppet, served with the defaults.
    """
    return await serve(app)
