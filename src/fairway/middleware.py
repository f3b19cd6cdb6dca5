"""
The base class of middleware around ASGI applications, under Channels' name.

Middleware of Fairway's own lives with its subject: sessions, users, origins.
"""

from __future__ import annotations

from typing import Any

from fairway.types import Receive, Scope, Send

__all__ = ["BaseMiddleware"]


class BaseMiddleware:
    """
    Calls an inner application with a scope of its own.

    A subclass overrides ``__call__``, changes the scope and calls
    ``super().__call__``; what it changes stays unknown to the layers above.

    Attributes:
        inner: The application below.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Run the inner application with a copy of the scope.
        """
        return await self.inner(dict(scope), receive, send)
