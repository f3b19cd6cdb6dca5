"""
Measure the figures that decide, side by side; write ``RESULTS.md`` and ``docs/benchmarks.md``.

    python benchmarks/run.py [--only echo,get] [--repeat 5] [--own] [--quick]

Run it with the Python that ``scripts/bootstrap`` makes; ``README.md`` says the rest.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness.all_facts import ALL_FACTS
from benchmarks.harness.blocks import BLOCKS
from benchmarks.harness.build import HERE, BuildError
from benchmarks.harness.cores import Cores, kept_awake
from benchmarks.harness.facts import Facts, fact_cells, play
from benchmarks.harness.load import LoadError
from benchmarks.harness.machine import Load, describe, raise_file_limit, wait_until_calm
from benchmarks.harness.measure import measure, uses_peers, uses_redis, without_peers
from benchmarks.harness.page import write_page
from benchmarks.harness.peers import environment, versions
from benchmarks.harness.plan import Plan
from benchmarks.harness.redis_server import redis_version
from benchmarks.harness.report import render, row_cells
from benchmarks.harness.rows import Block
from benchmarks.harness.store import Record, load, save
from benchmarks.harness.subjects import SubjectError

EVERYTHING: tuple[Block | Facts, ...] = (*BLOCKS, *ALL_FACTS)
QUICK = Plan(
    repeat=1,
    repeat_max=1,
    warmup=0.2,
    seconds=0.5,
    warm_sockets=50,
    idle_sockets=500,
    patience=0,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Do what the command line asks for; return the exit status.
    """
    asked = parser().parse_args(arguments)
    if asked.render:
        write_results()
        return 0
    end_when_told()
    raise_file_limit()
    cores = Cores.choose()
    try:
        plan = make_plan(asked, cores)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Cores {cores.server} and {cores.load} are {plan.distance} ns apart.")
    recording = not (asked.quick or asked.server)
    started = time.monotonic()
    missing = measure_blocks(asked, plan, cores, recording=recording)
    print(f"That took {(time.monotonic() - started) / 60:.0f} minutes.")
    if missing:
        print(f"Not measured, so what the results say of it is older: {', '.join(missing)}.")
    if not recording:
        print("Nothing was recorded: results come from full runs of Fairway alone.")
    return int(bool(missing))


def measure_blocks(
    asked: argparse.Namespace, plan: Plan, cores: Cores, *, recording: bool
) -> list[str]:
    """
    Measure one block after the other; return the names of those that could not be measured.
    """
    patience = 0.0 if asked.quick else asked.patience
    machine = describe(cores)
    missing = []
    for block in EVERYTHING:
        if block.name not in asked.only:
            continue
        record = measure_or_say_why(block, plan, cores, machine, patience)
        if record is None:
            missing.append(block.name)
        elif recording:
            save(block.name, record)
            write_results()
    return missing


def end_when_told() -> None:
    """
    Have whoever ends this process end what it started as well.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not under nohup.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def make_plan(asked: argparse.Namespace, cores: Cores) -> Plan:
    """
    Return how the command line wants it measured, at the distance that the cores have now.

    Raises:
        BuildError: A program that is needed cannot be compiled.
    """
    plan = QUICK if asked.quick else Plan(repeat=asked.repeat, repeat_max=max(15, asked.repeat))
    with kept_awake(cores):
        # What is not recorded waits for no distance.
        distance = cores.distance() if asked.quick else cores.usual_distance()
    return replace(plan, distance=distance, server_command=asked.server, peers=not asked.own)


def measure_or_say_why(
    block: Block | Facts, plan: Plan, cores: Cores, machine: dict[str, str], patience: float
) -> Record | None:
    """
    Measure one block; where that fails, say why and return None.
    """
    if isinstance(block, Block) and not plan.peers:
        block = without_peers(block)
    try:
        # Before calm is waited for: what is made there is work.
        machine = machine | what_stands_beside(block, plan)
        return run_block(block, plan, cores, machine, wait_until_calm(patience))
    except (BuildError, LoadError, SubjectError) as error:
        reason = str(error)
    except Exception:  # noqa: BLE001 - what one block did not foresee must not cost the others
        reason = traceback.format_exc()
    print(f"{block.name} was not measured: {reason}\n", file=sys.stderr)
    return None


def what_stands_beside(block: Block | Facts, plan: Plan) -> dict[str, str]:
    """
    Make what a block needs of others; return their versions, for the record.

    Raises:
        BuildError: It is not to be had.
    """
    if isinstance(block, Facts):
        peers, redis = block.peers and plan.peers, block.redis
    else:
        peers, redis = uses_peers(block), uses_redis(block)
    found = {}
    if peers:
        environment()
        found["beside"] = versions()
    if redis:
        found["redis-server"] = redis_version()
    return found


def run_block(
    block: Block | Facts, plan: Plan, cores: Cores, machine: dict[str, str], before: Load
) -> Record:
    """
    Measure one block and print its rows.
    """
    meanwhile = "" if before.meanwhile is None else f", {before.meanwhile} meanwhile"
    waited = f"after waiting {before.waited:.0f} s{meanwhile}"
    print(f"{block.name}: load average {before.average} {waited}")
    with kept_awake(cores):
        if isinstance(block, Facts):
            repetitions = play(block, plan, cores, report=show)
            rows = [fact_cells(fact, repetitions) for fact in block.facts]
        else:
            repetitions = measure(block, plan, cores, report=show)
            rows = [row_cells(row, repetitions) for row in block.rows]
    for cells in rows:
        print("   ", " | ".join(cell for cell in cells if cell))
    print(flush=True)
    return Record(
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join(["python benchmarks/run.py", *sys.argv[1:]]),
        machine=machine,
        load_average=before.average,
        waited=before.waited,
        window=plan.seconds,
        repetitions=repetitions,
        meanwhile=before.meanwhile,
    )


def write_results() -> None:
    """
    Write both pages from the records there are.
    """
    records = load()
    (HERE / "RESULTS.md").write_text(render(records), encoding="utf-8")
    write_page(records)


def show(line: str) -> None:
    """
    Print a line at once.
    """
    print(line, flush=True)


def parser() -> argparse.ArgumentParser:
    """
    Return the command line.
    """
    names = [block.name for block in EVERYTHING]
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
        help="longest wait for a load below 0.5 before each block (default 180)",
    )
    result.add_argument(
        "--own",
        action="store_true",
        help="leave out the servers of others, but for those that a bar is measured by",
    )
    result.add_argument(
        "--quick", action="store_true", help="one short repetition, printed and not recorded"
    )
    result.add_argument(
        "--server",
        default="",
        metavar="COMMAND",
        help="serve the ASGI applications by this command, with {app} and {port} in it, and "
        "record nothing",
    )
    result.add_argument(
        "--render",
        action="store_true",
        help="measure nothing; write the pages from the results there are",
    )
    return result


def block_names(text: str) -> list[str]:
    """
    Return the names of a comma-separated list.

    Raises:
        argparse.ArgumentTypeError: One of them is no block.
    """
    known = [block.name for block in EVERYTHING]
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
