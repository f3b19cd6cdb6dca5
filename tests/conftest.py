"""
What holds for every test: its loops, its time limit, and that it leaves nothing open.

A test that needs more than the 20 s of pyproject.toml says so with
``@pytest.mark.slow(limit, reason)``; there is no other way to get more.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop
from blockbuster import blockbuster_ctx
from hypothesis import settings

LIMIT_DEFAULT = 20
LIMIT_MAX = 120
LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
# Kinds whose tests start the real commands.
KINDS_OF_COMMANDS = frozenset({"acceptance", "ux"})
# Kinds whose tests open sockets and files, seen by the folder under tests/.
KINDS_WITH_IO = frozenset({"acceptance", "conformance", "integration", "protocol", "ux"})
# Folders whose tests start the commands as strangers do. What runs there is measured where tests of
# its own start it; measuring these too would only take each of very many processes longer to start.
UNMEASURED = (
    "acceptance/compat",
    "acceptance/demo",
    "acceptance/deploy",
    "acceptance/testing",
    "ux",
)

# The same examples on every run: a gate that is red by chance teaches people to run it again.
# `pytest --hypothesis-profile explore` looks for new ones.
settings.register_profile("gate", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile("gate")


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    Take `--one-loop`, for a run beside another that has both.
    """
    parser.addoption("--one-loop", action="store_true", help="Run async tests on uvloop alone.")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """
    Run an async test on asyncio and on uvloop, or on uvloop alone where it says `one_loop`.

    Tests of commands meet the loop in a server process of its own, so one is enough there.
    """
    asked = item.config.getoption("--one-loop") or item.get_closest_marker("one_loop")
    if asked or kind_of(item.path) in KINDS_OF_COMMANDS:
        return {"uvloop": LOOPS["uvloop"]}
    return LOOPS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Give slow tests their own limit, and refuse every other way to a longer one.
    """
    for item in items:
        if item.get_closest_marker("timeout"):
            raise pytest.UsageError(
                f"{item.nodeid}: expected slow(limit, reason) for a longer limit, got timeout"
            )
        slow = item.get_closest_marker("slow")
        if slow:
            item.add_marker(pytest.mark.timeout(limit_of(slow, item.nodeid)))


def pytest_collection_finish() -> None:
    """
    Leave what was imported so far out of the collections after each test.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """
    Leave processes that a test of ``UNMEASURED`` starts, in fixtures too, out of the coverage.
    """
    with pytest.MonkeyPatch.context() as patch:
        if is_below(item.path, *UNMEASURED):
            for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
                patch.delenv(name, raising=False)
        return (yield)


class LoopErrors(logging.Handler):
    """
    Keeps what a loop could tell nobody else: failed callbacks and tasks nobody waited for.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """
        Keep the message with its traceback.
        """
        self.messages.append(self.format(record))


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Fail a test whose loop met an error, and collect what a test with I/O left open.

    Set up before the loop and hence torn down after it, so that the blame falls on the test that
    earned it and not on a later one.
    """
    errors = LoopErrors()
    logger = logging.getLogger("asyncio")
    logger.addHandler(errors)
    yield
    if kind_of(request.path) in KINDS_WITH_IO:
        gc.collect()
    logger.removeHandler(errors)
    assert not errors.messages, "\n".join(errors.messages)


@pytest.fixture(autouse=True, scope="session")
def runtime_dir() -> Iterator[Path]:
    """
    Have the processes that tests start meet in a place of their own, and not where others do.

    Short, since the path of a Unix socket must be.
    """
    with (
        TemporaryDirectory(prefix="fw-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("FAIRWAY_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture(autouse=True, scope="session")
def nothing_blocks() -> Iterator[None]:
    """
    Fail what the package does on a loop's thread that could block it: files, sockets, sleep, locks.
    """
    with blockbuster_ctx("fairway") as detector:
        # Measuring coverage takes a lock wherever a line is seen first.
        detector.functions["threading.Lock.acquire"].can_block_in(
            "coverage/collector.py", {"lock_data"}
        )
        # A supervisor serves nobody: it may wait until its child runs its program.
        detector.functions["os.read"].can_block_in("fairway/server/process.py", {"__init__"})
        # A few entries of a local directory, as asyncio itself allows for a Unix socket.
        for name in ("listdir", "mkdir", "rename", "stat", "unlink"):
            detector.functions[f"os.{name}"].can_block_in(
                "ipc/rendezvous.py", {"_list", "_lstat", "_open_private", "_rename", "_unlink"}
            )
        yield


def kind_of(path: Path) -> str:
    """
    The folder below tests/ that a test lies in.
    """
    return path.relative_to(Path(__file__).parent).parts[0]


def is_below(path: Path, *folders: str) -> bool:
    """
    Whether a test lies in one of these folders below tests/.
    """
    return any(path.is_relative_to(Path(__file__).parent / folder) for folder in folders)


def limit_of(slow: pytest.Mark, nodeid: str) -> float:
    """
    The seconds a slow test asks for, refused unless in bounds and with a reason.
    """
    limit, reason = bound_arguments(*slow.args, **slow.kwargs)
    if LIMIT_DEFAULT < limit <= LIMIT_MAX and reason.strip():
        return limit
    raise pytest.UsageError(
        f"{nodeid}: expected slow(limit, reason) with a limit above {LIMIT_DEFAULT} s and at most "
        f"{LIMIT_MAX} s and a reason, got limit {limit!r} and reason {reason!r}"
    )


def bound_arguments(limit: float = 0, reason: str = "") -> tuple[float, str]:
    """
    The arguments of slow(limit, reason) by position or name, each with what fails if missing.
    """
    return limit, reason
