"""
The broker ``redis``: processes of many machines, over one or several Redis servers.

Needs the extra ``redis``; whoever imports this says so where it is missing.
"""

from fairway.layers.brokers.redis.broker import RedisBroker

__all__ = ["RedisBroker"]
