"""
Fairway's own server: sockets, flow control and ASGI calls.

Knows nothing of Django, settings or channel layers: options and callables come
in as arguments. ``run`` is the way in.
"""

from __future__ import annotations

from fairway.server.run import Server, run

__all__ = ["Server", "run"]
