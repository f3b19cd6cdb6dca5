"""
Say where a task of the benchmark spends its time (py-spy) or its memory (memray).

    python benchmarks/profiles.py broadcast/broadcast get/asgi memory/consumer

Each name is a block and one of its tasks. Of those that hold idle sockets it prints what each
further socket holds, by the function that asked for it; of all others the share of the time in
which a function was at work, by itself and with all that it called. Records nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness.blocks import BLOCKS
from benchmarks.harness.build import BuildError
from benchmarks.harness.cores import Cores, kept_awake, pinned
from benchmarks.harness.load import LoadError, drive, holding
from benchmarks.harness.machine import raise_file_limit
from benchmarks.harness.plan import Plan
from benchmarks.harness.rows import Task
from benchmarks.harness.subjects import FAIRWAY, SubjectError, running

TOOLS = Path(sys.executable).parent
INSTALL = ".tools/bin/uv pip install -p .venv -c constraints.txt --group profile"
# Sockets held by the two servers that are compared; what both hold is not any socket's.
FEW, MANY = 500, 2500
WARMUP, SECONDS, RATE = 2.0, 10, 500
LINES = 30
# What the loop's thread has on its stack, and others do not.
LOOP = "Runner.run (asyncio/runners.py"

Shares = dict[str, tuple[float, float]]
"""
By function: two figures of it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Profile each task that the command line names; return the exit status.
    """
    tasks = {f"{block.name}/{task.name}": task for block in BLOCKS for task in block.tasks}
    own = {name: task for name, task in tasks.items() if not task.peer and task.mode in PROFILES}
    parser = argparse.ArgumentParser(prog="benchmarks/profiles.py", description=__doc__)
    parser.add_argument("task", nargs="+", choices=own, metavar="BLOCK/TASK", help=", ".join(own))
    cores = Cores.choose()
    raise_file_limit()
    for name in parser.parse_args(arguments).task:
        profile, heading = PROFILES[own[name].mode]
        try:
            with kept_awake(cores):
                shares = profile(own[name], cores)
        except (BuildError, LoadError, SubjectError, FileNotFoundError, ImportError) as error:
            print(f"{name} was not profiled: {error}. Hint: {INSTALL}", file=sys.stderr)
            return 1
        print(f"{name}\n{heading}")
        for function, (first, second) in sorted(shares.items(), key=by_figures)[:LINES]:
            print(f"{first:8.1f} {second:8.1f}  {function}")
    return 0


def by_figures(item: tuple[str, tuple[float, float]]) -> tuple[float, float]:
    """
    Order by the second figure, then the first, the largest before all others.
    """
    first, second = item[1]
    return -second, -first


def time_by_function(task: Task, cores: Cores) -> Shares:
    """
    Look at the server's stack all the time while the load generator is at it.

    Returns:
        Per cent of the looks that met each function itself, and anywhere on the stack.
    """
    options = ["--path", task.path, "--connections", str(task.connections), *task.options]
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    with (
        running(task.subject, cores) as server,
        tempfile.NamedTemporaryFile("r", encoding="utf-8") as file,
        ThreadPoolExecutor(1) as load,
    ):
        done = load.submit(
            drive, server, cores, task.mode, *options, warmup=WARMUP, seconds=SECONDS
        )
        time.sleep(WARMUP)  # As long as the load generator: what comes before is not looked at.
        command = [str(TOOLS / "py-spy"), "record", "--function", "--format", "raw"]
        command += ["--rate", str(RATE), "--duration", str(SECONDS - 1)]
        with pinned(cores.load):
            subprocess.run(
                [*command, "--output", file.name, "--pid", str(server.process.pid)],
                check=True,
                capture_output=True,
                timeout=6 * SECONDS,
            )
        done.result()
        for line in file:
            stack, _, count = line.rpartition(" ")
            _, loop, called = stack.partition(LOOP)
            if not loop:
                continue  # A thread, which sleeps.
            functions = [name.rpartition(":")[0] + ")" for name in f"{loop}{called}".split(";")]
            alone[functions[-1]] += int(count)
            for function in set(functions):
                within[function] += int(count)
    looks = alone.total() / 100
    return {function: (alone[function] / looks, within[function] / looks) for function in within}


def memory_by_function(task: Task, cores: Cores) -> Shares:
    """
    Compare what two servers hold, one with some sockets and one with many.

    Returns:
        Allocations and bytes per socket, by the function that asked for them.
    """
    few, many = (held(task, cores, sockets) for sockets in (FEW, MANY))
    found = {}
    for function, (count, size) in many.items():
        count_before, size_before = few.get(function, (0, 0))
        found[function] = (count - count_before) / (MANY - FEW), (size - size_before) / (MANY - FEW)
    counts, sizes = zip(*found.values(), strict=True)
    return {"in all": (sum(counts), sum(sizes)), **found}


def held(task: Task, cores: Cores, sockets: int) -> dict[str, tuple[int, int]]:
    """
    Return the allocations that a server holds while its memory is at its highest, and their bytes.
    """
    found: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "allocations.bin"
        server, application = FAIRWAY.split(" -m ", 1)
        record = f"-m memray run --quiet --trace-python-allocators --output {file}"
        with (
            running(task.subject, cores, f"{server} {record} -m {application}") as subject,
            holding(subject, cores, sockets, task.path, *task.options),
        ):
            time.sleep(Plan().settle)  # What handshakes leave behind is to be gone.
        with import_module("memray").FileReader(file) as reader:
            for each in reader.get_high_watermark_allocation_records(merge_threads=True):
                stack = each.stack_trace()
                name = where(stack[0]) if stack else "no function of Python"
                count, size = found.get(name, (0, 0))
                found[name] = count + each.n_allocations, size + each.size
    return found


def where(frame: tuple[str, str, int]) -> str:
    """
    Name a function by its module's last two parts and its line.
    """
    function, file, line = frame
    return f"{function} ({'/'.join(Path(file).parts[-2:])}:{line})"


TIME = (time_by_function, "    self   with callees, % of the time")
MEMORY = (memory_by_function, "  pieces    bytes, per further socket")
PROFILES: dict[str, tuple[Callable[[Task, Cores], Shares], str]] = {
    **dict.fromkeys(("echo", "get", "connect", "fanout", "sse"), TIME),
    "idle": MEMORY,
}
"""
How a task is profiled, by its mode.
"""

if __name__ == "__main__":
    sys.exit(main())
