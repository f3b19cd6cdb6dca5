"""
Take the mask off a payload as one large number, since no loop over bytes is fast in Python.

Decides: ``wire/websocket.py`` (``_unmask``).
Run: ``python experiments/unmasking.py``
Result: 128 bytes cost 0.6 us as a number and 6.2 us in a loop; tables, of which each frame would
need its own set, are no faster.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import Way, compare, show

KEY = b"\x17\x2a\x55\xf0"
SIZES = (16, 128, 4096)


def by_number(payload: bytes) -> bytes:
    """
    Compute with all of it at once.
    """
    size = len(payload)
    mask = (KEY * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")
    return number.to_bytes(size, "little")


def by_bytes(payload: bytes) -> bytes:
    """
    Go through it.
    """
    return bytes(byte ^ key for byte, key in zip(payload, cycle(KEY), strict=False))


def by_tables(payload: bytes) -> bytes:
    """
    Translate every fourth byte, four times.
    """
    result = bytearray(len(payload))
    for place in range(4):
        result[place::4] = payload[place::4].translate(TABLES[place])
    return bytes(result)


TABLES = [bytes(byte ^ key for byte in range(256)) for key in KEY]
# A table holds for one key, and each frame has another.


def main(count: int = 2000) -> dict[str, float]:
    """
    Unmask payloads of several sizes in three ways.
    """
    found: dict[str, float] = {}
    for size in SIZES:
        payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
        assert by_number(payload) == by_bytes(payload) == by_tables(payload)

        def repeat(way: Callable[[bytes], bytes], payload: bytes = payload) -> Way:
            def times(count: int) -> None:
                for _ in range(count):
                    way(payload)

            return times

        ways = {"number": by_number, "tables, made before": by_tables, "bytes": by_bytes}
        named = {f"{size} bytes, {name}": repeat(way) for name, way in ways.items()}
        found |= show(compare(named, count))
    return found


if __name__ == "__main__":
    main()
