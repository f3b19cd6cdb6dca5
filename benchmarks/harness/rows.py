"""
The words in which blocks say what is measured: tasks, rows with bars, tables of peers.

What the blocks are is in ``blocks/``. Data only: nothing here runs anything.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Block", "Condition", "Row", "Table", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """
    One subject doing one job under the load generator.

    Attributes:
        name: What rows call it; one of its kind in its block.
        subject: Who is measured.
        mode: What is done to it: a mode of the load generator, ``rest`` or ``pair``.
        path: Where the load generator connects.
        connections: How many of them.
        options: Further options of the load generator's command line.
        unit: What its samples are shown in.
        title: What a table of peers calls it; empty for a task that is in none.
        peer: Whether others made it: its failure is a row, and not the end of its block.
        rounds: Repetitions it takes part in at most; 0 for all of them.
        seconds: Length of its window; 0 for that of the run.
    """

    name: str
    subject: str
    mode: str
    path: str = "/"
    connections: int = 100
    options: tuple[str, ...] = ()
    unit: str = "us"
    title: str = ""
    peer: bool = False
    rounds: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Condition:
    """
    The bar counts only where the median of this ratio is at most the limit.
    """

    task: str
    against: str
    limit: float


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the results.

    Attributes:
        title: What a reader calls it.
        task: The task of the block it is about.
        against: The task it is divided by; empty for the value itself.
        unit: What the figure counts: C, P, a server of others, KiB, MiB, us or s; x is a ratio.
        bar: The figure that must not be exceeded; None is for information.
        aim: The figure to come to.
        condition: Where the bar counts; None is everywhere.
        more: Whether the figure is how much the task takes more, and not how many times as much.
    """

    title: str
    task: str
    against: str
    unit: str
    bar: float | None = None
    aim: float | None = None
    condition: Condition | None = None
    more: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """
    One test beside everybody who takes it: all of its tasks that have a title.

    Attributes:
        title: What is done.
        tasks: The names of its tasks; the order on the page is that of their figures.
        floor: The task all are divided by; empty where none is the floor.
        channels: Whose cost the last column is in, as Channels on Daphne, or Daphne with pages;
            empty where nobody is.
        plot: Whether it is in the picture.
    """

    title: str
    tasks: tuple[str, ...]
    floor: str = "floor"
    channels: str = ""
    plot: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """
    Tasks whose repetitions are interleaved, and what is read from them.

    Attributes:
        name: What the command line calls it.
        operation: What one operation is.
        tasks: What is measured.
        rows: Figures with or without a bar.
        tables: Peers beside each other.
        repeat: Repetitions, where no bar of the block asks for those of the run; 0 for those.
    """

    name: str
    operation: str
    tasks: tuple[Task, ...]
    rows: tuple[Row, ...] = ()
    tables: tuple[Table, ...] = ()
    repeat: int = 0
