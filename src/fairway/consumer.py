"""
The base classes of consumers, where Channels has them; their home is ``consumers``.
"""

from fairway.consumers.base import AsyncConsumer, SyncConsumer, get_handler_name

__all__ = ["AsyncConsumer", "SyncConsumer", "get_handler_name"]
