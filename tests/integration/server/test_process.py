"""
One worker process as its supervisor sees it, with small programs in the place of workers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fairway.server.board import Board, State
from fairway.server.process import WorkerProcess

BEGIN = """
import json, os, signal, socket, time
given = json.loads(os.environ["FAIRWAY_WORKER"])
control = socket.socket(fileno=given["control"])
"""

Begin = Callable[..., WorkerProcess]


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """
    Starts programs, and ends those that are left.
    """
    board = Board.create(4)
    processes: list[WorkerProcess] = []

    def start(code: str, *, program: str = sys.executable, **options: Any) -> WorkerProcess:
        process = WorkerProcess(
            [program, "-c", BEGIN + code],
            dict(os.environ),
            sock,
            board.seat(3),
            generation=1,
            speaks=True,
            **{"on_worn": lambda: None, **options},
        )
        processes.append(process)
        return process

    start.board = board  # type: ignore[attr-defined] # for the tests
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield start
        for process in processes:
            process.kill()
            await ended(process)
    board.close()


async def ended(process: WorkerProcess) -> int:
    """
    Wait for a process's end and give its status.
    """
    async with asyncio.timeout(10):
        while not process.reap():  # noqa: ASYNC110 - the supervisor hears of it by a signal
            await asyncio.sleep(0.005)
    assert process.status is not None
    return process.status


async def test_life(begin: Begin) -> None:
    """
    It is told what a worker needs, says when it serves, and leaves an empty seat.
    """
    process = begin(
        "assert (given['seat'], given['speaks']) == (3, True);"
        "assert socket.socket(fileno=given['listen']).getsockname()[1];"
        "os.fstat(given['board']); control.send(b'r'); control.recv(1)"
    )
    assert (process.seat.state, process.seat.pid) == (State.STARTING, process.pid)
    assert process.served_seconds() == 0
    await process.wait_settled(10)
    assert process.serving
    assert process.served_seconds() >= 0
    assert str(process) == f"Worker 3 (pid {process.pid})"
    process.retire(within=10)
    assert process.gone.is_set()
    assert await ended(process) == 0
    assert process.outcome() == "ended with status 0"
    assert (process.seat.state, process.seat.pid) == (State.EMPTY, 0)


async def test_words(begin: Begin) -> None:
    """
    What it says is heard, together or one by one.
    """
    worn = asyncio.Event()
    process = begin(
        "control.send(b'rw'); control.recv(1); control.send(b'l'); control.recv(1)",
        on_worn=worn.set,
    )
    async with asyncio.timeout(10):
        await worn.wait()
    assert process.worn
    assert not process.gone.is_set()
    process._control.send(b"?")
    async with asyncio.timeout(10):
        await process.gone.wait()
    assert process.leaving
    assert process.status is None


async def test_program_missing(begin: Begin) -> None:
    """
    A program that cannot be started leaves nothing taken.
    """
    with pytest.raises(FileNotFoundError):
        begin("", program="/no/such/program")
    board: Board = begin.board  # type: ignore[attr-defined] # set above
    assert list(board.seats()) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os._exit(3)", "ended with status 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os.kill(os.getpid(), 40)", "was ended by signal 40"),
        ("control.close(); os._exit(0)", "ended with status 0"),
    ],
)
async def test_outcome(begin: Begin, code: str, said: str) -> None:
    """
    How it ended is said in words.
    """
    process = begin(code)
    await ended(process)
    assert process.outcome() == said
    assert process.settled.is_set()
    assert process.gone.is_set()


async def test_silent(begin: Begin) -> None:
    """
    One that closes its end of the connection and lives on is not gone.
    """
    process = begin("control.send(b'r'); control.close(); time.sleep(60)")
    await process.wait_settled(10)
    # What is told to it now is told to nobody.
    process.retire(within=0.01)
    assert await ended(process) == -signal.SIGKILL


async def test_start_timeout(begin: Begin) -> None:
    """
    One that does not begin to serve in its time is killed, and its outcome says so.
    """
    process = begin("time.sleep(60)")
    waiting = asyncio.ensure_future(process.wait_settled(0.05))
    assert await ended(process) == -signal.SIGKILL
    await waiting
    assert process.outcome() == (
        "did not begin to serve within 0.05 s (start_timeout) and was killed"
    )


async def test_late(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    """
    One that does not end in its time is killed and named; one that did is not.
    """
    stubborn = begin(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); control.send(b'r'); time.sleep(60)"
    )
    await stubborn.wait_settled(10)
    stubborn.end(within=60)
    stubborn.end(within=0.05)
    assert await ended(stubborn) == -signal.SIGKILL
    assert caplog.messages == [f"{stubborn} did not end within 0.05 s and is killed"]
    stubborn.end(within=0)
    await asyncio.sleep(0.01)
    assert len(caplog.messages) == 1


async def test_hurry(begin: Begin) -> None:
    """
    One that serves is told to hurry, one that does not yet is killed at once.
    """
    serving = begin("control.send(b'r'); os._exit(7 if control.recv(1) == b'h' else 8)")
    await serving.wait_settled(10)
    serving.hurry(within=10)
    assert await ended(serving) == 7
    starting = begin("time.sleep(60)")
    starting.hurry(within=10)
    assert await ended(starting) == -signal.SIGKILL


async def test_terminal_signals(begin: Begin) -> None:
    """
    What a terminal sends does not end it, from the first moment on.
    """
    process = begin(
        "ignored = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)];"
        "os._exit(ignored != [signal.SIG_IGN] * 2)"
    )
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGHUP)
    assert await ended(process) == 0
