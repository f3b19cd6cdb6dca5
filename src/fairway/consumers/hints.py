"""
What helps against an exception of a project's own code, where its kind and place tell.

The words go below the traceback, as a note of the exception. Nothing is done before something
fails, and nothing here decides what follows.
"""

from __future__ import annotations

import linecache
import re
import traceback
from types import FrameType, TracebackType
from typing import NamedTuple

from django.core.exceptions import SynchronousOnlyOperation

from fairway.faults import Fault

__all__ = ["describe", "explain"]

LIBRARIES = frozenset({"asgiref", "asyncio", "django", "fairway", "importlib", "json"})
"""
Packages whose frames are passed over in search of the line that a project can change.
"""

MESSAGE_HANDLERS = frozenset({"receive", "receive_json", "websocket_receive"})
"""
Methods that are handed what the client sent.
"""


class Place(NamedTuple):
    """
    A line of the project, and what was called from it.

    Attributes:
        frame: Its frame.
        text: The expression that failed, if it is on one line.
        where: File and line, for people.
        inner: The frames below, outermost first.
    """

    frame: FrameType
    text: str
    where: str
    inner: list[FrameType]

    @property
    def function(self) -> str:
        """
        The function, as people write it.
        """
        code = self.frame.f_code
        return f"{getattr(code, 'co_qualname', code.co_name)}()"


def explain(error: BaseException) -> None:
    """
    Add a hint to an exception that left a handler, if there is one to give.
    """
    if isinstance(error, SynchronousOnlyOperation):
        error.fault = Fault.SYNC_ONLY  # type: ignore[attr-defined] # read by the server's log
        hint = _asynchronous_twin(find_place(error.__traceback__))
    elif isinstance(error, KeyError | IndexError | TypeError):
        place = find_place(error.__traceback__)
        hint = _fault_of_client(place)
        if place is None and "'await'" in str(error):
            hint = "a method of an asynchronous consumer is an ordinary one: write async def"
    else:
        return
    if hint:
        error.add_note(f"Hint: {hint}")


def describe(error: BaseException) -> str:
    """
    Put an exception into one line: the innermost line of the project, what it is, and its words.
    """
    place = find_place(error.__traceback__)
    where = place.where if place is not None else "a library"
    return f"{where}: {type(error).__name__}: {' '.join(str(error).split())}"


def find_place(trace: TracebackType | None) -> Place | None:
    """
    Find the innermost line of the project in a traceback.
    """
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    lines = traceback.extract_tb(trace)
    for index in range(len(frames) - 1, -1, -1):
        frame, line = frames[index], lines[index]
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in LIBRARIES:
            text = ""
            if line.lineno == line.end_lineno and line.colno is not None:
                # Python counts these in bytes.
                source = linecache.getline(line.filename, line.lineno or 0).encode()
                text = source[line.colno : line.end_colno].decode(errors="replace")
            where = f"{line.filename}, line {line.lineno}"
            return Place(frame, text, where, frames[index + 1 :])
    return None


def _asynchronous_twin(place: Place | None) -> str:
    """
    Name what a coroutine has to call in place of what it called.
    """
    others = "put what waits into a function and await database_sync_to_async(function)()"
    if place is None:
        return others
    for frame in place.inner:
        owner, name = frame.f_locals.get("self"), frame.f_code.co_name
        if owner is not None and callable(getattr(type(owner), f"a{name}", None)):
            pattern = rf"\b{name}(?=\((?!.*\b{name}\())"
            written, found = re.subn(pattern, f"a{name}", place.text)
            code = f"await {written}" if found else f"await ...a{name}(...)"
            return f"write {code} in {place.function}, {place.where}; or {others}"
        if name == "__iter__":
            return f"write {_asynchronous_loop(place.text)} in {place.function}, {place.where}"
    return f"in {place.function}, {place.where}, {others}"


def _asynchronous_loop(text: str) -> str:
    """
    Write a loop over rows as a coroutine has to.
    """
    listed = re.fullmatch(r"list\((.+)\)", text)
    if listed:
        return f"[each async for each in {listed[1]}]"
    return f"async for ... in {text}" if text else "async for"


def _fault_of_client(place: Place | None) -> str:
    """
    Say how a client is told that it sent the wrong thing, where one may have.
    """
    if place is None or place.inner or place.frame.f_code.co_name not in MESSAGE_HANDLERS:
        return ""
    return (
        "if the client sent the wrong thing, look before, and raise "
        "fairway.exceptions.ClientFault('expected ...'): that closes with 4400 and is one line here"
    )
