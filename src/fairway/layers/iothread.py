"""
The thread ``fairway-io``: a loop for hubs of a process that has no server.

One daemon thread per process, started at first use. Nothing on it may use a
loop's default executor, which refuses work while the interpreter ends; names of
hosts are resolved as ``resolving`` says.
"""

from __future__ import annotations

import asyncio
import threading

from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers import resolving

__all__ = ["THREAD_NAME", "IOThread"]

THREAD_NAME = "fairway-io"


class IOThread:
    """
    A daemon thread that runs one event loop. May be used from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: tuple[threading.Thread, asyncio.AbstractEventLoop] | None = None
        # A forked child must neither close nor collect its parent's loop: both would take the
        # parent's wake-up pipe out of the epoll instance that the two share.
        self._inherited: list[object] = []

    def loop(self) -> asyncio.AbstractEventLoop:
        """
        Give the loop, starting the thread if it does not run. Does not wait for it.

        Raises:
            ChannelLayerUnavailable: The interpreter is ending and starts no threads.
        """
        with self._lock:
            if self._running is None:
                self._running = _start()
            return self._running[1]

    def stop(self, timeout: float) -> None:
        """
        End the loop and the thread, waiting at most ``timeout`` seconds.
        """
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            thread, loop = running
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout)

    def forked(self) -> None:
        """
        Forget the parent's thread in a child process, which does not have it.
        """
        self._lock = threading.Lock()
        self._inherited.append(self._running)
        self._running = None


def _start() -> tuple[threading.Thread, asyncio.AbstractEventLoop]:
    """
    Start the thread on a loop of its own.
    """
    loop = asyncio.new_event_loop()
    resolving.take_over(loop)
    thread = threading.Thread(target=_run, args=(loop,), name=THREAD_NAME, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        loop.close()
        raise ChannelLayerUnavailable(f"no thread to send from: {error}") from error
    return thread, loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """
    Be the thread: run the loop until it is stopped, then let its tasks end.
    """
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()
