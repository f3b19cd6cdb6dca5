"""
A reader of event streams, written from the standard and without the code under test.

HTML standard section 9.2.6, "Interpreting an event stream", step by step.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

__all__ = ["Event", "EventReader"]


class Event(NamedTuple):
    """
    One event as a page gets it.
    """

    data: str
    event: str = "message"
    id: str = ""


class EventReader:
    """
    Takes the bytes of a stream in pieces of any size.

    Attributes:
        events: What was dispatched so far.
        comments: Lines that say nothing.
        last_event_id: What would be sent on reconnecting.
        retry: The last reconnection time, in milliseconds; None for the browser's own.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.comments = 0
        self.last_event_id = ""
        self.retry: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest: list[str] = []
        self._skip_lf = False
        self._data = ""
        self._type = ""
        self._id = ""

    def feed(self, data: bytes) -> list[Event]:
        """
        Read on, and give the events that became complete.
        """
        known = len(self.events)
        for character in self._decoder.decode(data):
            if self._skip_lf and character == "\n":
                self._skip_lf = False
                continue
            self._skip_lf = character == "\r"
            if character in "\r\n":
                self._line("".join(self._rest))
                self._rest.clear()
            else:
                self._rest.append(character)
        return self.events[known:]

    def _line(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments += 1
        else:
            field, _, value = line.partition(":")
            self._field(field, value.removeprefix(" "))

    def _field(self, field: str, value: str) -> None:
        if field == "event":
            self._type = value
        elif field == "data":
            self._data += value + "\n"
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        data, kind = self._data, self._type
        self._data = self._type = ""
        if data:
            self.events.append(Event(data.removesuffix("\n"), kind or "message", self._id))
