"""
What tests of publishing share; folders with a layer of another kind have a fixture of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairway.layers.layer import ChannelLayer, InMemoryChannelLayer
from tests.integration.listening import default_layer_in_thread


@pytest.fixture
def layer() -> Iterator[ChannelLayer]:
    """
    A layer of this process.
    """
    with default_layer_in_thread(InMemoryChannelLayer()) as layer:
        yield layer
