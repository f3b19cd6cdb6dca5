"""
Measure the figures that decide, side by side, and write ``RESULTS.md``.

    python benchmarks/run.py [--only echo,get] [--repeat 5] [--quick]

Run it with the Python that has Fairway installed; ``README.md`` says the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness.build import HERE, BuildError
from benchmarks.harness.cores import Cores, kept_awake
from benchmarks.harness.load import LoadError
from benchmarks.harness.machine import Load, describe, raise_file_limit, wait_until_calm
from benchmarks.harness.measure import Plan, measure, uses_peers, uses_redis
from benchmarks.harness.peers import environment, versions
from benchmarks.harness.redis_server import redis_version
from benchmarks.harness.report import render, row_cells
from benchmarks.harness.rows import BLOCKS, Block
from benchmarks.harness.store import Record, load, save
from benchmarks.harness.subjects import SubjectError

QUICK = Plan(repeat=1, repeat_max=1, warmup=0.2, seconds=0.5, warm_sockets=50, idle_sockets=500)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Measure what the command line asks for; return the exit status.
    """
    asked = parser().parse_args(arguments)
    plan = QUICK if asked.quick else Plan(repeat=asked.repeat, repeat_max=max(15, asked.repeat))
    if asked.server:
        plan = replace(plan, server_command=asked.server)
    raise_file_limit()
    cores = Cores.choose()
    try:
        with kept_awake(cores):
            plan = replace(plan, distance=cores.usual_distance())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Cores {cores.server} and {cores.load} are {plan.distance} ns apart.")
    machine = describe(cores)
    recording = not (asked.quick or asked.server)
    failed = False
    for block in BLOCKS:
        if block.name not in asked.only:
            continue
        try:
            facts = machine
            if uses_peers(block):
                # Made before calm is waited for: making it is work.
                environment()
                facts = {**facts, "beside": versions()}
            if uses_redis(block):
                facts = {**facts, "redis-server": redis_version()}
            before = wait_until_calm(0 if asked.quick else asked.patience)
            record = run_block(block, plan, cores, facts, before)
        except (BuildError, LoadError, SubjectError) as error:
            print(f"{block.name} was not measured: {error}\n", file=sys.stderr)
            failed = True
            continue
        if recording:
            save(block.name, record)
            (HERE / "RESULTS.md").write_text(render(load()), encoding="utf-8")
    if not recording:
        print("Nothing was recorded: results come from full runs of Fairway alone.")
    return int(failed)


def run_block(
    block: Block, plan: Plan, cores: Cores, machine: dict[str, str], before: Load
) -> Record:
    """
    Measure one block and print its rows.
    """
    print(f"{block.name}: load average {before.average} after waiting {before.waited:.0f} s")
    with kept_awake(cores):
        repetitions = measure(block, plan, cores, report=lambda line: print(line, flush=True))
    for row in block.rows:
        print("   ", " | ".join(cell for cell in row_cells(row, repetitions) if cell))
    print(flush=True)
    return Record(
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join(["python benchmarks/run.py", *sys.argv[1:]]),
        machine=machine,
        load_average=before.average,
        waited=before.waited,
        window=plan.seconds,
        repetitions=repetitions,
    )


def parser() -> argparse.ArgumentParser:
    """
    Return the command line.
    """
    names = [block.name for block in BLOCKS]
    result = argparse.ArgumentParser(prog="benchmarks/run.py", description="Measure Fairway.")
    result.add_argument(
        "--only",
        type=block_names,
        default=names,
        metavar="BLOCK,...",
        help=f"blocks to measure, of {', '.join(names)}; the rows of the others stay",
    )
    result.add_argument(
        "--repeat", type=positive, default=5, help="repetitions at least (default 5, up to 15)"
    )
    result.add_argument(
        "--patience",
        type=float,
        default=180,
        metavar="SECONDS",
        help="longest wait for a load average below 0.5 before each block (default 180)",
    )
    result.add_argument(
        "--quick", action="store_true", help="one short repetition, printed and not recorded"
    )
    result.add_argument(
        "--server",
        metavar="COMMAND",
        help="serve the ASGI applications by this command, with {app} and {port} in it, and "
        "record nothing",
    )
    return result


def block_names(text: str) -> list[str]:
    """
    Return the names of a comma-separated list.

    Raises:
        argparse.ArgumentTypeError: One of them is no block.
    """
    known = [block.name for block in BLOCKS]
    names = text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"a block is one of {', '.join(known)}, not {name!r}")
    return names


def positive(text: str) -> int:
    """
    Return a whole number above zero.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 was expected, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
