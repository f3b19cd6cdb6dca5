"""
Ends of children that have no ``atexit``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fairway.layers import children


class Programs:
    """
    Modules as multiprocessing, billiard and Celery have them, and what they were told.
    """

    def __init__(self) -> None:
        self.finalizers: list[tuple[Callable[[], None], int]] = []
        self.receivers: dict[str, Callable[..., None]] = {}
        self.util = SimpleNamespace(Finalize=self._finalize)
        self.signals = SimpleNamespace(
            worker_process_shutdown=SimpleNamespace(connect=self._connect)
        )

    def _finalize(self, of: None, function: Callable[[], None], *, exitpriority: int) -> None:
        self.finalizers.append((function, exitpriority))

    def _connect(self, receiver: Callable[..., None], *, weak: bool, dispatch_uid: str) -> None:
        assert not weak
        self.receivers[dispatch_uid] = receiver


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Programs]:
    """
    A process that has loaded all of them.
    """
    programs = Programs()
    for name in ("multiprocessing.util", "billiard.util"):
        monkeypatch.setitem(sys.modules, name, programs.util)
    monkeypatch.setitem(sys.modules, "celery.signals", programs.signals)
    children.forked()
    yield programs
    children.forked()


def test_each_kind_is_told_once(programs: Programs) -> None:
    """
    However often something is published.
    """
    called: list[str] = []

    def leave() -> None:
        called.append("left")

    for _ in range(3):
        children.at_end(leave)
    assert programs.finalizers == [(leave, 0), (leave, 0)]
    (receiver,) = programs.receivers.values()
    signal: dict[str, Any] = {"sender": "celery@host", "pid": 1, "exitcode": 0, "signal": None}
    receiver(**signal)
    assert called == ["left"]


def test_a_forked_child_is_told_anew(programs: Programs) -> None:
    """
    Its parent's finalizers are not its own.
    """
    children.at_end(programs.finalizers.clear)
    children.forked()
    children.at_end(programs.finalizers.clear)
    assert len(programs.finalizers) == 4


def test_nothing_of_theirs_is_imported(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process without them publishes without them.
    """
    for name in ("multiprocessing.util", "billiard.util", "celery.signals"):
        monkeypatch.delitem(sys.modules, name)
    children.at_end(programs.finalizers.clear)
    assert (programs.finalizers, programs.receivers) == ([], {})
    assert "celery.signals" not in sys.modules
