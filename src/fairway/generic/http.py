"""
The consumer of requests, where Channels has it.
"""

from fairway.consumers.http import AsyncHttpConsumer

__all__ = ["AsyncHttpConsumer"]
