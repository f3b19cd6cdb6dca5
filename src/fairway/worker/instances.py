"""
The applications of a worker that are alive: one per channel, and not too many.

What one of them is given is in ``instance``; who reads the channels is in ``reading``.
"""

from __future__ import annotations

import asyncio

from fairway.worker.instance import Host, Instance

__all__ = ["Instances"]


class Instances(dict[str, Instance]):
    """
    The applications alive, by channel, the longest unused first. Event-loop thread only.
    """

    def __init__(self, worker: Host, limit: int) -> None:
        """
        Begin with none.

        Args:
            worker: Whose they are.
            limit: Applications alive at most; one that has nothing to do goes first.
        """
        super().__init__()
        self._worker = worker
        self._limit = limit
        # Set when one has nothing to do any more, or has ended.
        self._freed = asyncio.Event()

    async def open(self, channel: str) -> Instance:
        """
        Give the application of a channel, starting it if there is none.

        Waits for another to end if there are too many.
        """
        instance = self.pop(channel, None)
        if instance is None or instance.task.done():
            await self._make_room()
            scope = {"type": "channel", "channel": channel}
            instance = Instance(self._worker, scope, self._freed.set)
            instance.task.add_done_callback(lambda task: self._forget(channel, task))
        self[channel] = instance
        return instance

    async def _make_room(self) -> None:
        """
        End the application that has had nothing to do for longest, if there are too many.
        """
        while len(self) >= self._limit:
            idle = next((one for one in self.values() if one.idle), None)
            if idle is not None and not any(one.ended for one in self.values()):
                idle.end()
            self._freed.clear()
            await self._freed.wait()

    def _forget(self, channel: str, task: asyncio.Task[None]) -> None:
        """
        Forget an application that has ended.
        """
        instance = self.get(channel)
        if instance is not None and instance.task is task:
            del self[channel]
        self._freed.set()
