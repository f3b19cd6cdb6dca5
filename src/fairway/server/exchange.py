"""
One exchange: one run of the application for one scope, and HTTP's kind of it.

An exchange owns scope, state, inbox and outbox; the transport, its limits and
its deadlines belong to the connection. ``send()`` goes through the table of
``asgi_state`` and from there to a method below; what is written goes through a
``Sink``. The WebSocket's kind is in ``websocket``.
"""

from __future__ import annotations

import asyncio
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar

from fairway import metrics
from fairway.exceptions import ClientDisconnected, ClientFault, LocalProtocolError
from fairway.faults import Fault
from fairway.server import log
from fairway.server.asgi_state import HTTP, Machine, State
from fairway.server.inbox import Inbox
from fairway.server.sink import WHOLE_BYTES
from fairway.server.streaming import Stream

if TYPE_CHECKING:
    from contextvars import Context

    from fairway.server.connection import Connection
    from fairway.types import ASGIApplication, Message, Scope
    from fairway.wire.http1 import Request

__all__ = ["FRAMING", "Exchange", "HttpExchange", "refusal_status", "response_status"]

# Looking a member up in its enum costs 50 ns on Python 3.11; these two are met in each request.
_WAITING, _COMPLETE = State.WAITING, State.COMPLETE

FRAMING = frozenset({b"content-length", b"connection", b"date", b"transfer-encoding"})
"""
Response headers that are for the sink to say: how the body is delimited, and the date.
"""

EVENT_STREAM = b"text/event-stream"

EVENT_BYTES = 256
"""
What an unread part of a body counts for beside its bytes: about what it takes in memory, so that
a body of single bytes cannot hold hundreds of times its size.
"""


class Exchange:
    """
    What both kinds of exchange share: the application's task and its ``send``.

    Event-loop thread only.

    Attributes:
        connection: The connection below.
        scope: The ASGI scope, the application's to change.
        state: Where the application stands, see ``asgi_state``.
        task: The application's task, None before it starts.
    """

    __slots__ = ("_steps", "connection", "scope", "state", "task")

    machine: ClassVar[Machine]

    def __init__(self, connection: Connection, scope: Scope, state: State) -> None:
        self.connection = connection
        self.scope = scope
        self.state = state
        self._steps = self.machine.steps[state]
        self.task: asyncio.Task[None] | None = None

    def start_application(
        self, application: ASGIApplication, receive: Any, context: Context
    ) -> None:
        """
        Run the application in a task of its own.

        The task is the application's coroutine itself: a wrapper would cost a frame
        per connection at rest and a hop per message.
        """
        worker = self.connection.worker
        try:
            if worker.application_is_async:
                # Nothing of it runs before its task does, which has the context.
                coroutine = application(self.scope, receive, self.send)
            else:
                coroutine = context.run(application, self.scope, receive, self.send)
        except Exception as error:  # noqa: BLE001 - whatever a plain callable may raise
            coroutine = _raise(error)
        if type(coroutine) is not CoroutineType:
            coroutine = _await(coroutine)
        # A given name saves asyncio from making one up, which costs a fifth of a task.
        self.task = asyncio.Task(coroutine, loop=worker.loop, name="fairway", context=context)
        self.task.add_done_callback(self._application_done, context=context)

    async def send(self, message: Message) -> None:
        """
        Carry out one message of the application: the ASGI ``send`` of this exchange.

        Waits only while the peer reads too slowly.

        Raises:
            LocalProtocolError: The state or the message's content does not allow it.
            ClientDisconnected: The peer has gone.
        """
        try:
            action, after = self._steps[message["type"]]
        except KeyError:
            raise self.machine.refusal(self.state, message) from None
        wait = action(self, message)
        if after is not None:
            self.state = after
            self._steps = self.machine.steps[after]
        if wait is not None:
            await wait

    # Says to types.is_transparent() that this is the server's own.
    send.fairway_transparent = True  # type: ignore[attr-defined] # functions take attributes

    def enter(self, state: State) -> None:
        """
        Go to another state.
        """
        self.state = state
        self._steps = self.machine.steps[state]

    def _application_done(self, task: asyncio.Task[None]) -> None:
        """
        Judge how the application ended.
        """
        error = None if task.cancelled() else task.exception()
        if error is not None and _is_disconnected(error):
            error = None
        try:
            if error is not None or self.state is not _COMPLETE:
                self._ended(error)
        finally:
            # The exception refers to frames, and those to this exchange.
            self.task = None
            self.cut()
            self.connection.application_done(self)

    def _ended(self, error: BaseException | None) -> None:
        """
        Answer for an application that ended, with its exception if it was one.
        """
        raise NotImplementedError

    def cut(self) -> None:
        """
        Cut what refers back to this exchange, once its application has ended.
        """

    def pause_writing(self) -> None:
        """
        Note that the transport holds bytes.
        """

    def resume_writing(self) -> None:
        """
        Note that the transport is empty again.
        """

    @property
    def lasting(self) -> bool:
        """
        Whether it goes on until it is ended, by ``end``.
        """
        return False

    def end(self, code: int, reason: str = "") -> None:
        """
        End by decision of the server; the application gets its disconnect.
        """
        raise NotImplementedError

    def on_deadline(self, now: float) -> float:
        """
        Do what is due and return when to look again, in seconds of ``loop.time()``.
        """
        raise NotImplementedError

    def peer_gone(self) -> None:
        """
        Note that the transport is closed.
        """
        raise NotImplementedError


class HttpExchange(Exchange):
    """
    One HTTP request and its response.
    """

    __slots__ = (
        "_body_by",
        "_body_bytes",
        "_body_bytes_seen",
        "_headers",
        "_inbox",
        "_left",
        "_no_body",
        "_request",
        "_started",
        "_status",
        "_stream",
        "unread_body",
    )

    def __init__(self, connection: Connection, scope: Scope, request: Request) -> None:
        # Hot path, once per request: without the calls of super().__init__().
        self.connection = connection
        self.scope = scope
        self.state = _WAITING
        self._steps = _WAITING_STEPS
        self._request = request
        self._inbox: Inbox | None = None
        self._stream: Stream | None = None
        self._body_bytes = 0
        self._started = False
        self._status = 0
        # Of a body that did not come with its head, from the application's first receive() on.
        self._body_by: float
        self._body_bytes_seen: int
        self._headers: list[tuple[bytes, bytes]]
        self._left: int | None
        self._no_body: bool
        self.unread_body = not request.complete
        if self.unread_body:
            self._open_inbox()

    async def receive(self) -> Message:
        """
        Wait for more of the request's body, then for the disconnect.
        """
        if not self._started:
            self._started = True
            if self._request.complete:
                return {"type": "http.request", "body": b"", "more_body": False}
            self._invite_body()
        inbox = self._inbox or self._open_inbox()
        return await inbox.receive()

    def feed(self, data: bytes, *, more: bool) -> None:
        """
        Hand over a part of the request's body.
        """
        self.unread_body = more
        if self._inbox is None or self.state in (State.COMPLETE, State.GONE):
            return
        self._body_bytes += len(data)
        if 0 < self.connection.worker.options.body_bytes_max < self._body_bytes:
            metrics.refusals.add("413")
            self._refuse_body(413, "the body is too large", Fault.REQUEST_MALFORMED)
            return
        event = {"type": "http.request", "body": data, "more_body": more}
        self._inbox.push(event, len(data) + EVENT_BYTES)
        if self._inbox.unread_bytes > self.connection.worker.options.body_buffer_bytes:
            self.connection.pause_reading()

    def _refuse_body(self, status: int, words: str, fault: Fault) -> None:
        """
        Answer in the application's place because of the body; the application is told.
        """
        self.disconnect()
        log.refused(self.scope, status, words, fault)
        self.answer_instead(status, State.GONE)

    def peer_gone(self) -> None:
        """
        Tell the application that nobody listens any more.
        """
        if self.state is not State.COMPLETE:
            self.enter(State.GONE)
        self._over()

    def _over(self) -> None:
        """
        Let go of what a consumer asked for, once its response is complete.
        """
        if self._stream is not None:
            self._stream.peer_gone()
        self.disconnect()

    def disconnect(self) -> None:
        """
        Queue the application's ``http.disconnect``, if it ever asks for it.
        """
        if self._inbox is not None:
            self._inbox.disconnect({"type": "http.disconnect"})

    def start(self, message: Message) -> None:
        """
        ``http.response.start``: held back until the first part of the body.
        """
        status = response_status(message)
        self._left = None
        self._headers = headers = []
        for field in message.get("headers", ()):
            name = field[0].lower()
            if name not in FRAMING:
                headers.append(field)
            elif name == b"content-length":
                self._left = _length(field[1])
            elif name == b"connection":
                self._connection_field(field)
        self._status = status
        self._no_body = self._request.method == "HEAD" or status in (204, 304)

    def _connection_field(self, field: tuple[bytes, bytes]) -> None:
        """
        Take ``connection: close`` as an order to the sink; other options are the application's.
        """
        value = field[1].lower()
        if b"close" in value:
            self.connection.sink.keep_alive = False
        elif value != b"keep-alive":
            self._headers.append(field)

    def body(self, message: Message) -> Any:  # noqa: C901, PLR0912 - without further calls
        """
        ``http.response.body``: write it, with the head if it is the first part.
        """
        data, end = message.get("body", b""), not message.get("more_body", False)
        data = data if isinstance(data, bytes) else _as_bytes(data)
        sink, left = self.connection.sink, self._left
        if self._status and left is None and end and (data or not self._no_body):
            # Of nothing in answer to HEAD nobody knows what GET would get.
            left = self._left = len(data)
        length = left
        if left is not None and not self._no_body:
            if len(data) > left:
                self._complain("sent more body than its content-length of %d bytes", left)
                data, end = data[:left], True
                # What was promised is complete, but nobody should trust this connection.
                sink.keep_alive = False
            left = self._left = left - len(data)
        status = self._status
        if status:
            if end:
                if self.unread_body:
                    sink.keep_alive = False
            elif len(data) > WHOLE_BYTES:
                return self._begin_large(data, length)
            sink.head(status, self._headers, data, length=length, end=end)
            # Not before: a head that cannot be encoded leaves room for another answer.
            self._status = 0
            if self._stream is not None or self.connection.worker.access_log:
                self._begun(status, ends=end or self._no_body or length is not None)
        elif self._stream is None:
            sink.body(data, end=end)
        elif (wait := self._stream.write(data, end=end)) is not None:
            return wait
        if not end:
            return self.connection.wait_for_reader()
        if left and not self._no_body:
            self._complain("ended %d bytes before its content-length", left)
            self.connection.reset()
        self.state, self._steps = _COMPLETE, _COMPLETE_STEPS
        if self._inbox is not None:
            self._over()
        self.connection.response_complete()
        return None

    def _begin_large(self, data: bytes, length: int | None) -> Any:
        """
        Write the head, and behind it the first part in pieces, as its reader takes them.
        """
        status, self._left = self._status, length
        self.connection.sink.head(status, self._headers, b"", length=length, end=False)
        self._status = 0
        if self._stream is not None or self.connection.worker.access_log:
            self._begun(status, ends=self._no_body or length is not None)
        return self.body({"body": data, "more_body": True})

    def _begun(self, status: int, *, ends: bool) -> None:
        """
        Note that the head is written; ``ends`` says that the body will end by itself.
        """
        if self.connection.worker.access_log:
            log.access(self, status)
        if self._stream is not None and not ends:
            self._stream.open()

    def on_deadline(self, now: float) -> float:
        """
        See to heartbeats and to a slow body: how long an application takes is its own business.
        """
        due = now + self.connection.worker.options.keep_alive
        if self._stream is not None:
            due = self._stream.on_deadline(now)
        if self.unread_body and self._started:
            if now < self._body_by or self._has_pace(now):
                return min(due, self._body_by)
            metrics.refusals.add("slow_body")
            self._refuse_body(408, "the body comes too slowly", Fault.BODY_TOO_SLOW)
            return self.connection.deadline
        return due

    def _has_pace(self, now: float) -> bool:
        """
        Whether some of the body came in time; if so, that gives the next part its time.

        What came is worth the time that it may take at the least rate, so whoever is fast enough
        may stand still, whenever that is. While reading pauses the client can do nothing, so its
        time begins anew after that.
        """
        options = self.connection.worker.options
        came, self._body_bytes_seen = self._body_bytes - self._body_bytes_seen, self._body_bytes
        self._body_by, due = now + options.body_timeout, self._body_by
        if not self.connection.reading_paused and options.body_rate_min:
            # From when it was due, since this may be called later.
            self._body_by = min(self._body_by, due + came / options.body_rate_min)
        return self._body_by > now

    def _expect_body(self) -> None:
        """
        Give the next part of the body its time.
        """
        worker = self.connection.worker
        self._body_by = worker.loop.time() + worker.options.body_timeout
        self._body_bytes_seen = self._body_bytes

    def _ended(self, error: BaseException | None) -> None:
        """
        See ``Exchange``: a response that is not complete is answered for.
        """
        if isinstance(error, ClientFault):
            log.refused(self.scope, error.status, error.reason, error.fault)
        elif error is not None:
            metrics.application_errors.value += 1
            log.application_error(self.scope, error)
        if self.state in (State.COMPLETE, State.GONE):
            return
        if error is None:
            self._complain("returned without completing its response")
        self.answer_instead(refusal_status(error), State.COMPLETE)

    def answer_instead(self, status: int, state: State) -> None:
        """
        Answer in the application's place, or cut its answer short if that has begun.
        """
        connection = self.connection
        sent_nothing = self.state is State.WAITING or self._status != 0
        self.enter(state)
        if not sent_nothing:
            connection.reset()
            return
        if connection.worker.access_log:
            log.access(self, status)
        connection.answer_plainly(status)

    # -- the ends that the server gives to consumers

    def open_inbox(self) -> Inbox:
        """
        Give the inbox to a consumer, which awaits its ``next_event`` and never ``receive``.
        """
        inbox = self._inbox or self._open_inbox()
        if not self._started:
            self._started = True
            inbox.capacity = self.connection.worker.options.inbox_messages_max
            if self._request.complete:
                inbox.push({"type": "http.request", "body": b"", "more_body": False})
            else:
                self._invite_body()
        return inbox

    def open_stream(self) -> Stream:
        """
        Give the outbox to a consumer, with what belongs to it.
        """
        if self._stream is None:
            self._stream = Stream(self)
            if self.state is not State.WAITING:
                self._stream.peer_gone()
        return self._stream

    def cut(self) -> None:
        """
        See ``Exchange``: the scope holds the ends, and these the exchange.
        """
        self.scope = {}

    @property
    def lasting(self) -> bool:
        """
        See ``Exchange``: a response that waits for messages ends when somebody ends it.

        So does one that says it is an event stream, whichever application sends it; everything
        else may have an end of its own. Looked at in a drain alone.
        """
        if self._stream is not None and self._stream.lasting:
            return self.state in (State.WAITING, State.STARTED)
        return self.flows and any(
            name.lower() == b"content-type" and value.startswith(EVENT_STREAM)
            for name, value in self._headers
        )

    @property
    def flows(self) -> bool:
        """
        Whether its head is written and its body goes on, with no length to say how far.
        """
        return self.state is State.STARTED and self._status == 0 and self._left is None

    @property
    def waits_for_disconnect(self) -> bool:
        """
        Whether the application has not begun to answer, and waits to hear of the client.
        """
        sent_nothing = self.state is State.WAITING or self._status != 0
        return sent_nothing and self._inbox is not None and self._inbox.awaited

    @property
    def gone_at_eof(self) -> bool:
        """
        Whether a client that stops sending counts as gone.

        A FIN says only that no more is sent: `nc -N` and scripts end their sending with the
        request and read on, so a short answer is still owed to them. But whoever closes a
        connection fully sends the same FIN, and where nothing is written nothing else ever tells.
        Of a response without an end in sight (no content-length) browsers and proxies are
        the readers, and these close fully; so there, and where a consumer waits for news
        (``Stream.configure``), a FIN is the end. What was written still leaves.
        """
        if self._stream is not None and self._stream.gone_at_eof:
            return True
        return self.flows

    def pause_writing(self) -> None:
        """
        See ``Exchange``.
        """
        if self._stream is not None:
            self._stream.outbox.writable = False

    def resume_writing(self) -> None:
        """
        See ``Exchange``.
        """
        if self._stream is not None and self._stream.is_open:
            self._stream.outbox.writable = True
            self._stream.outbox.flush()

    def end(self, code: int, reason: str = "") -> None:
        """
        See ``Exchange``.
        """
        self.open_stream().end(code, reason)

    def _invite_body(self) -> None:
        """
        Ask for the body, of a client that waits for that; it has its time from now on.

        Nothing of this is needed where the body came with the head.
        """
        if self._request.expect_continue and self.state is State.WAITING:
            self.connection.sink.interim(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.unread_body:
            self._expect_body()
            self.connection.expect_by(self._body_by)

    def _open_inbox(self) -> Inbox:
        """
        Make the inbox: most requests have no body and nobody waits for their end.
        """
        connection = self.connection
        self._inbox = Inbox(connection.worker.loop, 0, self)
        if self.state in (State.COMPLETE, State.GONE):
            self._inbox.disconnect({"type": "http.disconnect"})
        return self._inbox

    def message_read(self) -> None:
        """
        Go on reading once the application has caught up.
        """
        inbox, connection = self._inbox, self.connection
        if (
            connection.reading_paused
            and inbox is not None
            and inbox.unread_bytes <= connection.worker.options.body_buffer_bytes
        ):
            if self.unread_body:
                self._expect_body()
            connection.resume_reading()

    def _complain(self, text: str, *values: object) -> None:
        """
        Log what the application did wrong, in one line.
        """
        log.application_fault(self.scope, text, *values)


def refusal_status(error: BaseException | None) -> int:
    """
    Give the status that answers for an application that ended without an answer.
    """
    if isinstance(error, ClientFault) and 400 <= error.status <= 599:
        return error.status
    return 500


def _is_disconnected(error: BaseException | None) -> bool:
    """
    Whether an application ended because its peer has gone, in all its tasks.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split(ClientDisconnected)[1] is None
    return isinstance(error, ClientDisconnected)


def response_status(message: Message) -> int:
    """
    Read the status of a response that an application starts (RFC 9110 section 15).

    Raises:
        LocalProtocolError: It is no status of a final response.
    """
    status = message.get("status")
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise LocalProtocolError(f"expected a status from 200 to 599, got {status!r}")
    return status


def _length(value: bytes) -> int:
    """
    Read the content-length that an application declares.
    """
    if not value.isdigit():
        raise LocalProtocolError(f"expected digits in content-length, got {value!r}")
    return int(value)


def _as_bytes(data: object) -> bytes:
    """
    Accept what behaves like bytes, refuse everything else by name.
    """
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise LocalProtocolError(f"expected bytes in 'body', got {type(data).__name__}")


async def _await(awaitable: Any) -> None:
    """
    Turn any awaitable into a coroutine.
    """
    await awaitable


async def _raise(error: Exception) -> None:
    """
    Raise inside a task what was raised while making its coroutine.
    """
    raise error


HttpExchange.machine = Machine(HTTP, HttpExchange)
_WAITING_STEPS = HttpExchange.machine.steps[_WAITING]
_COMPLETE_STEPS = HttpExchange.machine.steps[_COMPLETE]
