"""
Keeps raw samples: one JSON file per day, one record per block in it.

A block measured again the same day replaces its record; everything else stays,
so a partial run never takes a row away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.build import HERE
from benchmarks.harness.plan import Repetition, Sample

__all__ = ["RESULTS", "Record", "load", "save"]

RESULTS = HERE / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    One block as it was measured.

    Attributes:
        measured: When it was finished, ISO 8601 in UTC.
        command: What was typed.
        machine: Facts about machine and software, by name.
        load_average: Of the minute before it started.
        waited: Seconds calm was waited for.
        meanwhile: Load in these seconds alone, if that can be told.
        window: Seconds each sample lasted, where its task has no window of its own.
        repetitions: The raw samples.
    """

    measured: str
    command: str
    machine: dict[str, str]
    load_average: float
    waited: float
    window: float
    repetitions: list[Repetition]
    meanwhile: float | None = None


def save(block: str, record: Record, folder: Path = RESULTS) -> Path:
    """
    Put a block's record into the file of its day and return the file.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.fromisoformat(record.measured).date()}.json"
    blocks = read(path) if path.exists() else {}
    blocks[block] = asdict(record)
    path.write_text(dump(blocks), encoding="utf-8")
    return path


def load(folder: Path = RESULTS) -> dict[str, Record]:
    """
    Return the newest record of each block.
    """
    records: dict[str, Record] = {}
    for path in sorted(folder.glob("*.json")):
        for block, data in read(path).items():
            repetitions = [
                {task: Sample(**sample) for task, sample in repetition.items()}
                for repetition in data["repetitions"]
            ]
            records[block] = Record(**{**data, "repetitions": repetitions})
    return records


def read(path: Path) -> dict[str, Any]:
    """
    Return the blocks of one file.
    """
    blocks: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return blocks


def dump(blocks: dict[str, Any]) -> str:
    """
    Write JSON a diff can be read of: one line per fact, and one per repetition.
    """

    def members(data: dict[str, Any], indent: str) -> Iterable[str]:
        for name, value in data.items():
            if name == "repetitions":
                lines = ",\n".join(f"{indent}  {json.dumps(one)}" for one in value)
                yield f"{indent}{json.dumps(name)}: [\n{lines}\n{indent}]"
            else:
                yield f"{indent}{json.dumps(name)}: {json.dumps(value)}"

    records = (
        f"  {json.dumps(block)}: {{\n" + ",\n".join(members(data, "    ")) + "\n  }"
        for block, data in blocks.items()
    )
    return "{\n" + ",\n".join(records) + "\n}\n"
