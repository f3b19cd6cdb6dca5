"""
The access log's lines: gathered in a turn of the loop, and written at its end.

Through ``logging`` a line costs half of what a request does, most of it for a record and a
write that carry nothing else. Fairway's own handler takes the lines of a turn together
(``LineHandler``); where anybody else hears the logger, each line is a record at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol, cast

__all__ = ["AccessLines", "LineHandler"]

LINES_MAX = 1024
"""
Lines of one turn that are kept together; more are written before it ends.
"""


class LineHandler(Protocol):
    """
    A handler of ``logging`` that can do without a record for each line.
    """

    @property
    def takes_lines(self) -> bool:
        """
        Whether it writes lines as it writes records: nobody has given it another form.
        """
        ...

    def write_lines(self, name: str, lines: list[str]) -> None:
        """
        Write what a logger of this name has to say with ``INFO``.
        """
        ...


class AccessLines:
    """
    What one worker's access log has to say.

    Event-loop thread only.
    """

    __slots__ = ("_handler", "_lines", "_logger", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, logger: logging.Logger) -> None:
        self._loop = loop
        self._logger = logger
        self._lines: list[str] = []
        self._handler: LineHandler | None = None

    def add(self, host: str, subject: str, status: int) -> None:
        """
        Note one response. Hot path where the access log is on.

        Args:
            host: Who asked.
            subject: For what, in one line.
            status: What was answered.
        """
        lines = self._lines
        if not lines:
            # Who hears the logger may change at any time, and rarely does within a turn.
            self._handler = _line_handler(self._logger)
            if self._handler is None:
                extra = {"status_code": status}
                self._logger.info("%s %s %d", host, subject, status, extra=extra)
                return
            self._loop.call_soon(self.write)
        lines.append(f"{host} {subject} {status}")
        if len(lines) >= LINES_MAX:
            self.write()

    def write(self) -> None:
        """
        Write what was noted. At the end of a turn, and once more at the worker's end.
        """
        lines, handler = self._lines, self._handler
        if lines and handler is not None:
            self._lines = []
            handler.write_lines(self._logger.name, lines)


def _line_handler(logger: logging.Logger) -> LineHandler | None:
    """
    Find the handler that takes a logger's lines, if it is the only one that hears them.
    """
    if logger.filters or not logger.isEnabledFor(logging.INFO):
        return None
    found: logging.Handler | None = None
    place: logging.Logger | None = logger
    while place is not None:
        for handler in place.handlers:
            if found is not None:
                return None
            found = handler
        place = place.parent if place.propagate else None
    return cast("LineHandler", found) if getattr(found, "takes_lines", False) else None
