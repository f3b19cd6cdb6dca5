"""
One connection on a roll, and looking connections up.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from fairway.revocation.names import digest, is_of_project, session_key_of, user_of, user_text
from fairway.types import Outbox, Scope

__all__ = ["Index", "Member"]

Key = TypeVar("Key")


class Member:
    """
    One connection: how it is closed, and whose it is.

    Attributes:
        scope_id: The identity of its scope.
        outbox: The server's end of a WebSocket under Fairway's server, else None.
        channel: Its consumer's channel; None without a channel layer.
        layer: That layer's alias.
        user: The name of its user; None for nobody.
        known: Whether the table of users is to be asked about the user.
        session: The digest of its session's key; None without one.
        store: Its session, which knows the key; None without one.
    """

    __slots__ = (
        "channel", "known", "layer", "outbox", "scope_id", "session", "store", "user",
    )  # fmt: skip

    def __init__(self, scope: Scope, channel: str | None, layer: str) -> None:
        self.scope_id = id(scope)
        self.channel = channel
        self.layer = layer
        self.outbox: Outbox | None = None
        ends = (scope.get("extensions") or {}).get("fairway")
        # What ends an HTTP response is for its consumer to know, which may not have begun it.
        if ends is not None and scope["type"] == "websocket":
            self.outbox = ends["outbox"]
        self.user: str | None = None
        self.known = False
        self.session: bytes | None = None
        self.store: Any = None

    def read(self, scope: Scope) -> None:
        """
        Note whose the connection is.
        """
        user = user_of(scope)
        self.user = user_text(user)
        self.known = self.user is not None and is_of_project(user)
        self.store = scope.get("session")
        key = session_key_of(self.store)
        self.session = None if key is None else digest(key)

    def rotate(self, key: str | None) -> None:
        """
        Go on under another key of the session; None if it is not to be known.
        """
        self.session = None if key is None else digest(key)
        if key is None:
            self.store = None
        else:
            self.store._session_key = key  # noqa: SLF001 - as cycle_key() does


class Index(dict[Key, "Member | set[Member]"], Generic[Key]):
    """
    Members by a key. Most keys have one, which then stands for itself.
    """

    def add(self, key: Key, member: Member) -> None:
        """
        Add a member under a key.
        """
        found = self.get(key)
        if found is None:
            self[key] = member
        elif isinstance(found, set):
            found.add(member)
        elif found is not member:
            self[key] = {found, member}

    def discard(self, key: Key, member: Member) -> None:
        """
        Take a member out from under a key, if it is there.
        """
        found = self.get(key)
        if found is member:
            del self[key]
        elif isinstance(found, set):
            found.discard(member)
            if not found:
                del self[key]

    def of(self, key: Key) -> list[Member]:
        """
        Give the members under a key.
        """
        found = self.get(key)
        if found is None:
            return []
        return list(found) if isinstance(found, set) else [found]
