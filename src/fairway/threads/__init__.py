"""
Which thread runs the synchronous work of a connection: a few threads shared by all of them.

asgiref sends thread-sensitive work to the executor of the current ``ThreadSensitiveContext``.
Under a Fairway server each connection has one of these, and all are mapped to one executor
that serves every connection's work in order, on any free thread of a bounded pool. No settings
and no databases here; ``thread_connections`` knows the latter. Nothing but names lives in this
file: ``calls`` for handlers, ``mapping`` for asgiref, ``pool`` and ``gauge`` for who is next, and
``seats``, ``lanes``, ``jobs``.
"""

from fairway.threads.calls import enter, give_up, leave, own_context, rest, watch
from fairway.threads.lanes import Lane, Ledger, Use, in_use
from fairway.threads.mapping import Threads
from fairway.threads.seats import Seat

__all__ = [
    "Lane",
    "Ledger",
    "Seat",
    "Threads",
    "Use",
    "enter",
    "give_up",
    "in_use",
    "leave",
    "own_context",
    "rest",
    "watch",
]
