"""
The inbox: two sources, one future, nothing lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

import pytest

from fairway.server.inbox import Inbox


class Item:
    """
    A layer message with an expiry.
    """

    def __init__(self, name: str, expires: float = float("inf")) -> None:
        self.name = name
        self.expires = expires


class Reads:
    """
    Counts how often the application took an event that had to wait.
    """

    def __init__(self) -> None:
        self.count = 0

    def message_read(self) -> None:
        """
        Count one.
        """
        self.count += 1


@pytest.fixture
def reads() -> Reads:
    """
    A counter of events taken.
    """
    return Reads()


@pytest.fixture
async def inbox(reads: Reads) -> Inbox:
    """
    An inbox for three layer messages.
    """
    return Inbox(asyncio.get_running_loop(), 3, reads)


def event(name: str) -> dict[str, Any]:
    """
    An event of the peer.
    """
    return {"type": name}


def ready(awaitable: Awaitable[Any]) -> Any:
    """
    The name of what an awaitable gives without waiting.
    """
    try:
        cast("Any", awaitable).send(None)
    except StopIteration as stop:
        return name_of(stop.value)
    raise AssertionError("it waits")


def name_of(thing: Any) -> str:
    """
    What identifies an event or an item.
    """
    return str(thing["type"] if isinstance(thing, dict) else thing.name)


def is_idle(inbox: Inbox) -> bool:
    """
    Whether it is; a call, since a type checker does not know that it changes by itself.
    """
    return inbox.idle


async def waiting(awaitable: Any) -> asyncio.Task[Any]:
    """
    A task that waits for something already.
    """
    task = asyncio.create_task(awaitable)
    await asyncio.sleep(0)
    assert not task.done()
    return task


class TestReceive:
    """
    The ASGI side.
    """

    async def test_order(self, inbox: Inbox, reads: Reads) -> None:
        """
        Events that had to wait come in order; each is counted while it lies there.
        """
        inbox.push(event("a"), 3)
        inbox.push(event("b"), 4)
        assert (inbox.unread_messages, inbox.unread_bytes) == (2, 7)
        assert ready(inbox.receive()) == "a"
        assert (inbox.unread_messages, inbox.unread_bytes, reads.count) == (1, 4, 1)
        assert ready(inbox.receive()) == "b"
        assert (inbox.unread_messages, inbox.unread_bytes, reads.count) == (0, 0, 2)

    async def test_waiting(self, inbox: Inbox, reads: Reads) -> None:
        """
        An event that is waited for is handed over without lying anywhere.
        """
        task = await waiting(inbox.receive())
        inbox.push(event("a"), 3)
        inbox.push(event("b"), 4)
        assert (inbox.unread_messages, inbox.unread_bytes) == (1, 4)
        assert name_of(await task) == "a"
        assert ready(inbox.receive()) == "b"
        assert reads.count == 1

    async def test_disconnect(self, inbox: Inbox) -> None:
        """
        The disconnect comes after all before it, then each time; nothing comes after it.
        """
        inbox.push(event("a"))
        inbox.disconnect(event("gone"))
        inbox.disconnect(event("gone again"))
        inbox.push(event("late"))
        assert [ready(inbox.receive()) for _ in range(3)] == ["a", "gone", "gone"]
        assert inbox.unread_messages == 0

    async def test_disconnect_while_waiting(self, inbox: Inbox) -> None:
        """
        It wakes who waits.
        """
        task = await waiting(inbox.receive())
        inbox.disconnect(event("gone"))
        assert name_of(await task) == "gone"
        assert ready(inbox.receive()) == "gone"

    async def test_layer_messages_do_not_wake(self, inbox: Inbox) -> None:
        """
        ``receive`` gives the peer's events and nothing else.
        """
        task = await waiting(inbox.receive())
        assert inbox.put(Item("x"))
        await asyncio.sleep(0)
        assert not task.done()
        inbox.push(event("a"))
        assert name_of(await task) == "a"

    async def test_twice(self, inbox: Inbox) -> None:
        """
        Two at once are refused, and the first goes on.
        """
        task = await waiting(inbox.receive())
        with pytest.raises(RuntimeError, match="one after the other"):
            await inbox.receive()
        inbox.push(event("a"))
        assert name_of(await task) == "a"


class TestCancellation:
    """
    A cancelled call loses nothing.
    """

    @pytest.mark.parametrize("method", ["receive", "next_event"])
    async def test_before(self, inbox: Inbox, method: str) -> None:
        """
        What comes after the cancellation waits for the next call.
        """
        task = await waiting(getattr(inbox, method)())
        task.cancel()
        inbox.push(event("a"))
        await asyncio.gather(task, return_exceptions=True)
        inbox.push(event("b"))
        assert [ready(getattr(inbox, method)()) for _ in range(2)] == ["a", "b"]

    @pytest.mark.parametrize("method", ["receive", "next_event"])
    async def test_after_handing_over(self, inbox: Inbox, method: str) -> None:
        """
        What had been handed over already goes back to the front.
        """
        task = await waiting(getattr(inbox, method)())
        inbox.push(event("a"))
        inbox.push(event("b"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [ready(getattr(inbox, method)()) for _ in range(2)] == ["a", "b"]

    async def test_layer_message(self, inbox: Inbox) -> None:
        """
        The same holds for layer messages, whose order stays and which stay unhandled.
        """
        task = await waiting(inbox.next_event())
        assert all(inbox.put(Item(name)) for name in "abcd")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_idle(inbox)
        assert [ready(inbox.next_event()) for _ in range(4)] == ["a", "b", "c", "d"]

    async def test_disconnect(self, inbox: Inbox) -> None:
        """
        And for the disconnect.
        """
        task = await waiting(inbox.receive())
        inbox.disconnect(event("gone"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ready(inbox.receive()) == "gone"


class TestNextEvent:
    """
    Both sources together.
    """

    async def test_alternating(self, inbox: Inbox) -> None:
        """
        Neither source can starve the other.
        """
        for name in "abc":
            inbox.push(event(name))
            assert inbox.put(Item(name.upper()))
        given = "".join([ready(inbox.next_event()) for _ in range(6)])
        assert given.upper() == "AABBCC"
        assert given[0::2].islower() == given[1::2].isupper()

    @pytest.mark.parametrize("first", ["event", "item"])
    async def test_wakes_for_both(self, inbox: Inbox, first: str) -> None:
        """
        One wait ends with whatever comes first; the other is not lost.
        """
        task = await waiting(inbox.next_event())
        if first == "event":
            inbox.push(event("a"))
            assert inbox.put(Item("b"))
        else:
            assert inbox.put(Item("a"))
            inbox.push(event("b"))
        assert name_of(await task) == "a"
        assert ready(inbox.next_event()) == "b"

    async def test_capacity(self, inbox: Inbox) -> None:
        """
        Three lie here, the fourth is refused; one that is waited for takes no room.
        """
        task = await waiting(inbox.next_event())
        assert [inbox.put(Item(name)) for name in "abcde"] == [True] * 4 + [False]
        await task
        assert [ready(inbox.next_event()) for _ in range(3)] == ["b", "c", "d"]

    async def test_expiry(self, inbox: Inbox) -> None:
        """
        What has expired is not given.
        """
        now = asyncio.get_running_loop().time()
        assert inbox.put(Item("old", now - 1))
        assert inbox.put(Item("new", now + 60))
        assert ready(inbox.next_event()) == "new"

    async def test_expired_make_room(self, inbox: Inbox) -> None:
        """
        What nobody will read any more refuses nothing new.
        """
        for name in "xyz":
            assert inbox.put(Item(name, expires=0.0))
        assert inbox.put(Item("new"))
        assert ready(inbox.next_event()) == "new"

    async def test_all_expired(self, inbox: Inbox) -> None:
        """
        If nothing else is there it waits, idle again.
        """
        assert inbox.put(Item("old", asyncio.get_running_loop().time() - 1))
        assert not is_idle(inbox)
        task = await waiting(inbox.next_event())
        assert is_idle(inbox)
        inbox.push(event("a"))
        assert name_of(await task) == "a"

    async def test_disconnect(self, inbox: Inbox) -> None:
        """
        The disconnect takes its turn, however many layer messages there are, and stays the last.
        """
        for name in "abc":
            assert inbox.put(Item(name))
        inbox.push(event("last"))
        inbox.disconnect(event("gone"))
        given = [ready(inbox.next_event()) for _ in range(4)]
        assert given.index("gone") <= 3
        assert given.index("last") < given.index("gone")
        inbox.put(Item("late"))
        assert [ready(inbox.next_event()) for _ in range(3)] == ["gone"] * 3


class TestIdle:
    """
    When a message may go straight to the outbox.
    """

    async def test_at_first(self, inbox: Inbox) -> None:
        """
        Nothing lies here and nothing is being handled.
        """
        assert is_idle(inbox)

    async def test_until_handled(self, inbox: Inbox) -> None:
        """
        Not while a layer message lies here, nor until the next is asked for.
        """
        assert inbox.put(Item("a"))
        assert not is_idle(inbox)
        assert ready(inbox.next_event()) == "a"
        assert not is_idle(inbox)
        task = await waiting(inbox.next_event())
        assert is_idle(inbox)
        assert inbox.put(Item("b"))
        assert not is_idle(inbox)
        await task
        assert not is_idle(inbox)
        inbox.push(event("c"))
        assert ready(inbox.next_event()) == "c"
        assert is_idle(inbox)

    async def test_peer_events(self, inbox: Inbox) -> None:
        """
        The peer's events do not matter, whether they lie here or are being handled.
        """
        inbox.push(event("a"))
        inbox.push(event("b"))
        assert is_idle(inbox)
        assert ready(inbox.next_event()) == "a"
        assert is_idle(inbox)

    async def test_between(self, inbox: Inbox) -> None:
        """
        Handling the peer's event is no excuse while a layer message lies here.
        """
        inbox.push(event("a"))
        inbox.push(event("b"))
        assert ready(inbox.next_event()) == "a"
        assert inbox.put(Item("x"))
        assert inbox.put(Item("y"))
        assert ready(inbox.next_event()) == "x"
        assert ready(inbox.next_event()) == "b"
        assert not is_idle(inbox)
        assert ready(inbox.next_event()) == "y"
        assert not is_idle(inbox)
