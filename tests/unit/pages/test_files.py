"""
Static files in development.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.test import AsyncRequestFactory
from pytest_django import Settings

from fairway.pages.answers import WHOLE_BYTES
from fairway.pages.files import StaticFiles


@pytest.fixture
def handler(settings: Settings, tmp_path: Path) -> StaticFiles:
    """
    Serve a file of four parts and a bit.
    """
    (tmp_path / "large").write_bytes(b"x" * (4 * WHOLE_BYTES) + b"y")
    settings.MIDDLEWARE = []
    settings.STATIC_URL, settings.STATICFILES_DIRS = "static/", [tmp_path]
    return StaticFiles(ASGIHandler())


async def test_a_large_file_is_read_as_it_is_sent(handler: StaticFiles) -> None:
    """No more than the part that is sent next is in memory, and the file is closed in the end."""
    response: Any = await handler.get_response_async(AsyncRequestFactory().get("/static/large"))
    file = response.file_to_stream or response._resource_closers[0].__self__
    sizes, places = [], []
    async for part in response:
        sizes.append(len(part))
        places.append(file.tell())
    assert sizes == [WHOLE_BYTES] * 4 + [1]
    assert places == [sum(sizes[:at]) for at in range(1, 6)]
    response.close()
    assert file.closed
