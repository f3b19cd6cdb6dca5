"""
The words of the server: one line per event, and never a raw byte of the peer.
"""

from __future__ import annotations

import logging

import pytest

from fairway.faults import Fault
from fairway.server import log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/plain path/é✓", "/plain path/é✓"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\u2028b\u202eb", r"a\u2028b\u202eb"),
        ("\x00\x85", r"\x00\x85"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """
    What could end a line or steer a terminal is escaped; what is long is cut.
    """
    assert log.printable(text) == shown


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ({"type": "http", "method": "GET", "path": "/"}, "GET /"),
        ({"type": "websocket", "path": "/a\nb"}, r"WebSocket /a\nb"),
        ({"type": "lifespan"}, "lifespan "),
    ],
)
def test_subject(scope: dict[str, str], name: str) -> None:
    """
    An exchange is named by its kind and path.
    """
    assert log.subject(scope) == name


def test_faults(caplog: pytest.LogCaptureFixture) -> None:
    """
    Faults of peer and application are one line without a traceback.
    """
    scope = {"type": "http", "method": "GET", "path": "/"}
    log.refused(scope, 404, "", Fault.ROUTE_NOT_FOUND)
    log.refused(scope, 404, "no\nroute", Fault.ROUTE_NOT_FOUND)
    log.application_fault(scope, "sent %d bytes too many", 3)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "GET / refused with 404: - [fairway.R201]"),
        ("WARNING", r"GET / refused with 404: no\nroute [fairway.R201]"),
        ("ERROR", "GET /: the application sent 3 bytes too many [fairway.R307]"),
    ]
    assert not any(record.exc_info for record in caplog.records)


def test_error(caplog: pytest.LogCaptureFixture) -> None:
    """
    An exception of the application is recorded with its traceback.
    """
    error = ValueError("secret")
    log.application_error({"type": "websocket", "path": "/"}, error)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "WebSocket /: the application raised ValueError [fairway.R304]"
    assert record.exc_info
    assert record.exc_info[1] is error


@pytest.mark.parametrize(("status", "phrase"), [(404, b"Not Found"), (599, b"Error")])
def test_phrase(status: int, phrase: bytes) -> None:
    """
    Every status has words.
    """
    assert log.phrase(status) == phrase
