"""
What keeps one link to one server: opened, watched, opened again.

The first attempt after an end follows at once, the next ones after pauses that double up to
a limit and differ by chance, so that many processes do not come at one moment. One task
each.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from fairway.exceptions import ChannelLayerUnavailable, ConfigurationError
from fairway.layers.brokers.redis.link import Link

__all__ = ["Keeper", "Side"]

logger = logging.getLogger("fairway.layers")

PAUSE_SECONDS = 0.02

STABLE_SECONDS = 1.0
"""
A link that ended sooner than this counts as a failed attempt.
"""


class Side(Protocol):
    """
    What uses the links.
    """

    def attach(self, link: Link) -> None:
        """
        Have a link.
        """

    def detach(self, error: Exception) -> None:
        """
        Have no link any more.
        """


class Keeper:
    """
    Keeps a link open. Belongs to one loop.

    Attributes:
        link: The present one.
    """

    def __init__(
        self,
        open_link: Callable[[], Awaitable[Link]],
        side: Side,
        pause_max: float,
        on_change: Callable[[Exception | None], None],
        *,
        tell_lost: bool,
    ) -> None:
        """
        Make a keeper that begins with ``start``.

        Args:
            open_link: Opens a link, in bounded time.
            side: Who gets it.
            pause_max: The longest pause between two attempts.
            on_change: Called when a link was opened, with None, and when opening one failed,
                with the reason.
            tell_lost: Whether it is called as well when a link ended, before a new attempt.
        """
        self._open_link = open_link
        self._side = side
        self._pause_max = pause_max
        self._on_change = on_change
        self._tell_lost = tell_lost
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._unforeseen = ""
        self.link: Link | None = None
        self._first: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def start(self) -> asyncio.Future[Exception | None]:
        """
        Begin; what is returned is done with how the first attempt ended.
        """
        self._task = asyncio.create_task(self._run())
        return self._first

    def hurry(self) -> None:
        """
        Try again now rather than after the pause.
        """
        self._hurry.set()

    def lose(self, reason: str) -> None:
        """
        Give up the present link for another one.
        """
        if self.link is not None:
            self.link.lose(reason)

    async def close(self, timeout: float) -> None:
        """
        End the link after what was queued, in bounded time, and open none any more.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=timeout)
        link, self.link = self.link, None
        if link is not None:
            await link.close(timeout)

    def abandon(self) -> None:
        """
        End the link and open none any more: on a loop that stood still, or for one that ended.
        """
        link, self.link = self.link, None
        if link is not None:
            link.abandon()
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()

    async def _run(self) -> None:
        """
        Be the task.
        """
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            link = await self._attempt()
            if link is not None:
                began = loop.time()
                self.link = link
                self._side.attach(link)
                self._on_change(None)
                self._tell_first(None)
                reason = await asyncio.shield(link.lost)
                self.link = None
                self._side.detach(reason)
                if self._tell_lost:
                    self._on_change(reason)
                if loop.time() - began >= STABLE_SECONDS:
                    failures = 0
                    continue
            failures += 1
            await self._pause(failures if link is None else failures - 1)

    async def _attempt(self) -> Link | None:
        """
        Try to open a link.
        """
        self._hurry.clear()
        try:
            return await self._open_link()
        except (ChannelLayerUnavailable, ConfigurationError) as error:
            self._failed(error)
        except Exception as error:  # The task must outlive what nobody thought of.
            if repr(error) != self._unforeseen:  # Attempts come several times a second.
                self._unforeseen = repr(error)
                logger.exception("a connection to Redis could not be opened")
            self._failed(ChannelLayerUnavailable(f"redis: {error!r}"))
        return None

    def _failed(self, error: Exception) -> None:
        self._on_change(error)
        self._tell_first(error)

    async def _pause(self, failures: int) -> None:
        """
        Wait before the next attempt, unless somebody is in a hurry.
        """
        if not failures:
            return
        pause = min(self._pause_max, PAUSE_SECONDS * 2 ** min(failures, 16))
        try:
            async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311 - no secret
                await self._hurry.wait()
        except TimeoutError:
            pass

    def _tell_first(self, error: Exception | None) -> None:
        if not self._first.done():
            self._first.set_result(error)
