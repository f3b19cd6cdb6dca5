"""
Bodies of requests, as files.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from typing import Any

import pytest

from fairway.pages import body
from fairway.types import Message
from tests.protocol.harness import until


async def test_a_request_that_is_cancelled_while_its_file_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends as cancelled, whatever the thread that writes is about."""
    making, go_on = threading.Event(), threading.Event()
    files: list[Any] = []

    def slow_file(**kwargs: Any) -> Any:
        making.set()
        assert go_on.wait(5)
        files.append(tempfile.TemporaryFile(**kwargs))  # noqa: SIM115 - closed at the end
        return files[-1]

    parts = [b"x" * 2_000_000, b"x" * 2_000_000]

    async def receive() -> Message:
        return {"type": "http.request", "body": parts.pop(), "more_body": True}

    monkeypatch.setattr(body, "TemporaryFile", slow_file)
    task = asyncio.ensure_future(body.read_body(receive))
    await until(making.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await until(lambda: files)
    files[0].close()
