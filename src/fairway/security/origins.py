"""
What the rules about Origins share: reading one, and refusing a handshake because of it.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from fairway.types import Receive, Scope, Send

__all__ = ["SHOWN_MAX", "deny", "origin_header", "parsed", "shown"]

SHOWN_MAX = 200
"""
Characters of what the peer sent that go into the log.
"""


def origin_header(scope: Scope) -> str | None:
    """
    Read the Origin of a scope.
    """
    for name, value in scope.get("headers", ()):
        if name == b"origin":
            return str(value, "latin1")
    return None


def parsed(origin: str | None) -> SplitResult | None:
    """
    Split an Origin; None if there is none or it is no origin.
    """
    if origin is None or not origin.isascii():
        return None
    try:
        parts = urlsplit(origin)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return None
    return parts


def shown(text: str) -> str:
    """
    Quote what the peer sent so that it can neither end a line nor fill the log.
    """
    return repr(text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 1]}…")


async def deny(receive: Receive, send: Send, words: bytes = b"") -> None:
    """
    Refuse a handshake, which the server answers with 403.

    Args:
        receive: The scope's.
        send: The scope's.
        words: What to say with it, if the server takes ``websocket.http.response``.
    """
    if (await receive())["type"] != "websocket.connect":
        return
    if not words:
        await send({"type": "websocket.close"})
        return
    kind = "websocket.http.response"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": f"{kind}.start", "status": 403, "headers": headers})
    await send({"type": f"{kind}.body", "body": words})
