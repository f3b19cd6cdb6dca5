"""
The access log's lines: together where only Fairway's handler hears them, else each by itself.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
from pathlib import Path

import pytest

from fairway.logs import WRITE_BYTES_MAX, StderrHandler
from fairway.server.access import LINES_MAX, AccessLines

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO tests\.lines: "


class Writes(io.StringIO):
    """
    A stream that notes each write.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str, /) -> int:
        """
        Note it.
        """
        self.writes.append(text)
        return len(text)


class Handler(StderrHandler):
    """
    Fairway's handler with a stream of the test's own.
    """

    def __init__(self, stream: Writes) -> None:
        super().__init__()
        self.said = stream

    @property
    def stream(self) -> Writes:
        """
        See ``StderrHandler``.
        """
        return self.said


@pytest.fixture
def stream() -> Writes:
    """
    What stands in the place of stderr.
    """
    return Writes()


def new_logger(name: str, handler: logging.Handler) -> logging.Logger:
    """
    Make a logger that one handler hears, and none of pytest's.
    """
    logger = logging.Logger(name, logging.INFO)  # noqa: LOG001 - pytest finds the others
    logger.addHandler(handler)
    return logger


@pytest.fixture
def logger(stream: Writes) -> logging.Logger:
    """
    A logger that only Fairway's handler hears.
    """
    return new_logger("tests.lines", Handler(stream))


class Ear(logging.Handler):
    """
    A project's handler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """
        Note it.
        """
        self.records.append(record)


async def test_lines_of_a_turn_are_one_write(logger: logging.Logger, stream: Writes) -> None:
    """Each line looks as a record of its own would, and comes at the end of the turn, in order."""
    lines = AccessLines(asyncio.get_running_loop(), logger)
    for status in (200, 404, 500):
        lines.add("127.0.0.1", "GET /%s", status)
    assert stream.writes == []
    await asyncio.sleep(0)
    (text,) = stream.writes
    assert re.fullmatch(
        "".join(rf"{LINE}127\.0\.0\.1 GET /%s {status}\n" for status in (200, 404, 500)), text
    )
    lines.add("-", "WebSocket /ws", 101)
    await asyncio.sleep(0)
    logger.info("%s", "- WebSocket /ws 101")
    one, other = (text.partition(" INFO ")[2] for text in stream.writes[1:])
    assert one == other


async def test_no_write_is_torn(logger: logging.Logger, stream: Writes) -> None:
    """What pipes might mix with another process's lines is written in whole lines."""
    lines = AccessLines(asyncio.get_running_loop(), logger)
    for number in range(200):
        lines.add("127.0.0.1", f"GET /{number}/{'€' * (number % 50)}", 200)
    await asyncio.sleep(0)
    assert 1 < len(stream.writes) < 100
    for text in stream.writes:
        assert len(text.encode()) <= WRITE_BYTES_MAX
        assert text.endswith("\n")
    found = re.findall(rf"(?m)^{LINE}127\.0\.0\.1 GET /(\d+)/", "".join(stream.writes))
    assert found == [str(number) for number in range(200)]


async def test_a_file_gets_a_turn_in_one_write(
    logger: logging.Logger, stream: Writes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file keeps apart what processes write, so the lines of a turn stay together."""
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(stream, "fileno", file.fileno)
        lines = AccessLines(asyncio.get_running_loop(), logger)
        for number in range(200):
            lines.add("-", f"GET /{number}", 200)
        await asyncio.sleep(0)
    (text,) = stream.writes
    assert text.count("\n") == 200


async def test_a_line_is_whole_whatever_its_length(logger: logging.Logger, stream: Writes) -> None:
    """One that is longer than a write should be is a write by itself; nothing cannot be said."""
    lines = AccessLines(asyncio.get_running_loop(), logger)
    long = "x" * (WRITE_BYTES_MAX + 1)
    for text in ("short", long, "\udc80", long):
        lines.add("-", text, 200)
    await asyncio.sleep(0)
    written = [re.sub(LINE, "", text) for text in stream.writes]
    assert written == [
        "- short 200\n",
        f"- {long} 200\n",
        "- \\udc80 200\n",
        f"- {long} 200\n",
    ]


async def test_lines_kept_are_bounded(logger: logging.Logger, stream: Writes) -> None:
    """A turn that answers very much writes before it ends."""
    lines = AccessLines(asyncio.get_running_loop(), logger)
    for _ in range(LINES_MAX):
        lines.add("-", "GET /", 200)
    assert "".join(stream.writes).count("\n") == LINES_MAX
    await asyncio.sleep(0)
    assert "".join(stream.writes).count("\n") == LINES_MAX


async def test_the_last_lines_are_written(logger: logging.Logger, stream: Writes) -> None:
    """What the turn's end would write can be written before, and is not written twice."""
    lines = AccessLines(asyncio.get_running_loop(), logger)
    lines.add("-", "GET /", 200)
    lines.write()
    assert len(stream.writes) == 1
    lines.write()
    await asyncio.sleep(0)
    assert len(stream.writes) == 1


@pytest.mark.parametrize("where", ["here", "above"])
async def test_a_project_hears_records(where: str, logger: logging.Logger, stream: Writes) -> None:
    """Any further handler gets each line at once as a record, with its parts and the status."""
    ear = Ear()
    if where == "above":
        logger.parent = new_logger("tests", ear)
    else:
        logger.addHandler(ear)
    lines = AccessLines(asyncio.get_running_loop(), logger)
    lines.add("::1", "GET /", 204)
    (record,) = ear.records
    assert record.getMessage() == "::1 GET / 204"
    assert record.args == ("::1", "GET /", 204)
    assert record.status_code == 204  # type: ignore[attr-defined] # by extra
    assert len(stream.writes) == 1
    await asyncio.sleep(0)
    assert len(stream.writes) == 1


@pytest.mark.parametrize("change", ["filter", "handler filter", "form", "level", "handler level"])
async def test_what_a_project_changes_holds(
    change: str, logger: logging.Logger, stream: Writes
) -> None:
    """A filter, another form or a level is kept to for each line."""
    (handler,) = logger.handlers
    if change == "filter":
        logger.addFilter(lambda record: record.args != ("-", "GET /hidden", 200))
    elif change == "handler filter":
        handler.addFilter(lambda record: record.args != ("-", "GET /hidden", 200))
    elif change == "form":
        handler.setFormatter(logging.Formatter("<%(message)s>"))
    elif change == "level":
        logger.setLevel(logging.WARNING)
    else:
        handler.setLevel(logging.WARNING)
    lines = AccessLines(asyncio.get_running_loop(), logger)
    lines.add("-", "GET /", 200)
    lines.add("-", "GET /hidden", 200)
    await asyncio.sleep(0)
    text = "".join(stream.writes)
    if "level" in change:
        assert text == ""
    elif change == "form":
        assert text == "<- GET / 200>\n<- GET /hidden 200>\n"
    else:
        assert re.fullmatch(rf"{LINE}- GET / 200\n", text)


async def test_a_stream_that_fails_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that cannot be written are given up as records are, and the next ones are tried."""

    class Broken(Writes):
        """
        A stream whose reader has gone.
        """

        def write(self, text: str, /) -> int:
            """
            Fail.
            """
            super().write(text)
            raise BrokenPipeError

    monkeypatch.setattr(logging, "raiseExceptions", False)
    stream = Broken()
    logger = new_logger("tests.lines", Handler(stream))
    lines = AccessLines(asyncio.get_running_loop(), logger)
    for status in (200, 201):
        lines.add("-", "GET /", status)
        await asyncio.sleep(0)
    assert len(stream.writes) == 2
