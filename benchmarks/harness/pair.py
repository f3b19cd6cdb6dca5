"""
Measures a channel layer between two processes: one publishes, the other has the members.

The publisher runs on the load generator's core and the receiver on the server's, so that neither
waits for the other; each reads its own CPU clock (``servers/layer_peer.py``).
"""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.harness.cores import Cores, pinned
from benchmarks.harness.peers import environment
from benchmarks.harness.redis_server import running_redis
from benchmarks.harness.subjects import SERVERS, SubjectError

__all__ = ["PEER_LAYERS", "Cost", "layer_of", "measure_pair"]

# What a pair may take on top of warm-up and window: two interpreters and their joins.
EXTRA_SECONDS = 60.0
PEER_LAYERS = frozenset({"channels_redis.core", "channels_redis.pubsub"})
"""
Layers of others, from an environment of their own.
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """
    What each side spent on a number of messages, and Redis, where it carried them.
    """

    messages: int
    publisher_ns: int
    receiver_ns: int
    redis_ns: int = 0


def layer_of(options: tuple[str, ...]) -> str:
    """
    Return which layer a pair is to have.
    """
    return options[options.index("--layer") + 1] if "--layer" in options else "ipc"


def measure_pair(options: tuple[str, ...], cores: Cores, *, warmup: float, seconds: float) -> Cost:
    """
    Run a pair for one window.

    Raises:
        SubjectError: One side ended or came too late, or a message was lost.
    """
    layer = layer_of(options)
    program = str(environment() / "python") if layer in PEER_LAYERS else sys.executable
    window = ("--warmup", str(warmup), "--seconds", str(seconds))
    directory = tempfile.mkdtemp(prefix="fairway-bench-")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        place = f"{directory}/pair"
        if layer != "ipc":
            place = stack.enter_context(running_redis(directory, cores.load))
        common = (program, *options, *window, "--place", place)
        receiver = stack.enter_context(running_peer("receive", common, cores.server))
        publisher = stack.enter_context(running_peer("publish", common, cores.load))
        published = answer(publisher, warmup + seconds)
        received = answer(receiver, EXTRA_SECONDS)
    if published["messages"] != received["messages"]:
        raise SubjectError(
            f"{published['messages']} messages were sent and {received['messages']} came"
        )
    return Cost(
        received["messages"], published["cpu_ns"], received["cpu_ns"], published["redis_ns"]
    )


@contextmanager
def running_peer(role: str, command: tuple[str, ...], core: int) -> Iterator[subprocess.Popen[str]]:
    """
    Start one side, the receiver until its members have joined, and end it afterwards.
    """
    program, *options = command
    with ExitStack() as stack:
        with pinned(core):
            process = stack.enter_context(
                subprocess.Popen(
                    [program, "layer_peer.py", role, *options],
                    cwd=SERVERS,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        stack.callback(process.kill)
        if role == "receive" and read_line(process) != "ready\n":
            raise SubjectError("the members of the receiver have not joined")
        yield process


def answer(process: subprocess.Popen[str], seconds: float) -> dict[str, int]:
    """
    Wait for a side's figures.
    """
    try:
        output, _ = process.communicate(timeout=seconds + EXTRA_SECONDS)
        found: dict[str, int] = json.loads(output)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise SubjectError(f"no figures of {process.args!r}: {error}") from None
    return found


def read_line(process: subprocess.Popen[str]) -> str:
    """
    Read one line of what a process prints; it has a while for it, and then it counts as empty.
    """
    assert process.stdout is not None
    printed, _, _ = select.select([process.stdout], [], [], EXTRA_SECONDS)
    return process.stdout.readline() if printed else ""
