"""
Which facts there are: data only.
"""

from __future__ import annotations

from benchmarks.harness.facts_newcomer import NEWCOMER
from benchmarks.harness.facts_redis import BROKER_AWAY, BROKER_WORK
from benchmarks.harness.facts_stalled import STALLED
from benchmarks.harness.facts_workers import WORKER_KILLED
from benchmarks.harness.features import FEATURES

__all__ = ["ALL_FACTS"]

ALL_FACTS = (BROKER_WORK, BROKER_AWAY, WORKER_KILLED, STALLED, NEWCOMER, FEATURES)
