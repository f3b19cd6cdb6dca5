"""
A message of a process to itself, by which it finds that a subscription is only half alive.

A link that is open, and on which nothing comes, looks like one to which nobody sends. Who keeps
links, and what becomes of one that was given up, is ``node``'s and ``keeper``'s business.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.redis.link import Link
from fairway.layers.brokers.redis.listener import Listener
from fairway.options import RedisOptions

__all__ = ["PROBE", "Probe", "look_at"]

logger = logging.getLogger("fairway.layers")

PROBE = "probe:"
"""
What the subject begins with on which a node hears itself; the project's name follows, then
a dot and a number of its own, so that who uses a prefix at present can be told by its channels.
"""


class Probe:
    """
    Probes one node now and then. Belongs to one loop.

    Attributes:
        subject: What it sends to; nobody else does.
    """

    def __init__(
        self,
        project: str,
        options: RedisOptions,
        listener: Listener,
        publish: Callable[[str, bytes], Awaitable[Any]],
        link: Callable[[], Link | None],
        afterwards: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Make a probe that begins with ``start``.

        Args:
            project: What its subject tells of who this is; may be empty.
            options: The limits.
            listener: Hears its messages.
            publish: Sends a message to a subject.
            link: Gives the present link of the listener.
            afterwards: Called after each probe for what else is to be looked at.
        """
        self.subject = f"{PROBE}{project}.{secrets.token_hex(6)}"
        self._options = options
        self._listener = listener
        self._publish = publish
        self._link = link
        self._afterwards = afterwards
        self._soon = asyncio.Event()
        self._heard: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """
        Probe from now on, for the first time when the interval is over.
        """
        self._soon.clear()
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """
        Probe no more.
        """
        if self._task is not None:
            self._task.cancel()

    def hurry(self) -> None:
        """
        Probe now: something has ended, and may have left the listening link half dead.
        """
        self._soon.set()

    def heard(self) -> None:
        """
        Take a message to the subject.
        """
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    async def _run(self) -> None:
        """
        Be the task.
        """
        while True:
            try:
                async with asyncio.timeout(self._options.probe_interval):
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            try:
                await self._probe()
                await self._afterwards()
            except ChannelLayerUnavailable:
                pass  # The keepers know.
            except Exception:
                logger.exception("a connection to Redis could not be probed")

    async def _probe(self) -> None:
        """
        See whether a message to ourselves comes back, and give up the listening link if not.
        """
        link = self._link()
        if link is None:
            return
        known = self._listener.subscriptions.get(self.subject)
        subscribed = known is not None and known.confirmed
        heard = self._heard = asyncio.get_running_loop().create_future()
        alive = self._listener.ping()
        alive.add_done_callback(look_at)
        try:
            await self._publish(self.subject, b"")
        except ChannelLayerUnavailable:
            subscribed = False  # Which says nothing of the listening link.
        expected = {alive, heard} if subscribed else {alive}
        _, missing = await asyncio.wait(expected, timeout=self._options.command_timeout)
        if missing and link is self._link():
            link.lose("the subscription is dead, a message to itself did not come back")


def look_at(future: asyncio.Future[None]) -> None:
    """
    Look at a result that nobody may be waiting for any more.
    """
    if not future.cancelled():
        future.exception()
