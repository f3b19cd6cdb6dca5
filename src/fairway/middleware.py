"""
The base class of middleware around ASGI applications, under Channels' name.

Middleware of Fairway's own lives with its subject: sessions, users, origins.
"""

from __future__ import annotations

from typing import Any

from fairway.callables import single_callable
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
        self.inner = single_callable(inner, type(self).__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """
        Run the inner application with a copy of the scope.

        A subclass in the manner of Channels 2 changes that in ``populate_scope(scope)``, or in
        the coroutine ``resolve_scope(scope)``.
        """
        scope = dict(scope)
        for name in ("populate_scope", "resolve_scope"):
            change = getattr(self, name, None)
            changing = change(scope) if change is not None else None
            if changing is not None:
                await changing
        return await self.inner(scope, receive, send)
