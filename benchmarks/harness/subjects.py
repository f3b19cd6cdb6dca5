"""
The servers that are measured: how each is started, watched and ended.

A subject runs in a process group of its own, on the server's core, on a free
port of the loopback interface. What it prints goes to a file in ``.build``.
"""

from __future__ import annotations

import http.client
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.build import BUILD, HERE, build
from benchmarks.harness.cores import Cores, pinned
from benchmarks.harness.machine import free_port
from benchmarks.harness.peers import PEERS, environment
from benchmarks.harness.redis_server import running_redis

__all__ = [
    "FAIRWAY",
    "REDIS_LAYERS",
    "SERVERS",
    "Server",
    "SubjectError",
    "end",
    "running",
    "wait_until_ready",
]

SERVERS = HERE / "servers"
# How Fairway is started; another ASGI server can be named in its place.
FAIRWAY = f"{shlex.quote(sys.executable)} -m fairway {{app}} --host 127.0.0.1 --port {{port}}"
APPLICATIONS = {
    "asgi": "asgi_app:application",
    "site": "django_site:application",
    "site-auth": "django_site:application",
    "site-2": "django_site:application",
    "site-redis": "django_site:application",
    "pages": "page_site:application",
}
CORE = "channels_redis.core.RedisChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
REDIS_LAYERS = {
    "site-redis": "fairway.layers.RedisChannelLayer",
    "channels-daphne-core": CORE,
    "channels-uvicorn-core": CORE,
    "channels-daphne-pubsub": PUBSUB,
    "channels-uvicorn-pubsub": PUBSUB,
}
"""
Who gets a Redis, and which layer there uses it.
"""

WORKERS = {"site-2": 2}
READY_WITHIN = 30.0
ENDS_WITHIN = 10.0
# Some wait for their peers to go, who are gone; nothing is learnt from them any more.
PEER_ENDS_WITHIN = 3.0


class SubjectError(Exception):
    """
    A subject did not start, or ended by itself.
    """


@dataclass(frozen=True, slots=True)
class Server:
    """
    A running subject.
    """

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def pids(self) -> list[int]:
        """
        Return the process and all that came from it.
        """
        children = defaultdict(list)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text(encoding="utf-8", errors="replace")
            except OSError:  # Ended while the list was read.
                continue
            # The name in parentheses may hold anything; state and parent come after it.
            children[int(text.rpartition(")")[2].split()[1])].append(int(stat.parent.name))
        found = [self.process.pid]
        for pid in found:
            found.extend(children[pid])
        return found

    def memory(self, pids: Sequence[int] = ()) -> int:
        """
        Return the proportional set size of some of its processes, or of all, in bytes.
        """
        total = 0
        for pid in pids or self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def last_words(self) -> str:
        """
        Return the end of what it printed.
        """
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()


@contextmanager
def running(name: str, cores: Cores, server_command: str = "") -> Iterator[Server]:
    """
    Start a subject, wait until it answers, and end it afterwards.

    Args:
        name: Who.
        cores: Where.
        server_command: How an ASGI application of Fairway's is served; empty is by Fairway.

    Raises:
        SubjectError: It did not answer in time or ended; with what it printed.
    """
    port, log = free_port(), BUILD / f"{name}.log"
    command = command_line(name, port, server_command)
    directory = tempfile.mkdtemp(prefix="fairway-bench-")
    variables = {
        **os.environ,
        "BENCHMARK_AUTH": "1" if name == "site-auth" else "0",
        "FAIRWAY_RUNTIME_DIR": directory,
    }
    variables.pop("DJANGO_SETTINGS_MODULE", None)  # The site brings its own.
    if name in PEERS:
        variables["PYTHONPATH"] = str(SERVERS)  # Not all of them look into the folder they are in.
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if name in REDIS_LAYERS:
            variables["BENCHMARK_LAYER"] = REDIS_LAYERS[name]
            variables["BENCHMARK_REDIS"] = stack.enter_context(running_redis(directory, cores.load))
        with log.open("wb") as output, pinned(cores.server):
            process = subprocess.Popen(
                command,
                cwd=SERVERS,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        stack.callback(end, process, PEER_ENDS_WITHIN if name in PEERS else ENDS_WITHIN)
        server = Server(name, port, process, log)
        wait_until_ready(server)
        yield server


def command_line(name: str, port: int, server_command: str) -> list[str]:
    """
    Return the command that serves a subject on the port.
    """
    if name == "floor":
        return [str(build("floor")), "--port", str(port)]
    if name == "bare":
        return [sys.executable, "bare.py", "--port", str(port)]
    if name in PEERS:
        program, *options = shlex.split(PEERS[name].format(port=port))
        return [str(environment() / program), *options]
    values = {"app": APPLICATIONS[name], "port": str(port)}
    command = [part.format_map(values) for part in shlex.split(server_command or FAIRWAY)]
    return [*command, "--workers", str(WORKERS[name])] if name in WORKERS else command


def wait_until_ready(server: Server) -> None:
    """
    Return once the server answers a request, whatever the answer.

    Raises:
        SubjectError: It ended, or did not answer in time.
    """
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=READY_WITHIN)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
        else:
            if len(server.pids()) > WORKERS.get(server.name, 0):
                return
        finally:
            connection.close()
    state = server.process.poll()
    what = f"did not answer within {READY_WITHIN:g} s" if state is None else f"ended with {state}"
    raise SubjectError(f"{server.name} {what}; it printed:\n{server.last_words()}")


def end(process: subprocess.Popen[bytes], within: float = ENDS_WITHIN) -> None:
    """
    Ask the process to end; after a while end it, and whoever of its group is left in any case.
    """
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(within)
    with suppress(ProcessLookupError):  # All of them have ended by themselves.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
