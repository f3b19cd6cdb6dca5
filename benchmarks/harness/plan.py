"""
How long and how often to measure, and what one measurement leaves behind.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNITS", "Plan", "Repetition", "Sample"]

UNITS = {"us": 1, "KiB": 1024, "MiB": 1024**2}
"""
What a sample's value is divided by to be shown in a unit.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    How long and how often to measure.

    Attributes:
        repeat: Repetitions in any case.
        repeat_max: Repetitions at most, while a row with a bar is not steady.
        warmup: Seconds of work before each window.
        seconds: Length of each window.
        warm_sockets: Sockets held before memory is read for the first time.
        idle_sockets: Sockets held then, and those of any task at most; 0 takes what the task says.
        settle: Seconds between the last handshake and reading memory.
        distance: Nanoseconds the cores have to be apart for a sample to count.
        patience: Seconds after which it counts all the same, with its own distance.
        server_command: How an ASGI application of Fairway's is served; empty is by Fairway.
        peers: Whether facts look at what others made, too.
    """

    repeat: int = 5
    repeat_max: int = 15
    warmup: float = 0.5
    seconds: float = 2.0
    warm_sockets: int = 500
    idle_sockets: int = 0
    settle: float = 1.0
    distance: int = 0
    patience: float = 40.0
    server_command: str = ""
    peers: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One task, measured once.

    Attributes:
        value: Microseconds of server CPU per operation, or what else the task's unit counts, in
            bytes where it is memory.
        operations: How many were counted.
        server_busy: Share of the window in which the server had the processor.
        load_busy: The same of the load generator.
        distance: Nanoseconds the cores were apart before or after, whichever was odder.
        failed: Why there is no value; empty where there is one.
    """

    value: float
    operations: int
    server_busy: float = 0.0
    load_busy: float = 0.0
    distance: int = 0
    failed: str = ""


Repetition = dict[str, Sample]
"""
A sample of each task that took part, by its name.
"""
