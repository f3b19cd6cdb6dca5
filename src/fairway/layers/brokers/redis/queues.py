"""
Named queues on Redis: each message is read once, by anybody, or expires unread.

A push and a pop are one call each; what they do there is in ``scripts``, who waits in this
process in ``readers``. While a queue has readers here one task asks for as many messages as
there are readers, and then sleeps until a push makes itself known, or for ``poll`` seconds.

What a failure may cost: a push whose answer was lost is not repeated, so whoever gets
ChannelLayerUnavailable does not know whether the message is in the queue; it never is
there twice. A pop whose answer was lost is repeated and gets the same messages. A process
that is killed takes with it what its readers had been given. What a server forgets, at a
restart or when a replica that lagged behind takes over, did not happen: what was pushed
then is lost, and what was popped then is in the queue again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from fairway import metrics
from fairway.exceptions import ChannelFull, ChannelLayerUnavailable
from fairway.faults import Fault
from fairway.layers.brokers.readers import Readers
from fairway.layers.brokers.redis.scripts import ADD, TAKE, keys_of
from fairway.layers.notices import Notices

if TYPE_CHECKING:
    from fairway.layers.brokers.redis.commands import Commands
    from fairway.layers.brokers.redis.node import Node

__all__ = ["QUEUE", "RedisQueues", "escape"]

logger = logging.getLogger("fairway.layers")

QUEUE = "queue:"
"""
What the subject begins with on which a push into a queue is made known.
"""

BATCH_MAX = 64
BATCH_BYTES = 1_048_576
"""
Messages taken at once, and bytes after which no further one is.
"""

LINGER_SECONDS = 5.0
"""
Time after which a queue without readers is left: readers come and go.
"""

RETRY_SECONDS = 0.25
"""
Time between two attempts to read while a server is away.
"""

SCAN_COUNT = 1000


class _Row(NamedTuple):
    """
    A message out of a queue, with what it takes to put it back.

    Attributes:
        queue: The queue it was in.
        id: Its name there.
        order: Its place.
        expires: Until when it may be read, by the server's clock.
        payload: The bytes.
    """

    queue: str
    id: bytes
    order: bytes
    expires: bytes
    payload: bytes


class _Line:
    """
    A queue that is read here.

    Attributes:
        subject: On which pushes make themselves known.
        keys: Those of the queue, and the one for what this process was given.
        had: The last request that was answered with messages, unless the server knows that.
        stirred: Set when there may be something to do.
        task: Reads it.
    """

    __slots__ = ("had", "keys", "stirred", "subject", "task")

    def __init__(self, queue: str, keys: list[str], had: int) -> None:
        self.subject = QUEUE + queue
        self.keys = keys
        self.had = had
        self.stirred = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class RedisQueues:
    """
    Queues by name. ``pop`` may be awaited on any loop; all else belongs to that of ``begin``.
    """

    def __init__(self, prefix: str, poll: float) -> None:
        """
        Have no server yet; who pops waits for one.

        Args:
            prefix: What the names of keys begin with.
            poll: Seconds after which queues somebody waits for are looked at without a call.
        """
        self._prefix = prefix
        self._poll = poll
        self._notices = Notices(logger)
        # Names this process among those that read a queue, and its messages among all.
        self._process = secrets.token_hex(6)
        self._requests = count(1)
        self._pushes = count(1)
        self._readers: Readers[_Row] = Readers()
        self._lines: dict[str, _Line] = {}
        # ``had`` of the queues that were left without a word to the server.
        self._unsettled: dict[str, int] = {}
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._nodes: Sequence[Node] = ()
        self._locate: Callable[[str], Node] = _nowhere

    # --- Where they live ---------------------------------------------------------------------

    def begin(self, nodes: Sequence[Node], locate: Callable[[str], Node]) -> None:
        """
        Begin on the running loop, with the readers there are.

        Args:
            nodes: All servers.
            locate: Gives the one that a subject belongs to.
        """
        for queue, line in self._lines.items():  # Of a loop that has ended without a word.
            self._unsettled[queue] = line.had
        self._lines = {}
        self._loop, self._ending = asyncio.get_running_loop(), False
        self._nodes, self._locate = nodes, locate
        for queue in self._readers.queues:
            self._stir(queue)
        for row in self._readers.returned():
            self._stir(row.queue)

    async def end(self, timeout: float) -> None:
        """
        Leave the running loop with what was given up put back, in ``timeout`` seconds at most.

        Readers go on waiting until the next ``begin``.
        """
        self._ending = True
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        for line in self._lines.values():
            line.stirred.set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._ending:  # Else they have begun on another loop meanwhile.
            self._loop = None

    # --- Pushing -----------------------------------------------------------------------------

    def push(
        self, queue: str, payload: bytes, lifetime: float, capacity: int
    ) -> asyncio.Future[None]:
        """
        Add to the end of a queue. Does not wait; takes its place among pushes at once.

        Args:
            queue: Its name.
            payload: The bytes.
            lifetime: Seconds until it may be thrown away unread.
            capacity: Unread payloads the queue may hold, this one included.

        Returns:
            What is done once the message is in the queue. It raises ChannelFull if there is no
            room for it, and ChannelLayerUnavailable if no answer came, whether or not the
            message is in the queue.

        Raises:
            ChannelLayerUnavailable: The server has been away for a while.
        """
        node = self._locate(QUEUE + queue)
        parts: list[str | bytes | int] = [
            3,
            *keys_of(self._prefix, queue),
            f"{self._process}.{next(self._pushes):x}",
            payload,
            int(lifetime * 1_000_000),
            capacity,
            node.channel(QUEUE + queue),
        ]
        return ADD.run(node.commands, parts, partial(self._added, queue))

    def _added(self, queue: str, answer: list[int]) -> None:
        """
        Take the answer to a push.

        Raises:
            ChannelFull: There was no room.
        """
        stored, gone = answer
        self._count_lost(queue, gone, 0)
        if not stored:
            raise ChannelFull(queue)

    def _count_lost(self, queue: str, expired: int, evicted: int) -> None:
        """
        Count messages that nobody read in time, and those whose payload the server threw away.
        """
        if expired:
            metrics.drops.add("queue_expired", expired)
        if evicted:
            metrics.drops.add("queue_evicted", evicted)
            self._notices.say(
                "evicted",
                "%d messages of the queue %r are lost: Redis threw them away to save memory "
                "(maxmemory-policy)",
                evicted,
                queue,
            )

    # --- Reading -----------------------------------------------------------------------------

    async def pop(self, queue: str) -> bytes:
        """
        Wait for the oldest payload of a queue and take it, on whichever loop.

        Of several who wait here, the first gets the first. A cancelled call loses nothing: what
        it was about to get is put back in its place. While a server is away the call waits on.
        """
        reader = self._readers.wait(queue)
        try:
            self._look(queue)
            return await reader.future
        except BaseException:
            if self._readers.give_up(reader):
                self._look(queue)
            raise

    def wake(self, queue: str) -> None:
        """
        Look at a queue because somebody has pushed.
        """
        line = self._lines.get(queue)
        if line is not None:
            line.stirred.set()

    def _look(self, queue: str) -> None:
        """
        Have the readers of a queue served, and what they gave up put back. From any loop.
        """
        loop = self._loop
        if loop is None:
            return  # The next beginning looks at all of them.
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:  # A reader is collected that nobody awaits any more.
            here = False
        if here:
            self._stir(queue)
            return
        with suppress(RuntimeError):  # The loop has ended, and the next beginning looks too.
            loop.call_soon_threadsafe(self._stir, queue)

    def _stir(self, queue: str) -> None:
        """
        Have a queue looked at by its task, which is made if there is none.
        """
        if self._ending or self._loop is not asyncio.get_running_loop():
            return  # The next beginning looks at all of them.
        line = self._lines.get(queue)
        if line is None:
            keys = keys_of(self._prefix, queue)
            keys.append(f"{self._prefix}:queue:{{{queue}}}:held:{self._process}")
            line = self._lines[queue] = _Line(queue, keys, self._unsettled.pop(queue, 0))
            line.task = asyncio.create_task(self._serve(queue, line), name=f"queue {queue}")
        line.stirred.set()

    async def _serve(self, queue: str, line: _Line) -> None:
        """
        Be the task of a queue for as long as it has readers here.
        """
        try:
            self._hear(line)
            while self._is_served_by(queue, line):
                try:
                    await self._serve_readers(queue, line)
                    break
                except Exception:  # Who waits must outlive what nobody thought of.
                    logger.exception("the queue %r cannot be read", queue)
                    await asyncio.sleep(self._poll)
        finally:
            if self._lines.get(queue) is line:
                del self._lines[queue]
                if line.had:
                    self._unsettled[queue] = line.had
                with suppress(ChannelLayerUnavailable):
                    self._locate(line.subject).listener.unsubscribe(line.subject)

    async def _serve_readers(self, queue: str, line: _Line) -> None:
        """
        Give readers what they wait for until there are none for a while, or the queues end.
        """
        loop = asyncio.get_running_loop()
        leave_at = loop.time() + LINGER_SECONDS
        while self._is_served_by(queue, line) and not self._ending:
            line.stirred.clear()
            if queue in self._readers:
                leave_at = loop.time() + LINGER_SECONDS
            if await self._exchange(queue, line):
                continue
            if loop.time() >= leave_at:
                await self._settle(queue, line)
                if queue not in self._readers:
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await line.stirred.wait()
        await self._settle(queue, line)

    def _is_served_by(self, queue: str, line: _Line) -> bool:
        """
        Whether a line has a queue, and no other has: that of a loop which stood still is over.
        """
        return self._lines.get(queue) is line

    def _hear(self, line: _Line) -> None:
        """
        Have pushes make themselves known here, from some time on.
        """

        def heard(confirmed: asyncio.Future[None]) -> None:
            if not (confirmed.cancelled() or confirmed.exception()):
                # What was pushed before was not made known.
                line.stirred.set()

        with suppress(ChannelLayerUnavailable):  # The poll does without.
            confirmed = self._locate(line.subject).listener.subscribe(line.subject)
            if confirmed is not None:
                confirmed.add_done_callback(heard)

    async def _exchange(self, queue: str, line: _Line) -> bool:
        """
        Put back what was given up, and take what is waited for.

        Returns:
            Whether there may be more to do at once.
        """
        wanted = self._readers.wanted([queue]).get(queue, 0)
        returned = _some(self._readers.returned(queue))
        if not (wanted or returned):
            return False
        left = await self._request(queue, line, min(wanted, BATCH_MAX), returned)
        return bool(left or self._readers.returned(queue))

    async def _settle(self, queue: str, line: _Line) -> None:
        """
        Put back what was given up, and let the server forget what has arrived here.
        """
        while self._is_served_by(queue, line):
            returned = _some(self._readers.returned(queue))
            if not (returned or line.had):
                return
            await self._request(queue, line, 0, returned)

    async def _request(self, queue: str, line: _Line, wanted: int, returned: list[_Row]) -> int:
        """
        Put back and take; hand out what comes, and give how many messages are left.
        """
        request = next(self._requests)
        parts: list[str | bytes | int] = [len(line.keys), *line.keys]
        parts += [request, line.had, wanted, BATCH_BYTES]
        parts.append(self._locate(line.subject).channel(line.subject))
        for row in returned:
            parts += row[1:]
        answer = await self._ask(line, parts)
        if not self._is_served_by(queue, line):
            return 0  # Whoever serves it now gets the same messages.
        left, gone, evicted = (int(number) for number in answer[:3])
        rows = [_Row(queue, *answer[start : start + 4]) for start in range(3, len(answer), 4)]
        # From here on they are in hand here, and nothing may fail before they are handed out.
        line.had = request if rows else 0
        self._readers.forget_returned(returned)
        for row in rows:
            self._readers.hand_out(row)
        self._count_lost(queue, gone, evicted)
        return left

    async def _ask(self, line: _Line, parts: Sequence[str | bytes | int]) -> list[Any]:
        """
        Have a request answered, for as long as it takes.

        It is the same request each time, so what it takes it takes once.
        """
        while True:
            try:
                node = self._locate(line.subject)
                answer: list[Any] = await TAKE.run(node.commands, parts, list, repeatable=True)
            except ChannelLayerUnavailable as error:
                self._notices.say(
                    "queues", "queues cannot be read at present: %s [%s]", error, Fault.REDIS_AWAY
                )
                if self._loop is not asyncio.get_running_loop():
                    return []
                await asyncio.sleep(min(RETRY_SECONDS, self._poll))
            else:
                return answer

    # --- All of them -------------------------------------------------------------------------

    async def flush(self) -> None:
        """
        Throw away every message of every queue, on all nodes of a cluster that were used so far.

        Raises:
            ChannelLayerUnavailable: A server is away.
        """
        await asyncio.gather(
            *(self._empty(commands) for node in self._nodes for commands in node.reached)
        )

    async def _empty(self, commands: Commands) -> None:
        """
        Throw away what one server has.
        """
        pattern = escape(self._prefix) + ":queue:{*}:*"
        cursor = b"0"
        while True:
            cursor, keys = await commands.execute(
                "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT, repeatable=True
            )
            # One by one, since a cluster would refuse several of different slots.
            await asyncio.gather(*(commands.execute("DEL", key, repeatable=True) for key in keys))
            if cursor == b"0":
                return


def _some(rows: list[_Row]) -> list[_Row]:
    """
    Give as many of some messages as are put back at once.
    """
    size = 0
    for number, row in enumerate(rows):
        if number == BATCH_MAX or size >= BATCH_BYTES:
            return rows[:number]
        size += len(row.payload)
    return rows


def escape(text: str) -> str:
    """
    Have a text stand for itself in a pattern of Redis.
    """
    return "".join(f"\\{one}" if one in "*?[]\\^-" else one for one in text)


def _nowhere(subject: str) -> Node:
    """
    Stand in for the servers before the beginning.
    """
    raise ChannelLayerUnavailable("the broker is closed")
