"""
How a roll hears orders: one channel in the one group that all orders go to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fairway.faults import Fault
from fairway.layers.codec import Envelope
from fairway.layers.layer import ChannelLayer
from fairway.layers.notices import Notices
from fairway.layers.registry import get_channel_layer
from fairway.queues import Expiring
from fairway.revocation.names import control_group
from fairway.types import Message

__all__ = ["ORDER", "Hearing"]

logger = logging.getLogger("fairway.auth")

ORDER = "fairway.identity"
"""
The ``type`` of orders.
"""


class Ear:
    """
    The inbox of a roll's channel.
    """

    def __init__(self, hear: Callable[[dict[str, Any]], None]) -> None:
        self._hear = hear
        self.capacity = 1
        self.idle = True

    def put(self, item: Expiring) -> bool:
        """
        See ``types.Inbox``: an order is followed at once.
        """
        assert isinstance(item, Envelope)  # noqa: S101 - nothing else comes from a layer
        try:
            self._hear(item.message())
        except Exception:
            # Other members of the group are behind this one, and the next orders.
            logger.exception("An order about logins could not be followed")
        return True

    async def next_event(self) -> Message | Expiring:
        """
        See ``types.Inbox``; nobody asks, as nothing lies here.
        """
        raise NotImplementedError


class Hearing:
    """
    A roll's membership in the group of orders. Belongs to the roll's loop.
    """

    def __init__(
        self,
        hear: Callable[[dict[str, Any]], None],
        look: Callable[[], None],
        notices: Notices,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        """
        Prepare; nothing is joined yet.

        Args:
            hear: Called with each order.
            look: Called where orders may have passed by before this heard any.
            notices: Says what goes wrong.
            spawn: Runs a coroutine on the loop.
        """
        self._hear = hear
        self._look = look
        self._notices = notices
        self._spawn = spawn
        self._joining: asyncio.Task[None] | None = None
        self._leave: Callable[[], None] | None = None

    def start(self) -> None:
        """
        Join, if that is not under way or done. To be called again after a while: it may fail.
        """
        if self._joining is None:
            self._joining = self._spawn(self._join())

    def stop(self) -> None:
        """
        Leave, until the next ``start``.
        """
        if self._leave is not None:
            self._leave()
        elif self._joining is not None:
            self._joining.cancel()
        self._leave = self._joining = None

    async def _join(self) -> None:
        try:
            layer = get_channel_layer()
            if isinstance(layer, ChannelLayer):
                await self._listen(layer)
                return
        except Exception as error:  # noqa: BLE001 - of any layer; the next start tries again
            self._joining = None
            self._notices.say(
                "listen",
                f"logins that end are not heard of at present: %s: %s [{Fault.ORDERS_NOT_HEARD}]",
                type(error).__name__,
                error,
            )
            return
        self._notices.say(
            "foreign",
            f"the channel layer is a {type(layer).__name__}, none of Fairway's: logins that "
            "end in other processes are noticed by the re-check alone "
            f"[{Fault.LAYER_CARRIES_NO_ORDERS}]",
        )

    async def _listen(self, layer: ChannelLayer) -> None:
        """
        Join the group of orders.
        """
        channel = await layer.new_channel("identity")
        layer.attach(channel, inbox=Ear(self._hear))
        try:
            await layer.group_add(control_group(), channel)
        except BaseException:
            layer.detach(channel)
            raise
        self._leave = partial(layer.detach, channel)
        # Joining waits for other processes, which may have logged somebody out meanwhile.
        if not layer.broker.alone:
            self._look()
