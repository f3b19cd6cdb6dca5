"""
Scopes: targets of every form, and what is shared between them and what is not.
"""

from __future__ import annotations

from typing import Any

import pytest

from fairway.server.scope import ScopeFactory
from tests.unit.wire.requests import head, request


def factory(**changes: Any) -> ScopeFactory:
    """
    A factory for a plain connection.
    """
    settings: dict[str, Any] = {
        "client": ("10.0.0.1", 5000),
        "server": ("10.0.0.2", 80),
        "secure": False,
        "root_path": "",
        "state": None,
    }
    return ScopeFactory(**(settings | changes))


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        (b"/", "/", b"/", b""),
        (b"/a%20b?c=%20", "/a b", b"/a%20b", b"c=%20"),
        (b"/caf%c3%a9", "/café", b"/caf%c3%a9", b""),
        (b"/%ff", "/\ufffd", b"/%ff", b""),
        (b"/%zz%", "/%zz%", b"/%zz%", b""),
        (b"/a%2fb", "/a/b", b"/a%2fb", b""),
        (b"//evil/x", "//evil/x", b"//evil/x", b""),
        (b"/?a?b", "/", b"/", b"a?b"),
        (b"http://h/x?y", "/x", b"/x", b"y"),
        (b"http://h", "/", b"/", b""),
        (b"http://h?y=/z", "/", b"/", b"y=/z"),
        (b"*", "*", b"*", b""),
    ],
)
def test_targets(target: bytes, path: str, raw_path: bytes, query: bytes) -> None:
    """
    Path and query are cut out of any form of target; the path is decoded, the raw path is not.
    """
    scope = factory().http(request(head(line=b"OPTIONS " + target + b" HTTP/1.1")))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)


@pytest.mark.parametrize(
    ("kind", "secure", "scheme"),
    [
        ("http", False, "http"),
        ("http", True, "https"),
        ("websocket", False, "ws"),
        ("websocket", True, "wss"),
    ],
)
def test_scheme(kind: str, secure: bool, scheme: str) -> None:
    """
    The scheme says what the scope is for and whether TLS is below it.
    """
    scopes, made = factory(secure=secure), request(head())
    scope = scopes.http(made) if kind == "http" else scopes.websocket(made, [])
    assert (scope["type"], scope["scheme"]) == (kind, scheme)


def test_state() -> None:
    """
    Without lifespan there is no state; with it each scope has its own copy.
    """
    made = request(head())
    assert "state" not in factory().http(made)
    state: dict[str, Any] = {"pool": object()}
    scopes = factory(state=state)
    first, second = scopes.http(made), scopes.http(made)
    first["state"]["mine"] = 1
    assert second["state"] == state
    assert second["state"]["pool"] is state["pool"]


def test_nothing_shared() -> None:
    """
    What one application changes in its scope no other one sees.
    """
    scopes = factory(root_path="/app")
    first = scopes.http(request(head()))
    first["headers"].append((b"x", b"y"))
    second = scopes.http(request(head()))
    assert second["headers"] == [(b"host", b"a")]
    assert second["root_path"] == "/app"
