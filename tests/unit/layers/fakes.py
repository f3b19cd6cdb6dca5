"""
Stand-ins for what a hub meets: the server's ends of a socket, and brokers that can be steered.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Self, TypeVar

from fairway.exceptions import ChannelFull, ChannelLayerUnavailable
from fairway.layers.brokers.base import Broker, Deliver, OnGap, OnState
from fairway.layers.brokers.local import LocalBroker
from fairway.layers.codec import Envelope
from fairway.options import LayerOptions
from fairway.queues import Expiring
from fairway.types import Message
from fairway.wire.prepared import Prepared
from fairway.wire.websocket import websocket_frame

T = TypeVar("T")

OPTIONS = LayerOptions()


def capacity_of_three(channel: str) -> int:
    """
    Give every channel room for three messages.
    """
    return 3


async def until(condition: Callable[[], object]) -> None:
    """
    Wait for what other threads bring about.
    """
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within 5 s")


class FakeOutbox:
    """
    Keeps what it is offered, encoded as a socket would have it.
    """

    def __init__(self) -> None:
        self.prepared: list[Prepared] = []
        self.frames: list[bytes] = []
        self.closed: list[tuple[int, str]] = []
        self.pending_bytes = 0
        self.takes_bodies = False
        self.clear = False

    def offer(self, prepared: Prepared) -> bool:
        """
        Take one message.
        """
        self.prepared.append(prepared)
        self.frames.append(prepared.encode(websocket_frame))
        return True

    @staticmethod
    def offer_all(outboxes: Iterable[FakeOutbox], prepared: Prepared) -> list[FakeOutbox]:
        """
        Keep it in those that are clear.
        """
        return [each for each in outboxes if not (each.clear and each.offer(prepared))]

    def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Note that it was closed.
        """
        self.closed.append((code, reason))

    @property
    def texts(self) -> list[str | bytes | None]:
        """
        What was offered, text or bytes.
        """
        return [one.data if one.text is None else one.text for one in self.prepared]


class FakeInbox:
    """
    Keeps what it is given, up to its capacity.
    """

    def __init__(self, capacity: int = 100) -> None:
        self.capacity = capacity
        self.items: list[Envelope] = []
        self.idle = True
        self.arrived = asyncio.Event()

    def put(self, item: Expiring) -> bool:
        """
        Take one item, if there is room.
        """
        assert isinstance(item, Envelope)
        if len(self.items) >= self.capacity:
            return False
        self.items.append(item)
        self.arrived.set()
        return True

    async def next_event(self) -> Message | Expiring:
        """
        Give the oldest item.
        """
        await self.arrived.wait()
        return self.items.pop(0)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """
        What lies here, read.
        """
        return [item.message() for item in self.items]


class Bus:
    """
    What several processes would share: the brokers of all, and their queues.
    """

    def __init__(self) -> None:
        self.brokers: list[BusBroker] = []
        self.queues = LocalBroker(60)


class BusBroker(Broker):
    """
    One process of several, played in this one: everything takes a loop turn, as it would there.

    Attributes:
        silent: Nothing is taken or confirmed any more, as if the other end hung.
        down: Whatever is asked fails, as if the other end were gone.
        lose: How many of the next messages to lose on the way.
    """

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self.bus = bus
        bus.brokers.append(self)
        self.subjects: set[str] = set()
        self.starts: list[tuple[asyncio.AbstractEventLoop, set[str]]] = []
        self.closes = 0
        self.silent = False
        self.down = False
        self.lose = 0

    async def start(
        self,
        deliver: Deliver,
        on_gap: OnGap,
        on_state: OnState,
        subjects: Iterable[str] = (),
    ) -> None:
        """
        Begin on the running loop.
        """
        self.deliver, self.on_gap, self.on_state = deliver, on_gap, on_state
        self.loop = asyncio.get_running_loop()
        self.subjects = set(subjects)
        self.starts.append((self.loop, set(subjects)))
        self.connected = True

    async def close(self) -> None:
        """
        End on the running loop.
        """
        assert asyncio.get_running_loop() is self.loop
        self.subjects = set()
        self.connected = False
        self.closes += 1

    async def subscribe(self, subject: str) -> None:
        """
        Have messages delivered from the next turn on.
        """
        await self._answer()
        self.subjects.add(subject)

    def unsubscribe(self, subject: str) -> None:
        """
        End a subscription.
        """
        self.subjects.discard(subject)

    def publish(self, subject: str, payload: bytes) -> Awaitable[None]:
        """
        Send to every process.
        """
        self.published += 1
        if self.lose:
            self.lose -= 1
        elif not (self.silent or self.down):
            for broker in self.bus.brokers:
                if subject in broker.subjects:
                    broker.loop.call_soon_threadsafe(broker.deliver, subject, payload)
        return self._answer()

    def push(
        self, queue: str, payload: bytes, *, lifetime: float, capacity: int
    ) -> Awaitable[None]:
        """
        Add to a queue all processes share; a full one is known only afterwards.
        """
        try:
            self.bus.queues.push(queue, payload, lifetime=lifetime, capacity=capacity)
        except ChannelFull as error:
            return self._fail(error)
        return self._answer()

    async def pop(self, queue: str) -> bytes:
        """
        Wait for a payload of a queue all processes share.
        """
        return await self.bus.queues.pop(queue)

    async def flush(self) -> None:
        """
        Empty the queues.
        """
        await self.bus.queues.flush()

    def forked(self) -> None:
        """
        Forget the parent's subscriptions.
        """
        self.subjects = set()

    async def _answer(self) -> None:
        if self.silent:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.down:
            raise ChannelLayerUnavailable("the bus is down")

    async def _fail(self, error: Exception) -> None:
        raise error


class LoopThread:
    """
    A loop that runs in a thread of its own: a server's, or another test's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = asyncio.new_event_loop() if loop is None else loop
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """
        Run a coroutine there and wait for it here.
        """
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def end(self) -> None:
        """
        Stop and close the loop, without a word to anybody.
        """
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()
