"""
Numbers on messages tell a receiver what is missing.
"""

from __future__ import annotations

import pytest

from fairway.layers import sequences
from fairway.layers.sequences import Hearing, Numbering


def test_each_subject_is_numbered_from_one() -> None:
    """
    Numbers count per subject.
    """
    numbering = Numbering("p")
    assert [numbering.number("a"), numbering.number("a"), numbering.number("b")] == [1, 2, 1]
    assert numbering.sender == "p"


def test_too_many_subjects_begin_anew_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The memory of numbers is bounded, and no receiver takes a new count for an old one.
    """
    monkeypatch.setattr(sequences, "SUBJECTS_MAX", 2)
    numbering = Numbering("p")
    for subject in "aba":
        numbering.number(subject)
    assert numbering.sender == "p"
    assert numbering.number("c") == 1
    assert numbering.sender == "p.1"
    assert numbering.number("a") == 1


def test_holes_and_repetitions_are_noticed() -> None:
    """
    The first message of a sender says nothing; from then on every hole is counted once.
    """
    hearing = Hearing()
    assert [hearing.missing("p", number) for number in (5, 6, 9, 9, 8, 10)] == [0, 0, 2, -1, -1, 0]
    assert hearing.missing("q", 1) == 0


def test_too_many_senders_are_forgotten_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The memory of senders is bounded; one forgotten is new again.
    """
    monkeypatch.setattr(sequences, "SENDERS_MAX", 2)
    hearing = Hearing()
    for sender in "abc":
        hearing.missing(sender, 1)
    assert hearing.missing("a", 9) == 0
    assert hearing.missing("c", 9) == 7
