"""
The buckets give what token buckets give, and their table keeps its size.
"""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, strategies as st

from fairway.ratelimits.buckets import Buckets


class Model:
    """
    Token buckets as the textbook has them, without rounding and without end.
    """

    def __init__(self, per_minute: int, burst: int) -> None:
        self.rate = Fraction(per_minute, 60)
        self.burst = burst
        self.buckets: dict[int, tuple[Fraction, Fraction]] = {}

    def take(self, key: int, now: Fraction) -> Fraction:
        """
        Take a token, or give the time until there is one.
        """
        tokens, seen = self.buckets.get(key, (Fraction(self.burst), now))
        tokens = min(Fraction(self.burst), tokens + (now - seen) * self.rate)
        taken = tokens >= 1
        self.buckets[key] = (tokens - 1 if taken else tokens, now)
        return Fraction(0) if taken else (1 - tokens) / self.rate


class Clock:
    """
    Shows the time that a test sets.
    """

    def __init__(self) -> None:
        self.now = Fraction(1000)

    def __call__(self) -> float:
        """
        Tell it.
        """
        return float(self.now)


# Steps of eighths of a second: exact as floats, so that nothing is decided by rounding.
steps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400)), max_size=80)


@given(st.sampled_from([1, 6, 30, 60, 120, 480]), st.integers(1, 20), steps)
def test_they_are_token_buckets(per_minute: int, burst: int, taken: list[tuple[int, int]]) -> None:
    """With room for all keys, each take says what the model says, and when to come again."""
    clock = Clock()
    buckets, model = Buckets(per_minute, burst, 16, clock), Model(per_minute, burst)
    for key, eighths in taken:
        clock.now += Fraction(eighths, 8)
        wait, expected = buckets.take(key), model.take(key, clock.now)
        assert bool(wait) == bool(expected)
        assert abs(wait - expected) < 1e-4
        if wait:
            # Whoever waits so long gets one.
            assert buckets.take(key) > 0


@given(
    st.integers(1, 40), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 80)), max_size=300)
)
def test_the_table_keeps_its_size(entries_max: int, taken: list[tuple[int, int]]) -> None:
    """However many keys come, no more than the allowed number is remembered."""
    clock = Clock()
    buckets = Buckets(60, 3, entries_max, clock)
    for key, eighths in taken:
        clock.now += Fraction(eighths, 8)
        buckets.take(key)
        assert len(buckets) <= entries_max


@given(st.integers(16, 200), st.integers(2, 30), st.integers(1, 5))
def test_newcomers_free_nobody(entries_max: int, burst: int, limited: int) -> None:
    """Who is limited stays so while ten times as many others come as there is room for."""
    buckets = Buckets(1, burst, entries_max, Clock())
    names = [f"limited {number}" for number in range(limited)]
    for name in names:
        while not buckets.take(name):
            pass
    for newcomer in range(10 * entries_max):
        assert not buckets.take(newcomer)
        if newcomer % entries_max == 0:
            assert all(buckets.take(name) for name in names)
    assert all(buckets.take(name) for name in names)


def test_what_says_nothing_goes_first() -> None:
    """A bucket that is full again makes room for others before any that is not."""
    clock = Clock()
    buckets = Buckets(60, 2, 16, clock)
    for key in range(16):
        buckets.take(key)
    clock.now += 60
    for key in range(100, 108):
        buckets.take(key)
    assert len(buckets) <= 16
    assert not buckets.take("new")
    assert all(buckets.take(key) == 0 and buckets.take(key) > 0 for key in range(100, 108))
