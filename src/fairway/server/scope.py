"""
ASGI scopes, made from the head of a request.

The ASGI HTTP and WebSocket specifications, version 2.5, say what each key holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from fairway.server.proxies import Proxies
    from fairway.types import Scope
    from fairway.wire.http1 import Request

__all__ = ["Address", "ForwardedScopeFactory", "ScopeFactory", "local_address", "peer_address"]

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
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = subprotocols
        return scope


class ForwardedScopeFactory(ScopeFactory):
    """
    Makes the scopes of a connection with a trusted proxy: client and scheme are its client's.
    """

    __slots__ = ("_proxies",)

    def __init__(self, proxies: Proxies, **settings: Any) -> None:
        super().__init__(**settings)
        self._proxies = proxies

    def http(self, request: Request) -> Scope:
        """
        Make the scope of an HTTP request that a proxy passed on.
        """
        scope = super().http(request)
        scope["client"], secure = self._proxies.origin(
            request.headers, self.client, secure=self.secure
        )
        scope["scheme"] = "https" if secure else "http"
        return scope


def peer_address(name: Any) -> Address:
    """
    Give a socket's name of its peer as ASGI has it: host and port, None for a Unix socket.
    """
    return name[:2] if isinstance(name, tuple) else None


def local_address(name: Any) -> Address:
    """
    Give a socket's own name as ASGI has it: host and port, or the path of a Unix socket and None.
    """
    if name and not isinstance(name, tuple):
        return (name.decode() if isinstance(name, bytes) else str(name)), None
    return peer_address(name)


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
