"""
What stands for a link to Redis in tests without a server.
"""

from __future__ import annotations

import asyncio

import hiredis


class FakeLink:
    """
    Keeps what is written to it.
    """

    def __init__(self) -> None:
        self.written: list[str] = []
        self.lost = ""
        self.ended = asyncio.Event()

    def write(self, data: bytes) -> None:
        """
        Note a command.
        """
        parser = hiredis.Reader(encoding="utf-8")
        parser.feed(data)
        self.written.append(" ".join(parser.gets()))

    def lose(self, reason: str) -> None:
        """
        Note why it was given up.
        """
        self.lost = reason
        self.ended.set()
