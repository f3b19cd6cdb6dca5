"""
A flood of one kind of event is one log line per interval.
"""

from __future__ import annotations

import logging

import pytest

from fairway.layers import notices as module
from fairway.layers.notices import INTERVAL_SECONDS, Notices


def test_each_kind_is_said_once_per_interval(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The next line tells how many were left out.
    """
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    notices = Notices(logging.getLogger("fairway.layers"))
    for number in range(3):
        notices.say("full", "channel %d is full", number)
    notices.say("gap", "gap")
    now += INTERVAL_SECONDS
    notices.say("full", "channel %d is full", 9)
    assert caplog.messages == [
        "channel 0 is full",
        "gap",
        "channel 9 is full (and 2 times since the last such line)",
    ]


def test_what_was_said_elsewhere_is_held_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    For the rest of an interval, which that does not make longer.
    """
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    notices = Notices(logging.getLogger("fairway.layers"))
    notices.hold("away")
    now += INTERVAL_SECONDS / 2
    notices.hold("away")
    assert not notices.say("away", "still away")
    now += INTERVAL_SECONDS / 2
    assert notices.say("away", "still away")
    assert caplog.messages == ["still away (and 1 times since the last such line)"]
