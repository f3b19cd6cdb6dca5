"""
Drive an application in a test, message by message, under the names Channels gave these tools.

A communicator plays the server: it makes the scope, sends events in and takes messages out.
No sockets and no parsing here; what a real server does to an application is tested with one.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import warnings
from collections.abc import Iterable
from contextvars import Context
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from asgiref.sync import ThreadSensitiveContext
from asgiref.testing import ApplicationCommunicator as BaseApplicationCommunicator

from fairway.callables import single_callable
from fairway.testing.keeping import keep_connections_open
from fairway.threads.mapping import present
from fairway.types import Message, Scope

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ApplicationCommunicator", "HttpCommunicator", "WebsocketCommunicator"]


class ApplicationCommunicator(BaseApplicationCommunicator):
    """
    Runs one application with one scope, as asgiref's class does, and leaves the database alone.

    While the application runs, old connections are not closed: the test's transaction lives in
    one of them.

    Attributes:
        scope: What the application is called with; may be changed until the first message.
    """

    # What asgiref's destructor asks for, also after a constructor that failed.
    _future: Any = None

    def __init__(
        self, application: Any, scope: Scope, *, user: Any = None, client: Any = None
    ) -> None:
        """
        Prepare to run an application; it starts with the first message.

        Args:
            application: An ASGI application, or a consumer class that lacks ``.as_asgi()``.
            scope: The ASGI scope.
            user: Whom the application finds in ``scope["user"]``, however it looks for users.
            client: Django's test client, whose cookies are sent: whoever is logged in there is
                found by session as under a server.
        """
        if user is not None:
            scope["user"] = user
        if client is not None:
            scope["headers"] = [*scope["headers"], *_cookie_headers(client)]
        if inspect.isclass(application) and hasattr(application, "as_asgi"):
            warnings.warn(
                f"{application.__name__} lacks .as_asgi()", DeprecationWarning, _outside(self)
            )
            application = application.as_asgi()
        application = single_callable(application, type(self).__name__)
        super().__init__(application, scope)  # type: ignore[no-untyped-call] # asgiref's

    @property
    def future(self) -> asyncio.Task[None]:
        """
        The application's task, which begins when it is first asked for.
        """
        if self._future is None:
            ends = self.input_queue.get, self.output_queue.put
            application = self.application(self.scope, *ends)
            self._future = self._context().run(asyncio.create_task, application)
            keep_connections_open(self._future)
        task: asyncio.Task[None] = self._future
        return task

    def _context(self) -> Context:
        """
        Make what the application runs in: none of the test's variables, but the test's thread.
        """
        context = Context()
        context.run(present.set, _TestThread())
        return context

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        future = self._future
        if future is None:
            return
        try:
            if not future.done():
                await self._leave()
            elif not future.cancelled():
                future.result()
        except Exception:
            # What failed first is what the test is to show.
            if kind is None:
                raise

    async def _leave(self) -> None:
        """
        End the application at the end of an ``async with`` block.
        """
        self.stop()
        await self.wait()

    async def send_input(self, message: Message) -> None:
        """
        Send one event to the application.

        Raises:
            Exception: What the application has failed with, if it has.
        """
        await super().send_input(message)  # type: ignore[no-untyped-call] # asgiref's

    async def receive_output(self, timeout: float = 1) -> Message:
        """
        Wait for one message of the application.

        Args:
            timeout: Seconds to wait. Running out of them cancels the application.

        Raises:
            TimeoutError: Nothing came.
            Exception: What the application has failed with, if it has.
        """
        return cast("Message", await super().receive_output(timeout))  # type: ignore[no-untyped-call] # asgiref's

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """
        Say whether the application sends nothing.

        Args:
            timeout: Seconds to give it.
            interval: Seconds between two looks.

        Raises:
            Exception: What the application has failed with, if it has.
        """
        return bool(await super().receive_nothing(timeout, interval))  # type: ignore[no-untyped-call] # asgiref's

    async def wait(self, timeout: float = 1) -> None:
        """
        Wait for the application to end.

        Args:
            timeout: Seconds to wait before it is cancelled, without a word.

        Raises:
            Exception: What the application has failed with, if it has.
        """
        await super().wait(timeout)  # type: ignore[no-untyped-call] # asgiref's

    def stop(self, exceptions: bool = True) -> None:
        """
        Cancel the application without waiting for it.

        Args:
            exceptions: Whether to raise what it has failed with, if it has.
        """
        super().stop(exceptions)  # type: ignore[no-untyped-call] # asgiref's


class _TestThread(ThreadSensitiveContext):
    """
    Says that the thread is chosen: the test's.

    asgiref takes what is false for nothing, and stays where it is. Pages take it for a choice, and
    look for no thread of their own as they do under other servers.
    """

    def __bool__(self) -> bool:
        return False


class HttpCommunicator(ApplicationCommunicator):
    """
    Sends one request to an HTTP application and collects the response.
    """

    def __init__(
        self,
        application: Any,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        **identity: Any,
    ) -> None:
        """
        Make a request.

        Args:
            application: See ``ApplicationCommunicator``.
            method: The HTTP method, in any case.
            path: Path and query string.
            body: The whole request body.
            headers: Header fields, lower-case names.
            identity: ``user`` or ``client``, see ``ApplicationCommunicator``.
        """
        if not isinstance(body, bytes):
            raise AssertionError(f"The body must be bytes, not {type(body)}")  # noqa: TRY004 - Channels'
        self.body = body
        self.sent_request = False
        super().__init__(
            application,
            {
                "type": "http",
                "http_version": "1.1",
                "method": method.upper(),
                **_address(path),
                "headers": headers or [],
                # What Django's test client asks for too; pages refuse other hosts.
                "server": ("testserver", 80),
            },
            **identity,
        )

    async def get_response(self, timeout: float = 1) -> dict[str, Any]:
        """
        Send the request, unless it was sent, and give the response when it is complete.

        Args:
            timeout: Seconds to wait for each message of the application.

        Returns:
            A dict with ``status``, ``headers`` and ``body``.
        """
        await self._send_request()
        start = await self.receive_output(timeout)
        _expect_type(start, "http.response.start")
        response = {"headers": [], **start, "body": b""}
        del response["type"]
        more = True
        while more:
            part = await self.receive_output(timeout)
            _expect_type(part, "http.response.body")
            response["body"] += part.get("body", b"")
            more = part.get("more_body", False)
        return response

    async def _send_request(self) -> None:
        """
        Send the request, unless it was sent.
        """
        if not self.sent_request:
            self.sent_request = True
            await self.send_input({"type": "http.request", "body": self.body})

    async def _leave(self) -> None:
        """
        Be gone, as a client that closes its connection.
        """
        await self.send_input({"type": "http.disconnect"})
        await self.wait()


class WebsocketCommunicator(ApplicationCommunicator):
    """
    Plays the client of a WebSocket application.

    ``async with`` connects, and fails the test if the application refuses; it leaves at the end.

    Attributes:
        subprotocol: What the application chose, once it has accepted.
        response_headers: What the application added to the accepted handshake.
    """

    def __init__(
        self,
        application: Any,
        path: str,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        subprotocols: list[str] | None = None,
        spec_version: str | None = None,
        **identity: Any,
    ) -> None:
        """
        Make a handshake.

        Args:
            application: See ``ApplicationCommunicator``.
            path: Path and query string.
            headers: Header fields, lower-case names.
            subprotocols: What the client offers.
            spec_version: Put into the scope if given.
            identity: ``user`` or ``client``, see ``ApplicationCommunicator``.

        Raises:
            TypeError: The path is not a string.
        """
        if not isinstance(path, str):
            raise TypeError(f"Expected str, got {type(path)}")
        scope: Scope = {
            "type": "websocket",
            **_address(path),
            "headers": headers or [],
            "subprotocols": subprotocols or [],
        }
        if spec_version:
            scope["spec_version"] = spec_version
        self.subprotocol: str | None = None
        self.response_headers: list[tuple[bytes, bytes]] | None = None
        super().__init__(application, scope, **identity)

    async def __aenter__(self) -> Self:
        accepted, code = await self.connect()
        if not accepted:
            await self.wait()
            raise AssertionError(f"{self.scope['path']} refused the handshake, with code {code}")
        return self

    async def _leave(self) -> None:
        await self.disconnect()

    async def connect(self, timeout: float = 1) -> tuple[bool, Any]:
        """
        Shake hands.

        Returns:
            ``(True, subprotocol or None)`` if accepted, else ``(False, close code)``.
        """
        await self.send_input({"type": "websocket.connect"})
        response = await self.receive_output(timeout)
        if response["type"] == "websocket.close":
            return False, response.get("code") or 1000
        _expect_type(response, "websocket.accept")
        self.response_headers = response.get("headers", [])
        self.subprotocol = response.get("subprotocol")
        return True, self.subprotocol

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send one message to the application: text or bytes, exactly one of them and not empty.
        """
        if bool(text_data) == bool(bytes_data):
            raise AssertionError("You must supply exactly one of text_data or bytes_data")
        if text_data:
            _expect_payload(text_data, str, "The text_data argument")
            await self.send_input({"type": "websocket.receive", "text": text_data})
        else:
            _expect_payload(bytes_data, bytes, "The bytes_data argument")
            await self.send_input({"type": "websocket.receive", "bytes": bytes_data})

    async def send_json_to(self, data: Any) -> None:
        """
        Send one text message holding JSON.
        """
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float = 1) -> Any:
        """
        Wait for one message of the application; a close instead is an ``AssertionError``.

        Returns:
            A ``str`` or ``bytes``, as it was sent.
        """
        response = await self.receive_output(timeout)
        _expect_type(response, "websocket.send")
        text, data = response.get("text"), response.get("bytes")
        if (text is None) == (data is None):
            raise AssertionError("The response needs exactly one of 'text' or 'bytes'")
        if text is not None:
            return _expect_payload(text, str, "Text frame payload")
        return _expect_payload(data, bytes, "Binary frame payload")

    async def receive_json_from(self, timeout: float = 1) -> Any:
        """
        Wait for one text message and decode the JSON in it.
        """
        payload = await self.receive_from(timeout)
        return json.loads(_expect_payload(payload, str, "JSON data"))

    async def disconnect(self, code: int = 1000, timeout: float = 1) -> None:
        """
        Leave, and wait for the application to end.

        Args:
            code: The close code the application is told.
            timeout: Seconds to wait before it is cancelled.
        """
        await self.send_input({"type": "websocket.disconnect", "code": code})
        await self.wait(timeout)


def _address(path: str) -> dict[str, Any]:
    """
    Split a path as a client writes it into what a scope holds.
    """
    parts = urlsplit(path)
    return {"path": unquote(parts.path), "query_string": parts.query.encode()}


def _cookie_headers(client: Any) -> list[tuple[bytes, bytes]]:
    """
    Give the cookies of Django's test client as a browser would send them.
    """
    cookies = (f"{each.key}={each.coded_value}" for each in client.cookies.values())
    text = "; ".join(cookies)
    return [(b"cookie", text.encode("latin1"))] if text else []


def _expect_type(message: Message, kind: str) -> None:
    """
    Fail the test unless a message has the given type.
    """
    if message["type"] != kind:
        raise AssertionError(f"Expected type {kind!r}, but was {message['type']!r}")


def _expect_payload(payload: Any, kind: type, what: str) -> Any:
    """
    Fail the test unless a payload has the given type, and give it back.
    """
    if not isinstance(payload, kind):
        raise AssertionError(f"{what} must be {kind.__name__}, but was {payload!r}")  # noqa: TRY004 - as Channels
    return payload


def _outside(communicator: ApplicationCommunicator) -> int:
    """
    Give the ``stacklevel`` of the line that made a communicator, past its classes' constructors.
    """
    own = type(communicator).__mro__.index(ApplicationCommunicator)
    return 2 + sum("__init__" in vars(one) for one in type(communicator).__mro__[:own])
