"""
What Channels' module of this name has and subclasses of consumers call.
"""

from fairway.consumers.sources import await_many_dispatch

__all__ = ["await_many_dispatch"]
