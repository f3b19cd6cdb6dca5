"""
The index of interests says what each peer has told, whatever it tells in whichever order.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fairway.layers.brokers.ipc.interests import Interests

PEERS = st.sampled_from("ABC")
SUBJECTS = st.sampled_from(["a", "b", "c"])


class InterestsModel(RuleBasedStateMachine):
    """
    The index beside one set per peer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.index: Interests[str] = Interests()
        self.told: dict[str, set[str]] = {peer: set() for peer in "ABC"}
        self.telling: dict[str, set[str]] = {}
        self.everything: set[str] = set()

    @rule(peer=PEERS, everything=st.booleans())
    def begin(self, peer: str, everything: bool) -> None:
        """
        A link begins.
        """
        self.index.begin(peer, everything=everything)
        self.telling[peer] = set()
        if everything:
            self.everything.add(peer)

    @rule(peer=PEERS, subject=SUBJECTS, wants=st.booleans())
    def tell(self, peer: str, subject: str, wants: bool) -> None:
        """
        A peer tells an interest, or its end.
        """
        change = self.index.add if wants else self.index.discard
        change(peer, subject)
        subjects = self.telling.get(peer, self.told[peer])
        if wants:
            subjects.add(subject)
        else:
            subjects.discard(subject)

    @rule(peer=PEERS)
    def complete(self, peer: str) -> None:
        """
        A peer has told everything.
        """
        self.index.complete(peer)
        if peer in self.telling:
            self.told[peer] = self.telling.pop(peer)
            self.everything.discard(peer)

    @rule(peer=PEERS)
    def forget(self, peer: str) -> None:
        """
        A peer is gone.
        """
        self.index.forget(peer)
        self.told[peer] = set()
        self.telling.pop(peer, None)
        self.everything.discard(peer)

    @invariant()
    def the_index_says_so(self) -> None:
        """
        Those found are those who told, and those of whom nothing is known yet.
        """
        for subject in ("a", "b", "c"):
            told = {peer for peer, subjects in self.told.items() if subject in subjects}
            assert set(self.index.of(subject)) == told | self.everything
            assert set(self.index.known(subject)) == told

    @invariant()
    def nothing_is_kept_for_nobody(self) -> None:
        """
        A subject that nobody wants takes no room.
        """
        assert all(self.index._by_subject.values())


TestInterests = InterestsModel.TestCase
