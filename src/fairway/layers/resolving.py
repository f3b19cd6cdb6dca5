"""
Names of hosts, resolved on a thread of our own instead of a loop's default executor.

asyncio resolves names on the default executor, which refuses work as soon as the interpreter
begins to end, and which whatever else blocks there keeps busy. A broker that has to connect
then, for a message published last thing, would never find its host. uvloop resolves on
threads of libuv, which know neither trouble, so its loops stay as they are.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

__all__ = ["THREAD_NAME", "forked", "take_over"]

THREAD_NAME = "fairway-names"

WAITING_MAX = 1024
"""
Names that may wait behind one that takes long; more fail at once, as from a server too busy.
"""

Found = list[tuple[Any, ...]]


class Resolver:
    """
    A daemon thread that resolves one name after another. May be used from any thread.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: deque[tuple[Future[Found], Callable[[], Found]]] = deque()
        self._runs = False

    def submit(self, look_up: Callable[[], Found]) -> Future[Found]:
        """
        Have a name resolved, starting the thread if it does not run. Does not wait.

        Where no thread can be started any more, the calling one resolves it, and waits.

        Raises:
            OSError: Too many wait already.
        """
        future: Future[Found] = Future()
        with self._condition:
            if len(self._waiting) >= WAITING_MAX:
                raise socket.gaierror(socket.EAI_AGAIN, "too many names wait to be resolved")
            self._waiting.append((future, look_up))
            if self._runs:
                self._condition.notify()
                return future
            self._runs = True
        try:
            threading.Thread(target=self._run, name=THREAD_NAME, daemon=True).start()
        except RuntimeError:  # The interpreter is ending.
            self._runs = False
            self._work_off()
        return future

    def _run(self) -> None:
        """
        Be the thread.
        """
        while True:
            with self._condition:
                while not self._waiting:
                    self._condition.wait()
            self._work_off()

    def _work_off(self) -> None:
        """
        Resolve what waits; names that nobody waits for any more are left out.
        """
        while self._waiting:
            future, look_up = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                found = look_up()
            except Exception as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)
            else:
                future.set_result(found)


def take_over(loop: asyncio.AbstractEventLoop) -> None:
    """
    Have a loop of asyncio's resolve names here from now on. Other loops have their own way.

    May be called from any thread before the loop runs, else on it.
    """
    if isinstance(loop, asyncio.BaseEventLoop):
        # An attribute of this loop, which asyncio's own methods look up: no class is changed.
        loop.getaddrinfo = _getaddrinfo  # type: ignore[method-assign]


def forked() -> None:
    """
    Begin anew in a child process, which does not have the thread.
    """
    global _resolver  # noqa: PLW0603 - one per process
    _resolver = Resolver()


async def _getaddrinfo(
    host: Any,
    port: Any,
    *,
    family: int = 0,
    type: int = 0,  # noqa: A002 - as asyncio has it
    proto: int = 0,
    flags: int = 0,
) -> Found:
    """
    Do as the loop's own ``getaddrinfo()``.
    """
    look_up = partial(socket.getaddrinfo, host, port, family, type, proto, flags)
    return await asyncio.wrap_future(_resolver.submit(look_up))


_resolver = Resolver()
