"""
What every consumer is: a class whose instance handles one scope, one message at a time.

A message goes to the method named by its ``type``. Here are the life of a consumer from its
scope to its end, and its ways to the channel layer; what a WebSocket means to it is in
``websocket``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ClassVar

from asgiref.sync import async_to_sync

from fairway import revocation, threads
from fairway.consumers.application import application_of
from fairway.consumers.handlers import find_handler, get_handler_name, report
from fairway.consumers.hints import explain
from fairway.consumers.login import LoginRequired
from fairway.consumers.outages import BEGINNINGS, bear, turn_away
from fairway.consumers.readers import configure_outbox
from fairway.consumers.sources import Source, open_source
from fairway.db import aclose_old_connections, cleanup_due, database_sync_to_async
from fairway.exceptions import (
    ChannelLayerUnavailable,
    ClientDisconnected,
    ClientFault,
    ConfigurationError,
    InvalidChannelLayerError,
    NoHandler,
    StopConsumer,
)
from fairway.faults import Fault
from fairway.layers.registry import DEFAULT_CHANNEL_LAYER, get_channel_layer
from fairway.ratelimits import admit_connect, connect_limits, count_messages, message_limits
from fairway.types import Message, Receive, Scope, Send
from fairway.wire import codes

__all__ = ["AsyncConsumer", "SyncConsumer", "get_handler_name"]

logger = logging.getLogger("fairway.consumers")

SHOWN_MAX = 200
"""
Characters of a path that go into the log.
"""

LAST_EVENTS = frozenset({"http.disconnect", "websocket.disconnect"})
"""
Events after which nothing follows.
"""


UNAUTHENTICATED: tuple[Message, ...] = (
    {
        "type": "http.response.start",
        "status": 401,
        "headers": [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"cache-control", b"no-store"),
            # RFC 9110 section 15.5.2 wants a scheme; to browsers this one means no dialogue.
            (b"www-authenticate", b"Cookie"),
        ],
    },
    {"type": "http.response.body", "body": b"Log in first.\n"},
)


class UrlKwargs:
    """
    Reads ``scope["url_route"]["kwargs"]``; a consumer may assign something else to the name.
    """

    def __get__(self, consumer: Any, owner: type) -> dict[str, Any]:
        route = consumer.scope.get("url_route") if consumer is not None else None
        kwargs: dict[str, Any] = route["kwargs"] if route else {}
        return kwargs


class AsyncConsumer:
    """
    Handles one scope with methods that are coroutines.

    Attributes:
        channel_layer_alias: Which channel layer to use.
        login_required: Whether a WebSocket is refused (HTTP 403), and a request answered with
            401, unless a user is logged in. By default True where ``MIDDLEWARE`` has Django's
            ``LoginRequiredMiddleware``, else False.
        messages_per_address, messages_per_user, messages_burst: Limits on WebSocket messages to
            this class in the place of those in the settings; 0 for none. See ``RateOptions``.
        overflow: What becomes of a reader of a WebSocket or event stream who is too slow, in the
            place of the setting: ``close``, ``drop_oldest`` or ``latest``.
        outbox_bytes_max: Bytes queued for it until then, in the place of the setting.
        compress: Whether messages to a WebSocket are compressed if its client offers that, in the
            place of the setting.
        scope: The ASGI scope.
        url_kwargs: The named parts of the route that led here, converted.
        channel_layer: The channel layer, or None if there is none of that alias.
        channel_name: This consumer's own channel on it.
        base_send: Sends an ASGI message, whatever a subclass made of ``send``.
    """

    # Projects define names of their own in subclasses, private ones too. So what is used here
    # alone is mangled, what other modules use begins with _fairway, and _sync is Channels'.
    _sync: ClassVar[bool] = False
    _fairway_handler_names: ClassVar[dict[str, str]] = {}
    # Whether messages to the socket may go there around the consumer.
    _fairway_direct: ClassVar[bool] = True
    # Whether the socket was closed from here.
    _fairway_closing = False
    # Whether the channel layer knows this consumer's inbox, and so by itself what to leave.
    __attached = False
    # Groups to leave one by one, where it does not.
    __joined: set[str] | None = None

    channel_layer_alias: str = DEFAULT_CHANNEL_LAYER
    login_required: Any = LoginRequired()
    messages_per_address: int | None = None
    messages_per_user: int | None = None
    messages_burst: int | None = None
    overflow: str | None = None
    outbox_bytes_max: int | None = None
    compress: bool | None = None
    url_kwargs = UrlKwargs()

    scope: Scope
    channel_layer: Any
    channel_name: str
    base_send: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """
        Take what a subclass passes on, which in Channels 2 was the scope.
        """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._fairway_handler_names = {}

    async def __call__(  # noqa: PLR0912 - one coroutine, see below
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """
        Live: await events one by one and have each handled, until the last.

        Hot path: once per message. The server's task awaits this one coroutine; at rest it stands
        in ``next_event`` and holds no message. Another one between would be a frame for each
        connection, and a hop for each message.
        """
        entered = threads.enter()
        try:
            source = await self.__begin(scope, receive, send)
            if source is None:
                return
            try:
                self.__enter_roll()
                next_event = source.next_event
                event: Any
                message: Message | None
                while True:
                    event = message = None
                    event = await next_event()
                    if not isinstance(event, dict):
                        message = source.unpack(event)
                    elif event.get("type") in LAST_EVENTS:
                        break
                    else:
                        message = event
                    # What still lies here when the consumer closed the socket itself has no answer.
                    if message is None or self._fairway_closing:
                        continue
                    try:
                        await self.dispatch(message)
                    except (ClientDisconnected, ChannelLayerUnavailable, NoHandler) as error:
                        if not self.__bears(error, message, event, tolerant=source.tolerant):
                            raise
            except (Exception, asyncio.CancelledError) as error:
                if not await self.__ends_well(error, source, send):
                    raise
            else:
                await self.__end(event)
            finally:
                source.stop()
                revocation.leave(scope)
        finally:
            threads.leave(entered)

    async def __begin(self, scope: Scope, receive: Receive, send: Send) -> Source | None:
        """
        Be ready for the first event; None for whoever may not come in, and was told so.
        """
        self.scope = scope
        if self._fairway_closing:
            # One instance may serve one scope after another.
            self._fairway_closing = False
        self.base_send = async_to_sync(send) if self._sync else send
        if self.login_required and not await self.__admit(receive, send):
            return None
        if connect_limits() and not await admit_connect(scope, receive, send):
            return None
        limits = message_limits(type(self))
        self.channel_layer = get_channel_layer(self.channel_layer_alias)
        if self.channel_layer is not None:
            self.channel_name = await self.channel_layer.new_channel()
        source = self._fairway_open_source(receive, send)
        self.__attached = source.attached
        return source if limits is None else count_messages(source, limits, self, send)

    def __enter_roll(self) -> None:
        """
        Have the connection closed when the login ends that it may have.
        """
        if "user" in self.scope or "session" in self.scope:
            name = None if self.channel_layer is None else self.channel_name
            revocation.enter(self.scope, name, self.channel_layer_alias)

    async def __ends_well(self, error: BaseException, source: Source, send: Send) -> bool:
        """
        See to the end by an exception; whether it was in order, and nothing is to be said of it.
        """
        if isinstance(error, StopConsumer):
            await self.__leave_groups()
            return True
        if isinstance(error, ChannelLayerUnavailable):
            last = await turn_away(self, send, error) if source.tolerant else None
            if last is not None:
                await self.__end(last)
                return True
        else:
            explain(error)
        await self.__fail(error, source)
        return False

    def __bears(self, error: Exception, message: Message, event: Any, *, tolerant: bool) -> bool:
        """
        Whether this consumer goes on although a message was not handled to its end; said if so.
        """
        if isinstance(error, ClientDisconnected):
            # Sent to a peer that is gone: the event that says so is next.
            return True
        if not tolerant:
            return False
        if isinstance(error, NoHandler):
            if message is event or error.message is not message:
                return False
            report(self, error)
        elif isinstance(error, ChannelLayerUnavailable):
            if message is event and message["type"] in BEGINNINGS:
                return False
            bear(self, error)
        return True

    async def dispatch(self, message: Message) -> None:
        """
        Have one message handled, in a context without worn-out database connections.

        Raises:
            NoHandler: Nobody handles messages of its type.
        """
        handler = find_handler(self, message)
        if cleanup_due():
            await aclose_old_connections()
        try:
            await handler(message)
        finally:
            if threads.in_use:
                threads.rest()

    async def send(self, message: Message) -> None:
        """
        Send an ASGI message; subclasses may give this another meaning.
        """
        await self.base_send(message)

    async def channel_receive(self) -> Any:
        """
        Wait for the next message of this consumer's channel.

        Under Fairway's server messages come with the peer's events, and not here.
        """
        return await self.channel_layer.receive(self.channel_name)

    async def group_add(self, group: str) -> None:
        """
        Add this consumer's channel to a group, which it leaves by itself at the end.

        Returns when messages to the group are sure to come.

        Raises:
            InvalidChannelLayerError: The channel layer has no groups.
        """
        await self.__call_layer("group_add", group)
        if not self.__attached:
            self.__joined = {*(self.__joined or ()), group}

    async def group_discard(self, group: str) -> None:
        """
        Take this consumer's channel out of a group.

        Raises:
            InvalidChannelLayerError: The channel layer has no groups.
        """
        await self.__call_layer("group_discard", group)
        if self.__joined:
            self.__joined.discard(group)

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
        """
        Give the ASGI application, and Django view, that makes a new consumer for each scope.

        Args:
            **initkwargs: Passed to the constructor.
        """
        return application_of(cls, initkwargs)

    async def __admit(self, receive: Receive, send: Send) -> bool:
        """
        Refuse a WebSocket or request without a user who is logged in.

        Refused before it is accepted, a WebSocket gets HTTP 403; where there is no HTTP, code
        4401. A request gets 401, at which an EventSource stops coming back.
        """
        if self.scope["type"] not in {"http", "websocket"}:
            return True
        if "user" not in self.scope:
            raise ConfigurationError(
                f"{type(self).__qualname__} has login_required, but its scope has no user. "
                "Hint: put AuthMiddlewareStack around its routes, with django.contrib.auth in "
                "INSTALLED_APPS, or set login_required = False.",
                fault=Fault.USER_MISSING,
            )
        if self.scope["user"].is_authenticated:
            return True
        status = 401 if self.scope["type"] == "http" else 403
        kind = self.scope.get("method", "WebSocket")
        shown = repr(self.scope.get("path", ""))[:SHOWN_MAX]
        words = "%s %s refused with %d: %s is for users who are logged in [%s]"
        logger.info(words, kind, shown, status, type(self).__qualname__, Fault.LOGIN_REQUIRED)
        await receive()
        with suppress(ClientDisconnected):
            if self.scope["type"] == "http":
                for message in UNAUTHENTICATED:
                    await send(message)
            else:
                await send({"type": "websocket.close", "code": codes.UNAUTHENTICATED})
        return False

    def _fairway_open_source(self, receive: Receive, send: Send) -> Source:
        """
        Tell the server what this class says of its readers, and find out where events come from.
        """
        says = (self.overflow, self.outbox_bytes_max, self.compress)
        if says != (None, None, None):
            configure_outbox(type(self), self.scope)
        return open_source(self, receive, send)

    async def __end(self, last: Message) -> None:
        """
        Have the last event handled, outside of all groups.
        """
        await self.__leave_groups()
        try:
            await self.dispatch(last)
        except (ClientDisconnected, StopConsumer):
            pass
        except NoHandler as error:
            # A consumer may have no use for the news that it is over.
            if error.message is not last:
                raise
        finally:
            # What disconnect() opened would wait for the next message of another consumer.
            if cleanup_due():
                await aclose_old_connections()

    async def __fail(self, error: BaseException, source: Source) -> None:
        """
        Let ``disconnect()`` run after an exception as after everything else.

        A cancelled consumer has its time for that under Fairway's server, which cancels one
        only after its peer has long gone; elsewhere a cancellation means at once.
        """
        code = codes.INTERNAL_ERROR
        if isinstance(error, asyncio.CancelledError):
            if not source.tolerant:
                self.__detach()
                return
            code = codes.ABNORMAL
            task = asyncio.current_task()
            if task is not None:
                # Heard: else the server would say it again, in the middle of disconnect().
                task.uncancel()
                threads.watch(task)
            await threads.give_up()
        elif isinstance(error, ClientFault):
            code = error.code
        last: Message = {"type": "http.disconnect"}
        if self.scope["type"] == "websocket":
            last = {"type": "websocket.disconnect", "code": code, "reason": ""}
        elif self.scope["type"] != "http":
            await self.__leave_groups()
            return
        try:
            await self.__end(last)
        except Exception:
            name = type(self).__qualname__
            logger.exception("%s failed at its end [%s]", name, Fault.APPLICATION_ERROR)

    async def __call_layer(self, name: str, group: str) -> None:
        """
        Call a method of the channel layer with a group and this consumer's channel.
        """
        method = getattr(self.channel_layer, name, None)
        if method is None:
            raise InvalidChannelLayerError(
                f"BACKEND is unconfigured or doesn't support groups (channel layer "
                f"{self.channel_layer_alias!r})"
            )
        try:
            await method(group, self.channel_name)
        except NotImplementedError as error:
            raise InvalidChannelLayerError(
                f"BACKEND doesn't support groups (channel layer {self.channel_layer_alias!r})"
            ) from error

    async def __leave_groups(self) -> None:
        """
        Leave every group, whoever added this consumer's channel to it.
        """
        if self.__joined:
            joined, self.__joined = self.__joined, None
            for group in joined:
                try:
                    await self.__call_layer("group_discard", group)
                except Exception:
                    logger.exception("%s could not leave a group", type(self).__qualname__)
        self.__detach()

    def __detach(self) -> None:
        """
        Have Fairway's channel layer forget this consumer's channel, in all groups.
        """
        detach = getattr(self.channel_layer, "detach", None)
        if detach is not None:
            detach(self.channel_name)

    async def _fairway_relay(self, message: Message) -> None:
        """
        Pass a group message that is an ASGI send event on to the socket.
        """
        await self.send(message)


class SyncConsumer(AsyncConsumer):
    """
    Handles one scope with ordinary methods, each run in a thread where it may use the database.

    What such a method calls here waits in its thread while the event loop does it.
    """

    _sync = True

    async def dispatch(self, message: Message) -> None:
        """
        Have one message handled in a thread.

        Raises:
            NoHandler: Nobody handles messages of its type.
        """
        call = _call_in_thread(find_handler(self, message), message)
        try:
            if message.get("type") in LAST_EVENTS:
                await _in_any_case(call)
            else:
                await call
        finally:
            if threads.in_use:
                threads.rest()

    def send(self, message: Message) -> None:  # type: ignore[override] # the twin that waits
        """
        Send an ASGI message; subclasses may give this another meaning.
        """
        self.base_send(message)

    def group_add(self, group: str) -> None:  # type: ignore[override] # the twin that waits
        """
        Add this consumer's channel to a group, which it leaves by itself at the end.

        Returns when messages to the group are sure to come.

        Raises:
            InvalidChannelLayerError: The channel layer has no groups.
        """
        async_to_sync(AsyncConsumer.group_add)(self, group)

    def group_discard(self, group: str) -> None:  # type: ignore[override] # the twin that waits
        """
        Take this consumer's channel out of a group.

        Raises:
            InvalidChannelLayerError: The channel layer has no groups.
        """
        async_to_sync(AsyncConsumer.group_discard)(self, group)

    def _fairway_relay(self, message: Message) -> None:  # type: ignore[override] # the twin that waits
        """
        Pass a group message that is an ASGI send event on to the socket.
        """
        self.send(message)


async def _in_any_case(call: Coroutine[Any, Any, None]) -> None:
    """
    Await a call that happens even if this is cancelled: it may have to wait for a thread.
    """
    task = asyncio.create_task(call)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_report_end)
        threads.watch(task)
        raise


def _report_end(task: asyncio.Task[None]) -> None:
    """
    Log how a call failed that nobody awaits any more.
    """
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, StopConsumer | ClientDisconnected | NoHandler):
        words = "A consumer failed at its end [%s]"
        logger.error(words, Fault.APPLICATION_ERROR, exc_info=error)


def _call(handler: Callable[[Message], None], message: Message) -> None:
    """
    Call a handler: the one function that runs in threads, made ready for them once.
    """
    handler(message)


_call_in_thread = database_sync_to_async(_call)
