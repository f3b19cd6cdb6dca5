"""
Takes samples: every task of a block once per repetition, until the rows are steady.

One sample has a server of its own, so what a process happens to look like in
memory is averaged too. The order of the tasks turns with each repetition.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.harness.cores import Cores, same_distance
from benchmarks.harness.load import drive, holding
from benchmarks.harness.pair import PEER_LAYERS, Cost, layer_of, measure_pair
from benchmarks.harness.rows import Block, Row, Task
from benchmarks.harness.samples import Spread, ratios, rotated
from benchmarks.harness.subjects import FAIRWAY, PEERS, REDIS_LAYERS, Server, running

__all__ = [
    "MEMORY_UNITS",
    "UNITS",
    "Plan",
    "Repetition",
    "Sample",
    "figures",
    "measure",
    "uses_peers",
    "uses_redis",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    How long and how often to measure.

    Attributes:
        repeat: Repetitions in any case.
        repeat_max: Repetitions at most, while a row with a bar is not steady.
        warmup: Seconds of work before each window.
        seconds: Length of each window.
        warm_sockets: Sockets held before memory is read for the first time.
        idle_sockets: Sockets held then; 0 takes what the task says.
        settle: Seconds between the last handshake and reading memory.
        distance: Nanoseconds the cores have to be apart for a sample to count.
        patience: Seconds after which it counts all the same, with its own distance.
        server_command: How an ASGI application is served.
    """

    repeat: int = 5
    repeat_max: int = 15
    warmup: float = 0.5
    seconds: float = 2.0
    warm_sockets: int = 500
    idle_sockets: int = 0
    settle: float = 1.0
    distance: int = 0
    patience: float = 20.0
    server_command: str = FAIRWAY


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One task, measured once.

    Attributes:
        value: Microseconds of server CPU per operation, or bytes per idle socket or process.
        operations: How many were counted.
        server_busy: Share of the window in which the server had the processor.
        load_busy: The same of the load generator.
        distance: Nanoseconds the cores were apart before or after, whichever was odder.
    """

    value: float
    operations: int
    server_busy: float = 0.0
    load_busy: float = 0.0
    distance: int = 0


Repetition = dict[str, Sample]
Costs = dict[tuple[str, ...], Cost]

UNITS = {"us": 1, "KiB": 1024, "MiB": 1024**2}
MEMORY_UNITS = {"idle": "KiB", "rest": "MiB"}
"""
What the samples of tasks that measure memory are shown in, by the task's mode.
"""


def measure(
    block: Block, plan: Plan, cores: Cores, report: Callable[[str], None]
) -> list[Repetition]:
    """
    Return the repetitions of a block: each task's sample by its name.

    Raises:
        SubjectError: A server did not start.
        LoadError: A server answered wrongly or too late.
    """
    repetitions: list[Repetition] = []
    while len(repetitions) < plan.repeat or (
        len(repetitions) < plan.repeat_max and not steady(block, repetitions)
    ):
        turn = len(repetitions)
        samples: Repetition = {}
        costs: Costs = {}
        for task in rotated(block.tasks, turn):
            samples[task.name] = take_sample(task, plan, cores, costs)
            report(describe(block, task, turn + 1, samples[task.name]))
        repetitions.append(samples)
    return repetitions


def figures(row: Row, repetitions: list[Repetition]) -> list[float]:
    """
    Return the row's figure of each repetition: a ratio, or a value in the row's unit.
    """
    values = [samples[row.task].value for samples in repetitions]
    if not row.against:
        return [value / UNITS[row.unit] for value in values]
    return ratios(values, [samples[row.against].value for samples in repetitions])


def steady(block: Block, repetitions: list[Repetition]) -> bool:
    """
    Tell whether the quartiles of every row with a bar are close together.
    """
    rows = [row for row in block.rows if row.bar is not None]
    return all(Spread.of(figures(row, repetitions)).steady for row in rows)


def uses_peers(block: Block) -> bool:
    """
    Tell whether a block needs what others have made.
    """
    return any(
        layer_of(task.options) in PEER_LAYERS if task.mode == "pair" else task.subject in PEERS
        for task in block.tasks
    )


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
    with running(task.subject, cores, plan.server_command) as server:
        if task.mode == "idle":
            return idle_memory(task, server, plan, cores)
        if task.mode == "rest":
            return memory_at_rest(task, server, plan)
        deadline = time.monotonic() + plan.patience
        while True:
            before = cores.wait_for(plan.distance, plan.patience)
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
    with holding(server, cores, plan.warm_sockets, task.path):
        time.sleep(plan.settle)
        before = server.memory()
        with holding(server, cores, count, task.path):
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
    cost = costs.get(task.options)
    if cost is None:
        cost = measure_pair(task.options, cores, warmup=plan.warmup, seconds=plan.seconds)
        costs[task.options] = cost
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
    if task.mode in MEMORY_UNITS:
        unit = MEMORY_UNITS[task.mode]
        return f"{text} {sample.value / UNITS[unit]:8.2f} {unit} per {block.operation}"
    if task.mode == "pair":
        return f"{text} {sample.value:8.2f} us per {block.operation}"
    return (
        f"{text} {sample.value:8.2f} us per {block.operation}"
        f"  (server busy {sample.server_busy:.0%}, load generator {sample.load_busy:.0%})"
    )
