"""
Brokers that meet in one directory, all in this process, with what each was told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fairway.layers.brokers.ipc import IPCBroker
from fairway.layers.brokers.ipc.mesh import Mesh
from fairway.layers.brokers.ipc.peers import Peer
from fairway.options import IPCOptions
from tests.unit.layers.fakes import until

__all__ = ["Member", "Site", "meeting"]


class Member(IPCBroker):
    """
    A broker, and a hub that only takes notes.

    Attributes:
        got: Subject and payload of everything delivered.
        gaps: The gaps it was told of.
        states: The states it was told of.
    """

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, IPCOptions(**options), expiry=60, namespace=directory.name)
        self.got: list[tuple[str, bytes]] = []
        self.gaps: list[tuple[str, int | None]] = []
        self.states: list[bool] = []

    async def begin(self, *subjects: str) -> None:
        """
        Start, subscribed to these subjects.
        """
        await self.start(self._note, self._note_gap, self.states.append, subjects)

    @property
    def mesh(self) -> Mesh:
        """
        Its mesh, to look at.
        """
        assert self._mesh is not None
        return self._mesh

    def peer(self, other: Member) -> Peer:
        """
        Give what it knows of another one.
        """
        return self.mesh.peers[other.mesh.name]

    async def join(self, subject: str) -> None:
        """
        Subscribe, and wait until that is confirmed.
        """
        pending = self.subscribe(subject)
        if pending is not None:
            await pending

    def knows(self, subject: str) -> bool:
        """
        Whether somebody else has told it that they want a subject.
        """
        return bool(self.mesh.interests.known(subject))

    async def send(self, subject: str, payload: bytes) -> None:
        """
        Publish, and wait as long as one is asked to.
        """
        pending = self.publish(subject, payload)
        if pending is not None:
            await pending

    async def gets(self, *payloads: bytes) -> None:
        """
        Wait for these payloads, and make sure that they are all.
        """
        await until(lambda: len(self.got) >= len(payloads))
        assert [payload for _, payload in self.got] == list(payloads)

    def _note(self, subject: str, payload: bytes) -> None:
        self.got.append((subject, payload))

    def _note_gap(self, subject: str, lost: int | None) -> None:
        self.gaps.append((subject, lost))


class Site:
    """
    The brokers of one directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.members: list[Member] = []

    def make(self, **options: Any) -> Member:
        """
        Make a broker that has not begun.
        """
        member = Member(self.directory, **{"join_timeout": 5.0, **options})
        self.members.append(member)
        return member

    async def enter(self, *subjects: str, **options: Any) -> Member:
        """
        Make a broker and begin.
        """
        member = self.make(**options)
        await member.begin(*subjects)
        return member

    def sockets(self) -> list[str]:
        """
        The entries in the directory.
        """
        return sorted(path.name for path in self.directory.glob("*.sock"))


@asynccontextmanager
async def meeting(directory: Path) -> AsyncIterator[Site]:
    """
    Give a site whose brokers are closed afterwards, which leaves no entry behind.
    """
    site = Site(directory)
    try:
        yield site
    finally:
        await asyncio.gather(*(member.close() for member in site.members))
        assert site.sockets() == []
