"""
The directory of one project's processes: whom it lets in, whom it finds, and what it removes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fairway.exceptions import ConfigurationError
from fairway.layers.brokers.ipc import rendezvous
from fairway.layers.brokers.ipc.rendezvous import (
    Rendezvous,
    check_peer,
    new_name,
    open_directory,
    peer_uid,
)
from tests.integration.layers.brokers.ipc.children import NOBODY, Child

ROOT = os.geteuid() == 0
NAME = "0123456789ab"
OTHER = "ba9876543210"
BOUND = """
    place = open_directory(path)
    sock = place.bind(sys.argv[2])
    say("bound")
    sys.stdin.readline()
"""
"""
A process with an entry, which accepts nothing.
"""


@pytest.fixture
def place_of_one(directory: Path) -> Iterator[Rendezvous]:
    """
    Give an open, empty directory.
    """
    opened = open_directory(directory)
    yield opened
    opened.close()


@contextmanager
def entry(opened: Rendezvous, name: str = NAME) -> Iterator[socket.socket]:
    """
    Have a live entry of this process.
    """
    with opened.bind(name) as sock:
        yield sock


def refusal(path: Path) -> str:
    """
    Give the line with which a directory is refused.
    """
    with pytest.raises(ConfigurationError) as caught:
        open_directory(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


@contextmanager
def pretending_to_be(uid: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    Have this process believe that it runs as another user.
    """
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: uid)
        yield


class TestOpening:
    """
    The root and the namespace are this user's alone, or are refused with one line.
    """

    def test_both_directories_are_made_for_this_user_alone(self, directory: Path) -> None:
        """
        Missing ones are made with mode 700, whatever the umask allows.
        """
        before = os.umask(0)
        try:
            open_directory(directory).close()
        finally:
            os.umask(before)
        for made in (directory, directory.parent):
            assert made.stat().st_mode & 0o7777 == 0o700

    def test_existing_directories_are_kept(self, directory: Path) -> None:
        """
        Opening again changes nothing, and two namespaces share a root.
        """
        open_directory(directory).close()
        (directory / "kept").touch()
        for path in (directory, directory.with_name("another")):
            open_directory(path).close()
        assert (directory / "kept").exists()

    def test_nothing_stays_open(self, directory: Path) -> None:
        """
        Closing closes every descriptor, and may be done twice.
        """
        before = set(Path("/proc/self/fd").iterdir())
        opened = open_directory(directory)
        opened.close()
        opened.close()
        assert set(Path("/proc/self/fd").iterdir()) == before

    def test_a_refusal_leaves_nothing_open(self, directory: Path) -> None:
        """
        A namespace that is refused closes the root, too.
        """
        directory.mkdir(parents=True, mode=0o755)
        directory.parent.chmod(0o700)
        before = set(Path("/proc/self/fd").iterdir())
        refusal(directory)
        assert set(Path("/proc/self/fd").iterdir()) == before

    @pytest.mark.parametrize("part", ["root", "namespace"])
    @pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o770, 0o1777])
    def test_a_directory_that_others_may_enter_is_refused(
        self, directory: Path, part: str, mode: int
    ) -> None:
        """
        The line gives the mode found, the one expected, and the command that sets it.
        """
        open_directory(directory).close()
        wrong = directory if part == "namespace" else directory.parent
        wrong.chmod(mode)
        line = refusal(directory)
        assert f"{wrong} has mode {mode:o}, expected 700" in line
        assert f"chmod 700 {wrong}" in line

    @pytest.mark.parametrize("part", ["root", "namespace"])
    @pytest.mark.parametrize("dangling", [False, True])
    def test_a_symbolic_link_is_refused(
        self, directory: Path, place: Path, part: str, dangling: bool
    ) -> None:
        """
        Wherever it leads, and even to a sound directory.
        """
        open_directory(directory).close()
        wrong = directory if part == "namespace" else directory.parent
        wrong.rename(place / "elsewhere")
        wrong.symlink_to(place / ("nowhere" if dangling else "elsewhere"))
        assert f"{wrong} is a symbolic link, expected a directory" in refusal(directory)

    @pytest.mark.parametrize("part", ["root", "namespace"])
    def test_a_file_in_its_place_is_refused(self, directory: Path, part: str) -> None:
        """
        The line says what is there.
        """
        wrong = directory if part == "namespace" else directory.parent
        wrong.parent.mkdir(mode=0o700, exist_ok=True)
        wrong.touch()
        assert f"{wrong} is a file, expected a directory" in refusal(directory)

    def test_a_missing_parent_is_refused(self, place: Path) -> None:
        """
        Only two levels are made: a mistyped path is not followed.
        """
        line = refusal(place / "missing" / "root" / "project")
        assert "No such file or directory" in line
        assert 'FAIRWAY["RUNTIME_DIR"]' in line

    def test_a_directory_that_cannot_be_made_is_refused(self) -> None:
        """
        Where nobody may make directories, the line says why.
        """
        assert "/proc/fairway cannot be used" in refusal(Path("/proc/fairway/project"))

    def test_a_path_too_long_for_an_address_is_refused_before_anything_is_made(
        self, place: Path
    ) -> None:
        """
        The longest path that fits works; one byte more names the limit.
        """
        room = rendezvous.PATH_BYTES_MAX - len(os.fsencode(place / "r")) - len(f"//{NAME}.sock")
        opened = open_directory(place / "r" / ("x" * room))
        with entry(opened):
            opened.dial(NAME).close()
        opened.close()
        line = refusal(place / "q" / ("x" * (room + 1)))
        assert f"expected at most {rendezvous.PATH_BYTES_MAX - 18} bytes, got" in line
        assert not (place / "q").exists()

    def test_two_processes_may_make_it_at_once(self, directory: Path) -> None:
        """
        Whoever comes second uses what the first has made.
        """
        with Child(directory, BOUND, NAME) as one, Child(directory, BOUND, OTHER) as two:
            assert (one.hear(), two.hear()) == ("bound", "bound")
            opened = open_directory(directory)
            assert opened.entries() == sorted([NAME, OTHER])
            opened.close()

    def test_a_directory_in_use_is_locked_against_clearing(self, directory: Path) -> None:
        """
        As systemd-tmpfiles expects it: what it cannot lock alone, it leaves.
        """
        opened = open_directory(directory)
        for path in (directory, directory.parent):
            descriptor = os.open(path, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(descriptor)
        opened.close()


class TestAnotherUser:
    """
    Another user is refused by name and by connection; as root with a real one.
    """

    @pytest.mark.parametrize("part", ["root", "namespace"])
    def test_a_directory_of_another_user_is_refused(
        self, directory: Path, part: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        One line names both users and what to do.
        """
        open_directory(directory).close()
        wrong = directory if part == "namespace" else directory.parent
        me = os.geteuid()
        if ROOT:
            os.chown(wrong, NOBODY, NOBODY)
            line, expected = refusal(directory), (NOBODY, me)
        else:
            with pretending_to_be(me + 1, monkeypatch):
                line, expected = refusal(directory), (me, me + 1)
            wrong = directory.parent
        assert f"{wrong} belongs to uid {expected[0]}, expected uid {expected[1]}: " in line
        assert "remove it" in line
        assert 'FAIRWAY["RUNTIME_DIR"]' in line

    def test_squatting_in_a_sticky_directory_gives_one_clear_line(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Whoever makes /tmp/fairway-<uid> first cannot be joined, only seen.
        """
        place.chmod(0o1777)
        squatted = place / "fairway-0"
        if ROOT:
            with Child(squatted, "become_nobody(); open_directory(path / 'x'); say('made')") as it:
                assert it.hear() == "made"
            squatter, me = NOBODY, os.geteuid()
            line = refusal(squatted / "project")
        else:
            open_directory(squatted / "project").close()
            squatter, me = os.geteuid(), os.geteuid() + 1
            with pretending_to_be(me, monkeypatch):
                line = refusal(squatted / "project")
        assert line.startswith(f"{squatted} belongs to uid {squatter}, expected uid {me}: ")

    def test_a_link_planted_by_another_user_is_refused(self, place: Path) -> None:
        """
        A squatter's link to a directory of this very user leads nowhere.
        """
        place.chmod(0o1777)
        (place / "mine").mkdir(mode=0o700)
        planted = place / "fairway-0"
        plant = "path.symlink_to(path.parent / 'mine'); say('planted')"
        with Child(planted, f"become_nobody(); {plant}" if ROOT else plant) as it:
            assert it.hear() == "planted"
        assert "is a symbolic link" in refusal(planted / "project")

    def test_a_process_of_another_user_is_refused_by_who_dials(
        self, place_of_one: Rendezvous, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Its entry is there and takes connections, and yet nothing is sent to it.
        """
        listen = f"""
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(path / "{NAME}.sock"))
            {"become_nobody()" if ROOT else ""}
            sock.listen()
            say("listens")
            sys.stdin.readline()
        """
        with Child(place_of_one.path, listen) as other:
            assert other.hear() == "listens"
            me = os.geteuid() if ROOT else os.geteuid() + 1
            with (
                pretending_to_be(me, monkeypatch),
                pytest.raises(PermissionError, match=f"expected a process of uid {me}, found"),
            ):
                place_of_one.dial(NAME)
            assert not place_of_one.remove_dead(NAME)

    def test_a_process_of_another_user_is_refused_by_who_accepts(
        self, place_of_one: Rendezvous, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Even if the directory and the socket let it through.
        """
        dial = f"""
            {"become_nobody()" if ROOT else ""}
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path / "{NAME}.sock"))
            say("connected")
            sys.stdin.readline()
        """
        with entry(place_of_one) as listening:
            for path in (place_of_one.path, place_of_one.path.parent, place_of_one.path.parents[1]):
                path.chmod(0o711)
            (place_of_one.path / f"{NAME}.sock").chmod(0o666)
            with Child(place_of_one.path, dial) as other:
                assert other.hear() == "connected"
                accepted, _ = listening.accept()
                found = NOBODY if ROOT else os.geteuid()
                assert peer_uid(accepted) == found
                me = os.geteuid() if ROOT else os.geteuid() + 1
                with (
                    accepted,
                    pretending_to_be(me, monkeypatch),
                    pytest.raises(PermissionError, match=f"uid {me}, found uid {found}"),
                ):
                    check_peer(accepted)

    def test_another_user_cannot_enter_at_all(
        self, place_of_one: Rendezvous, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        The directory's mode keeps them from looking, connecting and opening it.
        """
        with entry(place_of_one):
            place_of_one.path.parents[1].chmod(0o755)
            if not ROOT:
                with pretending_to_be(os.geteuid() + 1, monkeypatch):
                    refusal(place_of_one.path)
                return
            attempt = f"""
                become_nobody()
                for attempt in (
                    lambda: os.listdir(path),
                    lambda: socket.socket(socket.AF_UNIX).connect(str(path / "{NAME}.sock")),
                    lambda: open_directory(path),
                ):
                    try:
                        attempt()
                    except (PermissionError, ConfigurationError) as error:
                        say(type(error).__name__)
            """
            with Child(place_of_one.path, attempt) as other:
                heard = [other.hear() for _ in range(3)]
            assert heard == ["PermissionError", "PermissionError", "ConfigurationError"]


class TestEntries:
    """
    Entries are found and dialled while their process lives.
    """

    def test_names_are_new_and_of_the_right_form(self) -> None:
        """
        No two are the same.
        """
        names = {new_name() for _ in range(100)}
        assert len(names) == 100
        assert all(len(name) == 12 and int(name, 16) >= 0 for name in names)

    def test_only_sockets_with_a_name_are_entries(self, place_of_one: Rendezvous) -> None:
        """
        Files, links, directories and other names are neither listed nor dialled nor removed.
        """
        path = place_of_one.path
        with entry(place_of_one):
            (path / "aaaaaaaaaaaa.sock").touch()
            (path / "bbbbbbbbbbbb.sock").symlink_to(path / f"{NAME}.sock")
            (path / "cccccccccccc.sock").mkdir()
            (path / "queues.sqlite3").touch()
            (path / f"{NAME}.sock.sock").touch()
            assert place_of_one.entries() == [NAME]
            for name in ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "../x", "", f"x/{NAME}"):
                with pytest.raises(FileNotFoundError):
                    place_of_one.dial(name)
                place_of_one.remove_dead(name)
            assert len(list(path.iterdir())) == 7  # And the lock.

    def test_an_entry_is_reached_by_its_name(self, place_of_one: Rendezvous) -> None:
        """
        What is dialled is connected to who listens, and does not block.
        """
        with entry(place_of_one) as listening, place_of_one.dial(NAME) as dialled:
            accepted, _ = listening.accept()
            with accepted:
                check_peer(accepted)
                accepted.send(b"hello")
                assert dialled.recv(5) == b"hello"
            assert not dialled.getblocking()
            assert not listening.getblocking()
            assert not dialled.get_inheritable()
            assert not listening.get_inheritable()
            assert (place_of_one.path / f"{NAME}.sock").stat().st_mode & 0o777 == 0o600

    def test_an_entry_shows_only_once_it_listens(
        self, place_of_one: Rendezvous, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        One who is stopped half-way can be taken neither for live nor for dead.
        """
        seen: list[list[str]] = []
        rename = Rendezvous._rename

        def look(self: Rendezvous, name: str, to: str) -> None:
            seen.append(self.entries())
            rename(self, name, to)
            seen.append(self.entries())

        monkeypatch.setattr(Rendezvous, "_rename", look)
        with entry(place_of_one):
            assert seen == [[], [NAME]]

    def test_what_was_never_shown_is_swept_when_old(self, place_of_one: Rendezvous) -> None:
        """
        A process killed half-way leaves nothing for good; one that is half-way is left alone.
        """
        old, young = (place_of_one.path / f"{name}.new" for name in (NAME, OTHER))
        old.touch()
        young.touch()
        os.utime(old, (0, 0))
        with entry(place_of_one, "aaaaaaaaaaaa"):
            assert not old.exists()
            assert young.exists()

    def test_a_bind_that_fails_leaves_nothing(self, place_of_one: Rendezvous) -> None:
        """
        Neither a file nor a descriptor.
        """
        (place_of_one.path / f"{NAME}.new").touch()
        before = set(Path("/proc/self/fd").iterdir())
        with pytest.raises(OSError, match="in use"):
            place_of_one.bind(NAME)
        assert set(Path("/proc/self/fd").iterdir()) == before
        assert list(place_of_one.path.iterdir()) == []

    def test_own_entry_is_withdrawn(self, place_of_one: Rendezvous) -> None:
        """
        Twice, too.
        """
        with entry(place_of_one):
            assert place_of_one.present(NAME)
            place_of_one.withdraw(NAME)
            place_of_one.withdraw(NAME)
            assert not place_of_one.present(NAME)
            assert place_of_one.entries() == []

    @pytest.mark.parametrize("again", [False, True])
    def test_a_directory_that_was_taken_away_is_noticed(
        self, place_of_one: Rendezvous, place: Path, again: bool
    ) -> None:
        """
        Also if another one has its name by now; and binding anew there works.
        """
        path = place_of_one.path
        with entry(place_of_one):
            path.parent.rename(place / "moved")
            if again:
                open_directory(path).close()
            assert not place_of_one.present(NAME)
            with pytest.raises(FileNotFoundError):
                place_of_one.bind(OTHER).close()
            with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
                place_of_one.dial(NAME)
        opened = open_directory(path)
        with entry(opened):
            assert opened.present(NAME)
        opened.close()

    def test_refreshing_makes_everything_look_used(self, place_of_one: Rendezvous) -> None:
        """
        The entry and both directories are new again to who clears what is old.
        """
        with entry(place_of_one):
            path = place_of_one.path
            paths = (path / f"{NAME}.sock", path, path.parent)
            for one in paths:
                os.utime(one, (0, 0))
            place_of_one.refresh(NAME)
            assert all(one.stat().st_mtime > 0 for one in paths)
        place_of_one.withdraw(NAME)
        place_of_one.refresh(NAME)

    @pytest.mark.one_loop
    async def test_it_may_be_used_on_a_loop(self, directory: Path) -> None:
        """
        None of its calls counts as one that blocks.
        """
        opened = open_directory(directory)
        with entry(opened):
            assert opened.entries() == [NAME]
            opened.dial(NAME).close()
            assert opened.present(NAME)
            opened.refresh(NAME)
        assert opened.remove_dead(NAME)
        opened.withdraw(NAME)
        opened.close()
        await asyncio.sleep(0)


@pytest.mark.fault
class TestDeadEntries:
    """
    Only what is certainly dead is removed, by one cleaner at a time.
    """

    def test_the_entry_of_a_killed_process_is_removed(self, place_of_one: Rendezvous) -> None:
        """
        It refuses connections, and is gone after one call.
        """
        with Child(place_of_one.path, BOUND, NAME) as child:
            assert child.hear() == "bound"
            assert not place_of_one.remove_dead(NAME)
            child.kill()
        assert place_of_one.entries() == [NAME]
        with pytest.raises(ConnectionRefusedError):
            place_of_one.dial(NAME)
        assert place_of_one.remove_dead(NAME)
        assert place_of_one.entries() == []
        assert place_of_one.remove_dead(NAME)

    def test_the_entry_of_a_stopped_process_stays(self, place_of_one: Rendezvous) -> None:
        """
        A process that does not run still lives.
        """
        with Child(place_of_one.path, BOUND, NAME) as child:
            assert child.hear() == "bound"
            child.signal(signal.SIGSTOP)
            place_of_one.dial(NAME).close()
            assert not place_of_one.remove_dead(NAME)
            assert place_of_one.entries() == [NAME]

    def test_an_entry_whose_backlog_is_full_stays(
        self, place_of_one: Rendezvous, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        It takes no connection at present, which is not a refusal.
        """
        monkeypatch.setattr(rendezvous, "BACKLOG", 0)
        dialled: list[socket.socket] = []
        with entry(place_of_one):
            with suppress(BlockingIOError):
                while len(dialled) < 100:
                    dialled.append(place_of_one.dial(NAME))
            assert len(dialled) < 100
            assert not place_of_one.remove_dead(NAME)
            assert place_of_one.entries() == [NAME]
        for sock in dialled:
            sock.close()

    def test_nothing_is_removed_while_another_cleans(self, place_of_one: Rendezvous) -> None:
        """
        Who does not get the lock leaves the entry to who has it, without waiting.
        """
        with entry(place_of_one):
            pass
        with rendezvous.try_lock(place_of_one.path / rendezvous.LOCK) as held:
            assert held
            assert not place_of_one.remove_dead(NAME)
            assert place_of_one.entries() == [NAME]
        assert place_of_one.remove_dead(NAME)

    @pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
    def test_a_cleaner_that_stops_or_dies_holds_nobody_up(
        self, place_of_one: Rendezvous, fault: int
    ) -> None:
        """
        Killed, it has given the lock back; stopped, its entries merely stay a while.
        """
        clean = """
            with rendezvous.try_lock(path / rendezvous.LOCK) as held:
                say(held)
                sys.stdin.readline()
        """
        with entry(place_of_one):
            pass
        with Child(place_of_one.path, clean) as child:
            assert child.hear() == "True"
            child.signal(fault)
            if fault == signal.SIGKILL:
                child.process.wait()
            assert place_of_one.remove_dead(NAME) is (fault == signal.SIGKILL)
            with entry(place_of_one, OTHER):
                place_of_one.dial(OTHER).close()

    def test_a_fork_under_the_lock_does_not_keep_it(self, place_of_one: Rendezvous) -> None:
        """
        A child has the same descriptor; the lock ends with the cleaner's work all the same.
        """
        clean = """
            with rendezvous.try_lock(path / rendezvous.LOCK):
                if not os.fork():
                    sys.stdin.readline()
                    os._exit(0)
            say("forked")
            sys.stdin.readline()
        """
        with entry(place_of_one):
            pass
        with Child(place_of_one.path, clean) as child:
            assert child.hear() == "forked"
            assert place_of_one.remove_dead(NAME)
            child.tell()
            child.tell()

    def test_a_lock_that_cannot_be_had_removes_nothing(self, place_of_one: Rendezvous) -> None:
        """
        A link in its place is not followed.
        """
        with entry(place_of_one):
            pass
        (place_of_one.path / rendezvous.LOCK).symlink_to("elsewhere")
        assert not place_of_one.remove_dead(NAME)
        assert place_of_one.entries() == [NAME]

    def test_cleaners_at_once_remove_the_dead_and_no_live_entry(
        self, place_of_one: Rendezvous
    ) -> None:
        """
        Four processes clean again and again while entries come and go: the live ones stay.
        """
        clean = """
            place = open_directory(path)
            live = sys.argv[2:]
            say("cleans")
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                name = rendezvous.new_name()
                sock = place.bind(name)
                for other in place.entries():
                    if place.remove_dead(other) and (other in live or other == name):
                        say("removed a live entry")
                sock.close()
        """
        with entry(place_of_one), Child(place_of_one.path, BOUND, OTHER) as stopped:
            assert stopped.hear() == "bound"
            stopped.signal(signal.SIGSTOP)
            cleaners = [Child(place_of_one.path, clean, NAME, OTHER) for _ in range(4)]
            for cleaner in cleaners:
                with cleaner:
                    assert cleaner.rest() == ["cleans"]
            for name in place_of_one.entries():
                place_of_one.remove_dead(name)
            assert place_of_one.entries() == sorted([NAME, OTHER])

    def test_too_many_open_files_do_not_make_an_entry_dead(self, place_of_one: Rendezvous) -> None:
        """
        A dial that fails for reasons of its own says nothing about the other end.
        """
        with entry(place_of_one):
            taken: list[int] = []
            in_use = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
            before = set_limit(max(in_use) + 8)
            try:
                with suppress(OSError):
                    while True:
                        taken.append(os.dup(0))
                with pytest.raises(OSError, match="Too many open files"):
                    place_of_one.dial(NAME)
                assert not place_of_one.remove_dead(NAME)
                os.close(taken.pop())  # One is free for the lock, none for the connection.
                assert not place_of_one.remove_dead(NAME)
            finally:
                for descriptor in taken:
                    os.close(descriptor)
                set_limit(before)
            assert place_of_one.entries() == [NAME]


def set_limit(files: int) -> int:
    """
    Set how many files this process may open, and give how many it was.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return soft
