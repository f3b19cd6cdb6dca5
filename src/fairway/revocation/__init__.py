"""
Taking back what a login allowed: whose connections are open, and closing them.

``orders`` says in all processes that a user's or session's connections are to be closed;
``watch`` has Django tell it when. A ``roll`` knows the connections of one event loop by text
ids, hears the orders and closes; ``rolls`` finds the right one. ``recheck`` asks the database what
nobody was told. Nothing but names lives in this file. Finding users is the business of ``auth``.
"""

from fairway.revocation.orders import adisconnect, disconnect, held_back
from fairway.revocation.recheck import is_hash_valid
from fairway.revocation.rolls import enter, is_on, leave, refresh

__all__ = [
    "adisconnect",
    "disconnect",
    "enter",
    "held_back",
    "is_hash_valid",
    "is_on",
    "leave",
    "refresh",
]
