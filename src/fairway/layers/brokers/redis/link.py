"""
One connection to one Redis server, from its greeting to its end.

redis-py connects, encrypts, identifies itself and selects the database; from the greeting on
its transport speaks to a ``Link``: what one loop turn queued leaves in one write, and every
reply is handed on in order, without a task. A link that ended is never used again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from fairway.exceptions import ChannelLayerUnavailable, ConfigurationError
from fairway.faults import Fault
from fairway.layers.brokers.redis.hosts import Address

__all__ = ["Link", "ReplyError", "open_link", "pack"]

logger = logging.getLogger("fairway.layers")

ReplyError = hiredis.ReplyError

pack: Callable[[tuple[str | bytes | int, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]
"""
Gives a command and its arguments as Redis reads them.
"""

PASSING_TLS_ERRORS = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""
What a server that ends amid a handshake looks like: no mistake in the settings.
"""


UNKNOWN_CA_HINT = (
    "name its CA with ssl_ca_certs, or accept any certificate with ssl_cert_reqs='none'"
)

NAME_HINT = "connect by a name in the certificate, or accept any with ssl_check_hostname=False"

CERTIFICATE_HINTS = {
    9: "it is not valid yet; compare the clocks",
    10: "renew it on the server",
    62: NAME_HINT,
    64: NAME_HINT,
}
"""
What helps, by the number that OpenSSL has for a reason (X509_V_ERR).
"""

ACCESS_HINT = "see to what its user may do; docs/redis.md has a rule that is enough"

REFUSAL_HINTS = {
    "Authentication required": "give its password, as in redis://:password@host",
    "username-password": "compare username and password with the server's",
    "DB index": "its databases are numbered from 0; see its setting databases",
}

TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


HUNG_UP = frozenset({
    os.strerror(errno.ECONNRESET), "Connection closed by server", "the connection was closed",
})  # fmt: skip
"""
What is said of a server that hangs up without a word.
"""


class _Ended:
    """
    Stands for the transport in a stream that does not own it any more.
    """

    @staticmethod
    def is_closing() -> bool:
        """
        Keep the stream's destructor, in a forked child too, from closing what it gave away.
        """
        return True


class Link(asyncio.Protocol):
    """
    An open connection. Belongs to the loop it was opened on.

    Attributes:
        address: Where it leads.
        lost: Done with the reason once it has ended.
    """

    def __init__(self, address: Address, on_reply: Callable[[Any], None]) -> None:
        """
        Make a link that gets its transport from ``open_link``.

        Args:
            address: Where it leads.
            on_reply: Called with each reply, errors too, in order.
        """
        self.address = address
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception] = self._loop.create_future()
        self._on_reply = on_reply
        self._parser = hiredis.Reader()
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._reason: Exception | None = None

    def take_over(self, connection: AbstractConnection) -> None:
        """
        Have the transport of a greeted connection from now on.

        Raises:
            ConnectionError: It has ended meanwhile.
        """
        reader, writer = connection._reader, connection._writer  # noqa: SLF001 - the way it is lent
        connection._reader = connection._writer = None  # noqa: SLF001 - and taken from it
        if reader is None or writer is None:
            raise ConnectionError("the connection was closed")
        transport = cast("asyncio.Transport", writer.transport)
        ended = reader.at_eof()
        transport.set_protocol(self)
        writer._transport = _Ended()  # type: ignore[attr-defined]  # noqa: SLF001
        if ended:
            transport.abort()
            raise ConnectionError("the connection was closed")
        self._transport = transport

    @property
    def open(self) -> bool:
        """
        Whether something may still be written.
        """
        return self._transport is not None and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """
        Queue something that leaves at the end of the loop turn.
        """
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and outgoing:
            self._transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))

    def lose(self, reason: str) -> None:
        """
        End it at once, with what was not written.
        """
        if self._reason is None:
            self._reason = ChannelLayerUnavailable(f"redis at {self.address.name}: {reason}")
        if self._transport is not None:
            self._transport.abort()

    async def close(self, timeout: float) -> None:
        """
        End it after what was queued has left, in bounded time.
        """
        self._flush()
        if self._transport is None:
            return
        self._transport.close()
        await asyncio.wait([self.lost], timeout=timeout)
        if not self.lost.done():
            self.lose("closed")
            await asyncio.wait([self.lost], timeout=timeout)

    def abandon(self) -> None:
        """
        End it although its loop has ended or stands still. From any thread.
        """
        transport = self._transport
        if transport is None:
            return
        try:
            self._loop.call_soon_threadsafe(self.lose, "its event loop was given up")
        except RuntimeError:
            _shut_down(transport)

    # --- Called by the transport -------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """
        Take replies. Hot path: once per read, however many there are.
        """
        parser, on_reply = self._parser, self._on_reply
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not False:
                on_reply(reply)
        except hiredis.ProtocolError as error:
            self.lose(f"what came is not what Redis says: {error}")
        except Exception:
            logger.exception("what redis at %s said could not be taken", self.address.name)
            self.lose("what it said could not be taken")

    def connection_lost(self, error: Exception | None) -> None:
        """
        Say that it has ended, and why.
        """
        if self._reason is None:
            text = str(error) if error else "the server closed the connection"
            self._reason = ChannelLayerUnavailable(f"redis at {self.address.name}: {text}")
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(self._reason)


async def open_link(
    address: Address,
    on_reply: Callable[[Any], None],
    timeout: float,
    *,
    role: bytes | None = None,
    name: str = "",
) -> Link:
    """
    Connect to a server and see to it that it answers.

    Args:
        address: Where it is.
        on_reply: Called with each reply from then on.
        timeout: Seconds for all of it.
        role: What the server has to say that it is, where that matters.
        name: What ``CLIENT LIST`` shows, unless settings name their connections.

    Raises:
        ConfigurationError: It refuses, and will as long as the settings are what they are.
        ChannelLayerUnavailable: It cannot be reached or is not ready at present.
    """
    connection = address.connection()
    link = Link(address, on_reply)
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()  # type: ignore[no-untyped-call]
            await _greet(connection, role, "" if connection.client_name else name)
        link.take_over(connection)
    except TimeoutError:
        hint = ". Hint: does that port speak TLS?" if _speaks_tls(address) else ""
        raise ChannelLayerUnavailable(
            f"redis at {address.name} did not answer within {timeout:g} s (connect_timeout){hint}"
        ) from None
    except (RedisError, OSError) as error:
        raise _explain(address, error) from error
    finally:
        _discard(connection)
    return link


async def _greet(connection: AbstractConnection, role: bytes | None, name: str) -> None:
    """
    Have the server answer once, so that one that only accepts is not taken for a working one.

    All is asked in one write.
    """
    asked: list[tuple[str, ...]] = [("PING",)]
    if name:
        asked.append(("CLIENT", "SETNAME", name))
    if role is not None:
        asked.append(("ROLE",))
    await connection.send_packed_command(connection.pack_commands(asked), check_health=False)
    await connection.read_response(disable_decoding=True)
    if name:
        with suppress(ResponseError):  # Its user must not, which is no reason to go away.
            await connection.read_response(disable_decoding=True)
    if role is not None:
        found = (await connection.read_response(disable_decoding=True))[0]
        if found != role:
            raise ConnectionError(f"it is a {found.decode()} and not the {role.decode()}")


def _discard(connection: AbstractConnection) -> None:
    """
    End a connection that was not taken over.
    """
    writer, connection._writer = connection._writer, None  # noqa: SLF001
    connection._reader = None  # noqa: SLF001
    if writer is not None:
        writer.transport.abort()


def _explain(address: Address, error: Exception) -> Exception:
    """
    Say what is wrong in one line, and whether waiting can help.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, PASSING_TLS_ERRORS):
            return _mistake(f"redis at {address.name}: TLS failed: {_tls_reason(cause)}")
        if isinstance(cause, FileNotFoundError | PermissionError) and _speaks_tls(address):
            named = (address.arguments[name] for name in TLS_FILES if name in address.arguments)
            return _mistake(
                f"redis at {address.name}: a file for TLS cannot be read, one of "
                f"{', '.join(map(str, named))}: {cause.strerror}"
            )
    text = _text(error)
    lasting = isinstance(error, AuthenticationError | NoPermissionError) or (
        isinstance(error, ResponseError) and "DB index" in text
    )
    if lasting:
        hint = next((hint for word, hint in REFUSAL_HINTS.items() if word in text), ACCESS_HINT)
        return _mistake(f"redis at {address.name} refuses: {text}. Hint: {hint}")
    if text in HUNG_UP:
        text += _hint_after_hanging_up(address)
    return ChannelLayerUnavailable(f"redis at {address.name} cannot be reached: {text}")


def _hint_after_hanging_up(address: Address) -> str:
    """
    Say what may be wrong with a server that accepts and then hangs up without a word.
    """
    if not address.encrypted:
        return ". Hint: for a port with TLS a URL begins with rediss://"
    if _speaks_tls(address) and "ssl_certfile" not in address.arguments:
        return ". Hint: it may ask for ssl_certfile and ssl_keyfile"
    return ""


def _mistake(text: str) -> ConfigurationError:
    """
    Make what says that it can never work so.
    """
    return ConfigurationError(text, fault=Fault.LAYER_INVALID)


def _speaks_tls(address: Address) -> bool:
    return issubclass(address.kind, SSLConnection)


def _text(error: Exception) -> str:
    """
    Give an error's own words, those of the system where it has the last one.
    """
    text = str(error)
    for cause in _causes(error):
        if isinstance(cause, ConnectionError) and cause.errno:
            text = os.strerror(cause.errno)  # asyncio has words of its own there.
        elif isinstance(cause, OSError) and cause.strerror:
            text = cause.strerror
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def _tls_reason(error: ssl.SSLError) -> str:
    """
    Say for people why a handshake failed, and what helps.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = CERTIFICATE_HINTS.get(error.verify_code, UNKNOWN_CA_HINT)
        said = error.verify_message.rstrip(".")
        return f"the server's certificate was refused ({said}). Hint: {hint}"
    # Python itself makes some without a reason.
    reason = getattr(error, "reason", None) or str(error.args[-1])
    reason = reason.replace("_", " ").rstrip(".").lower()
    if "wrong version number" in reason or "record layer failure" in reason:
        return f"{reason}. Hint: the port speaks no TLS; a URL without it begins with redis://"
    if any(words in reason for words in ("pem", "no start line", "mismatch", "no certificate or")):
        return f"{reason}. Hint: look at what ssl_ca_certs, ssl_certfile and ssl_keyfile hold"
    if "certificate required" in reason or "handshake failure" in reason:
        return f"{reason}. Hint: the server asks for ssl_certfile and ssl_keyfile"
    return reason


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """
    Give an error and what led to it, one after another.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _shut_down(transport: asyncio.Transport) -> None:
    """
    End a transport whose loop is closed, which therefore cannot do it.
    """
    with suppress(OSError, TypeError, AttributeError, ValueError):
        borrowed = transport.get_extra_info("socket")
        with socket.fromfd(borrowed.fileno(), borrowed.family, borrowed.type) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    with suppress(RuntimeError):
        transport.abort()
    # asyncio's own way out begins with its loop; what is left of it closes the socket.
    finish = getattr(transport, "_call_connection_lost", None)
    if finish is not None:
        with suppress(RuntimeError):
            finish(None)
