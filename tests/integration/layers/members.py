"""
One process of several that share a channel layer, told by lines of JSON what to do.

``python -m tests.integration.layers.members DIRECTORY OPTIONS``. Each line on the standard
input is a command with an ``id``, a method of ``Script`` to call (``do``) and its arguments;
each line on the standard output the answer to one, or an event. Commands run side by
side. The end of the input ends the process. What tests hold of it is in ``fleet``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import zlib
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import uvloop

from fairway import metrics
from fairway.layers import owner
from fairway.layers.brokers.ipc import IPCBroker, mesh
from fairway.layers.codec import Envelope, Kind
from fairway.layers.layer import ChannelLayer
from fairway.options import IPCOptions, LayerOptions
from fairway.queues import Expiring
from fairway.types import Message

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
TURN = 16
"""
Messages that a flood sends before it lets the loop turn.
"""


@dataclass
class Heard:
    """
    What arrived from one sender on one subject.

    Attributes:
        first: The number of the first message.
        last: The highest number so far.
        count: How many messages.
        holes: Pairs of the numbers between which others are missing.
        repeated: Numbers that came twice or after a later one.
        torn: Numbers whose content was not what was sent.
        latency: The longest time from the call of publish to the arrival, in seconds.
    """

    first: int
    last: int
    count: int = 1
    holes: list[tuple[int, int]] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    torn: list[int] = field(default_factory=list)
    latency: float = 0.0

    def note(self, number: int) -> None:
        """
        Add one message after the first.
        """
        self.count += 1
        if number <= self.last:
            self.repeated.append(number)
            return
        if number > self.last + 1:
            self.holes.append((self.last, number))
        self.last = number


class Ear:
    """
    An inbox that takes everything and remembers what each sender's numbers were.
    """

    def __init__(self) -> None:
        self.capacity = sys.maxsize
        self.idle = True
        self.heard: dict[str, dict[str, Heard]] = defaultdict(dict)
        self.waiting: dict[tuple[str, str], list[tuple[int, asyncio.Future[None]]]] = {}

    def put(self, item: Expiring) -> bool:
        """
        Note one message.
        """
        assert isinstance(item, Envelope)
        head, _, content = item.payload.partition(b"\n")
        subject, sender, number_, sent_at, checksum = json.loads(head)
        number = int(number_)
        heard = self.heard[subject].get(sender)
        if heard is None:
            heard = self.heard[subject][sender] = Heard(number, number)
        else:
            heard.note(number)
        heard.latency = max(heard.latency, monotonic() - sent_at)
        if zlib.crc32(content) != checksum:
            heard.torn.append(number)
        for least, future in self.waiting.get((subject, sender), ()):
            if number >= least and not future.done():
                future.set_result(None)
        return True

    async def next_event(self) -> Message | Expiring:
        """
        Never be asked: what arrives is noted at once.
        """
        raise NotImplementedError

    async def reaches(self, subject: str, sender: str, number: int) -> None:
        """
        Wait until a message with this number or a later one is there.
        """
        heard = self.heard[subject].get(sender)
        if heard is not None and heard.last >= number:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self.waiting.setdefault((subject, sender), [])
        waiting.append((number, future))
        try:
            await future
        finally:
            waiting.remove((number, future))


class Script:
    """
    The process: a channel layer, one channel that hears everything, and the commands.

    Every public coroutine method but ``run`` is a command.
    """

    def __init__(self, layer: ChannelLayer, name: str, *, served: bool = True) -> None:
        """
        Make one that has no channel yet.

        Args:
            layer: What the process shares with others.
            name: What its messages carry.
            served: Whether it is a server, whose loop the layer lives on.
        """
        self.layer = layer
        self.name = name
        self.served = served
        self.gaps: list[tuple[str, int | None]] = []
        self.ear = Ear()
        self.channel = ""
        self.sent: dict[str, int] = defaultdict(int)
        self.sent_at: dict[str, list[float]] = defaultdict(list)
        self.slowest_publish = 0.0
        self.consumers: dict[str, asyncio.Task[None]] = {}
        self.flooding = False
        self.tasks: set[asyncio.Task[None]] = set()
        self._report_gap = self.layer.hub._on_gap
        self.layer.hub._on_gap = self._on_gap  # type: ignore[method-assign]

    async def run(self) -> None:
        """
        Take commands until the input ends.
        """
        loop = asyncio.get_running_loop()
        if self.served:
            await owner.bind(loop)
        reader = asyncio.StreamReader(limit=2**24)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await self.enter()
        say({"ready": self.channel})
        while line := await reader.readline():
            task = asyncio.create_task(self._obey(json.loads(line)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        if self.served:
            await owner.release(loop)

    async def enter(self) -> None:
        """
        Have a channel that hears what it joins.
        """
        self.channel = await self.layer.new_channel()
        self.layer.attach(self.channel, inbox=self.ear)

    async def _obey(self, command: dict[str, Any]) -> None:
        """
        Run one command and say what came of it.
        """
        number, method = command.pop("id"), getattr(self, command.pop("do"))
        try:
            say({"id": number, "value": await method(**command)})
        except Exception as error:  # noqa: BLE001 - it is the test's
            say({"id": number, "error": f"{type(error).__name__}: {error}"})

    def _on_gap(self, subject: str, lost: int | None) -> None:
        self.gaps.append((subject, lost))
        self._report_gap(subject, lost)

    # --- Groups ------------------------------------------------------------------------------

    async def join(self, groups: list[str]) -> dict[str, float]:
        """
        Join groups side by side; give when all were joined and how long the slowest took.
        """
        joins = (timed(self.layer.group_add(name, self.channel)) for name in groups)
        seconds = await asyncio.gather(*joins)
        return {"at": monotonic(), "slowest": max(seconds)}

    async def leave(self, groups: list[str]) -> None:
        """
        Leave groups, and forget what was noted of them.
        """
        for name in groups:
            await self.layer.group_discard(name, self.channel)
            self.ear.heard.pop(name, None)
            self.gaps[:] = [gap for gap in self.gaps if gap[0] != f"group:{name}"]

    async def send(self, group: str, count: int = 1, size: int = 0) -> int:
        """
        Send numbered messages to a group; give the number of the last.
        """
        for _ in range(count):
            await self._send(group, bytes(size))
        return self.sent[group]

    async def tell(self, channel: str, count: int = 1) -> int:
        """
        Send numbered messages to a channel, wherever it is; give the number of the last.
        """
        for _ in range(count):
            message = {"type": "websocket.send", "bytes": self._next(channel, b"")}
            await self.layer.send(channel, message)
        return self.sent[channel]

    async def flood(
        self, groups: list[str], size: int = 0, rate: int = 0, count: int = 0
    ) -> dict[str, int]:
        """
        Send to groups in turn until ``calm``, or ``count`` times; give the last numbers.

        Args:
            groups: Whom to send to.
            size: Bytes of content.
            rate: Messages per second and group; 0 for as many as the layer takes.
            count: Messages to each group; 0 for no end.
        """
        self.flooding = True
        content = bytes(size)
        begin, rounds = monotonic(), 0
        while self.flooding and (not count or rounds < count):
            rounds += 1
            for group in groups:
                await self._send(group, content)
            if rate:
                await asyncio.sleep(max(0.0, begin + rounds / rate - monotonic()))
            elif rounds % TURN == 0:
                await asyncio.sleep(0)
        return {group: self.sent[group] for group in groups}

    async def calm(self) -> dict[str, int]:
        """
        End the flood; give the last number sent to each group.
        """
        self.flooding = False
        return dict(self.sent)

    async def first_after(self, group: str, at: float) -> int | None:
        """
        Give the number of the first message to a group whose sending began after a moment.
        """
        for number, sent_at in enumerate(self.sent_at[group], 1):
            if sent_at > at:
                return number
        return None

    async def hear(self, subject: str, senders: dict[str, int]) -> None:
        """
        Wait until each of these senders' messages has arrived up to the given number.
        """
        waits = (self.ear.reaches(subject, name, number) for name, number in senders.items())
        await asyncio.gather(*waits)

    # --- Queues ------------------------------------------------------------------------------

    async def push(self, queue: str, numbers: list[int]) -> None:
        """
        Send a job for each number to a queue.
        """
        for number in numbers:
            await self.layer.send(queue, {"type": "job", "number": number})

    async def consume(self, queue: str) -> None:
        """
        Take jobs from a queue until the end, each said as an event at once.
        """
        self.consumers[queue] = asyncio.create_task(self._consume(queue))

    async def abstain(self, queue: str) -> None:
        """
        Take no more jobs from a queue.
        """
        consumer = self.consumers.pop(queue)
        consumer.cancel()
        with suppress(asyncio.CancelledError):
            await consumer

    async def _consume(self, queue: str) -> None:
        while True:
            message = await self.layer.receive(queue)
            say({"queue": queue, "number": message["number"]})

    # --- What there is to see ----------------------------------------------------------------

    async def report(self) -> dict[str, Any]:
        """
        Give everything that was noted so far.
        """
        return {
            "heard": {
                subject: {name: asdict(heard) for name, heard in senders.items()}
                for subject, senders in self.ear.heard.items()
            },
            "gaps": self.gaps,
            "sent": self.sent,
            "slowest_publish": self.slowest_publish,
            "counters": metrics.snapshot(),
            "memory": resident_bytes(),
            "descriptors": open_descriptors(),
            "processor": process_time(),
        }

    async def forget(self) -> None:
        """
        Note everything anew: what was heard, gaps and how long publishing took.
        """
        self.ear.heard.clear()
        self.gaps.clear()
        self.slowest_publish = 0.0

    async def audience(self, group: str) -> int:
        """
        Give the number of processes that a message to a group reaches.
        """
        return await self.layer.audience(group)

    async def describe(self) -> str:
        """
        Give what the broker says of itself.
        """
        return self.layer.broker.describe()

    async def stand_still(self, seconds: float) -> None:
        """
        Block the loop that the layer is on, as a consumer with a fault does, and say so first.
        """

        def block() -> None:
            say({"still": seconds})
            until = monotonic() + seconds
            while monotonic() < until:
                pass

        await self.layer.hub.run(block)

    async def move(self, times: int) -> None:
        """
        Have the layer move between the thread ``fairway-io`` and this loop, back and forth.
        """
        loop = asyncio.get_running_loop()
        for _ in range(times):
            await owner.release(loop)
            await owner.bind(loop)

    async def close(self) -> None:
        """
        Close the layer, as a process does that ends well.
        """
        for queue in list(self.consumers):
            await self.abstain(queue)
        await self.layer.close()

    # --- Helpers -----------------------------------------------------------------------------

    def _next(self, subject: str, content: bytes) -> bytes:
        """
        Make the next numbered message to a subject.
        """
        self.sent[subject] += 1
        self.sent_at[subject].append(monotonic())
        return numbered(subject, self.name, self.sent[subject], content)

    async def _send(self, group: str, content: bytes) -> None:
        """
        Send one numbered message to a group and note how long that took.
        """
        payload = self._next(group, content)
        begin = monotonic()
        await self.layer.broadcast(group, payload, kind=Kind.BINARY)
        self.slowest_publish = max(self.slowest_publish, monotonic() - begin)


def numbered(subject: str, sender: str, number: int, content: bytes = b"") -> bytes:
    """
    Make a message that says whose it is, and when it was sent.
    """
    head = [subject, sender, number, monotonic(), zlib.crc32(content)]
    return json.dumps(head).encode() + b"\n" + content


async def timed(awaitable: Any) -> float:
    """
    Await something and give the seconds it took.
    """
    begin = monotonic()
    await awaitable
    return monotonic() - begin


def resident_bytes() -> int:
    """
    Give the memory of this process.
    """
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def open_descriptors() -> int:
    """
    Count the files and sockets of this process.
    """
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def say(line: dict[str, Any]) -> None:
    """
    Write one line.
    """
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def over_ipc(directory: Path, options: dict[str, Any]) -> Script:
    """
    Make one that meets others in a directory.
    """
    # Tests that must lose nothing may run where everybody gets the processor rarely.
    mesh.PACE_SECONDS = options.get("pace_seconds", mesh.PACE_SECONDS)
    layer_options = LayerOptions(**options.get("layer", {}))
    broker = IPCBroker(
        directory,
        IPCOptions(**options.get("ipc", {})),
        expiry=layer_options.expiry,
        namespace=directory.name,
    )
    layer = ChannelLayer(broker, layer_options)
    return Script(layer, options["name"], served=options.get("served", True))


def main() -> None:
    """
    Be the process.
    """
    directory, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    logging.basicConfig(level=logging.INFO, format=f"{options['name']} %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=LOOPS[options.get("loop", "uvloop")]) as runner:
        runner.run(over_ipc(directory, options).run())


if __name__ == "__main__":
    main()
