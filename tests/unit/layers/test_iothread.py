"""
The thread that owns hubs in processes without a server.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.iothread import IOThread


def test_the_thread_starts_once_and_ends_when_told() -> None:
    """
    All who ask get one loop; after the end the next one begins another.
    """
    io = IOThread()
    loop = io.loop()
    assert io.loop() is loop
    running = asyncio.run_coroutine_threadsafe(asyncio.Event().wait(), loop)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(5)
    io.stop(5)
    assert loop.is_closed()
    assert running.cancelled()
    assert io.loop() is not loop
    io.stop(5)
    io.stop(5)


def test_an_ending_interpreter_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where no thread can be started, sending fails with the layer's own exception.
    """

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    io = IOThread()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ChannelLayerUnavailable, match="interpreter shutdown"):
        io.loop()


def test_a_child_process_leaves_the_parents_loop_alone() -> None:
    """
    It starts its own, and keeps the parent's from being collected, which would close it.
    """
    io = IOThread()
    loop = io.loop()
    io.forked()
    assert io.loop() is not loop
    io.stop(5)
    assert not loop.is_closed()
    loop.call_soon_threadsafe(loop.stop)
