"""
The commands to one node, in order, across the links that come and go.

A command waits for a link, then for its reply, and for both together no longer than its
deadline. What may be repeated without harm is sent again on the next link when its reply
was lost; everything else fails then. Bounded, and without a task per command.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.redis.link import Link, ReplyError, pack

__all__ = ["PAUSE_SECONDS", "Commands", "Refused"]

PAUSE_SECONDS = 0.01
"""
The shortest time between two looks at what is late.
"""


class Refused(ChannelLayerUnavailable):
    """
    The server answered with an error.

    Attributes:
        code: The word that it begins with: ``NOPERM``, ``MOVED``, ``ERR``, ...
        text: All of it.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"redis at {name} refuses: {text}")
        self.code = text.partition(" ")[0]
        self.text = text


class _Command:
    """
    One command on its way.
    """

    __slots__ = ("deadline", "future", "packed", "repeatable")

    def __init__(
        self, packed: bytes, future: asyncio.Future[Any], deadline: float, repeatable: bool
    ) -> None:
        self.packed = packed
        self.future = future
        self.deadline = deadline
        self.repeatable = repeatable


class Commands:
    """
    What is asked of one node. Belongs to one loop.
    """

    def __init__(
        self,
        name: str,
        timeout: float,
        bytes_max: int,
        on_read_only: Callable[[], None],
        elsewhere: Callable[[str], Commands] | None = None,
    ) -> None:
        """
        Make a line that waits for its first link.

        Args:
            name: What people call the node.
            timeout: Seconds for a command, waiting for a link included.
            bytes_max: Bytes of commands without a reply.
            on_read_only: Called where the server takes no writes: it is no master any more.
            elsewhere: Gives the commands to another node of a cluster, by its host and port.
        """
        self._name = name
        self._timeout = timeout
        self._bytes_max = bytes_max
        self._on_read_only = on_read_only
        self._elsewhere = elsewhere
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._sent: deque[_Command] = deque()
        self._waiting: deque[_Command] = deque()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._attached_at = self._loop.time()
        self._patient_until = self._attached_at + timeout
        self._trouble = f"redis at {name} is not connected yet"
        self._idle: asyncio.Future[None] | None = None

    def execute(self, *parts: str | bytes | int, repeatable: bool = False) -> asyncio.Future[Any]:
        """
        Ask something; what is returned has the reply, in bounded time.

        Args:
            parts: The command's name and arguments.
            repeatable: Whether doing it twice does no harm.

        Raises:
            ChannelLayerUnavailable: There has been no link for a while, or too much waits; as
                well by what is returned, where the server refuses or does not answer.
        """
        return self.execute_packed(pack(parts), repeatable)

    def execute_packed(self, packed: bytes, repeatable: bool) -> asyncio.Future[Any]:
        """
        Do as ``execute`` with a command as Redis reads it.
        """
        now = self._loop.time()
        if self._link is None and now > self._patient_until:
            raise ChannelLayerUnavailable(self._trouble)
        if self._bytes and self._bytes + len(packed) > self._bytes_max:
            raise ChannelLayerUnavailable(
                f"{self._bytes} bytes wait for redis at {self._name} (link_bytes_max)"
            )
        future: asyncio.Future[Any] = self._loop.create_future()
        command = _Command(packed, future, now + self._timeout, repeatable)
        self._bytes += len(packed)
        if self._link is not None:
            self._sent.append(command)
            self._link.write(packed)
        else:
            self._waiting.append(command)
        if self._timer is None:
            self._timer = self._loop.call_at(command.deadline, self._look_at_deadlines)
        return future

    def attach(self, link: Link) -> None:
        """
        Have a link, and send on it what waits.
        """
        self._link = link
        self._attached_at = self._loop.time()
        while self._waiting:
            command = self._waiting.popleft()
            if command.future.done():
                self._bytes -= len(command.packed)
            else:
                self._sent.append(command)
                link.write(command.packed)

    def detach(self, error: Exception) -> None:
        """
        Have no link any more: what may be repeated waits for the next, all else fails.
        """
        self._link = None
        self._patient_until = self._loop.time() + self._timeout
        self._trouble = str(error)
        sent, self._sent = self._sent, deque()
        for command in reversed(sent):
            if command.repeatable and not command.future.done():
                self._waiting.appendleft(command)
            else:
                self._fail(command, str(error))
        self._tell_idle()

    def explain(self, error: Exception) -> None:
        """
        Remember why there is no link.
        """
        self._trouble = str(error)

    def expect_link(self) -> None:
        """
        Have commands wait from now on, if none did any more: the server is there again.
        """
        self._patient_until = self._loop.time() + self._timeout

    def on_reply(self, reply: Any) -> None:
        """
        Take a reply: it is that of the command which was sent first. Hot path.
        """
        if not self._sent:
            if self._link is not None:
                self._link.lose(f"an answer that nobody asked for: {str(reply)[:100]}")
            return
        command = self._sent.popleft()
        self._bytes -= len(command.packed)
        future = command.future
        if isinstance(reply, ReplyError):
            self._refused(command, str(reply))
        elif not future.done():
            future.set_result(reply)
        if not self._sent:
            self._tell_idle()

    async def settle(self, timeout: float) -> None:
        """
        Wait until everything is answered, at most so many seconds.
        """
        if self._sent or self._waiting:
            self._idle = self._loop.create_future()
            await asyncio.wait([self._idle], timeout=timeout)

    def close(self) -> None:
        """
        Fail what still waits.
        """
        self._link = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for line in (self._sent, self._waiting):
            while line:
                self._fail(line.popleft(), "the broker was closed")
        self._patient_until = 0.0
        self._trouble = "the broker was closed"

    def _refused(self, command: _Command, text: str) -> None:
        """
        Fail one command as the server refused it, or have another one execute it.
        """
        if text.startswith("READONLY"):
            self._on_read_only()
        if command.future.done():
            return
        if text.startswith("MOVED ") and self._elsewhere is not None:
            try:
                commands = self._elsewhere(text.split()[2])
                moved = commands.execute_packed(command.packed, command.repeatable)
            except ChannelLayerUnavailable as error:
                command.future.set_exception(error)
            else:
                moved.add_done_callback(partial(_pass_on, command.future))
        else:
            command.future.set_exception(Refused(self._name, text))

    def _fail(self, command: _Command, text: str) -> None:
        """
        Fail one command that was taken out of its line.
        """
        self._bytes -= len(command.packed)
        if not command.future.done():
            command.future.set_exception(ChannelLayerUnavailable(text))

    def _look_at_deadlines(self) -> None:
        """
        Give up what is late; a link that owes a reply for so long is none.
        """
        self._timer = None
        now = self._loop.time()
        while self._waiting and self._waiting[0].deadline <= now:
            self._fail(
                self._waiting.popleft(),
                f"{self._trouble} (waited for {self._timeout:g} s, command_timeout)",
            )
        deadlines = [self._waiting[0].deadline] if self._waiting else []
        if self._link is not None and self._sent:
            deadlines.append(self._look_at_sent(self._link, now))
        self._tell_idle()
        if deadlines:
            self._timer = self._loop.call_at(
                max(min(deadlines), now + PAUSE_SECONDS), self._look_at_deadlines
            )

    def _look_at_sent(self, link: Link, now: float) -> float:
        """
        Give up what was sent and is late, and the link if that is its fault.

        Returns:
            When to look again.
        """
        text = f"no answer within {self._timeout:g} s (command_timeout)"
        link_due = self._attached_at + self._timeout
        if max(self._sent[0].deadline, link_due) <= now:
            for command in self._sent:
                command.repeatable = command.repeatable and command.deadline > now
            link.lose(text)
            return now + self._timeout
        for command in self._sent:  # Of the link before: this one has time to answer.
            if command.deadline > now:
                return min(command.deadline, link_due)
            if not command.future.done():
                command.future.set_exception(ChannelLayerUnavailable(f"{self._trouble}; {text}"))
        return link_due

    def _tell_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and not (self._sent or self._waiting):
            self._idle.set_result(None)


def _pass_on(future: asyncio.Future[Any], moved: asyncio.Future[Any]) -> None:
    """
    Answer one future as another was.
    """
    if moved.cancelled():
        future.cancel()
        return
    error = moved.exception()
    if future.done():
        return
    if error is None:
        future.set_result(moved.result())
    else:
        future.set_exception(error)
