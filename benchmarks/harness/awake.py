"""
Keeps the measured cores awake, so that they stay where their host has put them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.harness.build import build
from benchmarks.harness.machine import Cores, pinned

__all__ = ["kept_awake"]


@contextmanager
def kept_awake(cores: Cores) -> Iterator[None]:
    """
    Run a process of the lowest priority on each core; ``c/awake.c`` says why.
    """
    program = build("awake")
    with ExitStack() as stack:
        for core in {cores.server, cores.load}:
            with pinned(core):
                process = stack.enter_context(subprocess.Popen([program]))
            # Unwound in reverse: first told to end, then waited for.
            stack.callback(process.terminate)
        yield
