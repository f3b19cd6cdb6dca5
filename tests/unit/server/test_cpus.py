"""
How many CPUs a process was granted, read from files as Linux and its containers have them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairway.server.cpus import granted_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A machine with eight CPUs that this process may use.
    """
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def put(root: Path, path: str, text: str) -> None:
    """
    Make one file.
    """
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_no_control_groups(tmp_path: Path) -> None:
    """
    Without control groups the affinity counts.
    """
    assert granted_cpus(tmp_path) == 8


def test_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where no affinity is known, the machine's CPUs count, and one if those are not known either.
    """
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert granted_cpus(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert granted_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("quota", "count"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # One and a half keep two busy.
        ("10000 100000\n", 1),
        ("9900000 100000\n", 8),
        ("max 100000\n", 8),
        ("100000 0\n", 8),
        ("garbage\n", 8),
        ("", 8),
    ],
)
def test_version_2(tmp_path: Path, quota: str, count: int) -> None:
    """
    A container sees its own quota at the mount point; rounded up, at least one.
    """
    put(tmp_path, "proc/self/cgroup", "0::/\n")
    put(tmp_path, "sys/fs/cgroup/cpu.max", quota)
    assert granted_cpus(tmp_path) == count


def test_version_2_of_a_group_above(tmp_path: Path) -> None:
    """
    A quota counts for the groups in its group too.
    """
    put(tmp_path, "proc/self/cgroup", "0::/user.slice/web site.service\n")
    put(tmp_path, "sys/fs/cgroup/user.slice/web site.service/cpu.max", "400000 100000\n")
    assert granted_cpus(tmp_path) == 4
    put(tmp_path, "sys/fs/cgroup/user.slice/cpu.max", "300000 100000\n")
    assert granted_cpus(tmp_path) == 3


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "count"), [("250000", 3), ("-1", 8)])
def test_version_1(tmp_path: Path, mount: str, quota: str, count: int) -> None:
    """
    The older control groups have the quota in two files.
    """
    put(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/web\n1:name=systemd:/\n")
    put(tmp_path, f"sys/fs/cgroup/{mount}/web/cpu.cfs_quota_us", quota)
    put(tmp_path, f"sys/fs/cgroup/{mount}/web/cpu.cfs_period_us", "100000")
    assert granted_cpus(tmp_path) == count


def test_group_seen_under_another_name(tmp_path: Path) -> None:
    """
    A container that is told its path on the host finds its files at the mount point.
    """
    put(tmp_path, "proc/self/cgroup", "4:cpu:/docker/0123\n")
    put(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000")
    put(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert granted_cpus(tmp_path) == 1


def test_path_that_leads_out(tmp_path: Path) -> None:
    """
    A group outside of what is mounted, which Linux shows with dots, leads nowhere else.
    """
    put(tmp_path, "proc/self/cgroup", "0::/../../other\n\n:\n")
    put(tmp_path, "sys/fs/cgroup/cpu.max", "100000 100000")
    put(tmp_path, "other/cpu.max", "max 100000")
    assert granted_cpus(tmp_path) == 1
