"""
From a scope to the application that answers it.

The three routers that projects write down (``ProtocolTypeRouter``, ``URLRouter``,
``ChannelNameRouter``) and the one nobody has to write: ``UrlconfRouter`` finds
consumers in the project's own ``urls.py``. No sessions, users or origins here, and
nothing that speaks a protocol.
"""

from fairway.routing.callables import get_default_application, single_callable
from fairway.routing.matching import Match
from fairway.routing.routers import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from fairway.routing.urlconf import UrlconfRouter

__all__ = [
    "ChannelNameRouter",
    "Match",
    "ProtocolTypeRouter",
    "URLRouter",
    "UrlconfRouter",
    "get_default_application",
    "single_callable",
]
