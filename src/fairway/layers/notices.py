"""
Log lines that a flood cannot multiply: each at most once per interval, with the number left out.
"""

from __future__ import annotations

import logging
from time import monotonic

__all__ = ["Notices"]

INTERVAL_SECONDS = 30.0
"""
The time in which one kind of event gets one line.
"""


class Notices:
    """
    Says at most once per interval what keeps happening. Belongs to one thread.
    """

    __slots__ = ("_kinds", "_logger")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._kinds: dict[str, tuple[float, int]] = {}

    def say(self, kind: str, text: str, *values: object) -> bool:
        """
        Log a warning, unless one of this kind was logged within the interval.

        Args:
            kind: What is counted together; one of few words of ours.
            text: The line, with placeholders.
            values: What goes into them.

        Returns:
            Whether it was logged.
        """
        now = monotonic()
        until, left_out = self._kinds.get(kind, (0.0, 0))
        if now < until:
            self._kinds[kind] = (until, left_out + 1)
            return False
        if left_out:
            text += f" (and {left_out} times since the last such line)"
        self._kinds[kind] = (now + INTERVAL_SECONDS, 0)
        self._logger.warning(text, *values)
        return True

    def hold(self, kind: str) -> None:
        """
        Take something for said, as it was in other words elsewhere.
        """
        now = monotonic()
        if now >= self._kinds.get(kind, (0.0, 0))[0]:
            self._kinds[kind] = (now + INTERVAL_SECONDS, 0)
