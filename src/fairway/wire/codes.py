"""
Every WebSocket close code Fairway meets, and what a client does about it.

===== ===================== ========= ==============================================
Code  Name                  Reconnect Meaning
===== ===================== ========= ==============================================
1000  NORMAL                no        the exchange is over
1001  GOING_AWAY            yes       a page was left, or an endpoint goes away
1002  PROTOCOL_ERROR        no        a frame broke the protocol
1003  UNSUPPORTED           no        text where binary was expected, or the reverse
1005  NO_STATUS             no        a close frame came without a code (never sent)
1006  ABNORMAL              yes       the connection ended without a close frame (never sent)
1007  INVALID_PAYLOAD       no        not UTF-8, or not what a message of its type holds
1008  POLICY_VIOLATION      no        a rule was broken that has no code of its own
1009  TOO_BIG               no        a message is larger than the limit
1010  EXTENSION_REQUIRED    no        the client wants an extension (only clients send it)
1011  INTERNAL_ERROR        yes       the application failed
1012  RESTART               yes       the server restarts
1013  TRY_AGAIN_LATER       yes       the peer reads too slowly, or the server is too busy
1014  BAD_GATEWAY           yes       a server behind this one gave no valid answer
1015  TLS_HANDSHAKE         no        TLS failed (never sent)
4400  INVALID_MESSAGE       no        a message has the wrong kind or shape
4401  UNAUTHENTICATED       no        the login or session behind the socket has ended
4404  NOT_FOUND             no        no route matches the path
===== ===================== ========= ==============================================

"Reconnect" says whether the same request may succeed later without anybody
doing anything. Only codes live here; who closes when is the server's and the
consumers' business.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ABNORMAL",
    "BAD_GATEWAY",
    "CLOSE_CODES",
    "EXTENSION_REQUIRED",
    "GOING_AWAY",
    "INTERNAL_ERROR",
    "INVALID_MESSAGE",
    "INVALID_PAYLOAD",
    "NORMAL",
    "NOT_FOUND",
    "NO_STATUS",
    "POLICY_VIOLATION",
    "PROTOCOL_ERROR",
    "RESTART",
    "TLS_HANDSHAKE",
    "TOO_BIG",
    "TRY_AGAIN_LATER",
    "UNAUTHENTICATED",
    "UNSUPPORTED",
    "CloseCode",
    "is_receivable",
    "is_sendable",
]

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
UNSUPPORTED = 1003
NO_STATUS = 1005
ABNORMAL = 1006
INVALID_PAYLOAD = 1007
POLICY_VIOLATION = 1008
TOO_BIG = 1009
EXTENSION_REQUIRED = 1010
INTERNAL_ERROR = 1011
RESTART = 1012
TRY_AGAIN_LATER = 1013
BAD_GATEWAY = 1014
TLS_HANDSHAKE = 1015
INVALID_MESSAGE = 4400
UNAUTHENTICATED = 4401
NOT_FOUND = 4404


class CloseCode(NamedTuple):
    """
    What one close code stands for.

    Attributes:
        name: The name of its constant here, in lower case.
        meaning: A lower-case fragment for people.
        reconnect: Whether the same request may succeed later by itself.
    """

    name: str
    meaning: str
    reconnect: bool


CLOSE_CODES: dict[int, CloseCode] = {
    NORMAL: CloseCode("normal", "the exchange is over", False),
    GOING_AWAY: CloseCode("going_away", "a page was left, or an endpoint goes away", True),
    PROTOCOL_ERROR: CloseCode("protocol_error", "a frame broke the protocol", False),
    UNSUPPORTED: CloseCode("unsupported", "text where binary was expected, or the reverse", False),
    NO_STATUS: CloseCode("no_status", "a close frame came without a code", False),
    ABNORMAL: CloseCode("abnormal", "the connection ended without a close frame", True),
    INVALID_PAYLOAD: CloseCode(
        "invalid_payload", "not utf-8, or not what a message of its type holds", False
    ),
    POLICY_VIOLATION: CloseCode(
        "policy_violation", "a rule was broken that has no code of its own", False
    ),
    TOO_BIG: CloseCode("too_big", "a message is larger than the limit", False),
    EXTENSION_REQUIRED: CloseCode("extension_required", "the client wants an extension", False),
    INTERNAL_ERROR: CloseCode("internal_error", "the application failed", True),
    RESTART: CloseCode("restart", "the server restarts", True),
    TRY_AGAIN_LATER: CloseCode(
        "try_again_later", "the peer reads too slowly, or the server is too busy", True
    ),
    BAD_GATEWAY: CloseCode("bad_gateway", "a server behind this one gave no valid answer", True),
    TLS_HANDSHAKE: CloseCode("tls_handshake", "tls failed", False),
    INVALID_MESSAGE: CloseCode("invalid_message", "a message has the wrong kind or shape", False),
    UNAUTHENTICATED: CloseCode(
        "unauthenticated", "the login or session behind the socket has ended", False
    ),
    NOT_FOUND: CloseCode("not_found", "no route matches the path", False),
}

# RFC 6455 section 7.4.1 and the IANA registry: 1004, 1005, 1006 and 1015 never travel, the rest
# below 3000 is unassigned; 3000-3999 belongs to libraries, 4000-4999 to applications.
_REGISTERED = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


def is_receivable(code: int) -> bool:
    """
    Whether a close frame of a client may carry this code.
    """
    return 3000 <= code <= 4999 or code in _REGISTERED


def is_sendable(code: int) -> bool:
    """
    Whether a close frame of the server may carry this code.

    The same as ``is_receivable`` but for 1010, which RFC 6455 leaves to clients.
    """
    return code != EXTENSION_REQUIRED and is_receivable(code)
