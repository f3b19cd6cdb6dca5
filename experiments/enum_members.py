"""
Look members of an enum up once where they are met in each request or message.

Decides: the names in front of ``server/exchange.py`` and ``server/outbox.py`` (``_OPEN``).
Run: ``python experiments/enum_members.py``
Result: 75 ns through the class on Python 3.11, 5 ns through the module.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import compare, show
from fairway.server.outbox import OutboxState

_OPEN = OutboxState.OPEN


def by_class(times: int) -> None:
    """
    Ask the class each time.
    """
    state = _OPEN
    for _ in range(times):
        assert state is OutboxState.OPEN


def by_name(times: int) -> None:
    """
    Ask the module.
    """
    state = _OPEN
    for _ in range(times):
        assert state is _OPEN


def nothing(times: int) -> None:
    """
    Go round the loop.
    """
    for _ in range(times):
        pass


def main(count: int = 1_000_000) -> dict[str, float]:
    """
    Compare a state with a member.
    """
    found = compare({"class": by_class, "name": by_name, "loop": nothing}, count)
    loop = found.pop("loop")
    return show({name: max(0.0, value - loop) for name, value in found.items()})


if __name__ == "__main__":
    main()
