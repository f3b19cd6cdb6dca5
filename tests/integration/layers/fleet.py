"""
The processes of ``members`` as tests hold them: started, told what to do, stopped, killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

__all__ = [
    "ROOT",
    "SECONDS_MAX",
    "Fleet",
    "Member",
    "all_do",
    "assert_complete",
    "calm",
    "join_all",
    "quick",
    "reach",
    "settle",
    "sockets_in",
    "unbroken",
    "until",
]

SECONDS_MAX = 15.0
"""
Time for one command to be answered, and for what a test waits for to happen.
"""

START_SECONDS_MAX = 60.0
"""
Time for a process to begin, of which many may be started at once.
"""

ROOT = Path(__file__).parents[3]


def quick(**ipc: Any) -> dict[str, Any]:
    """
    Options under which a silent peer is found out fast, and a join waits until it is known.

    A join is confirmed as soon as all others answered, so a long ``join_timeout`` makes no test
    slow; it only keeps a busy machine from turning into a message that need not arrive.
    """
    return {"ipc": {"heartbeat": 0.1, "silence": 0.6, "join_timeout": 4.0, **ipc}}


class Member:
    """
    One process that shares a channel layer with others.

    Attributes:
        name: The name its messages carry; another one after each start.
        channel: The channel that hears what it joins.
        done: Queue and number of each job it said it took.
        still: Whether it said that its loop stands still, some time or other.
    """

    def __init__(self, label: str, directory: Path, options: dict[str, Any]) -> None:
        self.label = label
        self.directory = directory
        self.options = options
        self.name = label
        self.channel = ""
        self.done: list[tuple[str, int]] = []
        self.still = False
        self.starts = 0
        self.process: asyncio.subprocess.Process | None = None
        self.log = Path(f"{directory}.{label}.log")
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ready: asyncio.Future[str] | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """
        Start the process, under a new name, and wait until it takes commands.
        """
        self.starts += 1
        self.name = f"{self.label}{self.starts}"
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.integration.layers.members",
                str(self.directory),
                json.dumps({**self.options, "name": self.name}),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=2**24,
            )
        self._ready = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self.process))
        async with asyncio.timeout(START_SECONDS_MAX):
            self.channel = await self._ready

    async def do(self, what: str, **arguments: Any) -> Any:
        """
        Give a command and wait for what it gives.
        """
        answer = await self.begin(what, **arguments)
        async with asyncio.timeout(SECONDS_MAX):
            return await answer

    async def begin(self, what: str, **arguments: Any) -> asyncio.Future[Any]:
        """
        Give a command; what is returned is done once it is answered.
        """
        assert self.process is not None
        assert self.process.stdin is not None
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        line = json.dumps({"id": number, "do": what, **arguments})
        self.process.stdin.write(line.encode() + b"\n")
        await self.process.stdin.drain()
        return answer

    def signal(self, number: int) -> None:
        """
        Send the process a signal.
        """
        assert self.process is not None
        self.process.send_signal(number)

    async def pause(self) -> None:
        """
        Stop the process where it is, and wait until it stands.
        """
        assert self.process is not None
        self.signal(signal.SIGSTOP)
        status = Path(f"/proc/{self.process.pid}/stat")
        await until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")

    def resume(self) -> None:
        """
        Let a stopped process go on.
        """
        self.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """
        End the process without a word, stopped or not.
        """
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.ended()

    async def quit(self) -> int:
        """
        End the process well, by the end of its input; give its exit status.
        """
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.ended()

    async def ended(self) -> int:
        """
        Wait for the end of the process and of its output; give its exit status.
        """
        assert self.process is not None
        assert self._reading is not None
        async with asyncio.timeout(SECONDS_MAX):
            status = await self.process.wait()
            await self._reading
        return status

    @property
    def runs(self) -> bool:
        """
        Whether the process was started and has not ended.
        """
        return self.process is not None and self.process.returncode is None

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """
        Give each answer to whoever waits for it, until the output ends.
        """
        assert process.stdout is not None
        assert self._ready is not None
        with suppress(ConnectionError):
            while line := await process.stdout.readline():
                if not line.endswith(b"\n"):
                    break  # It was killed in the middle of it.
                self._take(json.loads(line))
        for answer in [self._ready, *self._answers.values()]:
            if not answer.done():
                answer.set_exception(EOFError(f"{self.name} has ended"))
                answer.exception()  # Nobody needs to wait for it.
        self._answers.clear()

    def _take(self, line: dict[str, Any]) -> None:
        """
        Take one line of the process.
        """
        assert self._ready is not None
        if "ready" in line:
            self._ready.set_result(line["ready"])
        elif "still" in line:
            self.still = True
        elif "queue" in line:
            self.done.append((line["queue"], line["number"]))
        else:
            answer = self._answers.pop(line["id"])
            if answer.cancelled():
                return
            if "error" in line:
                answer.set_exception(AssertionError(f"{self.name}: {line['error']}"))
            else:
                answer.set_result(line["value"])


class Fleet:
    """
    The processes of one test, and the directory they meet in.

    Attributes:
        directory: The short path of the namespace; made by the first process.
        members: All of them, ended ones too.
        processes: Others to be killed with them, each with the group that it leads.
    """

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir="/tmp", prefix="fw-"))
        self.directory = self.root / "space"
        self.members: list[Member] = []
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(self, labels: Iterable[str], options: dict[str, Any]) -> list[Member]:
        """
        Start one process for each label, side by side, alternating between the loops.
        """
        started = [
            Member(
                label,
                self.directory,
                {"loop": ("uvloop", "asyncio")[number % 2], **options},
            )
            for number, label in enumerate(labels)
        ]
        self.members += started
        await asyncio.gather(*(member.start() for member in started))
        return started

    async def close(self) -> None:
        """
        Kill what still runs and remove the directory; none of it may have met an error.

        Raises:
            AssertionError: A process wrote a traceback.
        """
        for member in self.members:
            if member.runs:
                await member.kill()
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
        logs = [member.log.read_text() for member in self.members if member.log.exists()]
        shutil.rmtree(self.root)
        faults = [log for log in logs if "Traceback" in log or "never retrieved" in log]
        assert not faults, "\n".join(faults)


async def all_do(members: Iterable[Member], what: str, **arguments: Any) -> list[Any]:
    """
    Give several processes the same command and wait for all of them.
    """
    return list(await asyncio.gather(*(member.do(what, **arguments) for member in members)))


async def join_all(members: Iterable[Member], *groups: str) -> None:
    """
    Have processes join groups, each confirmed by all others.
    """
    await all_do(members, "join", groups=list(groups))


async def until(condition: Callable[[], Any]) -> Any:
    """
    Ask something over and over until the answer is true, and give that answer.
    """
    end = monotonic() + SECONDS_MAX
    answer = None
    while not answer:
        answer = condition()
        if isawaitable(answer):
            answer = await answer
        assert answer or monotonic() < end, f"it did not happen within {SECONDS_MAX:g} s"
        await asyncio.sleep(0 if answer else 0.01)
    return answer


async def settle(members: Sequence[Member], *groups: str) -> None:
    """
    Have processes join groups, and wait until each of them reaches all.
    """
    await join_all(members, *groups)
    await reach(members, len(members), *groups)


async def reach(members: Iterable[Member], number: int, *groups: str) -> None:
    """
    Wait until a message of each of these processes to any of the groups reaches so many.
    """

    async def reached(group: str) -> bool:
        return set(await all_do(members, "audience", group=group)) == {number}

    for group in groups:
        await until(partial(reached, group))


async def calm(members: Sequence[Member], group: str) -> dict[str, int]:
    """
    End the floods and wait until each process has heard all; give the last number of each.
    """
    sent = await all_do(members, "calm")
    last = {member.name: numbers[group] for member, numbers in zip(members, sent, strict=True)}
    await all_do(members, "hear", subject=group, senders=last)
    return last


def unbroken(heard: dict[str, Any]) -> bool:
    """
    Whether a sender's messages came whole, in order, each once and none left out between.
    """
    return not (heard["holes"] or heard["repeated"] or heard["torn"])


def assert_complete(report: dict[str, Any], group: str, last: dict[str, int]) -> None:
    """
    Show that a process heard each message of these senders exactly once and in order.
    """
    for sender, number in last.items():
        heard = report["heard"][group][sender]
        assert (heard["first"], heard["last"], heard["count"]) == (1, number, number), heard
        assert unbroken(heard), heard


def sockets_in(directory: Path) -> list[str]:
    """
    Name the sockets in a directory.
    """
    return sorted(path.name for path in directory.glob("*.sock"))
