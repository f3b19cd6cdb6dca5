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
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.integration.layers.fleet import SECONDS_MAX, Fleet, Member, all_do, quick

T = TypeVar("T")

LABELS = "abcd"
JOIN_TIMEOUT = 1.0
MARGIN = 1.0
OPTIONS = {
    **quick(join_timeout=JOIN_TIMEOUT, silence=3.0, link_bytes_max=65536),
    "pace_seconds": JOIN_TIMEOUT,
}
BIG = 16384
"""
Bytes of a message of which a few dozen fill what lies between two processes.
"""

GROUPS = ("one", "two")
members = st.integers(0, len(LABELS) - 1)
choices = st.integers(0, 7)
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

    @property
    def living(self) -> list[Process]:
        """
        The processes that were not killed.
        """
        return [process for process in self.processes if not process.dead]

    @property
    def inside(self) -> list[tuple[Process, str]]:
        """
        Processes that run with each group they are in.
        """
        return [(process, group) for process in self.running for group in sorted(process.joined)]

    @property
    def outside(self) -> list[tuple[Process, str]]:
        """
        Processes that run with each group they are not in.
        """
        inside = self.inside
        everywhere = [(process, group) for process in self.running for group in GROUPS]
        return [pair for pair in everywhere if pair not in inside]

    # --- Rules -------------------------------------------------------------------------------

    @initialize(two=st.sets(members))
    def begin(self, two: set[int]) -> None:
        """All are in one group, and some in another."""
        for number, process in enumerate(self.processes):
            self.enter(process, "one")
            if number in two:
                self.enter(process, "two")

    @precondition(lambda self: self.outside)
    @rule(which=choices)
    def join(self, which: int) -> None:
        """A join returns in time, whoever stands still."""
        process, group = choose(self.outside, which)
        self.enter(process, group)

    @precondition(lambda self: self.inside)
    @rule(which=choices)
    def leave(self, which: int) -> None:
        """One that left hears nothing more."""
        process, group = choose(self.inside, which)
        self.do(process, "leave", groups=[self.prefix + group])
        process.joined.discard(group)
        for key in [key for key in process.must if key[0] == group]:
            del process.must[key]
        process.may_miss = {key for key in process.may_miss if key[0] != group}

    @rule(who=choices, group=st.sampled_from(GROUPS), times=st.integers(1, 5))
    def send(self, who: int, group: str, times: int) -> None:
        """Whoever is in the group and in touch must get it."""
        self.publish(choose(self.running, who), group, times, 0)

    @rule(who=choices, group=st.sampled_from(GROUPS), times=st.integers(20, 40))
    def send_much(self, who: int, group: str, times: int) -> None:
        """As well when it is more than what a stopped process leaves room for."""
        self.publish(choose(self.running, who), group, times, BIG)

    @precondition(lambda self: len(self.running) > 2)
    @rule(who=choices)
    def pause(self, who: int) -> None:
        """A process is stopped."""
        process = choose(self.running, who)
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

    @precondition(lambda self: len(self.living) > 2 and len(self.running) > 1)
    @rule(who=choices)
    def kill(self, who: int) -> None:
        """A process is killed, stopped or not."""
        process = choose(self.living, who)
        self.run(process.member.kill())
        self.excuse_all(process)
        process.dead, process.paused = True, False
        process.joined.clear()
        process.must.clear()
        process.may_miss.clear()

    @precondition(lambda self: len(self.living) < len(self.processes))
    @rule()
    def restart(self) -> None:
        """The processes that were killed are started anew."""
        dead = [process for process in self.processes if process.dead]
        self.run(start_all(process.member for process in dead))
        for process in dead:
            process.dead, process.clean = False, True

    @precondition(lambda self: any(not process.clean for process in self.running))
    @rule()
    def meet(self) -> None:
        """Those that run find each other again, by themselves."""
        self.run(self.in_touch(self.running))
        for process in self.running:
            process.clean = True

    @precondition(lambda self: any(process.must for process in self.running))
    @rule()
    def check(self) -> None:
        """What must have arrived is there, and nothing is there that must not be."""
        for process in self.running:
            for (group, sender), (_, last) in process.must.items():
                self.do(process, "hear", subject=self.prefix + group, senders={sender: last})
            self.compare(process, self.do(process, "report"))

    # --- Helpers -----------------------------------------------------------------------------

    def enter(self, process: Process, group: str) -> None:
        """
        Have a process join a group.
        """
        joined = self.do(process, "join", groups=[self.prefix + group])
        # A process that has just begun waits for the others once more.
        assert joined["slowest"] < 2 * JOIN_TIMEOUT + MARGIN
        process.joined.add(group)

    def publish(self, sender: Process, group: str, times: int, size: int) -> None:
        """
        Have a process send to a group, and note who must get it and who may miss it.
        """
        last = self.do(sender, "send", group=self.prefix + group, count=times, size=size)
        self.sent[group, sender.name] = last
        for process in self.processes:
            if group not in process.joined:
                continue
            key = group, sender.name
            if process is sender or (process.runs and process.clean and sender.clean):
                first, _ = process.must.get(key, (last - times + 1, 0))
                process.must[key] = first, last
            else:
                process.may_miss.add(key)

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
        for group in GROUPS:
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
        self.check()
        real = [process.member for process in self.processes]
        self.run(all_do(real, "leave", groups=[self.prefix + group for group in GROUPS]))
        self.run(all_do(real, "forget"))


def choose(some: list[T], which: int) -> T:
    """
    Take one of a list, whichever number is given.
    """
    return some[which % len(some)]


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
@pytest.mark.slow(90, reason="plays many faults on real processes, one after the other")
def test_processes_do_as_the_model_says(real: tuple[asyncio.Runner, list[Member]]) -> None:
    """Whatever happens to them, in whichever order, processes lose nothing but what they may."""
    run_state_machine_as_test(
        lambda: Crowd(*real),  # type: ignore[arg-type]
        settings=settings(
            max_examples=12,  # Each rule is played in them, most of them often.
            stateful_step_count=20,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
