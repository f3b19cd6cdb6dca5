"""
What is measured and which figure each row has to reach: data only, a module for each kind.

A block is measured in one go: each of its tasks once per repetition. A row compares one task with
another inside each repetition, or with a number; a table has the same test for everybody. Bars and
aims are those of the project's design; ``C`` is the floor, ``P`` the bare protocol.
"""

from __future__ import annotations

from benchmarks.harness.blocks import http, memory, processes, sockets
from benchmarks.harness.rows import Block

__all__ = ["BLOCKS"]

BLOCKS: tuple[Block, ...] = (
    *sockets.BLOCKS,
    *http.BLOCKS,
    *memory.BLOCKS,
    *processes.BLOCKS,
)
"""
In the order in which they are measured and shown.
"""
