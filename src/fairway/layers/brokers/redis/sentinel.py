"""
Asking Sentinels which server is the master, over one connection to whichever answers.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from fairway.exceptions import ChannelLayerUnavailable, ConfigurationError
from fairway.layers.brokers.redis.hosts import Address, Host
from fairway.layers.brokers.redis.link import Link, ReplyError, open_link, pack

__all__ = ["Sentinel"]


class Sentinel:
    """
    The Sentinels of one host. Belongs to one loop.
    """

    def __init__(self, host: Host, timeout: float) -> None:
        """
        Make one that has asked nobody yet.

        Args:
            host: With the Sentinels' addresses.
            timeout: Seconds for one of them to answer.
        """
        self._host = host
        self._timeout = timeout
        self._known = list(host.sentinels)
        self._link: Link | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._asking = asyncio.Lock()

    async def master(self) -> Address:
        """
        Give where the master is, in bounded time.

        Raises:
            ChannelLayerUnavailable: No Sentinel answers, or none knows a master.
            ConfigurationError: The only ones that answer refuse.
        """
        async with self._asking:
            refusals: list[Exception] = []
            for sentinel in list(self._known):
                try:
                    place = await self._ask(sentinel)
                except (ChannelLayerUnavailable, ConfigurationError) as error:
                    self.lose()
                    refusals.append(error)
                    continue
                # Who answered is asked first the next time.
                self._known.remove(sentinel)
                self._known.insert(0, sentinel)
                return self._host.address.at(*place)
        away = [one for one in refusals if isinstance(one, ChannelLayerUnavailable)]
        raise (away or refusals)[0]

    async def _ask(self, sentinel: Address) -> tuple[str, int]:
        """
        Ask one Sentinel, on the link there is if it leads there.
        """
        if self._link is None or not self._link.open or self._link.address is not sentinel:
            self.lose()
            self._link = await open_link(sentinel, self._on_reply, self._timeout)
        self._answer = asyncio.get_running_loop().create_future()
        self._link.write(pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._host.master)))
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait([self._answer, self._link.lost], return_when="FIRST_COMPLETED")
        except TimeoutError:
            pass
        reply = self._answer.result() if self._answer.done() else None
        match reply:
            case [bytes() as host, bytes() as port]:
                return host.decode(), int(port)
            case ReplyError():
                said = f"refuses: {reply}"
            case None if self._answer.done():
                said = f"knows no master {self._host.master!r}"
            case _:
                said = "did not answer"
        raise ChannelLayerUnavailable(f"the Sentinel at {sentinel.name} {said}")

    def _on_reply(self, reply: Any) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def lose(self) -> None:
        """
        Give up the connection, if there is one.
        """
        link, self._link = self._link, None
        if link is not None:
            link.lose("not asked any more")

    async def close(self, timeout: float) -> None:
        """
        End the connection, in bounded time.
        """
        link, self._link = self._link, None
        if link is not None:
            with suppress(ChannelLayerUnavailable):
                await link.close(timeout)

    def abandon(self) -> None:
        """
        End the connection of a loop that has ended. From any thread.
        """
        if self._link is not None:
            self._link.abandon()
