"""
The machine a measurement runs on: calm, limits, and what to note down.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.harness.build import HERE
from benchmarks.harness.cores import Cores

__all__ = ["CALM", "Load", "describe", "raise_file_limit", "wait_until_calm"]

# Load average below which a block may start.
CALM = 0.5
PACKAGES = ("fairway", "Django", "asgiref", "httptools", "uvloop")


@dataclass(frozen=True, slots=True)
class Load:
    """
    Load average of the last minute, and how long calm was waited for.
    """

    average: float
    waited: float


def wait_until_calm(patience: float) -> Load:
    """
    Wait until the load average is below the limit, at most ``patience`` seconds.
    """
    started = time.monotonic()
    while True:
        average, waited = os.getloadavg()[0], time.monotonic() - started
        if average < CALM or waited >= patience:
            return Load(round(average, 2), round(waited, 1))
        time.sleep(1)


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
