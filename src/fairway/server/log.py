"""
What the server says, and in which words.

One line per event and never a raw byte of the peer: what came from the network
is escaped, so that no path can forge a line. A traceback appears only for an
exception of the application's own code.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from fairway.exceptions import ConfigurationError
from fairway.faults import Fault

if TYPE_CHECKING:
    from fairway.server.exchange import Exchange
    from fairway.types import Scope

__all__ = [
    "FORMAT",
    "access",
    "application_error",
    "application_fault",
    "exit_status",
    "logger",
    "phrase",
    "printable",
    "refused",
    "say",
    "unanswered",
]

logger = logging.getLogger("fairway.server")

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""
How Fairway's own handlers write a line.
"""


def printable(text: str, limit: int = 200) -> str:
    """
    Escape what could end a line or steer a terminal, and cut what is long.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def subject(scope: Scope) -> str:
    """
    Name an exchange: ``WebSocket /ws/chat/`` or ``GET /``.
    """
    kind = scope["type"]
    if kind == "http":
        kind = scope.get("method", kind)
    elif kind == "websocket":
        kind = "WebSocket"
    return f"{kind} {printable(scope.get('path', ''))}"


def access(exchange: Exchange, status: int) -> None:
    """
    Note the access log's line for one response. Hot path where that is on.
    """
    scope = exchange.scope
    client = scope.get("client")
    worker = exchange.connection.worker
    worker.access_lines.add(client[0] if client else "-", subject(scope), status)


def refused(scope: Scope, status: int, reason: str, fault: Fault) -> None:
    """
    Say in one line why a peer did not get what it asked for.
    """
    words = printable(reason or "-", 500)
    logger.warning("%s refused with %d: %s [%s]", subject(scope), status, words, fault)


def application_fault(scope: Scope, text: str, *values: object) -> None:
    """
    Say in one line how the application broke the ASGI protocol without raising.
    """
    words = text % values
    logger.error("%s: the application %s [%s]", subject(scope), words, Fault.PROTOCOL_MISUSED)


def unanswered(scope: Scope) -> None:
    """
    Say that an application waits for messages of a peer whose handshake it did not answer.
    """
    words = "%s: the client left without an answer: connect() has to call accept() or close() [%s]"
    logger.warning(words, subject(scope), Fault.HANDSHAKE_UNANSWERED)


def application_error(scope: Scope, error: BaseException) -> None:
    """
    Record an exception of the application with its traceback.

    Who knows more about one has given it a ``fault``.
    """
    fault = getattr(error, "fault", None)
    logger.error(
        "%s: the application raised %s [%s]",
        subject(scope),
        type(error).__name__,
        fault if isinstance(fault, Fault) else Fault.APPLICATION_ERROR,
        exc_info=(type(error), error, error.__traceback__),
    )


def phrase(status: int) -> bytes:
    """
    Give the standard words for a status.
    """
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Error"


def say(line: str) -> None:
    """
    Print one line for people; where nobody reads it, the server goes on.
    """
    try:
        print(line, flush=True)  # noqa: T201 - a command's own output
    except BrokenPipeError:
        # What is left in the stream would fail again at the process's end.
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a plain path
            os.dup2(nothing.fileno(), sys.stdout.fileno())
    except OSError as error:
        logger.warning("stdout cannot be written to: %s", error)


def exit_status(serve: Callable[[], int]) -> int:
    """
    Run what serves in a process, and give that process's exit status.

    Returns:
        What ``serve`` returns; 2 after a wrong configuration, which is printed as one line.
    """
    _occupy_standard_streams()
    try:
        return serve()
    except ConfigurationError as error:
        # Not logged: logging may not be set up yet.
        print(f"fairway: {error} [{error.fault}]", file=sys.stderr)  # noqa: T201
        return 2


def _occupy_standard_streams() -> None:
    """
    Give those of descriptors 0 to 2 that were closed to the null device.

    Else sockets would get these numbers: what child processes print would go to them, and
    uvloop ends the process where it is to close one.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
