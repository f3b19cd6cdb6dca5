"""
The date of responses.
"""

from __future__ import annotations

import pytest

from fairway.server import clock


def test_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The line is in the form of RFC 9110 and made once a second.
    """
    date = clock.DateHeader()
    monkeypatch.setattr(clock, "time", lambda: 784111777.9)
    line = date.line()
    assert line == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    assert date.line() is line
    monkeypatch.setattr(clock, "time", lambda: 784111778.0)
    assert date.line() == b"date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
