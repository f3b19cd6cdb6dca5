"""
ASGI scopes, made from the head of a request.

The ASGI HTTP and WebSocket specifications, version 2.5, say what each key holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from fairway.types import Scope
    from fairway.wire.http1 import Request

__all__ = ["Address", "ScopeFactory"]

Address = tuple[str, int] | tuple[str, None] | None

ASGI = {"version": "3.0", "spec_version": "2.5"}


class ScopeFactory:
    """
    Makes the scopes of one connection's requests.

    Attributes:
        client: Address and port of the peer.
        server: Address and port, or path, that it reached.
    """

    __slots__ = ("client", "root_path", "secure", "server", "state")

    def __init__(
        self,
        *,
        client: Address,
        server: Address,
        secure: bool,
        root_path: str,
        state: dict[str, Any] | None,
    ) -> None:
        self.client = client
        self.server = server
        self.secure = secure
        self.root_path = root_path
        self.state = state

    def http(self, request: Request) -> Scope:
        """
        Make the scope of an HTTP request.
        """
        target = request.target
        raw_path, _, query = (target if target[:1] == b"/" else _origin_form(target)).partition(
            b"?"
        )
        path = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": ASGI,
            "scheme": "https" if self.secure else "http",
            "method": request.method,
            "http_version": request.version,
            "path": path.decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": self.root_path,
            "headers": request.headers,
            "client": self.client,
            "server": self.server,
        }
        if self.state is not None:
            scope["state"] = self.state.copy()
        return scope

    def websocket(self, request: Request, subprotocols: list[str]) -> Scope:
        """
        Make the scope of a WebSocket handshake; the extensions are added by the exchange.
        """
        scope = self.http(request)
        del scope["method"]
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if self.secure else "ws"
        scope["subprotocols"] = subprotocols
        return scope


def _origin_form(target: bytes) -> bytes:
    """
    Cut scheme and host off a target in absolute form (RFC 9112 section 3.2.2).
    """
    _, separator, rest = target.partition(b"://")
    if not separator:
        return target
    cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=-1)
    if cut < 0:
        return b"/"
    return rest[cut:] if rest[cut : cut + 1] == b"/" else b"/" + rest[cut:]
