"""
One running application of a worker: what it is given, and whether it has handled that.

It is given one message at a time. Asking for the next says that the last is handled, and until
then nothing more is taken out of its channel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from fairway.exceptions import StopConsumer
from fairway.types import Message, Scope

__all__ = ["Host", "Instance", "logger"]


class Host(Protocol):
    """
    What an application's worker has for it.
    """

    application: Any

    def application_exception(self, exception: BaseException, details: dict[str, Any]) -> None:
        """
        Take what the application has failed with.
        """

    async def application_send(self, scope: Scope, message: Message) -> None:
        """
        Take what the application sends.
        """


class Instance:
    """
    A running application, which is given one message at a time.

    Attributes:
        task: Runs it.
        used: Whether it has been given a message.
        ended: Whether it was told to end.
    """

    def __init__(self, worker: Host, scope: Scope, free: Callable[[], None]) -> None:
        """
        Start the application.

        Args:
            worker: Its worker.
            scope: What it is called with.
            free: Called whenever it has nothing to do any more.
        """
        self._worker = worker
        self._free = free
        self._scope = scope
        self._given: asyncio.Queue[Message | None] = asyncio.Queue()
        # Done once the application wants the next message (True) or has ended.
        self._handled: asyncio.Future[bool] | None = None
        self._last: Message | None = None
        self._looked = False
        self.used = False
        self.ended = False
        self.task = asyncio.create_task(self._run(), name=f"application of {scope['channel']}")
        self.task.add_done_callback(lambda _: self._tell())

    @property
    def idle(self) -> bool:
        """
        Whether it has nothing to do.
        """
        return self._handled is None and not self.ended

    async def handle(self, message: Message) -> bool:
        """
        Give it a message and wait until it wants the next one, or has ended.

        Returns:
            Whether it has looked at the message.
        """
        self.used, self._looked = True, False
        handled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._handled = handled
        self._given.put_nowait(message)
        if self.task.done():
            self._tell()
        return await handled

    def end(self) -> None:
        """
        Have it end when it wants the next message.
        """
        if not self.ended:
            self.ended = True
            self._given.put_nowait(None)

    async def _run(self) -> None:
        """
        Run the application; what it raises is logged.
        """
        worker, scope = self._worker, self._scope

        async def send(message: Message) -> None:
            await worker.application_send(scope, message)

        try:
            await worker.application(scope, self._receive, send)
        except StopConsumer:
            pass
        except Exception as error:  # noqa: BLE001 - the project's
            details = {"scope": scope, "message": self._last}
            worker.application_exception(error, details)

    async def _receive(self) -> Message:
        """
        Give the application its next message; asking says that it has handled the last.

        Raises:
            StopConsumer: There will be none.
        """
        self._tell()
        message = await self._given.get()
        if message is None:
            # One that takes this for an error of its own and asks again waits to be cancelled.
            raise StopConsumer
        self._last, self._looked = message, True
        return message

    def _tell(self) -> None:
        """
        Tell who handed a message over, if it was looked at or never will be.
        """
        handled = self._handled
        if handled is not None and (self._looked or self.task.done()):
            self._handled = None
            self._free()
            if not handled.done():
                handled.set_result(self._looked)


def logger() -> logging.Logger:
    """
    Give the logger for a worker's lines: the one of Channels where a project has set that up.
    """
    name = "django.channels.worker"
    parts = [logging.getLogger(one) for one in (name, "django.channels")]
    if any(one.handlers or one.level for one in parts):
        return parts[0]
    return logging.getLogger("fairway.worker")
