"""
How many CPUs this process was granted: fewer than the machine has, in a container.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["granted_cpus"]


def granted_cpus(root: Path = Path("/")) -> int:
    """
    Count the CPUs that affinity and the quotas of control groups leave, at least 1.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    quotas = (*_unified_quotas(root), *_cpu_quotas(root))
    return max(1, min([available, *(math.ceil(quota) for quota in quotas)]))


def _unified_quotas(root: Path) -> list[float]:
    """
    Read the quotas of control groups version 2: of this group and of those it lies in.
    """
    folders = _folders(root / "sys/fs/cgroup", _group(root, ""))
    return _quotas([_read(folder / "cpu.max") for folder in folders])


def _cpu_quotas(root: Path) -> list[float]:
    """
    Read the quotas of the ``cpu`` controller of version 1, where -1 is none.
    """
    files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    folders = [
        folder
        for mount in ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")
        for folder in _folders(root / mount, _group(root, "cpu"))
    ]
    return _quotas([" ".join(_read(folder / file) for file in files) for folder in folders])


def _quotas(texts: list[str]) -> list[float]:
    """
    Divide quota by period wherever a text gives both.
    """
    pairs = [text.split() for text in texts]
    return [
        int(pair[0]) / int(pair[1])
        for pair in pairs
        if len(pair) == 2 and all(map(str.isdecimal, pair)) and int(pair[1])
    ]


def _group(root: Path, controller: str) -> str:
    """
    Find the group that this process is in, ``/`` where that cannot be told.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            return path
    return "/"


def _folders(mount: Path, group: str) -> list[Path]:
    """
    Give a group's folder and those above it, up to the mount point.

    A container often sees its own group as the mount point, under another name than
    ``/proc`` tells; folders that are not there say nothing.
    """
    parts = [part for part in group.split("/") if part not in {"", ".", ".."}]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _read(file: Path) -> str:
    """
    Read a file, as empty if it cannot be read.
    """
    try:
        return file.read_text()
    except (OSError, UnicodeError):
        return ""
