"""
What several processes may rely on who share a queue: each message once, in order, through kills.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.layers.brokers.ipc.children import Child

pytestmark = pytest.mark.fault

PUSH = """
    queues = SQLiteQueues(path, 0.05)
    for number in range(int(sys.argv[2])):
        queues.push("jobs", f"{sys.argv[3]}.{number}".encode(), 60, 100_000).result(10)
        say(number)
"""
"""
Push some numbered messages under a name, saying each once it is taken.
"""

READ = """
    async def read(queues):
        while True:
            say((await queues.pop("jobs")).decode())

    async def main():
        queues = SQLiteQueues(path, 0.05)
        say("reads")
        await read(queues)

    asyncio.run(main())
"""
"""
Read one message after another, saying each.
"""

READ_ON_THREADS = """
    async def read(queues):
        while (payload := await queues.pop("jobs")) != b"stop":
            say(payload.decode())

    queues = SQLiteQueues(path, 0.05)
    threads = [threading.Thread(target=asyncio.run, args=(read(queues),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
"""
The same on three loops at once, until each has read that it is to stop.
"""

STOP = """
    queues = SQLiteQueues(path, 0.05)
    for _ in range(int(sys.argv[2])):
        queues.push("jobs", b"stop", 60, 100_000).result(10)
"""
"""
Have some readers stop.
"""


@pytest.fixture
def file() -> Iterator[Path]:
    """
    Give the path of a file in a directory that is removed afterwards.
    """
    directory = Path(tempfile.mkdtemp(prefix="fw", dir="/tmp"))
    yield directory / "queues.sqlite3"
    shutil.rmtree(directory)


def names(count: int, *pushers: str) -> set[str]:
    """
    Give what some pushers push.
    """
    return {f"{pusher}.{number}" for pusher in pushers for number in range(count)}


def drain(file: Path) -> list[str]:
    """
    Read what is left in a queue, by a process of its own.
    """
    script = """
        async def main():
            queues = SQLiteQueues(path, 0.05)
            await asyncio.wrap_future(queues.push("jobs", b"end", 60, 100_000))
            while (payload := await queues.pop("jobs")) != b"end":
                say(payload.decode())
            await queues.close(5)

        asyncio.run(main())
    """
    with Child(file, script) as child:
        return child.rest()


def numbers_of(pusher: str, messages: list[str]) -> list[int]:
    """
    Give the numbers of one pusher's messages, in the order in which they came.
    """
    return [int(number) for who, number in (one.split(".") for one in messages) if who == pusher]


def start(stack: ExitStack, file: Path, script: str, *arguments: object) -> Child:
    """
    Start a process that ends with the test.
    """
    return stack.enter_context(Child(file, script, *arguments))


class TestSharing:
    """
    Readers and pushers in processes of their own.
    """

    def test_each_message_has_one_reader(self, file: Path) -> None:
        """
        Three pushers, two processes with three reading loops each: nothing lost, nothing twice.
        """
        with ExitStack() as stack:
            readers = [start(stack, file, READ_ON_THREADS) for _ in range(2)]
            for pusher in [start(stack, file, PUSH, 50, name) for name in "abc"]:
                assert len(pusher.rest()) == 50
            start(stack, file, STOP, 6).rest()
            got = [line for reader in readers for line in reader.rest()]
        assert sorted(got) == sorted(names(50, "a", "b", "c"))

    def test_one_reader_gets_each_pushers_messages_in_order(self, file: Path) -> None:
        """
        Of whichever process, however they mix.
        """
        with ExitStack() as stack:
            pushers = [start(stack, file, PUSH, 100, name) for name in "abc"]
            reader = start(stack, file, READ)
            assert reader.hear() == "reads"
            got = [reader.hear() for _ in range(300)]
            for pusher in pushers:
                assert len(pusher.rest()) == 100
        for name in "abc":
            assert numbers_of(name, got) == list(range(100))

    def test_a_message_waits_for_its_worker(self, file: Path) -> None:
        """
        Pushed by a process that has ended, read by one that began afterwards.
        """
        with Child(file, PUSH, 5, "a") as pusher:
            pusher.rest()
        with Child(file, READ) as reader:
            assert [reader.hear() for _ in range(6)] == [
                "reads",
                *(f"a.{number}" for number in range(5)),
            ]

    def test_a_queue_is_full_for_all_at_the_same_message(self, file: Path) -> None:
        """
        Four processes push at once, and together exactly what fits is taken.
        """
        script = """
            queues = SQLiteQueues(path, 0.05)
            for number in range(30):
                try:
                    queues.push("jobs", b"-", 60, 50).result(10)
                except ChannelFull:
                    say("full")
                else:
                    say("taken")
        """
        with ExitStack() as stack:
            pushers = [start(stack, file, script) for _ in range(4)]
            said = [line for pusher in pushers for line in pusher.rest()]
        assert sorted(said) == ["full"] * 70 + ["taken"] * 50

    def test_many_processes_may_make_the_file_at_once(self, file: Path) -> None:
        """
        Nobody meets a file that is half made.
        """
        with ExitStack() as stack:
            pushers = [start(stack, file, PUSH, 1, number) for number in range(8)]
            for pusher in pushers:
                assert pusher.rest() == ["0"]
        assert set(drain(file)) == {f"{number}.0" for number in range(8)}

    def test_a_megabyte_passes_between_processes(self, file: Path) -> None:
        """
        To the byte.
        """
        push = """
            queues = SQLiteQueues(path, 0.05)
            payload = os.urandom(1_048_576)
            queues.push("jobs", payload, 60, 10).result(10)
            say(zlib.crc32(payload))
        """
        read = """
            say(zlib.crc32(asyncio.run(SQLiteQueues(path, 0.05).pop("jobs"))))
        """
        with ExitStack() as stack:
            reader = start(stack, file, read)
            pusher = start(stack, file, push)
            assert pusher.hear() == reader.hear()

    def test_what_a_cancelled_reader_gave_back_reaches_another_process(self, file: Path) -> None:
        """
        Before what was pushed after it.
        """
        script = """
            async def main():
                queues = SQLiteQueues(path, 60)
                reader = asyncio.ensure_future(queues.pop("jobs"))
                await asyncio.sleep(0)
                for number in range(3):
                    queues.push("jobs", f"a.{number}".encode(), 60, 100).result(10)
                reader.cancel()
                await asyncio.wait([reader])
                say(reader.cancelled())
                await queues.close(5)

            asyncio.run(main())
        """
        with Child(file, script) as child:
            assert child.rest() == ["True"]
        assert drain(file) == ["a.0", "a.1", "a.2"]


class TestKilled:
    """
    Processes that end without a word, or stand still.
    """

    @pytest.mark.parametrize("after", [1, 7, 40])
    def test_a_killed_reader_loses_at_most_what_it_had_in_hand(
        self, file: Path, after: int
    ) -> None:
        """
        Nothing is read twice, and what it did not take is read by others.
        """
        with Child(file, PUSH, 200, "a") as pusher:
            pusher.rest()
        with Child(file, READ) as reader:
            assert reader.hear() == "reads"
            got = [reader.hear() for _ in range(after)]
            reader.kill()
            got += reader.said()
        rest = drain(file)
        assert numbers_of("a", rest) == sorted(numbers_of("a", rest))
        assert len(set(got + rest)) == len(got + rest)
        assert len(names(200, "a") - set(got + rest)) <= 1

    @pytest.mark.parametrize("after", [1, 7, 40])
    def test_a_killed_pusher_loses_nothing_it_was_told_is_taken(
        self, file: Path, after: int
    ) -> None:
        """
        And what it was not told of came once or not at all.
        """
        with Child(file, PUSH, 100_000, "a") as pusher:
            taken = [pusher.hear() for _ in range(after)]
            pusher.kill()
            taken += pusher.said()
        got = numbers_of("a", drain(file))
        assert got == list(range(len(got)))
        assert len(taken) <= len(got) <= len(taken) + 1

    def test_killing_again_and_again_breaks_no_file(self, file: Path) -> None:
        """
        Processes that read and write at full speed are killed at any moment.
        """
        script = """
            async def main():
                queues = SQLiteQueues(path, 0.05)
                say("begins")
                number = 0
                while True:
                    pushed = [queues.push("flood", b"x" * 3000, 60, 20) for _ in range(10)]
                    await asyncio.gather(*map(asyncio.wrap_future, pushed), return_exceptions=True)
                    await asyncio.gather(*(queues.pop("flood") for _ in range(5)))

            asyncio.run(main())
        """
        with Child(file, PUSH, 10, "a") as pusher:
            pusher.rest()
        for _ in range(3):
            with ExitStack() as stack:
                children = [start(stack, file, script) for _ in range(3)]
                for child in children:
                    assert child.hear() == "begins"
                for child in children:
                    child.kill()
        assert set(drain(file)) == names(10, "a")
        assert not file.with_name("queues.sqlite3.corrupt").exists()

    def test_a_stopped_reader_holds_nobody_up(self, file: Path) -> None:
        """
        The others read everything meanwhile, and it goes on when it is let.
        """
        with ExitStack() as stack:
            stopped = start(stack, file, READ)
            start(stack, file, PUSH, 1, "c").rest()
            assert [stopped.hear(), stopped.hear()] == ["reads", "c.0"]
            stopped.signal(signal.SIGSTOP)
            other = start(stack, file, READ)
            assert other.hear() == "reads"
            with Child(file, PUSH, 20, "a") as pusher:
                pusher.rest()
            assert [other.hear() for _ in range(20)] == [f"a.{number}" for number in range(20)]
            other.kill()
            stopped.signal(signal.SIGCONT)
            with Child(file, PUSH, 1, "b") as pusher:
                pusher.rest()
            assert stopped.hear() == "b.0"

    def test_a_process_stopped_while_it_writes_costs_others_a_bounded_time(
        self, file: Path
    ) -> None:
        """
        A push fails after it and says why; once that process is killed, everything works.
        """
        hold = """
            import sqlite3
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            say("holds")
            sys.stdin.readline()
        """
        push = """
            queues = SQLiteQueues(path, 0.05, busy=0.2)
            while sys.stdin.readline():
                try:
                    queues.push("jobs", b"a.0", 60, 100).result(5)
                except ChannelLayerUnavailable as error:
                    say(error)
                else:
                    say("taken")
        """
        with Child(file, PUSH, 0, "a") as child:
            child.rest()
        with ExitStack() as stack:
            pusher = start(stack, file, push)
            pusher.tell()
            assert pusher.hear() == "taken"
            holder = start(stack, file, hold)
            assert holder.hear() == "holds"
            holder.signal(signal.SIGSTOP)
            pusher.tell()
            assert "locked" in pusher.hear()
            holder.kill()
            pusher.tell()
            assert pusher.hear() == "taken"

    def test_a_broken_file_is_set_aside_once(self, file: Path) -> None:
        """
        By whichever of many processes, of which none loses what it pushes then.
        """
        file.write_bytes(b"no database at all" * 1000)
        with ExitStack() as stack:
            pushers = [start(stack, file, PUSH, 5, name) for name in "abcdef"]
            for pusher in pushers:
                assert len(pusher.rest()) == 5
        assert set(drain(file)) == names(5, *"abcdef")
        assert file.with_name("queues.sqlite3.corrupt").read_bytes()[:2] == b"no"

    def test_a_directory_that_may_not_be_written_makes_the_queues_unavailable(
        self, file: Path
    ) -> None:
        """
        As an ordinary user, which root becomes for the purpose.
        """
        script = """
            if os.geteuid() == 0:
                become_nobody()
            try:
                SQLiteQueues(path, 0.05).push("jobs", b"-", 60, 100).result(5)
            except ChannelLayerUnavailable as error:
                say(error)
        """
        file.parent.chmod(0o555)
        with Child(file, script) as child:
            assert "Permission denied" in child.hear()
        file.parent.chmod(0o700)


class TestForking:
    """
    A process that forks while its queues are in use.
    """

    def test_parent_and_children_go_on_side_by_side(self, file: Path) -> None:
        """
        Forked amid pushes and pops of other threads, each child begins anew on the same file.
        """
        script = """
            import warnings  # Forking with threads is the point.
            warnings.simplefilter("ignore", DeprecationWarning)
            queues = SQLiteQueues(path, 0.05)
            going = True

            async def churn():
                while going:
                    await asyncio.wrap_future(queues.push("churn", b"x" * 2000, 60, 1000))
                    await queues.pop("churn")

            threads = [threading.Thread(target=asyncio.run, args=(churn(),)) for _ in range(2)]
            for thread in threads:
                thread.start()
            children = []
            for number in range(10):
                child = os.fork()
                if not child:
                    queues.push("jobs", f"child.{number}".encode(), 60, 1000).result(10)
                    asyncio.run(asyncio.wait_for(queues.pop("own" + str(number)), 10))
                    queues.push("jobs", f"again.{number}".encode(), 60, 1000).result(10)
                    os._exit(0)
                queues.push("own" + str(number), b"-", 60, 1000).result(10)
                queues.push("jobs", f"parent.{number}".encode(), 60, 1000).result(10)
                children.append(child)
            for child in children:
                say(os.waitpid(child, 0)[1])
            going = False
            for thread in threads:
                thread.join()
            say("done")
        """
        with Child(file, script) as child:
            assert child.rest() == ["0"] * 10 + ["done"]
        assert sorted(drain(file)) == sorted(names(10, "child", "parent", "again"))
        assert not file.with_name("queues.sqlite3.corrupt").exists()

    def test_a_child_leaves_its_parents_readers_alone(self, file: Path) -> None:
        """
        Who waits in the parent is served there, and the child's end harms nobody.
        """
        script = """
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)

            async def main():
                queues = SQLiteQueues(path, 0.05)
                reader = asyncio.ensure_future(queues.pop("jobs"))
                await asyncio.sleep(0.1)
                child = os.fork()
                if not child:
                    queues.push("jobs", b"1", 60, 100).result(10)
                    os._exit(0)
                say((await reader).decode())
                say(os.waitpid(child, 0)[1])
                await queues.close(5)

            asyncio.run(main())
        """
        with Child(file, script) as child:
            assert child.rest() == ["1", "0"]


class TestThroughTheBroker:
    """
    A push of one process wakes a reader of another one.
    """

    def test_a_reader_hears_at_once_of_what_another_process_pushes(self, file: Path) -> None:
        """
        Long before its poll, which is a minute away; and so it does of each push that follows.
        """
        begin = """
            from fairway.layers.brokers.ipc import IPCBroker
            from fairway.options import IPCOptions

            def ignore(*arguments):
                pass

            async def enter():
                options = IPCOptions(queue_poll=60)
                broker = IPCBroker(path, options, expiry=60, namespace="test")
                await broker.start(ignore, ignore, ignore)
                return broker

        """
        read = (
            begin
            + """
            async def main():
                broker = await enter()
                while True:
                    payload = await broker.pop("jobs")
                    say(time.monotonic() - float(payload))

            asyncio.run(main())
        """
        )
        push = (
            begin
            + """
            async def main():
                broker = await enter()
                while not await broker.audience("queue:jobs"):
                    await asyncio.sleep(0.001)
                for _ in range(20):
                    payload = str(time.monotonic()).encode()
                    await broker.push("jobs", payload, lifetime=60, capacity=100)
                    await asyncio.sleep(0.01)
                await broker.close()

            asyncio.run(main())
        """
        )
        directory = file.parent / "root" / "project"
        with ExitStack() as stack:
            reader = start(stack, directory, read)
            assert start(stack, directory, push).rest() == []
            delays = sorted(float(reader.hear()) for _ in range(20))
        assert delays[10] < 0.1
        assert delays[-1] < 5
