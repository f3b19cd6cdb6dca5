"""
The workers of one server: how many there are, who replaces whom, and how all of them end.

What ends or renews them, signals and systemd, is in ``supervisor``; one of them is in ``process``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from fairway.server import listen, log
from fairway.server.board import Board, State
from fairway.server.cpus import granted_cpus
from fairway.server.process import WorkerProcess

if TYPE_CHECKING:
    import socket

    from fairway.options import ServerOptions
    from fairway.server.notify import Notifier

__all__ = ["Crew"]

GRACE_SECONDS = 5.0
"""
What a draining worker gets beyond the times that the options give it.
"""


class Slot:
    """
    One of the workers that there shall be, whichever process it is at present.
    """

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        self.tried = asyncio.Event()


class Crew:
    """
    Keeps as many workers running as the options say.

    Event-loop thread only.
    """

    def __init__(
        self,
        options: ServerOptions,
        command: Sequence[str],
        environ: Mapping[str, str],
        sock: socket.socket,
        notifier: Notifier,
    ) -> None:
        """
        Remember what to run.

        Args:
            options: How many workers, and the times that starting and ending may take.
            command: What starts one worker.
            environ: The environment of a worker.
            sock: The listening socket.
            notifier: Tells systemd that they serve, and that they are replaced.
        """
        self._options = options
        self._command = command
        self._environ = environ
        self._sock = sock
        self._notifier = notifier
        self._slots = [Slot() for _ in range(options.workers or granted_cpus())]
        # Those that serve, as many that leave, one that starts to replace and one to respawn.
        self._board = Board.create(2 * len(self._slots) + 2)
        self._free_seats = asyncio.Semaphore(self._board.size)
        self._processes: set[WorkerProcess] = set()
        self._generation = 0
        self._due = asyncio.Event()
        self._ended = asyncio.Event()

    async def work(self) -> int:
        """
        Start the first worker, then the others, and keep as many.

        Returns:
            The exit status, once the first worker failed; else it does not return.
        """
        first = await self._start(speaks=True)
        if first is None or not first.serving:
            return _failure(first)
        self._slots[0].process = first
        async with asyncio.TaskGroup() as tasks:
            for slot in self._slots:
                tasks.create_task(self._keep(slot))
            for slot in self._slots:
                await slot.tried.wait()
            self._announce()
            tasks.create_task(self._replace_when_due())
        raise AssertionError("the tasks of a supervisor do not end by themselves")

    def renew(self) -> None:
        """
        Have every worker replaced, one after another, each once its successor serves.
        """
        self._generation += 1
        self._due.set()

    def reap(self) -> None:
        """
        Forget the processes that have ended.

        This process may have other children: those that it had as a command, and in a container
        all whose parent is gone. Nobody else would take them from the list of processes.
        """
        for process in [process for process in self._processes if process.reap()]:
            self._processes.remove(process)
            self._free_seats.release()
            self._ended.set()
        own = {process.pid for process in self._processes}
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in own:
                    # It ended just now; another signal tells of it.
                    break
                os.waitpid(found.si_pid, 0)

    def end(self) -> None:
        """
        Tell every worker to drain.
        """
        within = self._options.drain_delay + self._grace()
        for process in self._processes:
            process.end(within=within)

    def hurry(self, seconds: float) -> None:
        """
        Tell every worker to end at once, and kill those that did not in so many seconds.
        """
        for process in self._processes:
            process.hurry(within=seconds)

    async def wait_ended(self) -> None:
        """
        Wait until there is no process left.
        """
        while self._processes:
            self._ended.clear()
            await self._ended.wait()

    async def _keep(self, slot: Slot) -> None:
        """
        See to it that a slot has a process, and start another one when that is gone.
        """
        failures, longest = 0, self._options.respawn_delay_max
        while True:
            process = slot.process or await self._fill(slot)
            slot.tried.set()
            if process is not None:
                await process.gone.wait()
                if slot.process not in {process, None}:
                    # It has a successor already.
                    continue
            slot.process = None
            lasted = process is not None and process.served_seconds() > longest
            failures = 0 if lasted else failures + 1
            delay = self._respawn_delay(failures)
            if process is not None and process.status is not None:
                log.logger.error("%s %s; another starts in %g s", process, process.outcome(), delay)
            await asyncio.sleep(delay)
            if process is not None and process.status is None:
                # Not before: systemd tells all processes to end, and this one not always first.
                log.logger.warning("%s was told to end; another starts", process)

    async def _fill(self, slot: Slot) -> WorkerProcess | None:
        """
        Start a process for an empty slot.

        Returns:
            The process, whether it serves or not; None if none could be started.
        """
        process = await self._start()
        if process is not None and process.serving:
            if slot.process is not None:
                # It was to be replaced when it died, and the replacement was faster.
                self._retire(slot.process)
            slot.process = process
        return process

    async def _replace_when_due(self) -> None:
        """
        Replace the workers that are older than the last SIGHUP or worn, one at a time.
        """
        while True:
            self._due.clear()
            rolling = any(self._is_outdated(slot) for slot in self._slots)
            if rolling:
                self._notifier.reloading()
                log.logger.info("Replacing all workers, one after another")
            replaced = True
            while replaced and (slot := next(filter(self._is_due, self._slots), None)):
                replaced = await self._replace(slot)
            if rolling:
                if replaced:
                    log.logger.info("All workers are replaced (pids %s)", self._pids())
                self._notifier.ready(self._status())
            await self._due.wait()

    async def _replace(self, slot: Slot) -> bool:
        """
        Give a slot a new process, and the old one its rest once that serves.

        Returns:
            Whether that was possible. If not, the old processes stay as they are.
        """
        old = slot.process
        new = await self._start()
        if new is not None and new.serving:
            if slot.process is not None:
                self._retire(slot.process)
            slot.process = new
            return True
        if new is not None:
            log.logger.error("%s %s; the others stay as they are", new, new.outcome())
        # What failed for one would fail for the others: all of them count as replaced.
        for process in self._processes:
            process.generation = self._generation
        if old is not None and old.worn:
            old.worn = False
            again = self._options.respawn_delay_max
            asyncio.get_running_loop().call_later(again, self._ask_again, old)
        return False

    def _ask_again(self, process: WorkerProcess) -> None:
        """
        Ask for the successor again that a worn worker did not get.
        """
        process.worn = True
        self._due.set()

    def _is_due(self, slot: Slot) -> bool:
        """
        Whether a slot's process is to be replaced.
        """
        return self._is_outdated(slot) or (slot.process is not None and slot.process.worn)

    def _is_outdated(self, slot: Slot) -> bool:
        """
        Whether a slot's process started before the last SIGHUP.
        """
        return slot.process is not None and slot.process.generation < self._generation

    async def _start(self, *, speaks: bool = False) -> WorkerProcess | None:
        """
        Start a process and wait until it serves or has ended.

        Returns:
            The process; None if the system refused to start any.
        """
        await self._free_seats.acquire()
        seat = next(
            seat
            for number in range(1, self._board.size + 1)
            if (seat := self._board.seat(number)).state is State.EMPTY
        )
        try:
            process = WorkerProcess(
                self._command,
                self._environ,
                self._sock,
                seat,
                generation=self._generation,
                speaks=speaks,
                on_worn=self._due.set,
            )
        except OSError as error:
            self._free_seats.release()
            log.logger.error("No worker could be started: %s", error)
            return None
        self._processes.add(process)
        await process.wait_settled(self._options.start_timeout)
        return process

    def _retire(self, process: WorkerProcess) -> None:
        """
        Let a process drain that has a successor.
        """
        process.retire(within=self._grace())

    def _grace(self) -> float:
        """
        Give the seconds after which a worker that drains is killed.
        """
        return self._options.drain + self._options.application_close_timeout + GRACE_SECONDS

    def _respawn_delay(self, failures: int) -> float:
        """
        Give the seconds to wait before a process is started again.
        """
        # More doublings than these are above every maximum, and would overflow.
        delay = self._options.respawn_delay * 2.0 ** min(max(0, failures - 1), 32)
        return min(delay, self._options.respawn_delay_max)

    def _announce(self) -> None:
        """
        Say that the server serves.
        """
        log.say(self._status())
        self._notifier.ready(self._status())

    def _status(self) -> str:
        """
        Say where it listens and which processes serve.
        """
        address = listen.describe(self._sock, secure=self._options.certfile is not None)
        wanted, serving = len(self._slots), sum(slot.process is not None for slot in self._slots)
        count = str(wanted) if serving == wanted else f"{serving} of {wanted}"
        workers = "worker" if count == "1" else "workers"
        return f"Serving on {address} with {count} {workers} (pids {self._pids()})"

    def _pids(self) -> str:
        """
        Name the processes that serve.
        """
        return ", ".join(str(slot.process.pid) for slot in self._slots if slot.process)


def _failure(first: WorkerProcess | None) -> int:
    """
    Give the exit status of a server whose first worker did not start, and say why if it did not.
    """
    if first is None or first.status is None:
        return 1
    if first.status <= 0:
        log.logger.error("%s %s before it served", first, first.outcome())
        return 1
    return first.status
