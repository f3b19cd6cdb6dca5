"""
Takes samples: every task of a block once per repetition, until the rows are steady.

One sample has a server of its own, so what a process happens to look like in
memory is averaged too. The order of the tasks turns with each repetition.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from benchmarks.harness.build import BuildError
from benchmarks.harness.cores import Cores, same_distance
from benchmarks.harness.load import LoadError, drive, holding
from benchmarks.harness.pair import Cost, measure_pair
from benchmarks.harness.plan import UNITS, Plan, Repetition, Sample
from benchmarks.harness.rows import Block, Row, Task
from benchmarks.harness.samples import Spread, rotated
from benchmarks.harness.subjects import REDIS_LAYERS, Server, SubjectError, running

__all__ = [
    "enough",
    "figures",
    "measure",
    "sample_or_failure",
    "take_sample",
    "taking_part",
    "uses_peers",
    "uses_redis",
    "without_peers",
]

Costs = dict[tuple[str, ...], Cost | SubjectError]

# Warm-up of a window that is shorter than the run's, and what of the run's patience it gets.
SHORT_WARMUP = 0.3
SHORT_PATIENCE = 0.25


def measure(
    block: Block, plan: Plan, cores: Cores, report: Callable[[str], None]
) -> list[Repetition]:
    """
    Return the repetitions of a block: the sample of each task that took part, by its name.

    Raises:
        SubjectError: A server of ours did not start.
        LoadError: A server of ours answered wrongly or too late.
        BuildError: A program that is needed is missing.
    """
    repetitions: list[Repetition] = []
    while not enough(block, plan, repetitions):
        turn = len(repetitions)
        samples: Repetition = {}
        costs: Costs = {}
        for task in rotated(taking_part(block, plan, turn), turn):
            samples[task.name] = sample_or_failure(task, plan, cores, costs)
            report(describe(block, task, turn + 1, samples[task.name]))
        repetitions.append(samples)
    return repetitions


def enough(block: Block, plan: Plan, repetitions: list[Repetition]) -> bool:
    """
    Tell whether there are as many repetitions as are asked for, and the rows are steady.
    """
    least = min(block.repeat or plan.repeat, plan.repeat)
    return len(repetitions) >= least and (
        len(repetitions) >= plan.repeat_max or steady(block, repetitions)
    )


def taking_part(block: Block, plan: Plan, turn: int) -> list[Task]:
    """
    Return the tasks of one repetition: in those beyond the least only what bars are measured by.
    """
    if turn >= plan.repeat:
        needed = behind_bars(block)
        return [task for task in block.tasks if task.name in needed]
    return [task for task in block.tasks if not task.rounds or turn < task.rounds]


def behind_bars(block: Block) -> set[str]:
    """
    Return the names of the tasks that a bar is measured by.
    """
    needed = set()
    for row in block.rows:
        if row.bar is not None:
            needed |= {row.task, row.against}
            if row.condition is not None:
                needed |= {row.condition.task, row.condition.against}
    return needed


def sample_or_failure(task: Task, plan: Plan, cores: Cores, costs: Costs) -> Sample:
    """
    Take a sample; where one of others cannot be had, say why.
    """
    try:
        return take_sample(task, plan, cores, costs)
    except (BuildError, LoadError, SubjectError, OSError) as error:
        # The last where its process went while its memory was read.
        if not task.peer:
            raise
        # What it printed as well is in its log.
        first = str(error).partition("\n")[0]
        return Sample(value=0.0, operations=0, failed=first.rpartition("; ")[0] or first)


def figures(row: Row, repetitions: list[Repetition]) -> list[float]:
    """
    Return the row's figure of each repetition that has one: a ratio, or a value in its unit.

    That is the task's own value, or how much it is above that of the other one. Two samples
    between which the cores were moved are not of one machine, and have no ratio.
    """
    found = []
    for samples in repetitions:
        sample = samples.get(row.task)
        if sample is None or sample.failed:
            continue
        if not row.against:
            found.append(sample.value / UNITS[row.unit])
            continue
        reference = samples.get(row.against)
        if reference is None or reference.failed:
            continue
        if not same_distance(sample.distance, reference.distance):
            continue
        if row.more:
            found.append((sample.value - reference.value) / UNITS[row.unit])
        else:
            found.append(sample.value / reference.value)
    return found


def steady(block: Block, repetitions: list[Repetition]) -> bool:
    """
    Tell whether the quartiles of every row with a bar are close together.
    """
    # A difference may be next to nothing, so its quartiles are no share of it.
    with_bar = (
        figures(row, repetitions) for row in block.rows if row.bar is not None and not row.more
    )
    return all(Spread.of(values).steady for values in with_bar if values)


def uses_peers(block: Block) -> bool:
    """
    Tell whether a block needs what others have made.
    """
    return any(task.peer for task in block.tasks)


def without_peers(block: Block) -> Block:
    """
    Return the block with those peers alone that a bar is measured by.
    """
    needed = behind_bars(block)
    kept = tuple(task for task in block.tasks if not task.peer or task.name in needed)
    return replace(block, tasks=kept)


def uses_redis(block: Block) -> bool:
    """
    Tell whether messages go through Redis in a block.
    """
    return any(task.subject == "redis" or task.subject in REDIS_LAYERS for task in block.tasks)


def take_sample(task: Task, plan: Plan, cores: Cores, costs: Costs) -> Sample:
    """
    Start the task's subject and measure it, again if the cores were moved meanwhile.

    Args:
        task: What to do.
        plan: For how long.
        cores: Where.
        costs: What pairs have spent in this repetition; the sides of one are measured at once.
    """
    if task.mode == "pair":
        return one_side(task, plan, cores, costs)
    patience = plan.patience
    if task.seconds:
        warmup, seconds = min(plan.warmup, SHORT_WARMUP), min(plan.seconds, task.seconds)
        plan, patience = replace(plan, warmup=warmup, seconds=seconds), patience * SHORT_PATIENCE
    with running(task.subject, cores, plan.server_command) as server:
        if task.mode == "idle":
            return idle_memory(task, server, plan, cores)
        if task.mode == "rest":
            return memory_at_rest(task, server, plan)
        deadline = time.monotonic() + patience
        while True:
            before = cores.wait_for(plan.distance, patience)
            sample = drive_once(task, server, plan, cores)
            after = cores.distance()
            odd = max(before, after, key=lambda distance: abs(distance - plan.distance))
            if same_distance(odd, plan.distance) or time.monotonic() > deadline:
                return replace(sample, distance=odd)


def drive_once(task: Task, server: Server, plan: Plan, cores: Cores) -> Sample:
    """
    Measure one window.
    """
    options = ["--path", task.path, "--connections", str(task.connections), *task.options]
    result = drive(server, cores, task.mode, *options, warmup=plan.warmup, seconds=plan.seconds)
    return Sample(
        value=round(result.microseconds, 4),
        operations=result.operations,
        server_busy=round(result.server_busy, 3),
        load_busy=round(result.own_busy, 3),
    )


def idle_memory(task: Task, server: Server, plan: Plan, cores: Cores) -> Sample:
    """
    Measure what each further idle socket adds to the server's own memory.

    The first sockets stay open, so what they left in the allocator is not
    counted as room the others could take.
    """
    count = plan.idle_sockets or task.connections
    with holding(server, cores, plan.warm_sockets, task.path, *task.options):
        time.sleep(plan.settle)
        before = server.memory()
        with holding(server, cores, count, task.path, *task.options):
            time.sleep(plan.settle)
            after = server.memory()
    return Sample(value=round((after - before) / count, 1), operations=count)


def memory_at_rest(task: Task, server: Server, plan: Plan) -> Sample:
    """
    Measure what the server's processes of one kind take before anybody came, each.
    """
    time.sleep(plan.settle)
    first, *others = server.pids()
    pids = others if task.name == "worker" else [first]
    return Sample(value=server.memory(pids) / len(pids), operations=len(pids))


def one_side(task: Task, plan: Plan, cores: Cores, costs: Costs) -> Sample:
    """
    Measure what one side of a channel layer spends per message.
    """
    if task.options not in costs:
        try:
            costs[task.options] = measure_pair(
                task.options, cores, warmup=plan.warmup, seconds=plan.seconds
            )
        except SubjectError as error:
            costs[task.options] = error
    cost = costs[task.options]
    if isinstance(cost, SubjectError):
        raise cost
    spent = {
        "publisher": cost.publisher_ns,
        "redis": cost.redis_ns,
        "receiver": cost.receiver_ns,
    }[task.subject]
    return Sample(value=round(spent / 1000 / cost.messages, 4), operations=cost.messages)


def describe(block: Block, task: Task, number: int, sample: Sample) -> str:
    """
    Return one line for whoever watches.
    """
    text = f"{block.name:>9} {number:2}  {task.name:<10}"
    if sample.failed:
        return f"{text} failed: {sample.failed}"
    text += f" {sample.value / UNITS[task.unit]:8.2f} {task.unit} per {block.operation}"
    if not sample.load_busy:
        return text
    return f"{text}  (server busy {sample.server_busy:.0%}, load generator {sample.load_busy:.0%})"
