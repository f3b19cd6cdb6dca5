"""
What helps against an exception of a project's own code, where its kind and place tell.

The words go below the traceback, as a note of the exception. Nothing is done before something
fails, and nothing here decides what follows.
"""

from __future__ import annotations

import linecache
import re
import sysconfig
import traceback
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NamedTuple

from django.core.exceptions import SynchronousOnlyOperation

from fairway.faults import Fault

__all__ = ["describe", "explain"]

LIBRARIES = frozenset({"asgiref", "django", "fairway", "importlib"})
"""
Packages whose frames are passed over in search of the line that a project can change, as those of
Python's own library are.
"""

PYTHON, INSTALLED = sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")

MESSAGE_HANDLERS = frozenset({"receive", "receive_json", "websocket_receive"})
"""
Methods that are handed what the client sent.
"""


class Place(NamedTuple):
    """
    A line of the project, and what was called from it.

    Attributes:
        frame: Its frame.
        line: The line as it is written.
        text: The expression in it that failed, if it is on one line.
        where: File and line, for people.
        inner: The frames below, outermost first.
    """

    frame: FrameType
    line: str
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
    hint = ""
    # It asks objects of the project for their names, and must not fail as they may.
    with suppress(Exception):
        if isinstance(error, SynchronousOnlyOperation):
            error.fault = Fault.SYNC_ONLY  # type: ignore[attr-defined] # read by the server's log
            hint = _asynchronous_twin(find_place(error.__traceback__))
        elif isinstance(error, KeyError | IndexError | TypeError):
            hint = _fault_of_handler(error)
    if hint:
        error.add_note(f"Hint: {hint}")


def describe(error: BaseException) -> str:
    """
    Put an exception into one line: the innermost line of the project, what it is, and its words.
    """
    place = find_place(error.__traceback__)
    where = f"{place.where}: " if place is not None else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"


def find_place(trace: TracebackType | None) -> Place | None:
    """
    Find the innermost line of the project in a traceback.
    """
    frames = [frame for frame, _ in traceback.walk_tb(trace)]
    lines = traceback.extract_tb(trace)
    for index in range(len(frames) - 1, -1, -1):
        frame, line = frames[index], lines[index]
        if not _is_library(frame):
            source, text = linecache.getline(line.filename, line.lineno or 0), ""
            if line.lineno == line.end_lineno and line.colno is not None:
                # Python counts these in bytes.
                part = source.encode()[line.colno : line.end_colno]
                text = part.decode(errors="replace")
            where = f"{line.filename}, line {line.lineno}"
            return Place(frame, source, text, where, frames[index + 1 :])
    return None


def _is_library(frame: FrameType) -> bool:
    """
    Whether a frame runs code that no project changes.
    """
    if str(frame.f_globals.get("__name__", "")).partition(".")[0] in LIBRARIES:
        return True
    file = frame.f_code.co_filename
    return file.startswith(PYTHON) and not file.startswith(INSTALLED)


def _asynchronous_twin(place: Place | None) -> str:
    """
    Name what a coroutine has to call in place of what it called.
    """
    others = "put what waits into a function and await database_sync_to_async(function)()"
    if place is None:
        return others
    for frame in place.inner:
        owner, name = frame.f_locals.get("self"), frame.f_code.co_name
        twin = frame.f_globals.get(f"a{name}")
        if owner is not None:
            twin = getattr(type(owner), f"a{name}", None)
        if callable(twin):
            pattern = rf"\b{name}(?=\((?!.*\b{name}\())"
            written, found = re.subn(pattern, f"a{name}", place.text)
            code = f"await {written}" if found else f"await ...a{name}(...)"
            return f"write {code} in {place.function}, {place.where}; or {others}"
        if name == "__iter__":
            code = _asynchronous_loop(place)
            return f"write {code} in {place.function}, {place.where}; or {others}"
    return f"in {place.function}, {place.where}, {others}"


def _asynchronous_loop(place: Place) -> str:
    """
    Write a loop over rows as a coroutine has to.
    """
    listed = re.fullmatch(r"list\((.+)\)", place.text)
    if listed:
        return f"[each async for each in {listed[1]}]"
    written = re.match(r"\s*(for .+):", place.line)
    return f"async {written[1]}" if written else "async for"


def _fault_of_handler(error: BaseException) -> str:
    """
    Say what is wrong with a handler, or with what it was handed.
    """
    place = find_place(error.__traceback__)
    if place is not None:
        return _fault_of_client(place)
    return _ordinary_method(error) if "await" in str(error) else ""


def _ordinary_method(error: BaseException) -> str:
    """
    Name the method of an asynchronous consumer that is no coroutine.
    """
    *_, frame = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    called = re.match(r"await self\.(\w+)\(", line)
    handler = frame.f_locals.get("handler")
    name = called[1] if called else getattr(handler, "__name__", "")
    consumer = type(frame.f_locals.get("self")).__qualname__
    return f"write async def {name} in {consumer}, which is asynchronous" if name else ""


def _fault_of_client(place: Place) -> str:
    """
    Say how a client is told that it sent the wrong thing, where one may have.
    """
    if place.inner or place.frame.f_code.co_name not in MESSAGE_HANDLERS:
        return ""
    return (
        "if the client sent the wrong thing, look before, and raise "
        "fairway.exceptions.ClientFault('expected ...'): that closes with 4400 and is one line here"
    )
