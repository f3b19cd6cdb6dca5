"""
Where Fairway's own log lines go when a project says nothing about them.

Every logger of Fairway is ``fairway`` or below. They are written to stderr by one
handler, unless ``LOGGING`` names one of them, or the root logger writes there already.
Warnings of Python that tell of a fault become such lines too, in a process that serves.
"""

from __future__ import annotations

import inspect
import linecache
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from stat import S_ISREG
from time import localtime, strftime, time
from types import FrameType
from typing import Any

from fairway.faults import Fault
from fairway.server.log import FORMAT

__all__ = ["configure_logging", "show_warnings"]

WRITE_BYTES_MAX = 4096
"""
What one write may hold, so that pipes keep the lines of several processes apart (PIPE_BUF).
"""

LINE_MAX = 80
"""
Characters of a project's line that are repeated.
"""

NEVER_AWAITED = r"coroutine '(.+)' was never awaited"
"""
What Python says of a coroutine that was thrown away.
"""


_AWAITING = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class StderrHandler(logging.StreamHandler[Any]):
    """
    Fairway's own handler; its class tells it apart from a project's.

    It looks ``sys.stderr`` up for each line, so that redirecting works.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self._form = logging.Formatter(FORMAT)
        self.setFormatter(self._form)
        self._second = 0
        self._clock = ""

    @property
    def stream(self) -> Any:
        """
        The present stderr.
        """
        return sys.stderr

    @property
    def takes_lines(self) -> bool:
        """
        Whether lines look the same as records do: nobody has changed the handler.
        """
        return self.formatter is self._form and not self.filters and self.level <= logging.INFO

    def write_lines(self, name: str, lines: list[str]) -> None:
        """
        Write lines of one logger with as few writes as may be, each as a record of its own looks.

        Args:
            name: The logger's.
            lines: What it says with ``INFO``, without line ends.
        """
        head = self._head(name)
        text = head + f"\n{head}".join(lines) + "\n"
        if (len(text) <= WRITE_BYTES_MAX and text.isascii()) or self._is_file():
            self._write(name, text)
            return
        data = text.encode(errors="backslashreplace")
        begin = 0
        while begin < len(data):
            # Up to the last line's end that fits; a line that does not fit by itself is whole, too.
            fits = data.rfind(b"\n", begin, begin + WRITE_BYTES_MAX)
            end = 1 + (fits if fits >= 0 else data.index(b"\n", begin))
            self._write(name, data[begin:end].decode())
            begin = end

    def _is_file(self) -> bool:
        """
        Whether lines go to a file, which keeps what processes write apart, whatever its size.
        """
        try:
            return S_ISREG(os.fstat(self.stream.fileno()).st_mode)
        except (AttributeError, OSError, ValueError):
            return False

    def _head(self, name: str) -> str:
        """
        Give what the lines of a logger begin with now.
        """
        now = time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._clock = strftime(logging.Formatter.default_time_format, localtime(second))
        at = f"{self._clock},{int((now - second) * 1000):03}"
        return FORMAT % {"asctime": at, "levelname": "INFO", "name": name, "message": ""}

    def _write(self, name: str, text: str) -> None:
        """
        Write as ``emit`` does, whatever becomes of it.
        """
        with self.lock or nullcontext():
            try:
                self.stream.write(text)
                self.flush()
            except Exception:  # noqa: BLE001 - as ``emit`` does
                self.handleError(
                    logging.LogRecord(name, logging.INFO, __file__, 0, text, None, None)
                )


def configure_logging(setting: Mapping[str, Any] | None = None) -> None:
    """
    See to it that Fairway's lines are seen. May be called again, after the project's own.

    Args:
        setting: The project's ``LOGGING``, in the form of ``logging.config.dictConfig``.
    """
    logger = logging.getLogger("fairway")
    _enable_again()
    own = [handler for handler in logger.handlers if isinstance(handler, StderrHandler)]
    if _is_named(setting or {}) or _root_writes_there():
        for handler in own:
            logger.removeHandler(handler)
        return
    if not own:
        logger.addHandler(StderrHandler())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def show_warnings(*, deprecations: bool = True) -> None:
    """
    Make one line each of the warnings that tell of a fault, for as long as the process lives.

    That is a coroutine thrown away, whatever filters say: what it should have done was not done;
    and a warning that ends with an id. Python gives each once per place. Costs nothing where
    nothing is wrong. May be called again.

    Args:
        deprecations: Whether those of Fairway's are shown: of several workers, which all load
            the same project, one says it.
    """
    warnings.filterwarnings("default", NEVER_AWAITED, RuntimeWarning)
    if deprecations:
        warnings.filterwarnings("default", r".*\[fairway\.R\d+\]\Z", DeprecationWarning)
    below = warnings.showwarning
    if getattr(below, "fairway", False):
        return

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        text = str(message)
        lost = re.fullmatch(NEVER_AWAITED, text)
        if lost and file is None:
            frame = _frame_at(filename, lineno)
            words = _describe_loss(lost[1], frame, filename, lineno)
            logging.getLogger("fairway").error("%s [%s]", words, Fault.NEVER_AWAITED)
        elif text.endswith("]") and "[fairway.R" in text and file is None:
            logging.getLogger("fairway").warning("%s", text)
        else:
            below(message, category, filename, lineno, file, line)

    vars(showwarning)["fairway"] = True
    warnings.showwarning = showwarning


def _describe_loss(coroutine: str, frame: FrameType | None, filename: str, lineno: int) -> str:
    """
    Say which coroutine was thrown away where, and what is missing there.
    """
    name = coroutine.rpartition(".")[2]
    line = linecache.getline(filename, lineno).partition("  #")[0].strip()
    written = re.search(rf"[\w.]*\b{name}(?=\()", line)
    call = written[0] if written else name
    fix, place = f"write await {call}(...)", "where is not known"
    if line:
        place = f"{filename}, line {lineno}"
    if name.startswith("__") and line:
        # An object that is called, as what database_sync_to_async gives.
        fix = f"write await in front of {line[:LINE_MAX]}"
    if frame is not None:
        place = f"{frame.f_code.co_qualname}(), {place}"
        if str(frame.f_globals.get("__name__")).startswith("fairway."):
            # Not made here, but called from here, or held until a handler ended.
            place = "where is not known"
            if _is_handler(coroutine, frame):
                fix = f"write def {name}"
                place = "it belongs to a consumer that is not asynchronous"
        elif not frame.f_code.co_flags & _AWAITING:
            fix = _ordinary_fix(name, call, frame)
    return f"{coroutine}() was never awaited, so nothing was done: {fix} ({place})"


def _ordinary_fix(name: str, call: str, frame: FrameType) -> str:
    """
    Say what a function that is no coroutine writes in place of a call.
    """
    if getattr(frame.f_locals.get("self"), "_sync", True) is False:
        return f"write async def {frame.f_code.co_name}, and await {call}(...) in it"
    if name.startswith("__"):
        return "call the function itself, or by async_to_sync"
    if name == "abroadcast":
        return f"write {call.removesuffix(name)}broadcast(...)"
    return f"write async_to_sync({call})(...)"


def _is_handler(coroutine: str, frame: FrameType) -> bool:
    """
    Whether a coroutine is a method of the synchronous consumer that a frame of Fairway's calls.
    """
    called = frame.f_locals
    consumer = called.get("self", getattr(called.get("handler"), "__self__", None))
    owners = {each.__qualname__ for each in type(consumer).__mro__}
    return getattr(consumer, "_sync", False) and coroutine.rpartition(".")[0] in owners


def _frame_at(filename: str, lineno: int) -> FrameType | None:
    """
    Find the frame that a warning is about, if it still runs.
    """
    frame = inspect.currentframe()
    while frame is not None and (frame.f_code.co_filename, frame.f_lineno) != (filename, lineno):
        frame = frame.f_back
    return frame


def _is_named(setting: Mapping[str, Any]) -> bool:
    """
    Whether ``LOGGING`` says something about a logger of Fairway.
    """
    return any(_is_ours(name) for name in setting.get("loggers", {}))


def _root_writes_there() -> bool:
    """
    Whether the root logger shows what reaches it on this terminal.
    """
    return any(
        isinstance(handler, logging.StreamHandler) and handler.stream in {sys.stderr, sys.stdout}
        for handler in logging.getLogger().handlers
    )


def _enable_again() -> None:
    """
    Undo ``disable_existing_loggers``, which silences loggers made before ``LOGGING`` was read.
    """
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and _is_ours(name):
            logger.disabled = False


def _is_ours(name: str) -> bool:
    return name == "fairway" or name.startswith("fairway.")
