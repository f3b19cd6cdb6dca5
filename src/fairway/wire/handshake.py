"""
The opening handshake of a WebSocket over HTTP/1.1 (RFC 6455 section 4.2).

Origin, path and user are judged elsewhere; here is only what makes a handshake
well formed, and its answer. What an extension means is its own module's.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from fairway.exceptions import LocalProtocolError, RemoteProtocolError
from fairway.wire.request import Request
from fairway.wire.response import encode_head

__all__ = ["Extension", "Upgrade", "accept_head", "check_upgrade", "read_extensions"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64.
_VERSION: Final = b"13"
_VISIBLE: Final = re.compile(rb"[!-+\--~]+")  # No space, no comma, ASCII.
# A word, a quoted string or a mark of the list of extensions. The words of a list make its shape,
# which is judged as a whole (RFC 6455 section 9.1; empty elements as RFC 9110 section 5.6.1).
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LEXEME: Final = re.compile(rb'[ \t]*(?:(%b)|"((?:[^"\\]|\\.)*)"|([,;=]))' % _TOKEN)
_WORD: Final = re.compile(_TOKEN)
_ESCAPE: Final = re.compile(rb"\\(.)")
_LIST: Final = re.compile(r",*(?:t(?:;t(?:=[tq])?)*(?:,+|$))*")
_REMEMBERED_BYTES_MAX: Final = 128
# What only the handshake itself may say.
_RESERVED: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"transfer-encoding",
        b"upgrade",
    }
)
_SWITCH: Final = b"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: "


class Extension(NamedTuple):
    """
    An extension as a client offers it.

    Attributes:
        name: What it is registered as.
        parameters: Their names with their values, None for those without.
    """

    name: str
    parameters: tuple[tuple[str, str | None], ...]


class Upgrade(NamedTuple):
    """
    A well-formed handshake.

    Attributes:
        accept: The proof owed to the client that its key was read.
        subprotocols: What the client offers, in its order.
        extensions: What extensions it offers, in its order.
    """

    accept: bytes
    subprotocols: list[str]
    extensions: tuple[Extension, ...] = ()


def check_upgrade(request: Request) -> Upgrade:
    """
    Check the fields of a handshake.

    Args:
        request: A request whose ``upgrade`` is true.

    Raises:
        RemoteProtocolError: Status 400, or 426 for another version of the protocol, with the
            ``headers`` that answer must carry.
    """
    keys: list[bytes] = []
    versions: list[bytes] = []
    offers: list[bytes] = []
    extensions: list[bytes] = []
    for name, value in request.headers:
        if name == b"sec-websocket-key":
            keys.append(value)
        elif name == b"sec-websocket-version":
            versions.append(value)
        elif name == b"sec-websocket-protocol":
            offers.append(value)
        elif name == b"sec-websocket-extensions":
            extensions.append(value)
    _check_version(versions)
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise RemoteProtocolError("expected one sec-websocket-key of 16 bytes in base64")
    proof = hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest()
    return Upgrade(
        base64.b64encode(proof),
        _read_subprotocols(offers) if offers else [],
        read_extensions(b",".join(extensions)) if extensions else (),
    )


def _check_version(versions: list[bytes]) -> None:
    if versions == [_VERSION]:
        return
    if len(versions) != 1:
        raise RemoteProtocolError("expected one sec-websocket-version")
    raise RemoteProtocolError(
        "expected sec-websocket-version 13",
        status=426,
        headers=((b"sec-websocket-version", _VERSION),),
    )


def _read_subprotocols(offers: list[bytes]) -> list[str]:
    """
    Read the offered subprotocols in order, from any number of fields.
    """
    names = [name.strip(b" \t") for name in b",".join(offers).split(b",")]
    if not all(_VISIBLE.fullmatch(name) for name in names if name):
        raise RemoteProtocolError("malformed sec-websocket-protocol")
    return [name.decode("ascii") for name in names if name]


def read_extensions(value: bytes) -> tuple[Extension, ...]:
    """
    Read a list of extensions in order (RFC 6455 section 9.1), in time linear in its length.

    Raises:
        RemoteProtocolError: It is malformed, for which a handshake has to fail.
    """
    # Clients of one kind say the same to the letter.
    return _remembered(value) if len(value) <= _REMEMBERED_BYTES_MAX else _read_extensions(value)


def _read_extensions(value: bytes) -> tuple[Extension, ...]:
    lexemes = _split(value)
    if not _LIST.fullmatch("".join([kind for kind, _ in lexemes])):
        raise _malformed_extensions()
    found: list[tuple[str, list[tuple[str, str | None]]]] = []
    before = ","
    for kind, word in lexemes:
        if kind in "tq":
            if before == ",":
                found.append((word, []))
            elif before == ";":
                found[-1][1].append((word, None))
            else:
                parameters = found[-1][1]
                parameters[-1] = (parameters[-1][0], word)
        before = kind
    return tuple([Extension(name, tuple(parameters)) for name, parameters in found])


_remembered = lru_cache(maxsize=128)(_read_extensions)


def _split(value: bytes) -> list[tuple[str, str]]:
    """
    Split a list of extensions: each word with ``t``, or ``q`` if it is quoted, and each mark.
    """
    value = value.rstrip(b" \t")
    lexemes = []
    position = 0
    while position < len(value):
        match = _LEXEME.match(value, position)
        if match is None:
            raise _malformed_extensions()
        position = match.end()
        token, quoted, mark = match.groups()
        if mark is not None:
            lexemes.append((mark.decode(), ""))
            continue
        word = token if quoted is None else _ESCAPE.sub(rb"\1", quoted)
        if not _WORD.fullmatch(word):
            raise _malformed_extensions()
        lexemes.append(("t" if quoted is None else "q", word.decode()))
    return lexemes


def _malformed_extensions() -> RemoteProtocolError:
    return RemoteProtocolError("malformed sec-websocket-extensions")


def accept_head(
    upgrade: Upgrade,
    subprotocol: str | None,
    headers: Iterable[tuple[bytes, bytes]],
    extension: bytes | None = None,
) -> bytes:
    """
    Encode the whole response that opens the WebSocket.

    Args:
        upgrade: What ``check_upgrade`` returned.
        subprotocol: What the application chose, None for none.
        headers: What it wants to say besides.
        extension: What was agreed, None for nothing.

    Raises:
        LocalProtocolError: The subprotocol or a header cannot stand in this response.
    """
    extra = list(headers)
    for name, _ in extra:
        if name.lower() in _RESERVED:
            raise LocalProtocolError(
                f"header {name!r} belongs to the handshake itself; "
                "a subprotocol goes into the message's subprotocol"
            )
    if subprotocol is not None:
        extra.insert(0, (b"sec-websocket-protocol", _encode_subprotocol(subprotocol)))
    if extension is not None:
        extra.insert(0, (b"sec-websocket-extensions", extension))
    return encode_head(101, extra, b"%b%b\r\n" % (_SWITCH, upgrade.accept))


def _encode_subprotocol(name: str) -> bytes:
    try:
        encoded = name.encode("ascii")
    except UnicodeEncodeError:
        encoded = b""
    if not _VISIBLE.fullmatch(encoded):
        raise LocalProtocolError(
            f"expected a subprotocol of visible ASCII without comma, not {name!r}"
        )
    return encoded
