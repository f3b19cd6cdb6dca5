"""
Every fault that a user can cause at run time, by its id: the floor's list of names.

A line of the log that reports one ends with its id in brackets, ``[fairway.R201]``, under which
``docs/errors.md`` says what was found, what follows and what helps. What ``manage.py check``
finds has ids of its own, in ``checks``.

R1xx start and configuration, R2xx routes and handshakes, R3xx consumers and messages, R4xx
channel layer and publishing, R5xx identity and limits, R6xx pages and threads, R7xx commands.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Fault"]


class Fault(StrEnum):
    """
    The ids of faults, as they are logged.
    """

    ROUTE_NOT_FOUND = "fairway.R201"
    """
    A WebSocket asks for a path that leads to no consumer; it is refused with 404.
    """
