"""
The ends of processes that ``atexit`` does not see: children of multiprocessing and of Celery.

Such children end by ``os._exit``, each kind after a word of its own. Nothing of theirs is
imported here: who is such a child has it loaded already. What is to be done is in ``owner``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["at_end", "forked"]


def at_end(function: Callable[[], None]) -> None:
    """
    Have a function called at the end of this process, if it is such a child. May be called often.
    """
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        # Its prefork pool has nothing but a signal, and waits for whoever hears it.
        def hear(**signal: Any) -> None:
            function()

        signals.worker_process_shutdown.connect(hear, weak=False, dispatch_uid="fairway")
    for name in ("multiprocessing.util", "billiard.util"):
        util = sys.modules.get(name)
        if util is not None and name not in _told:
            _told.add(name)
            util.Finalize(None, function, exitpriority=0)


def forked() -> None:
    """
    Begin anew in a child process, which has none of its parent's ends.
    """
    _told.clear()


_told: set[str] = set()
