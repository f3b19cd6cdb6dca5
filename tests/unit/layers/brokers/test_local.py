"""
The broker of one process.
"""

from __future__ import annotations

import asyncio

import pytest

from fairway.exceptions import ChannelFull
from fairway.layers.brokers.local import LocalBroker


async def started(*subjects: str) -> tuple[LocalBroker, list[tuple[str, bytes]]]:
    """
    Start a broker, and a list of what it delivers.
    """
    broker = LocalBroker(60)
    got: list[tuple[str, bytes]] = []
    await broker.start(
        lambda subject, payload: got.append((subject, payload)),
        lambda subject, lost: None,
        lambda connected: None,
        subjects,
    )
    return broker, got


async def test_a_publish_delivers_before_it_returns() -> None:
    """
    There is no task and no loop turn between publish and delivery.
    """
    broker, got = await started("a")
    assert broker.connected
    broker.publish("a", b"1")
    broker.publish("b", b"2")
    broker.subscribe("b")
    broker.publish("b", b"3")
    broker.unsubscribe("b")
    broker.publish("b", b"4")
    assert got == [("a", b"1"), ("b", b"3")]
    assert (broker.published, broker.received) == (4, 2)


async def test_a_closed_broker_delivers_nothing_and_keeps_its_queues() -> None:
    """
    Between two loops nothing is delivered; queued payloads wait.
    """
    broker, got = await started("a")
    broker.push("q", b"1", lifetime=60, capacity=1)
    await broker.close()
    broker.publish("a", b"1")
    assert not broker.connected
    assert got == []
    assert await broker.pop("q") == b"1"


async def test_a_queue_has_a_capacity_and_a_lifetime() -> None:
    """
    A full queue raises; an expired payload is not given.
    """
    broker, _ = await started()
    broker.push("q", b"1", lifetime=60, capacity=1)
    with pytest.raises(ChannelFull, match="q"):
        broker.push("q", b"2", lifetime=60, capacity=1)
    broker.push("other", b"old", lifetime=-1, capacity=1)
    broker.push("other", b"new", lifetime=60, capacity=1)
    assert await broker.pop("other") == b"new"


async def test_flush_and_fork_empty_the_queues() -> None:
    """
    Nothing queued survives a flush, nor goes into a child process.
    """
    broker, got = await started("a")
    for forget in (broker.flush, broker.forked):
        broker.push("q", b"1", lifetime=60, capacity=1)
        assert list(broker.queues) == ["q"]
        result = forget()
        if result is not None:
            await result
        assert broker.queues == {}
    broker.publish("a", b"1")
    assert got == []
    assert not broker.connected
    reader = asyncio.ensure_future(broker.pop("q"))
    await asyncio.sleep(0)
    broker.push("q", b"2", lifetime=60, capacity=1)
    assert await reader == b"2"
