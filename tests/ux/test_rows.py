"""
The table of faults adds up: each has a case, or a reason why not.
"""

from __future__ import annotations

from tests.ux import test_clients, test_starts
from tests.ux.rows import CLIENTS, DAPHNE, FAULTS, REDIS, STARTS


def test_all_faults_are_accounted_for() -> None:
    """
    Of 24 faults two are about what Fairway does not have, and 22 have a case.
    """
    excepted = {name: reason for name, reason in FAULTS.items() if reason}
    assert excepted == {"Redis not running": REDIS, "daphne after staticfiles": DAPHNE}
    assert len(FAULTS) == 24
    assert len(STARTS) + len(CLIENTS) == 22
    assert FAULTS.keys() >= STARTS


def test_each_case_is_tested_once() -> None:
    """
    The names of the tests' cases are those of the table.
    """
    assert sorted(test_starts.CASES) == sorted(STARTS)
    assert sorted(test_clients.CASES) == sorted(CLIENTS)
