"""
How much a peer sends that reaches no application: one score per connection.

Control frames and fragments without content cost the server work and the peer next to nothing.
Each is a point or a part of one, points are forgiven steadily, and who has too many floods the
server. It is a leaky bucket, as HTTP/2 servers keep for pings and resets; messages and requests
are not counted here, since the application gets them and may count them itself. What becomes
of the connection is for its exchange.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairway.server.connection import Connection

__all__ = ["Abuse", "is_flood"]


class Abuse(Enum):
    """
    What is counted: the word for it in metrics, and its points.

    A tiny fragment is a sixteenth, so that a message of as many as one may have (65,536) passes.
    """

    CONTROL_FRAME = ("control_frames", 1.0)
    EMPTY_FRAGMENT = ("empty_fragments", 1.0)
    TINY_FRAGMENT = ("tiny_fragments", 1 / 16)

    def __init__(self, label: str, points: float) -> None:
        self.label = label
        self.points = points


def is_flood(connection: Connection, abuse: Abuse) -> bool:
    """
    Count something against a connection's peer. Event-loop thread only.

    The score is kept as the one number ``Connection.forgiven_at``: when nothing will be left of it.

    Returns:
        Whether the peer has now done more than is forgiven in time.
    """
    worker = connection.worker
    rate, points_max = worker.options.abuse_points_rate, worker.options.abuse_points_max
    now = worker.loop.time()
    at = connection.forgiven_at = max(connection.forgiven_at, now) + abuse.points / rate
    # Less than the smallest offence, and more than what a float loses on the way.
    return 0 < points_max < (at - now) * rate - 0.01
