"""
Fairway's own server: sockets, flow control, processes and ASGI calls.

Knows nothing of Django, settings or channel layers: options and callables come
in as arguments. ``Server`` is the way in; what it is made of is imported with it,
so that a supervisor, which serves nothing, stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.lazy import lazy_names

if TYPE_CHECKING:
    from fairway.server.run import Server

__all__ = ["Server"]

__getattr__, __dir__ = lazy_names(__name__, {"Server": "fairway.server.run"})
