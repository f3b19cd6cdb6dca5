"""
Four processes that join, leave, send, stop, go on, die and return in any order, beside a model.

The model knows of each message who must get it: whoever had joined, while neither it nor the
sender has been stopped since the two last proved to be in touch. Others in the group may
miss it. Nobody else gets it, and nothing comes twice, out of order or torn. What is missing
between two messages is counted as gaps, to the number, and what is missing behind the last
one of a sender that lives is reported as a gap, too.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.integration.layers.fleet import SECONDS_MAX, Fleet, Member, all_do, quick

T = TypeVar("T")

LABELS = "abcd"
JOIN_TIMEOUT = 1.0
MARGIN = 1.0
OPTIONS = quick(join_timeout=JOIN_TIMEOUT, silence=3.0, link_bytes_max=65536)
BIG = 16384
"""
Bytes of a message of which a few dozen fill what lies between two processes.
"""

members = st.integers(0, len(LABELS) - 1)
groups = st.sampled_from(["one", "two"])
numbers = count(1)


class Process:
    """
    What the model knows of one process.

    Attributes:
        member: The real one.
        paused: Whether it was stopped.
        dead: Whether it was killed.
        clean: Whether it has not been stopped since it last proved to be in touch with all.
        joined: The groups it is in.
        must: The first and last number of those that must arrive, by group and sender.
        may_miss: Groups and senders of which it may miss some.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self.paused = self.dead = False
        self.clean = True
        self.joined: set[str] = set()
        self.must: dict[tuple[str, str], tuple[int, int]] = {}
        self.may_miss: set[tuple[str, str]] = set()

    @property
    def name(self) -> str:
        """
        The name of its messages.
        """
        return self.member.name

    @property
    def runs(self) -> bool:
        """
        Whether it takes commands.
        """
        return not (self.paused or self.dead)

    def excuse(self, sender: str | None = None) -> None:
        """
        Demand nothing more of what others sent so far, or one of them.
        """
        for group, name in list(self.must):
            if name != self.name and sender in {None, name}:
                self.may_miss.add((group, name))
                del self.must[group, name]


class Crowd(RuleBasedStateMachine):
    """
    The rules, played on real processes that all examples share.
    """

    def __init__(self, runner: asyncio.Runner, real: list[Member]) -> None:
        super().__init__()
        self.runner = runner
        self.processes = [Process(member) for member in real]
        self.sent: dict[tuple[str, str], int] = defaultdict(int)
        self.prefix = f"{next(numbers)}-"

    def run(self, doing: Awaitable[T]) -> T:
        """
        Wait for something on the loop of the processes.
        """

        async def wait() -> T:
            return await doing

        return self.runner.run(wait())

    def do(self, process: Process, what: str, **arguments: Any) -> Any:
        """
        Give one process a command.
        """
        return self.run(process.member.do(what, **arguments))

    @property
    def running(self) -> list[Process]:
        """
        The processes that take commands.
        """
        return [process for process in self.processes if process.runs]

    def some(self, number: int) -> Process:
        """
        Choose a process that runs.
        """
        return self.running[number % len(self.running)]

    # --- Rules -------------------------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(who=members, group=groups)
    def join(self, who: int, group: str) -> None:
        """A join returns in time, whoever stands still."""
        process = self.some(who)
        joined = self.do(process, "join", groups=[self.prefix + group])
        # A process that has just begun waits for the others once more.
        assert joined["slowest"] < 2 * JOIN_TIMEOUT + MARGIN
        process.joined.add(group)

    @precondition(lambda self: self.running)
    @rule(who=members, group=groups)
    def leave(self, who: int, group: str) -> None:
        """One that left hears nothing more."""
        process = self.some(who)
        self.do(process, "leave", groups=[self.prefix + group])
        process.joined.discard(group)
        for key in [key for key in process.must if key[0] == group]:
            del process.must[key]
        process.may_miss = {key for key in process.may_miss if key[0] != group}

    @precondition(lambda self: self.running)
    @rule(who=members, group=groups, times=st.integers(1, 5), big=st.booleans())
    def send(self, who: int, group: str, times: int, big: bool) -> None:
        """Whoever is in the group and in touch must get it."""
        sender = self.some(who)
        times, size = (30 + times, BIG) if big else (times, 0)
        last = self.do(sender, "send", group=self.prefix + group, count=times, size=size)
        self.sent[group, sender.name] = last
        for process in self.processes:
            if group not in process.joined:
                continue
            in_touch = process.runs and process.clean and sender.clean
            if process is sender or in_touch:
                first, _ = process.must.get((group, sender.name), (last - times + 1, 0))
                process.must[group, sender.name] = first, last
            else:
                process.may_miss.add((group, sender.name))

    @precondition(lambda self: len(self.running) > 1)
    @rule(who=members)
    def pause(self, who: int) -> None:
        """A process is stopped."""
        process = self.some(who)
        self.run(process.member.pause())
        process.paused, process.clean = True, False
        self.excuse_all(process)

    @precondition(lambda self: any(process.paused for process in self.processes))
    @rule()
    def resume(self) -> None:
        """The processes that were stopped go on."""
        for process in self.processes:
            if process.paused:
                process.member.resume()
                process.paused = False

    @precondition(lambda self: len(self.running) > 1)
    @rule(who=members)
    def kill(self, who: int) -> None:
        """A process is killed, stopped or not."""
        process = self.processes[who]
        if process.dead or self.running == [process]:
            return
        self.run(process.member.kill())
        self.excuse_all(process)
        process.dead, process.paused = True, False
        process.joined.clear()
        process.must.clear()
        process.may_miss.clear()

    @precondition(lambda self: any(process.dead for process in self.processes))
    @rule()
    def restart(self) -> None:
        """The processes that were killed are started anew."""
        dead = [process for process in self.processes if process.dead]
        self.run(start_all(process.member for process in dead))
        for process in dead:
            process.dead, process.clean = False, True

    @precondition(
        lambda self: any(process.runs and not process.clean for process in self.processes)
    )
    @rule()
    def meet(self) -> None:
        """Those that run find each other again, by themselves."""
        self.run(self.in_touch(self.running))
        for process in self.running:
            process.clean = True

    @precondition(lambda self: self.running)
    @rule(who=members)
    def check(self, who: int) -> None:
        """What must have arrived at a process is there, and nothing is there that must not be."""
        process = self.some(who)
        for (group, sender), (_, last) in process.must.items():
            self.do(process, "hear", subject=self.prefix + group, senders={sender: last})
        self.compare(process, self.do(process, "report"))

    # --- Helpers -----------------------------------------------------------------------------

    def excuse_all(self, process: Process) -> None:
        """
        Let a process miss messages of others, and others messages of it.
        """
        process.excuse()
        for other in self.processes:
            if other is not process:
                other.excuse(process.name)

    async def in_touch(self, running: list[Process]) -> None:
        """
        Wait until each process hears each other one in a group that all join now.
        """
        real = [process.member for process in running]
        group = f"{self.prefix}meeting-{next(numbers)}"
        await all_do(real, "join", groups=[group])
        async with asyncio.timeout(SECONDS_MAX):
            await asyncio.gather(*(self.heard_by_all(member, real, group) for member in real))
        await all_do(real, "leave", groups=[group])

    async def heard_by_all(self, sender: Member, real: list[Member], group: str) -> None:
        """
        Have a process send until all hear it.
        """
        while True:
            with suppress(TimeoutError):
                senders = {sender.name: await sender.do("send", group=group)}
                async with asyncio.timeout(0.2):
                    await all_do(real, "hear", subject=group, senders=senders)
                return

    def compare(self, process: Process, report: dict[str, Any]) -> None:
        """
        Compare what a process heard with the model.
        """
        assert report["slowest_publish"] < JOIN_TIMEOUT + MARGIN
        heard_in = {name: heard for name, heard in report["heard"].items() if heard}
        for group in ("one", "two"):
            senders = heard_in.pop(self.prefix + group, {})
            assert group in process.joined or not senders
            holes = 0
            for name, heard in senders.items():
                assert not heard["repeated"], heard
                assert not heard["torn"], heard
                assert not heard["holes"] or (group, name) in process.may_miss, heard
                assert heard["last"] <= self.sent[group, name]
                self.compare_demands(process.must.get((group, name), (heard["first"], 0)), heard)
                holes += sum(after - before - 1 for before, after in heard["holes"])
            gaps = [lost for name, lost in report["gaps"] if name == f"group:{self.prefix}{group}"]
            assert sum(lost for lost in gaps if lost) == holes
            self.compare_ends(process, group, senders, gaps)
        assert not heard_in

    def compare_demands(self, must: tuple[int, int], heard: dict[str, Any]) -> None:
        """
        Show that nothing is missing between the first and the last that must be there.
        """
        first, last = must
        assert heard["first"] <= first, (must, heard)
        assert heard["last"] >= last, (must, heard)
        assert all(after <= first or before >= last for before, after in heard["holes"]), heard

    def compare_ends(
        self, process: Process, group: str, senders: dict[str, Any], gaps: list[int | None]
    ) -> None:
        """
        Show that a loss at the end, between two processes in touch again, was reported.
        """
        for other in self.running:
            heard = senders.get(other.name)
            if heard and other.clean and process.clean:
                assert heard["last"] == self.sent[group, other.name] or None in gaps, heard

    def teardown(self) -> None:
        """
        Have all run and meet again, look at everything once more, and leave all groups.
        """
        self.resume()
        self.restart()
        self.meet()
        for number in range(len(self.processes)):
            self.check(number)
        real = [process.member for process in self.processes]
        self.run(all_do(real, "leave", groups=[self.prefix + "one", self.prefix + "two"]))
        self.run(all_do(real, "forget"))


async def start_all(real: Iterable[Member]) -> None:
    """
    Start processes side by side.
    """
    await asyncio.gather(*(member.start() for member in real))


@pytest.fixture
def real() -> Iterator[tuple[asyncio.Runner, list[Member]]]:
    """
    Four processes in touch, and what runs the loop they are commanded from.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        fleet = Fleet()
        try:
            yield runner, runner.run(fleet.start(LABELS, OPTIONS))
        finally:
            runner.run(fleet.close())


@pytest.mark.fault
@pytest.mark.slow(60, reason="plays many faults on real processes, one after the other")
def test_processes_do_as_the_model_says(real: tuple[asyncio.Runner, list[Member]]) -> None:
    """Whatever happens to them, in whichever order, processes lose nothing but what they may."""
    run_state_machine_as_test(
        lambda: Crowd(*real),  # type: ignore[arg-type]
        settings=settings(
            max_examples=20,
            stateful_step_count=15,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
