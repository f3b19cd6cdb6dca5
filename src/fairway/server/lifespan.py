"""
The ASGI lifespan of an application: once per worker, and optional.

An application that raises on the ``lifespan`` scope does not support it; that
is not an error unless lifespan is ``on``. One that answers ``startup.failed``
ends the start.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault
from fairway.server import log
from fairway.server.asgi_state import LIFESPAN, Machine, State
from fairway.server.scope import ASGI

if TYPE_CHECKING:
    from fairway.types import ASGIApplication, Message

__all__ = ["Lifespan"]


class Lifespan:
    """
    Runs the lifespan of one application.

    Event-loop thread only.

    Attributes:
        state: What the application left for its requests, None without lifespan.
    """

    def __init__(self, application: ASGIApplication, mode: str) -> None:
        self._application = application
        self._required = mode == "on"
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._answered = asyncio.Event()
        self._at = State.STARTING
        self._failure = ""
        self.state: dict[str, Any] | None = None

    async def startup(self) -> None:
        """
        Start the application and wait until it is ready.

        Raises:
            ConfigurationError: It said that its start failed, or it must support lifespan
                and does not.
        """
        state: dict[str, Any] = {}
        scope = {"type": "lifespan", "asgi": ASGI, "state": state}
        self._task = asyncio.create_task(self._run(scope))
        self._events.put_nowait({"type": "lifespan.startup"})
        await self._wait()
        if self._at is State.FAILED:
            raise ConfigurationError(
                f"the application's start failed: {self._failure or '-'}",
                fault=Fault.LIFESPAN_FAILED,
            )
        if self._at is State.RUNNING:
            self.state = state
        elif self._required:
            raise ConfigurationError(
                "--lifespan on: the application does not support lifespan",
                fault=Fault.LIFESPAN_FAILED,
            )
        else:
            self._task = None

    async def shutdown(self, timeout: float) -> None:
        """
        Tell the application to end, and wait for it at most ``timeout`` seconds.
        """
        if self._task is None:
            return
        if self._at is State.RUNNING and not self._task.done():
            self._at = State.STOPPING
            self._answered.clear()
            self._events.put_nowait({"type": "lifespan.shutdown"})
            try:
                await asyncio.wait_for(self._wait(), timeout)
            except TimeoutError:
                log.logger.error("lifespan: the application did not end within %g s", timeout)
            if self._at is State.FAILED:
                log.logger.error("lifespan: the application's end failed: %s", self._failure or "-")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def started(self, message: Message) -> None:
        """
        ``lifespan.startup.complete``.
        """

    def stopped(self, message: Message) -> None:
        """
        ``lifespan.shutdown.complete``.
        """

    def failed(self, message: Message) -> None:
        """
        ``lifespan.startup.failed`` and ``lifespan.shutdown.failed``.
        """
        self._failure = log.printable(str(message.get("message", "")), 500)

    async def _run(self, scope: dict[str, Any]) -> None:
        """
        Run the application; what it raises says whether it supports lifespan.
        """
        try:
            await self._application(scope, self._events.get, self._send)
        except Exception as error:  # noqa: BLE001 - what it raises is its answer
            if self._at is State.STARTING and self._required:
                self._at, self._failure = State.FAILED, f"{type(error).__name__}: {error}"
            elif self._at is not State.STARTING:
                log.application_error({"type": "lifespan"}, error)
        finally:
            self._answered.set()

    async def _send(self, message: Message) -> None:
        """
        Carry out one message of the application.
        """
        step = LIFESPAN_MACHINE.steps[self._at].get(message.get("type", ""))
        if step is None:
            raise LIFESPAN_MACHINE.refusal(self._at, message)
        action, after = step
        action(self, message)
        self._at = after or self._at
        self._answered.set()

    async def _wait(self) -> None:
        """
        Wait for an answer, or the application's end.
        """
        await self._answered.wait()


LIFESPAN_MACHINE = Machine(LIFESPAN, Lifespan)
