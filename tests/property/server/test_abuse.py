"""
The score of a connection, one number of seconds, against a bucket of points that leaks.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given, strategies as st

from fairway.options import ServerOptions
from fairway.server.abuse import Abuse, is_flood

STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.25, 1.0, 60.0]), st.sampled_from(Abuse)), max_size=200
)


@given(STEPS, st.integers(0, 20), st.sampled_from([0.25, 4.0, 128.0]))
def test_a_leaky_bucket(steps: list[tuple[float, Abuse]], points_max: int, rate: float) -> None:
    """
    Points come in, the rate goes out, never below nothing; above the limit it is a flood.
    """
    options = ServerOptions(abuse_points_max=points_max, abuse_points_rate=rate)
    loop = SimpleNamespace(now=1000.0)
    loop.time = lambda: loop.now
    connection: Any = SimpleNamespace(
        worker=SimpleNamespace(loop=loop, options=options), forgiven_at=0.0
    )
    points = 0.0
    for seconds, abuse in steps:
        loop.now += seconds
        points = max(0.0, points - seconds * rate) + abuse.points
        assert is_flood(connection, abuse) == (0 < points_max < points)
