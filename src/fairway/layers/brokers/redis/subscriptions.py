"""
Which subjects one node is asked for, and which of them it has confirmed.

A subject is wanted from ``want`` on, and ended only when its ``unwant`` has stood for a while.
The server answers in the order in which it is asked, so a subject is confirmed once nothing
that was asked for it is unanswered. A new link, a new generation, begins with nothing asked.
Bookkeeping only: ``listener`` writes, reads and knows the time.
"""

from __future__ import annotations

import asyncio
from collections import deque

from fairway.exceptions import ChannelLayerUnavailable

__all__ = ["Batch", "Subscription", "Subscriptions"]

Batch = tuple[bool, list[str]]
"""
Subjects that one command names, and whether it subscribes to them.
"""


class Subscription:
    """
    What is known of one subject.

    Attributes:
        subject: Its name.
        wanted: Whether its messages are to be delivered.
        asked: Whether the last that was written of it on this link is a SUBSCRIBE.
        owed: SUBSCRIBEs on this link that are not answered yet.
        broken: Whether it was confirmed on a link that ended, and is not on this one yet.
        due: When it is to be ended, if it is still not wanted then.
        waiters: Who waits for the confirmation.
    """

    __slots__ = ("asked", "broken", "due", "owed", "subject", "waiters", "wanted")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.wanted = True
        self.asked = False
        self.owed = 0
        self.broken = False
        self.due = 0.0
        self.waiters: list[asyncio.Future[None]] = []

    @property
    def confirmed(self) -> bool:
        """
        Whether messages are sure to arrive on this link.
        """
        return self.asked and not self.owed

    def answer(self, error: Exception | None) -> None:
        """
        Tell whoever waits how it ended.
        """
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


class Subscriptions:
    """
    The subjects of one node, by their names.

    Attributes:
        generation: How many links there have been.
    """

    def __init__(self) -> None:
        self._all: dict[str, Subscription] = {}
        self._changed: dict[str, None] = {}
        self._leaving: deque[tuple[float, Subscription]] = deque()
        self._unanswered: deque[tuple[bool, deque[str]]] = deque()
        self.generation = 0

    def __len__(self) -> int:
        """
        How many subjects are wanted or not ended yet.
        """
        return len(self._all)

    def get(self, subject: str) -> Subscription | None:
        """
        Give what is known of a subject.
        """
        return self._all.get(subject)

    def want(self, subject: str) -> Subscription:
        """
        Have a subject, which may not be confirmed yet.
        """
        known = self._all.get(subject)
        if known is None:
            known = self._all[subject] = Subscription(subject)
        known.wanted = True
        if not known.asked:
            self._changed[subject] = None
        return known

    def unwant(self, subject: str, due: float) -> None:
        """
        Have a subject ended at some time, later than all before, unless it is wanted again.
        """
        known = self._all.get(subject)
        if known is not None and known.wanted:
            known.wanted = False
            known.due = due
            self._leaving.append((due, known))

    def expire(self, now: float) -> float | None:
        """
        See to it that what is due ends; give when the next is due.
        """
        while self._leaving:
            due, known = self._leaving[0]
            if due > now:
                return due
            self._leaving.popleft()
            if known.wanted or known.due != due or self._all.get(known.subject) is not known:
                continue
            if known.asked:
                self._changed[known.subject] = None
            elif not known.owed:
                del self._all[known.subject]
        return None

    def begin(self) -> None:
        """
        Begin on a new link: everything wanted is to be asked for again.
        """
        self.generation += 1
        self._unanswered.clear()
        self._changed.clear()
        for known in list(self._all.values()):
            known.broken = known.broken or known.confirmed
            known.asked, known.owed = False, 0
            if known.wanted:
                self._changed[known.subject] = None
            else:
                del self._all[known.subject]

    def revive(self) -> None:
        """
        Ask again for what is wanted and was refused.
        """
        for known in self._all.values():
            if known.wanted and not known.asked:
                self._changed[known.subject] = None

    @property
    def changed(self) -> bool:
        """
        Whether there is something to write.
        """
        return bool(self._changed)

    def take(self, now: float, size: int) -> list[Batch]:
        """
        Give what is to be written now, at most so many subjects in one command.
        """
        ends, begins = [], []
        for subject in self._changed:
            known = self._all.get(subject)
            if known is None:
                continue
            if known.wanted and not known.asked:
                known.asked = True
                known.owed += 1
                begins.append(subject)
            elif not known.wanted and known.asked and known.due <= now:
                known.asked = False
                ends.append(subject)
        self._changed.clear()
        batches = [
            (subscribes, subjects[start : start + size])
            for subscribes, subjects in ((False, ends), (True, begins))
            for start in range(0, len(subjects), size)
        ]
        self._unanswered.extend((subscribes, deque(batch)) for subscribes, batch in batches)
        return batches

    def confirm(self) -> Subscription | None:
        """
        Take the next answer; give the subject if that confirmed it.
        """
        if not self._unanswered:
            return None
        subscribes, subjects = self._unanswered[0]
        subject = subjects.popleft()
        if not subjects:
            self._unanswered.popleft()
        known = self._all.get(subject)
        if known is None:
            return None
        if subscribes:
            known.owed -= 1
            if known.confirmed:
                known.answer(None)
                return known
        if not (known.wanted or known.asked or known.owed):
            del self._all[subject]
        return None

    def refuse(self, error: ChannelLayerUnavailable) -> None:
        """
        Take the server's refusal of a whole command, the next to be answered.
        """
        if not self._unanswered:
            return
        subscribes, subjects = self._unanswered.popleft()
        for subject in subjects if subscribes else ():
            known = self._all.get(subject)
            if known is not None:
                known.owed -= 1
                known.asked = known.asked and bool(known.owed)
                known.answer(error)
                if not (known.wanted or known.asked or known.owed):
                    del self._all[subject]

    def close(self, error: ChannelLayerUnavailable) -> None:
        """
        Forget everything, and tell whoever waits.
        """
        known, self._all = self._all, {}
        for one in known.values():
            one.answer(error)
        self._changed.clear()
        self._leaving.clear()
        self._unanswered.clear()
