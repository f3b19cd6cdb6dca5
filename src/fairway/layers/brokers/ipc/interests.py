"""
Who wants what: other processes by subject, so that a publish finds them with one look.

A process that has not told its interests yet counts as interested in everything: it throws
away what it does not want, and misses nothing. Pure bookkeeping.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

__all__ = ["Interests"]

T = TypeVar("T")


class Interests(Generic[T]):
    """
    Subjects with those who want their messages.
    """

    def __init__(self) -> None:
        self._by_subject: dict[str, set[T]] = {}
        self._by_peer: dict[T, set[str]] = {}
        # What is told anew, until it is told completely and takes the place of the old.
        self._telling: dict[T, set[str]] = {}
        self._unknown: set[T] = set()

    def of(self, subject: str) -> Collection[T]:
        """
        Give those who want a subject, or may. Hot path: once per publish.
        """
        interested = self._by_subject.get(subject, ())
        if self._unknown:
            return self._unknown.union(interested)
        return interested

    def known(self, subject: str) -> Collection[T]:
        """
        Give those who have said that they want a subject.
        """
        return self._by_subject.get(subject, ())

    def begin(self, peer: T, *, everything: bool) -> None:
        """
        Expect a peer to tell all its interests, from the first one.

        Args:
            peer: Who.
            everything: Whether it is to get everything until it has; else what it told before.
        """
        self._telling[peer] = set()
        if everything:
            self._unknown.add(peer)

    def add(self, peer: T, subject: str) -> None:
        """
        Note an interest.
        """
        telling = self._telling.get(peer)
        if telling is not None:
            telling.add(subject)
        else:
            self._by_peer.setdefault(peer, set()).add(subject)
            self._by_subject.setdefault(subject, set()).add(peer)

    def discard(self, peer: T, subject: str) -> None:
        """
        Note the end of an interest.
        """
        telling = self._telling.get(peer)
        if telling is not None:
            telling.discard(subject)
        else:
            self._by_peer.get(peer, set()).discard(subject)
            self._drop(peer, subject)

    def complete(self, peer: T) -> None:
        """
        Put what a peer has told in the place of what it told before.
        """
        telling = self._telling.pop(peer, None)
        if telling is None:
            return
        self._unknown.discard(peer)
        before = self._by_peer.get(peer, set())
        self._by_peer[peer] = telling
        for subject in before - telling:
            self._drop(peer, subject)
        for subject in telling - before:
            self._by_subject.setdefault(subject, set()).add(peer)

    def forget(self, peer: T) -> None:
        """
        Forget a peer.
        """
        self._telling.pop(peer, None)
        self._unknown.discard(peer)
        for subject in self._by_peer.pop(peer, ()):
            self._drop(peer, subject)

    def _drop(self, peer: T, subject: str) -> None:
        peers = self._by_subject.get(subject)
        if peers is not None:
            peers.discard(peer)
            if not peers:
                del self._by_subject[subject]
