"""
Whatever is wanted, left, lost and delayed: what is called confirmed is subscribed to.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import integers, sampled_from

from fairway.layers.brokers.redis.subscriptions import Batch, Subscriptions

SUBJECTS = sampled_from(["a", "b", "c"])
DELAY = 3


class Machine(RuleBasedStateMachine):
    """
    Subscriptions, the commands on their way to a server, its state, and its answers on theirs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.subscriptions = Subscriptions()
        self.wanted: set[str] = set()
        self.lose()

    @rule(subject=SUBJECTS)
    def want(self, subject: str) -> None:
        """
        Somebody joins.
        """
        self.wanted.add(subject)
        self.subscriptions.want(subject)

    @rule(subject=SUBJECTS)
    def unwant(self, subject: str) -> None:
        """
        The last one leaves.
        """
        self.wanted.discard(subject)
        self.subscriptions.unwant(subject, self.now + DELAY)

    @rule(seconds=integers(1, DELAY + 1))
    def wait(self, seconds: int) -> None:
        """
        Time passes.
        """
        self.now += seconds
        self.subscriptions.expire(self.now)

    @rule(size=integers(1, 3))
    def write(self, size: int) -> None:
        """
        The turn ends.
        """
        self.commands.extend(self.subscriptions.take(self.now, size))

    @rule()
    def serve(self) -> None:
        """
        The server executes a command.
        """
        if self.commands:
            begins, subjects = self.commands.popleft()
            for subject in subjects:
                if begins:
                    self.subscribed.add(subject)
                else:
                    self.subscribed.discard(subject)
                self.answers += 1

    @rule()
    def answer(self) -> None:
        """
        One of its answers arrives.
        """
        if self.answers:
            self.answers -= 1
            self.subscriptions.confirm()

    @rule()
    def lose(self) -> None:
        """
        The link is replaced by another one.
        """
        self.commands: deque[Batch] = deque()
        self.subscribed: set[str] = set()
        self.answers = 0
        self.subscriptions.begin()

    @invariant()
    def confirmed_is_subscribed(self) -> None:
        """
        Who was told that a subject is confirmed gets its messages.
        """
        for subject in self.wanted:
            known = self.subscriptions.get(subject)
            assert known is not None
            assert known.wanted
            if known.confirmed:
                assert subject in self.subscribed

    def teardown(self) -> None:
        """
        Once everything has been said, exactly what is wanted is confirmed and subscribed to.
        """
        self.wait(DELAY + 1)
        self.write(2)
        while self.commands:
            self.serve()
        while self.answers:
            self.answer()
        assert self.subscribed == self.wanted
        assert len(self.subscriptions) == len(self.wanted)
        for subject in self.wanted:
            known = self.subscriptions.get(subject)
            assert known is not None
            assert known.confirmed


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestSubscriptions = Machine.TestCase
