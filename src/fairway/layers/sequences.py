"""
Numbers on messages, by which a receiver notices what is missing.

Each process numbers what it sends to each subject; each subscriber remembers the
last number it heard from each sender. Both memories are bounded. Counting only.
"""

from __future__ import annotations

__all__ = ["Hearing", "Numbering"]

SUBJECTS_MAX = 65536
"""
Subjects whose messages are numbered; beyond that all begin anew, under a new sender's name.
"""

SENDERS_MAX = 256
"""
Senders per subject whose numbers are remembered; beyond that the one heard first is forgotten.
"""


class Numbering:
    """
    What one process has sent, by subject.

    Attributes:
        sender: The name that goes with the numbers.
    """

    __slots__ = ("_last", "_process", "_times", "sender")

    def __init__(self, process: str) -> None:
        self._process = process
        self._times = 0
        self._last: dict[str, int] = {}
        self.sender = process

    def number(self, subject: str) -> int:
        """
        Count the next message to a subject, from 1; ``sender`` may change by it.
        """
        number = self._last.get(subject, 0) + 1
        if number == 1 and len(self._last) >= SUBJECTS_MAX:
            self._last.clear()
            self._times += 1
            self.sender = f"{self._process}.{self._times}"
        self._last[subject] = number
        return number


class Hearing:
    """
    What one subscriber has heard on one subject, by sender.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def missing(self, sender: str, number: int) -> int:
        """
        Note a message; give how many are missing before it, or -1 if it is an old one.
        """
        last = self._last.get(sender)
        if last is None:
            if len(self._last) >= SENDERS_MAX:
                del self._last[next(iter(self._last))]
            last = number - 1
        elif number <= last:
            return -1
        self._last[sender] = number
        return number - last - 1
