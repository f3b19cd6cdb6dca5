"""
The machine a measurement runs on: calm, limits, free ports, and what to note down.
"""

from __future__ import annotations

import math
import os
import platform
import resource
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.harness.build import HERE
from benchmarks.harness.cores import Cores

__all__ = ["Load", "describe", "free_port", "load_of", "raise_file_limit", "wait_until_calm"]

# Load below which a block may start.
CALM = 0.5
PACKAGES = ("fairway", "Django", "asgiref", "httptools", "uvloop")


# The kernel renews the averages this often, and forgets by this factor each time.
TICK = 5.004
DECAY = math.exp(-5 / 60)
TICKS = 3
MARGIN = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """
    How busy the machine was before a block.

    Attributes:
        average: Load average of the last minute.
        waited: Seconds calm was waited for.
        meanwhile: Load in those seconds alone, worked out of the average; what was measured
            before them is not in it. None where the wait was too short to tell.
    """

    average: float
    waited: float
    meanwhile: float | None = None


def wait_until_calm(patience: float) -> Load:
    """
    Wait until the load is below the limit, at most ``patience`` seconds.

    The average of a minute still holds the block that has just been measured, which was this
    program's own doing. How it falls says what others add to it.
    """
    started = time.monotonic()
    first, renewed, meanwhile = os.getloadavg()[0], None, None
    while True:
        now, waited = os.getloadavg()[0], time.monotonic() - started
        if renewed is None and (now != first or waited > TICK):
            first, renewed = now, time.monotonic()
        ticks, phase = divmod(time.monotonic() - (renewed or math.inf), TICK)
        # Not close to a renewal, which may or may not be in the average yet.
        if ticks >= TICKS and MARGIN < phase < TICK - MARGIN:
            meanwhile = load_of(first, now, int(ticks))
        calm = now < CALM or (meanwhile is not None and meanwhile < CALM)
        if calm or waited >= patience:
            return Load(round(now, 2), round(waited, 1), meanwhile)
        time.sleep(0.1)  # The kernel tells nobody that it has renewed its average.


def load_of(first: float, last: float, ticks: int) -> float:
    """
    Return the load that made the average of the last minute go from one value to another.
    """
    kept = DECAY**ticks
    return round(max(0.0, (last - first * kept) / (1 - kept)), 2)


def raise_file_limit() -> int:
    """
    Allow this process and its children as many open files as possible; return how many.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def describe(cores: Cores) -> dict[str, str]:
    """
    Return what a reader has to know about the machine and the software.
    """
    facts = {
        "cpu": cpu_model(),
        "cores": f"{os.cpu_count()}, server on {cores.server}, load on {cores.load}",
        "kernel": platform.release().partition("-")[0],
        "compiler": first_line(os.environ.get("CC") or "cc", "--version"),
        "commit": first_line("git", "-C", str(HERE), "describe", "--always", "--dirty"),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            facts[package.lower()] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package.lower()] = "not installed"
    return facts


def cpu_model() -> str:
    """
    Return what the processor calls itself.
    """
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def first_line(*command: str) -> str:
    """
    Return the first line a command prints, or "unknown".
    """
    if shutil.which(command[0]) is None:
        return "unknown"
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.partition("\n")[0].strip() or "unknown"


def free_port() -> int:
    """
    Return a port nobody listens on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
