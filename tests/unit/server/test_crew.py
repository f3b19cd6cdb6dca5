"""
Who starts when and who replaces whom, with workers that only pretend to be processes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

import pytest

from fairway.options import ServerOptions
from fairway.server import crew as crew_module
from fairway.server.board import Seat
from fairway.server.crew import Crew
from fairway.server.notify import Notifier


class FakeProcess:
    """
    A worker that serves, ends and asks when the test says so.
    """

    pids = count(100)

    def __init__(
        self,
        command: Any,
        environ: Any,
        sock: Any,
        seat: Seat,
        *,
        generation: int,
        speaks: bool,
        on_worn: Callable[[], None],
    ) -> None:
        seat.take()
        self.pid = next(self.pids)
        self.seat = seat
        self.generation = generation
        self.speaks = speaks
        self.serving = self.worn = self.retired = False
        self.status: int | None = None
        self.settled = asyncio.Event()
        self.gone = asyncio.Event()
        self.seconds = 0.0
        self._on_worn = on_worn
        self.on_end: Callable[[], None]

    def __str__(self) -> str:
        return f"Worker {self.seat.number}"

    async def wait_settled(self, timeout: float) -> None:
        """
        Wait for what the test has it do.
        """
        await self.settled.wait()

    def served_seconds(self) -> float:
        """
        What the test says.
        """
        return self.seconds

    def outcome(self) -> str:
        """
        Say how it ended.
        """
        return f"ended with status {self.status}"

    def reap(self) -> bool:
        """
        Whether it has ended.
        """
        return self.status is not None

    def retire(self, *, within: float) -> None:
        """
        Note that it has a successor.
        """
        self.retired = True
        self.gone.set()

    # -- what the test does with it

    def serve(self) -> FakeProcess:
        """
        Have it serve.
        """
        self.serving = True
        self.settled.set()
        return self

    def die(self, status: int = 1) -> None:
        """
        Have it end.
        """
        self.status = status
        self.seat.clear()
        self.settled.set()
        self.gone.set()
        self.on_end()

    def wear(self) -> None:
        """
        Have it ask for a successor.
        """
        self.worn = True
        self._on_worn()


class Yard:
    """
    A crew and the workers that it started.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.started: asyncio.Queue[FakeProcess] = asyncio.Queue()
        self.refusals = 0
        self.delays: list[float] = []
        self.sock = socket.socket()
        monkeypatch.setattr(crew_module, "WorkerProcess", self._start)
        monkeypatch.setattr(crew_module, "granted_cpus", lambda: 3)
        settings = {"workers": 2, "respawn_delay": 0.01, "respawn_delay_max": 0.04, **options}
        self.crew = Crew(ServerOptions(**settings), [], {}, self.sock, Notifier())
        self.work = asyncio.ensure_future(self.crew.work())

    def _start(self, *arguments: Any, **keywords: Any) -> FakeProcess:
        if self.refusals:
            self.refusals -= 1
            raise OSError(11, "Resource temporarily unavailable")
        process = FakeProcess(*arguments, **keywords)
        process.on_end = self.crew.reap
        self.started.put_nowait(process)
        return process

    async def next(self) -> FakeProcess:
        """
        The worker that is started next.
        """
        async with asyncio.timeout(5):
            return await self.started.get()

    async def serving(self, number: int) -> list[FakeProcess]:
        """
        Have so many workers start and serve.
        """
        return [(await self.next()).serve() for _ in range(number)]

    async def rest(self) -> None:
        """
        Let the crew do what it can do now.
        """
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def pids(self) -> str:
        """
        Those that serve, as the crew says it.
        """
        return self.crew._pids()

    async def close(self) -> None:
        """
        End the crew.
        """
        self.work.cancel()
        await asyncio.gather(self.work, return_exceptions=True)
        self.crew._board.close()
        self.sock.close()


Make = Callable[..., Yard]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """
    Makes crews.
    """
    yards = []

    def make_yard(**options: Any) -> Yard:
        yards.append(yard := Yard(monkeypatch, **options))
        return yard

    yield make_yard
    for yard in yards:
        await yard.close()


class TestStart:
    """
    The first worker, and then the others.
    """

    async def test_first_alone(self, make: Make) -> None:
        """
        The others start once the first one serves, which alone says what runs.
        """
        yard = make(workers=3)
        first = await yard.next()
        await yard.rest()
        assert yard.started.empty()
        first.serve()
        others = [await yard.next(), await yard.next()]
        assert [process.speaks for process in (first, *others)] == [True, False, False]
        assert [process.seat.number for process in (first, *others)] == [1, 2, 3]

    async def test_granted(self, make: Make) -> None:
        """
        0 takes one worker per CPU granted.
        """
        yard = make(workers=0)
        await yard.serving(3)
        await yard.rest()
        assert yard.started.empty()

    @pytest.mark.parametrize(("status", "expected"), [(2, 2), (7, 7), (0, 1), (-9, 1)])
    async def test_first_fails(self, make: Make, status: int, expected: int) -> None:
        """
        A first worker that does not start ends all with its status, or with 1 where that is none.
        """
        yard = make()
        (await yard.next()).die(status)
        assert await yard.work == expected

    async def test_first_refused(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        """
        A system that lets no process start ends it with one line.
        """
        yard = make()
        yard.refusals = 1
        assert await yard.work == 1
        assert len(caplog.records) == 1
        assert "No worker could be started: " in caplog.text

    async def test_another_fails(self, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
        """
        What serves is said too if not all could start.
        """
        yard = make(workers=3)
        first, second = await yard.serving(2)
        (await yard.next()).die()
        await yard.next()
        assert f"with 2 of 3 workers (pids {first.pid}, {second.pid})" in capsys.readouterr().out


class TestRespawn:
    """
    Workers that end by themselves.
    """

    async def test_delays(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        """
        The delay doubles up to its maximum, and is short again for one that had served a while.
        """
        yard = make()
        first, _ = await yard.serving(2)
        first.die()
        for _ in range(3):
            (await yard.next()).die()
        last = (await yard.next()).serve()
        await yard.rest()
        last.seconds = 1.0
        last.die()
        await yard.serving(1)
        delays = [record.getMessage().rpartition(" in ")[2] for record in caplog.records]
        assert delays == ["0.01 s", "0.02 s", "0.04 s", "0.04 s", "0.01 s"]

    async def test_refused(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        """
        A system that lets no process start for a while ends nothing.
        """
        yard = make()
        first, second = await yard.serving(2)
        await yard.rest()
        yard.refusals = 2
        first.die()
        (new,) = await yard.serving(1)
        await yard.rest()
        assert yard.pids == f"{new.pid}, {second.pid}"
        assert caplog.text.count("No worker could be started") == 2

    async def test_told_to_end(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        """
        One that somebody told to end is replaced while it drains.
        """
        yard = make()
        first, second = await yard.serving(2)
        first.gone.set()
        (new,) = await yard.serving(1)
        await yard.rest()
        assert yard.pids == f"{new.pid}, {second.pid}"
        assert "Worker 1 was told to end; another starts" in caplog.text


class TestReplace:
    """
    Workers that get a successor.
    """

    async def test_one_at_a_time(self, make: Make) -> None:
        """
        The old one leaves when the new one serves, and only then comes the next one's turn.
        """
        yard = make()
        old = await yard.serving(2)
        await yard.rest()
        yard.crew.renew()
        for index in (0, 1):
            new = await yard.next()
            await yard.rest()
            assert yard.started.empty()
            assert not old[index].retired
            new.serve()
            await yard.rest()
            assert old[index].retired
        assert not {str(process.pid) for process in old} & set(yard.pids.split(", "))

    async def test_again_meanwhile(self, make: Make) -> None:
        """
        A second SIGHUP while the first is carried out replaces those that are new already.
        """
        yard = make()
        await yard.serving(2)
        await yard.rest()
        yard.crew.renew()
        (third,) = await yard.serving(1)
        fourth = await yard.next()
        yard.crew.renew()
        fourth.serve()
        await yard.serving(2)
        await yard.rest()
        assert third.retired
        assert fourth.retired
        assert yard.started.empty()

    async def test_before_all_serve(self, make: Make) -> None:
        """
        A SIGHUP that comes during the start is carried out after it.
        """
        yard = make()
        first = await yard.next()
        yard.crew.renew()
        first.serve()
        (second,) = await yard.serving(1)
        await yard.serving(1)
        await yard.rest()
        assert (first.retired, second.retired) == (True, False)
        assert yard.started.empty()

    async def test_failure(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        """
        A new one that fails ends the replacing; the others stay.
        """
        yard = make()
        old = await yard.serving(2)
        await yard.rest()
        yard.crew.renew()
        (await yard.next()).die(2)
        await yard.rest()
        assert not any(process.retired for process in old)
        assert yard.started.empty()
        assert "ended with status 2; the others stay as they are" in caplog.text

    async def test_old_one_dies_first(self, make: Make) -> None:
        """
        An old one that dies while its successor starts is not replaced twice.
        """
        yard = make(workers=1)
        (old,) = await yard.serving(1)
        await yard.rest()
        yard.crew.renew()
        successor = await yard.next()
        old.die()
        respawned = await yard.next()
        successor.serve()
        await yard.rest()
        respawned.serve()
        await yard.rest()
        assert (successor.retired, respawned.retired) == (True, False)
        assert yard.pids == str(respawned.pid)

    async def test_old_one_dies_and_the_new_one_fails(self, make: Make) -> None:
        """
        A slot whose process and successor both ended is filled like any other.
        """
        yard = make(workers=1)
        (old,) = await yard.serving(1)
        await yard.rest()
        yard.crew.renew()
        successor = await yard.next()
        old.die()
        successor.die()
        (new,) = await yard.serving(1)
        await yard.rest()
        assert yard.pids == str(new.pid)

    async def test_successor_dies_at_once(self, make: Make) -> None:
        """
        A successor that serves and dies in the same moment has a successor of its own.
        """
        yard = make(workers=1)
        await yard.serving(1)
        await yard.rest()
        yard.crew.renew()
        successor = (await yard.next()).serve()
        successor.die()
        (new,) = await yard.serving(1)
        await yard.rest()
        assert yard.pids == str(new.pid)

    async def test_worn(self, make: Make) -> None:
        """
        A worn worker alone is replaced; one that gets no successor serves on and asks again.
        """
        yard = make()
        first, second = await yard.serving(2)
        await yard.rest()
        first.wear()
        (await yard.next()).die()
        await yard.rest()
        assert not first.retired
        (new,) = await yard.serving(1)
        await yard.rest()
        assert (first.retired, second.retired) == (True, False)
        assert yard.pids == f"{new.pid}, {second.pid}"

    async def test_seats_run_out(self, make: Make) -> None:
        """
        While too many old workers drain, a new one waits until one of them has ended.
        """
        yard = make(workers=1)
        processes = await yard.serving(1)
        await yard.rest()
        for _ in range(3):
            yard.crew.renew()
            processes += await yard.serving(1)
            await yard.rest()
        assert sorted(process.seat.number for process in processes) == [1, 2, 3, 4]
        yard.crew.renew()
        await yard.rest()
        assert yard.started.empty()
        processes[1].die(0)
        (new,) = await yard.serving(1)
        assert new.seat.number == processes[1].seat.number
