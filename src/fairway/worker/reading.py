"""
``Worker``: reads named channels, one task for each, until it is told to stop.

It has Channels' arguments and the names that its users override. What an application is given
and when is in ``instance``, how many there are in ``instances``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from fairway import metrics
from fairway.callables import single_callable
from fairway.cli import life_of, make_threads
from fairway.conf import resolve_server_options
from fairway.exceptions import ConfigurationError, NoHandler
from fairway.faults import Fault
from fairway.options import ServerOptions
from fairway.server.place import Alone
from fairway.server.run import end_soon, loop_factory
from fairway.types import Message, Scope
from fairway.worker.instance import logger
from fairway.worker.instances import Instances

__all__ = ["Worker"]

RETRY_SECONDS = 1.0
"""
Time between two attempts to read from a channel layer that is away.
"""

CANCEL_SECONDS = 0.5
"""
Time that applications get to end once they are cancelled.
"""


class Worker:
    """
    Reads channels until it is told to stop. ``run()`` blocks; ``stop()`` may come from any thread.

    Attributes:
        application: Called once per channel, with ``{"type": "channel", "channel": name}``.
        channels: The names of the channels it reads.
        channel_layer: Where it reads them.
        max_applications: Applications alive at most, as it was made for.
        application_instances: The applications alive, by channel, the longest unused first.
        options: The threads, the event loop and the time to end; None for what settings say.
        retry_seconds: Time between two attempts to read from a channel layer that is away.
    """

    options: ServerOptions | None = None
    retry_seconds = RETRY_SECONDS

    def __init__(
        self,
        application: Any,
        channels: Iterable[str],
        channel_layer: Any,
        max_applications: int = 1000,
    ) -> None:
        """
        Remember what to run on which channels.

        Args:
            application: See the attributes, as for what follows.
            channels: Once each, however often they are named.
            channel_layer: Any, of Fairway's or not.
            max_applications: Applications alive at most; one that has nothing to do goes first.

        Raises:
            ConfigurationError: ``max_applications`` leaves room for none.
        """
        if max_applications < 1:
            raise ConfigurationError(f"max_applications must be at least 1, not {max_applications}")
        self.application = single_callable(application, "Worker(application)")
        self.channels = list(dict.fromkeys(channels))
        self.channel_layer = channel_layer
        self.max_applications = max_applications
        self.application_instances = Instances(self, max_applications)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handling: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._hurried = False
        self._drain: float | None = None
        # Tasks that wait for a channel layer, and have nothing in hand that could be lost.
        self._empty_handed: set[asyncio.Task[Any]] = set()
        self._away = False

    def run(self) -> None:
        """
        Read until a signal or ``stop()``, and let what runs finish. Works without a server.

        Raises:
            ConfigurationError: A setting is wrong.
        """
        options = self.options or resolve_server_options()[0]
        with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
            runner.run(self._main(options))

    def stop(self, *, drain: float | None = None) -> None:
        """
        Take no more messages, and end once those taken are handled. Does not wait.

        Args:
            drain: Seconds for that; None for what the options say.
        """
        if drain is not None:
            self._drain = drain
        loop = self._loop
        if loop is None or loop.is_closed():
            self._stopping.set()
        else:
            with suppress(RuntimeError):  # It has ended meanwhile.
                loop.call_soon_threadsafe(self._begin_stop)

    def hurry(self) -> None:
        """
        End within a second, whatever handlers and threads do. Does not wait.
        """
        end_soon()
        self._hurried = True
        self.stop()
        loop, handling = self._loop, self._handling
        if loop is not None and handling is not None:
            loop.call_soon_threadsafe(handling.cancel)

    async def handle(self) -> None:
        """
        Read every channel until ``stop()``, then wait for what is being handled.
        """
        self._loop = asyncio.get_running_loop()
        listeners = [
            asyncio.create_task(self._keep_listening(channel), name=f"channel {channel}")
            for channel in self.channels
        ]
        logger().info("Running worker for channels %s", ", ".join(self.channels))
        try:
            await self._stopping.wait()
            await self._finish(listeners)
        finally:
            self._name_late()
            tasks = [*listeners, *(one.task for one in self.application_instances.values())]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=CANCEL_SECONDS)

    async def listener(self, channel: str) -> None:
        """
        Read one channel until ``stop()``, handing each message on once the last is handled.

        Raises:
            ValueError: A message has no type.
        """
        while not self._stopping.is_set():
            message = await self._take(channel)
            if message is None:
                return
            if not message.get("type"):
                metrics.drops.add("no_type")
                raise ValueError(f"Worker received message with no type on channel {channel!r}.")
            await self._hand_over(channel, message)

    def application_exception(self, exception: BaseException, details: dict[str, Any]) -> None:
        """
        Log what an application has failed with. The next message gets a new application.

        Args:
            exception: What it raised.
            details: The ``scope`` it had, and the ``message`` it was given last, if any.
        """
        channel = details["scope"]["channel"]
        if isinstance(exception, NoHandler):
            logger().error("channel %r: %s [%s]", channel, exception, Fault.NO_HANDLER)
            return
        logger().error(
            "channel %r: the application raised %s, given a message of type %r; the next message "
            "gets a new one [%s]",
            channel,
            type(exception).__name__,
            (details["message"] or {}).get("type"),
            Fault.WORKER_APPLICATION_ERROR,
            exc_info=(type(exception), exception, exception.__traceback__),
        )

    async def application_send(self, scope: Scope, message: Message) -> None:
        """
        Refuse what an application sends: nobody is at the other end.

        Raises:
            NotImplementedError: Always; a subclass may do something else.
        """
        raise NotImplementedError(
            f"a worker has no client to send {message.get('type')!r} to. "
            "Hint: use self.channel_layer.send(), or fairway.abroadcast() for a group."
        )

    # --- The process -------------------------------------------------------------------------

    async def _main(self, options: ServerOptions) -> None:
        """
        Live through the whole life of the loop.
        """
        loop = self._loop = asyncio.get_running_loop()
        self.options = options
        begin, end = life_of(make_threads(options))
        with Alone().joined(loop, self):
            try:
                await begin(loop)
                self._handling = asyncio.create_task(self.handle())
                await self._handling
            except asyncio.CancelledError:
                if not self._hurried:
                    raise
            finally:
                await end(loop)

    def _begin_stop(self) -> None:
        """
        Call back who waits for a channel layer. Event-loop thread only.
        """
        self._stopping.set()
        for task in list(self._empty_handed):
            task.cancel()

    async def _finish(self, listeners: list[asyncio.Task[None]]) -> None:
        """
        Wait for what is being handled, and tell the applications that nothing follows.
        """
        seconds = self._drain_seconds()
        until = asyncio.get_running_loop().time() + seconds
        if listeners:
            await asyncio.wait(listeners, timeout=seconds)
        instances = list(self.application_instances.values())
        for one in instances:
            one.end()
        left = max(0.0, until - asyncio.get_running_loop().time())
        if instances:
            await asyncio.wait([one.task for one in instances], timeout=left)

    def _name_late(self) -> None:
        """
        Say which applications are cancelled with a message in hand.
        """
        instances = self.application_instances.items()
        late = [name for name, one in instances if not (one.idle or one.task.done())]
        if not late:
            return
        metrics.drops.add("worker_stopped", len(late))
        logger().error(
            "the applications of %s did not end %s and are cancelled; the messages they were given "
            "are lost [%s]",
            ", ".join(map(repr, late)),
            "at once" if self._hurried else f"within {self._drain_seconds():g} s (--drain)",
            Fault.WORKER_APPLICATION_LATE,
        )

    def _drain_seconds(self) -> float:
        """
        Give the time that there is for ending.
        """
        if self._drain is not None:
            return self._drain
        return (self.options or resolve_server_options()[0]).drain

    # --- Channels ----------------------------------------------------------------------------

    async def _keep_listening(self, channel: str) -> None:
        """
        Run ``listener`` until ``stop()``, whatever it raises meanwhile.
        """
        while not self._stopping.is_set():
            try:
                await self.listener(channel)
            except ValueError as error:
                logger().error("%s It is dropped [%s]", error, Fault.WORKER_MESSAGE_INVALID)
            except Exception:  # noqa: BLE001 - logged, and the other channels go on
                # None of ours: a subclass's. It must not fail in a loop that never waits.
                logger().exception("the listener of channel %r failed", channel)
                await asyncio.sleep(self.retry_seconds)

    async def _take(self, channel: str) -> Message | None:
        """
        Wait for the next message of a channel; None once the worker stops.

        While the channel layer is away it is asked again, with one line in the log.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._empty_handed.add(task)
        try:
            while not self._stopping.is_set():
                try:
                    message: Message = await self.channel_layer.receive(channel)
                except Exception as error:  # noqa: BLE001 - of any channel layer, in its own words
                    self._say_away(error)
                    await asyncio.sleep(self.retry_seconds)
                else:
                    self._say_back()
                    return message
        except asyncio.CancelledError:
            if not self._stopping.is_set() or task.uncancel():
                raise
        finally:
            self._empty_handed.discard(task)
        return None

    async def _hand_over(self, channel: str, message: Message) -> None:
        """
        Have a channel's application handle a message, and wait until it has.

        One that has ended without having looked at it is replaced, once.
        """
        logger().debug("channel %r: %r", channel, message["type"])
        instance = await self.application_instances.open(channel)
        fresh = not instance.used
        if await instance.handle(message):
            return
        if fresh or not await (await self.application_instances.open(channel)).handle(message):
            metrics.drops.add("worker_unread")
            logger().error(
                "channel %r: the application ended and had not read a message, which is lost [%s]",
                channel,
                Fault.WORKER_APPLICATION_ERROR,
            )

    def _say_away(self, error: Exception) -> None:
        """
        Say once that messages cannot be read at present.
        """
        if not self._away:
            self._away = True
            logger().warning(
                "the channel layer cannot be read (%s: %s); trying again every %g s [%s]",
                type(error).__name__,
                error,
                self.retry_seconds,
                Fault.WORKER_LAYER_UNAVAILABLE,
            )

    def _say_back(self) -> None:
        """
        Say that messages can be read again.
        """
        if self._away:
            self._away = False
            logger().info("the channel layer can be read again")
