"""
What a broker does about others that stand still, end, talk nonsense or are not ours.

A process that stands still is played by a broker on a loop of its own that is blocked. What
happens to real processes that are stopped and killed is in ``tests/integration/layers``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from fairway import metrics
from fairway.exceptions import ChannelLayerUnavailable
from fairway.layers.brokers.ipc import door as door_module, frames
from fairway.layers.brokers.ipc.mesh import Mesh
from fairway.layers.brokers.ipc.rendezvous import Rendezvous
from fairway.options import IPCOptions
from tests.integration.layers.brokers.ipc.site import Member, Site, meeting
from tests.unit.layers.fakes import LoopThread, until

pytestmark = pytest.mark.fault

QUICK: dict[str, Any] = {"heartbeat": 0.02, "silence": 0.15, "join_timeout": 0.1}
"""
Options under which a process that stands still is given up fast.
"""


@contextmanager
def standstill(thread: LoopThread) -> Iterator[None]:
    """
    Block a loop, as if its process was stopped.
    """
    stands, go_on = threading.Event(), threading.Event()

    def block() -> None:
        stands.set()
        go_on.wait(30)

    thread.loop.call_soon_threadsafe(block)
    assert stands.wait(5)
    try:
        yield
    finally:
        go_on.set()


@asynccontextmanager
async def beside(site: Site, *subjects: str, **options: Any) -> AsyncIterator[Any]:
    """
    Give a broker on a loop of its own, and that loop.
    """
    with LoopThread() as thread:
        member = site.make(**options)
        await thread.run(member.begin(*subjects))
        try:
            yield member, thread
        finally:
            await thread.run(member.close())


def drops(reason: str) -> int:
    """
    Give how many messages were dropped so far, for a reason.
    """
    return metrics.drops.values.get(reason, 0)


# --- Processes that stand still ---------------------------------------------------------------


async def test_one_that_does_not_answer_delays_only_the_first_join(directory: Path) -> None:
    """
    Joins wait for it join_timeout once, and again only after it has answered.
    """
    async with meeting(directory) as site, beside(site) as (other, thread):
        first = await site.enter(join_timeout=0.2)
        before = metrics.joins_unconfirmed.value
        with standstill(thread):
            begun = monotonic()
            await first.join("a")
            assert 0.15 <= monotonic() - begun < 2
            assert metrics.joins_unconfirmed.value == before + 1
            assert first.subscribe("b") is None
        await until(lambda: not first.peer(other).late)
        await first.join("c")
        await thread.run(other.send("b", b"1"))
        await first.gets(b"1")
        assert metrics.joins_unconfirmed.value == before + 1


async def test_a_start_beside_one_that_stands_still_takes_no_longer(directory: Path) -> None:
    """
    It is met when it goes on, and then hears what was published meanwhile, if it wants it.
    """
    async with meeting(directory) as site, beside(site, "a") as (other, thread):
        with standstill(thread):
            begun = monotonic()
            late = await site.enter("b", join_timeout=0.2)
            assert 0.15 <= monotonic() - begun < 2
            late.publish("a", b"wanted")
            late.publish("x", b"not wanted")
            assert await late.audience("a") == 0
        await until(lambda: other.got)
        assert other.got == [("a", b"wanted")]
        assert await late.audience("a") == 1
        await thread.run(other.send("b", b"1"))
        await late.gets(b"1")
        assert (other.gaps, late.gaps) == ([], [])


async def test_what_one_sent_before_it_ended_waits_for_a_busy_process(directory: Path) -> None:
    """
    A publisher that comes and goes while the other one is busy is heard afterwards, in full.
    """
    async with meeting(directory) as site, beside(site, "a") as (other, thread):
        with standstill(thread):
            shot = await site.enter(join_timeout=0.05)
            for number in range(100):
                await shot.send("a", b"%d" % number)
            await shot.close()
        await until(lambda: len(other.got) == 100)
        assert [payload for _, payload in other.got] == [b"%d" % number for number in range(100)]
        await until(lambda: not other.peers)
        assert other.gaps == []


async def test_a_short_standstill_loses_nothing(directory: Path) -> None:
    """
    The link and its queue stay for as long as silence lasts.
    """
    async with meeting(directory) as site, beside(site, "a", "b") as (other, thread):
        sender = await site.enter()
        with standstill(thread):
            for number in range(1000):
                await sender.send("a", b"%d" % number + bytes(1000))
        await until(lambda: len(other.got) == 1000)
        assert other.gaps == []


async def test_a_full_queue_closes_the_link_and_one_gap_per_subject_tells(
    directory: Path,
) -> None:
    """
    Publishing goes on without waiting, what is lost is counted, and it is heard again.
    """
    async with (
        meeting(directory) as site,
        beside(site, "a", "b", join_timeout=0.1) as (other, thread),
    ):
        sender = await site.enter(link_bytes_max=65_536, join_timeout=0.1)
        before, down = drops("link_full"), drops("link_down")
        with standstill(thread):
            begun = monotonic()
            for _ in range(1000):
                await sender.send("a", bytes(1000))
            assert monotonic() - begun < 2
            lost = drops("link_full") - before + drops("link_down") - down
            assert 0 < lost < 1000
            await until(lambda: sender.peer(other).out)
        await until(lambda: len(other.gaps) == 2)
        await until(lambda: sender.mesh.links.open)
        await sender.send("a", b"again")
        await until(lambda: other.got[-1:] == [("a", b"again")])
        assert sorted(other.gaps) == [("a", None), ("b", None)]
        # What the kernel had of a message that was cut off is lost without being counted.
        assert 1000 - lost - 1 <= len(other.got) - 1 <= 1000 - lost


async def test_closing_waits_for_nobody_who_stands_still(directory: Path) -> None:
    """
    What is queued for it is given up, and the others get what was for them.
    """
    async with (
        meeting(directory) as site,
        beside(site, "a") as (_, thread),
        beside(site, "a") as (other, _),
    ):
        sender = await site.enter(join_timeout=0.1)
        with standstill(thread):
            for number in range(500):
                await sender.send("a", b"%d" % number + bytes(1000))
            await asyncio.sleep(0.15)
            begun = monotonic()
            await sender.close()
            assert monotonic() - begun < 2
            await until(lambda: len(other.got) == 500)


async def test_silence_closes_links_and_they_come_back(directory: Path) -> None:
    """
    One that stands still too long is cut off, and back as soon as it goes on; nothing was lost.
    """
    async with meeting(directory) as site, beside(site, "a", **QUICK) as (other, thread):
        sender = await site.enter("b", **QUICK)
        with standstill(thread):
            link, visitor = sender.peer(other).out, sender.peer(other).visitor
            assert link is not None
            assert visitor is not None
            await until(lambda: not link.open)
            await until(lambda: not visitor.link.open)
            await until(lambda: sender.peer(other).out)
            again = sender.peer(other).out
            # It has not answered there, and is not dialled time and again.
            await asyncio.sleep(0.4)
            assert sender.peer(other).out is again
        await until(lambda: sender.peer(other).visitor)
        await sender.join("c")
        await until(lambda: other.knows("c"))
        await sender.send("a", b"1")
        await until(lambda: other.got == [("a", b"1")])
        await thread.run(other.send("c", b"2"))
        await sender.gets(b"2")
        assert (other.gaps, sender.gaps) == ([], [])


async def test_what_is_lost_in_silence_is_told_once(directory: Path) -> None:
    """
    Messages for one that was cut off are counted, and it is told of one gap per subject.
    """
    async with meeting(directory) as site, beside(site, "a", **QUICK) as (other, thread):
        sender = await site.enter(**QUICK)
        before = drops("link_down")
        with standstill(thread):
            link = sender.peer(other).out
            assert link is not None
            for _ in range(400):
                sender.publish("a", bytes(1000))
            await until(lambda: not link.open)
            sender.publish("a", b"lost")
            sender.publish("x", b"wanted by nobody")
            await until(lambda: sender.peer(other).out)
            sender.publish("a", b"lost")
            assert drops("link_down") == before + 2
            assert drops("link_silent") > 0
        await until(lambda: other.gaps)
        await sender.send("a", b"again")
        await until(lambda: other.got[-1:] == [("a", b"again")])
        assert other.gaps == [("a", None)]


async def test_one_that_stood_still_itself_blames_nobody(directory: Path) -> None:
    """
    What others sent meanwhile is read before it is judged whether they were silent.
    """
    options = {**QUICK, "silence": 0.4}
    async with meeting(directory) as site:
        first, second = [await site.enter(**{**options, "silence": 60.0}) for _ in range(2)]
        links = {second.peer(first).out, first.peer(second).out}
        second.mesh._options = IPCOptions(**options)
        for member in (first, second):
            for link in member.mesh.links.open:
                link.heard_at -= 100
        second.mesh._beat_at -= 1.0  # As if the timer had been due long ago.
        second.mesh._on_beat()
        assert all(link is not None and link.open for link in links)


async def test_a_reader_of_interests_that_does_not_read_is_cut_off(directory: Path) -> None:
    """
    Joins and leaves for one that stands still take no memory without end.
    """
    async with meeting(directory) as site, beside(site, join_timeout=0.1) as (other, thread):
        first = await site.enter(link_bytes_max=65_536, join_timeout=0.05)
        with standstill(thread):
            for number in range(20):
                await first.join("x" * 60_000 + str(number))
            assert first.peer(other).visitor is None
            assert sum(link.pending_bytes for link in first.mesh.links.open) < 65_536
        await until(lambda: first.peer(other).visitor)
        await first.join("a")
        # Behind all that it is told anew, which may take longer than a join waits.
        await until(lambda: other.knows("a"))
        await thread.run(other.send("a", b"1"))
        await first.gets(b"1")


async def test_messages_for_one_that_never_answers_are_not_kept_for_ever(directory: Path) -> None:
    """
    What waits for a process that stood still from the start goes when it is worth nothing.
    """
    async with meeting(directory) as site, beside(site, "a", **QUICK) as (other, thread):
        late = site.make(**{**QUICK, "silence": 0.1})
        late._expiry = 0.2
        with standstill(thread):
            before = drops("link_silent")
            await late.begin()
            link = late.peer(other).out
            assert link is not None
            for _ in range(500):
                late.publish("a", bytes(1000))
            await until(lambda: not link.open)
            assert drops("link_silent") > before
            await until(lambda: late.peer(other).out)
            late.publish("a", b"lost")
            assert sum(link.messages for link in late.mesh.links.open) == 0
        await until(lambda: other.gaps == [("a", None)])


# --- Processes that end -----------------------------------------------------------------------


def leave_dead_entry(directory: Path, name: str = "0123456789ab") -> None:
    """
    Leave what a killed process leaves.
    """
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(directory / f"{name}.sock"))
    sock.close()


async def test_dead_entries_are_removed_at_the_start(directory: Path) -> None:
    """
    Nobody waits for them.
    """
    async with meeting(directory) as site:
        first = await site.enter()
        leave_dead_entry(directory)
        second = await site.enter("a", join_timeout=30.0)
        assert len(site.sockets()) == 2
        assert (first.peers, second.peers) == (1, 1)


async def test_one_that_ends_without_a_word_is_forgotten(directory: Path) -> None:
    """
    As after kill -9: the links end, its entry refuses, and is removed; no join waits for it.
    """
    async with meeting(directory) as site:
        first, second = await site.enter(), site.make()
        with LoopThread() as thread:
            await thread.run(second.begin("a"))
            path = directory / f"{second.mesh.name}.sock"
            second._mesh, mesh = None, second.mesh
            thread.loop.call_soon_threadsafe(close_like_a_kill, mesh)
            await until(lambda: not first.peers)
        assert not path.exists()
        assert first.subscribe("b") is None


def close_like_a_kill(mesh: Mesh) -> None:
    """
    Close all descriptors of a mesh, and leave its entry.
    """
    mesh._closed = True
    if mesh._beat is not None:
        mesh._beat.cancel()
    for link in list(mesh.links.open):
        link.close()
    mesh._door._stop_listening()


def _is_closed(mesh: Mesh) -> bool:
    """
    Whether a mesh has no open descriptors here.
    """
    sock = mesh._door._sock
    return not mesh.links.open and sock is not None and sock.fileno() == -1


async def test_a_child_has_no_part_in_its_parents_links(directory: Path) -> None:
    """
    After a fork the child's copies are closed; the entry stays, and it begins as somebody else.
    """
    async with meeting(directory) as site:
        first = await site.enter("a")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Of threads other tests have left.
            child = os.fork()
        if child == 0:  # pragma: no cover - seen by its exit status
            mesh = first.mesh
            first.forked()
            closed = _is_closed(mesh)
            there = (directory / f"{mesh.name}.sock").exists()
            os._exit(0 if closed and there and not first.connected and not first.peers else 1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        second = await site.enter()
        await second.send("a", b"1")
        await first.gets(b"1")


# --- Strangers and nonsense -------------------------------------------------------------------


@asynccontextmanager
async def stranger(directory: Path, member: Member) -> AsyncIterator[socket.socket]:
    """
    Give a bare connection to a member, with nobody behind it.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await loop.sock_connect(sock, str(directory / f"{member.mesh.name}.sock"))
    try:
        yield sock
    finally:
        sock.close()


async def test_a_link_that_is_replaced_is_read_to_its_end_first(directory: Path) -> None:
    """
    Who dials again has given up its link; what it sent there before comes before what follows.
    """
    async with meeting(directory) as site:
        first = await site.enter("a")
        async with stranger(directory, first) as old, stranger(directory, first) as new:
            new.send(frames.hello("0" * 12))
            await until(lambda: first.peers)
            old.send(frames.hello("0" * 12))
            await until(lambda: len(first.mesh._visitors) == 1)
            async with stranger(directory, first) as newest:
                old.send(b"".join(frames.message("a", b"%d" % number) for number in range(3)))
                newest.send(frames.hello("0" * 12) + frames.message("a", b"3"))
                await first.gets(b"0", b"1", b"2", b"3")
                assert first.peers == 1


async def test_one_that_dials_again_is_waited_for_again(directory: Path) -> None:
    """
    However late it was before: it has shown that it goes on.
    """
    async with meeting(directory) as site:
        first = await site.enter(join_timeout=0.05)
        async with stranger(directory, first) as old, stranger(directory, first) as new:
            old.send(frames.hello("0" * 12))
            await until(lambda: first.peers)
            await first.join("a")
            assert first.subscribe("b") is None
            peer = first.mesh.peers["0" * 12]
            before = peer.visitor
            new.send(frames.hello("0" * 12))
            await until(lambda: peer.visitor is not before)
            waiting = first.subscribe("c")
            assert waiting is not None
            await waiting
            assert first.subscribe("d") is None


async def test_who_comes_while_one_leaves_is_no_stranger(directory: Path) -> None:
    """
    A greeting that arrives after the farewell is neither counted nor answered.
    """
    async with meeting(directory) as site:
        first = await site.enter()
        before = drops("malformed")
        async with stranger(directory, first) as sock:
            await until(lambda: first.mesh._visitors)
            sock.send(frames.hello("0" * 12) + frames.BEAT)
            first.mesh._withdraw()
            await until(lambda: not first.mesh.links.open)
            assert drops("malformed") == before


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
        frames.message("a", b"without a greeting"),
        b"\x00\x00\x00\x0e\x01\x63" + b"0" * 12,  # Another version.
        frames.hello("../../../etc"),
        frames.hello("0" * 12) + frames.COMPLETE,
        frames.hello("0" * 12) + frames.interest("a"),
    ],
)
async def test_nonsense_closes_a_link_and_harms_nobody(
    directory: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """
    It is counted and said in one line, and the others go on.
    """
    async with meeting(directory) as site:
        first, second = await site.enter("a"), await site.enter()
        before = drops("malformed")
        async with stranger(directory, first) as sock:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, data)
            while await asyncio.wait_for(_receive(sock), 5):
                pass
        assert drops("malformed") == before + 1
        assert ["a link between processes was closed" in text for text in caplog.messages] == [True]
        await until(lambda: first.peers == 1)
        await second.send("a", b"1")
        await first.gets(b"1")


async def _receive(sock: socket.socket) -> bytes:
    """
    Read from a bare socket; nothing when it has ended, however.
    """
    try:
        return await asyncio.get_running_loop().sock_recv(sock, 65_536)
    except ConnectionResetError:
        return b""


async def test_nonsense_of_one_we_dialled_closes_the_link(directory: Path) -> None:
    """
    It is dialled again, more and more rarely.
    """
    async with meeting(directory) as site:
        first = await site.enter()
        before = drops("malformed")
        with socket.socket(socket.AF_UNIX) as liar:
            liar.bind(str(directory / "0123456789ab.sock"))
            liar.listen()
            liar.setblocking(False)
            first.mesh._scan()
            loop = asyncio.get_running_loop()
            for _ in range(3):
                sock, _ = await asyncio.wait_for(loop.sock_accept(liar), 5)
                await loop.sock_sendall(sock, frames.message("a", b"to a publisher"))
                while await asyncio.wait_for(_receive(sock), 5):
                    pass
                sock.close()
            assert drops("malformed") == before + 3
            assert first.mesh.peers["0123456789ab"].delay > 0.1
            (directory / "0123456789ab.sock").unlink()
        await until(lambda: not first.peers)


async def test_one_that_refuses_us_is_dialled_ever_more_rarely(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A process of another version closes each link without a word, as long as it lives.
    """
    monkeypatch.setattr("fairway.layers.brokers.ipc.mesh.RETRY_SECONDS_MAX", 0.05)
    async with meeting(directory) as site:
        first = await site.enter()
        with socket.socket(socket.AF_UNIX) as newer:
            newer.bind(str(directory / "0123456789ab.sock"))
            newer.listen()
            newer.setblocking(False)
            first.mesh._scan()
            loop = asyncio.get_running_loop()
            for _ in range(4):
                sock, _ = await asyncio.wait_for(loop.sock_accept(newer), 5)
                await _receive(sock)
                sock.close()
            peer = first.mesh.peers["0123456789ab"]
            await until(lambda: peer.out is None)
            assert peer.refused
            assert peer.delay > 0.3
            (directory / "0123456789ab.sock").unlink()
        await until(lambda: not first.peers)


async def test_one_that_cannot_be_reached_is_no_audience(directory: Path) -> None:
    """
    What it told is kept while its link is down, but nobody is told that a message reaches it.
    """
    async with meeting(directory) as site:
        first, second = await site.enter(), await site.enter("a")
        assert await first.audience("a") == 1
        first.peer(second).give_up("nothing came")
        assert await first.audience("a") == 0
        await until(lambda: first.peer(second).out)
        assert await first.audience("a") == 1


async def test_an_audience_is_waited_for_a_little_longer(directory: Path) -> None:
    """
    Who was too busy to answer at the start is counted all the same, when it is asked for.
    """
    async with meeting(directory) as site, beside(site, "a") as (_, thread):
        with standstill(thread):
            late = await site.enter(join_timeout=0.05)
            counting = asyncio.ensure_future(late.audience("a"))
            await asyncio.sleep(0.1)
            assert not counting.done()
        assert await counting == 1


async def test_one_that_connects_and_says_nothing_is_let_go(directory: Path) -> None:
    """
    A connection without a greeting lasts as long as silence does.
    """
    async with meeting(directory) as site:
        first = await site.enter(**QUICK)
        async with stranger(directory, first) as sock:
            await until(lambda: first.mesh.links.open)
            while await asyncio.wait_for(_receive(sock), 5):
                pass
        assert not first.mesh.links.open


async def test_another_user_is_refused_in_one_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Whoever dials: nothing is said to one of another uid, and nothing is heard.
    """

    def refuse(sock: socket.socket) -> None:
        raise PermissionError("expected a process of uid 1, found uid 2")

    async with meeting(directory) as site:
        first = await site.enter("a")
        monkeypatch.setattr(door_module, "check_peer", refuse)
        monkeypatch.setattr("fairway.layers.brokers.ipc.rendezvous.check_peer", refuse)
        second = await site.enter("a", join_timeout=30.0)
        await second.send("a", b"1")
        assert (first.got, first.peers, second.peers) == ([], 0, 0)
        async with stranger(directory, first) as sock:
            assert await asyncio.wait_for(_receive(sock), 5) == b""
        assert len([text for text in caplog.messages if "found uid 2" in text]) == 2


# --- A system that refuses --------------------------------------------------------------------


class Refusing:
    """
    A listening socket from which the system gives no descriptor a few times.
    """

    def __init__(self, sock: socket.socket, times: int) -> None:
        self.sock = sock
        self.times = times

    def accept(self) -> tuple[socket.socket, Any]:
        """
        Accept, or fail as if there were too many open files.
        """
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.sock.accept()

    def fileno(self) -> int:
        """
        Give the real one.
        """
        return self.sock.fileno()

    def close(self) -> None:
        """
        Close the real one.
        """
        self.sock.close()


async def test_without_descriptors_nobody_is_taken_in_until_there_are(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It does not spin, and who has dialled meanwhile is taken in afterwards.
    """
    monkeypatch.setattr(door_module, "ACCEPT_PAUSE_SECONDS", 0.01)
    async with meeting(directory) as site:
        first = await site.enter("a")
        assert first.mesh._door._sock is not None
        refusing = Refusing(first.mesh._door._sock, 3)
        first.mesh._door._sock = refusing  # type: ignore[assignment]
        second = await site.enter()
        assert refusing.times == 0
        await second.send("a", b"1")
        await first.gets(b"1")


async def test_one_that_cannot_be_dialled_is_dialled_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whatever the system refuses for the moment is tried again after a while.
    """
    async with meeting(directory) as site:
        first = await site.enter("a")
        refusals = [BlockingIOError(), OSError(errno.EMFILE, "Too many open files")]
        dial = Rendezvous.dial

        def refuse(self: Rendezvous, name: str) -> socket.socket:
            if refusals:
                raise refusals.pop()
            return dial(self, name)

        monkeypatch.setattr(Rendezvous, "dial", refuse)
        second = await site.enter()
        await second.send("a", b"1")
        await first.gets(b"1")


async def test_a_system_that_gives_no_socket_is_said(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The layer is unavailable, not wrong; nothing stays open.
    """

    def refuse(self: Rendezvous, name: str) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Rendezvous, "bind", refuse)
    broker = Member(directory)
    with pytest.raises(ChannelLayerUnavailable, match=r"cannot listen in .*: Too many open files"):
        await broker.begin()
    assert not broker.connected


# --- A directory that goes --------------------------------------------------------------------


async def test_a_directory_that_was_removed_is_made_anew(directory: Path) -> None:
    """
    As a cleaner of /tmp does: the links stay, and newcomers find everybody again.
    """
    async with meeting(directory) as site:
        first, second = [await site.enter("a", **QUICK) for _ in range(2)]
        shutil.rmtree(directory)
        await second.send("a", b"1")
        await first.gets(b"1")
        await until(lambda: first.states == second.states == [False, True])
        assert first.connected
        third = await site.enter("a", join_timeout=5.0)
        assert (third.peers, first.peers) == (2, 2)
        await third.send("a", b"2")
        await first.gets(b"1", b"2")


async def test_an_entry_that_was_removed_is_shown_again(directory: Path) -> None:
    """
    Even where the directory stays.
    """
    async with meeting(directory) as site:
        first = await site.enter("a", **QUICK)
        (directory / f"{first.mesh.name}.sock").unlink()
        await until(lambda: first.states == [False, True])
        second = await site.enter(join_timeout=5.0)
        await second.send("a", b"1")
        await first.gets(b"1")


async def test_a_directory_that_cannot_be_made_anew_is_tried_again(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Others cannot find it meanwhile, which is said once, and its links work on.
    """
    async with meeting(directory) as site:
        first, second = [await site.enter("a", **QUICK) for _ in range(2)]
        shutil.rmtree(directory)
        await asyncio.to_thread(directory.touch)
        await until(lambda: "others cannot find this process" in caplog.text)
        await until(lambda: not (first.connected or second.connected))
        await second.send("a", b"1")
        await first.gets(b"1")
        await asyncio.to_thread(directory.unlink)
        await until(lambda: first.states == second.states == [False, True])


async def test_one_that_was_missed_is_found_by_looking_again(directory: Path) -> None:
    """
    Should a process be forgotten for whatever reason, the next look finds it.
    """
    async with meeting(directory) as site:
        first, second = [await site.enter("a", **QUICK) for _ in range(2)]
        peer = first.peer(second)
        assert peer.out is not None
        peer.ended = True
        peer.out.close()
        peer._detach("a test")
        await until(lambda: first.peer(second).out)
        await first.send("a", b"1")
        await second.gets(b"1")
