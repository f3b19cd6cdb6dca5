"""
The ``date`` line of responses, made once a second.
"""

from __future__ import annotations

from email.utils import formatdate
from time import time

__all__ = ["DateHeader"]


class DateHeader:
    """
    Gives the encoded ``date`` header (RFC 9110 section 6.6.1).
    """

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        """
        Return the header with its line end, for this second.
        """
        second = int(time())
        if second != self._second:
            self._second = second
            self._line = b"date: " + formatdate(second, usegmt=True).encode("ascii") + b"\r\n"
        return self._line
