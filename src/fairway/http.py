"""
What Channels 2 and 3 had for pages, under its name: routers of such projects name it for "http".
"""

from __future__ import annotations

from typing import Any

from fairway.asgi import pages

__all__ = ["AsgiHandler"]


class AsgiHandler:
    """
    Pages: the class as Channels 2 has it in a router, or an instance as in Channels 3.
    """

    def __init__(self, *scope: Any) -> None:
        self._scope = scope

    async def __call__(self, *arguments: Any) -> None:
        """
        Serve one request, given scope, receive and send, the first here or to the constructor.
        """
        await pages(*self._scope, *arguments)
