"""
The benchmark programs compile, speak right WebSocket and HTTP, and notice what is wrong.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from benchmarks import run
from benchmarks.harness import pair
from benchmarks.harness.blocks import BLOCKS
from benchmarks.harness.cores import Cores, kept_awake
from benchmarks.harness.facts import Facts
from benchmarks.harness.load import LoadError, LoadResult, drive, holding
from benchmarks.harness.measure import sample_or_failure, uses_peers, uses_redis
from benchmarks.harness.pair import measure_pair
from benchmarks.harness.peers import PEERS
from benchmarks.harness.plan import Plan
from benchmarks.harness.redis_server import redis_version
from benchmarks.harness.rows import Task
from benchmarks.harness.subjects import Server, SubjectError, end, running
from benchmarks.run import measure_or_say_why, what_stands_beside

CORES = Cores.choose()
EVENTS = ("--connections", "8", "--stream", "/events")
brief = partial(drive, warmup=0.02, seconds=0.1)


@pytest.fixture(params=["floor", "bare"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """
    Each server that needs nothing of Fairway.
    """
    with running(request.param, CORES) as started:
        yield started


@pytest.fixture
def floor() -> Iterator[Server]:
    """
    The floor alone.
    """
    with running("floor", CORES) as started:
        yield started


def assert_measured(result: LoadResult) -> None:
    """
    Something was done in the window, and it cost the server and the load generator time.
    """
    assert result.operations > 0
    assert result.microseconds > 0
    assert result.own_cpu_ns > 0
    assert result.wall_seconds >= 0.1


def test_every_mode(server: Server) -> None:
    """Both references do all the work the load generator can ask for."""
    assert_measured(brief(server, CORES, "echo", "--connections", "4"))
    assert_measured(brief(server, CORES, "echo", "--connections", "4", "--bytes", "20"))
    assert_measured(brief(server, CORES, "get", "--connections", "4", "--bytes", "13"))
    assert_measured(brief(server, CORES, "connect", "--connections", "4"))
    fan_out = brief(server, CORES, "fanout", "--connections", "8", "--bytes", "200", "--burst", "4")
    assert_measured(fan_out)
    assert fan_out.operations % 32 == 0
    events = brief(server, CORES, "sse", *EVENTS, "--burst", "4")
    assert_measured(events)
    assert events.operations % 28 == 0


@pytest.mark.parametrize(("subject", "path"), [("site", "/broadcast"), ("asgi", "/members")])
def test_publishing(subject: str, path: str) -> None:
    """Groups and the plain loop reach each socket and event stream with what is published."""
    with running(subject, CORES) as server:
        options = ("--path", path, "--bytes", "200", "--burst", "2")
        assert_measured(brief(server, CORES, "fanout", *options, "--connections", "4"))
        assert_measured(brief(server, CORES, "sse", *options, *EVENTS))
        if subject == "site":
            assert_measured(brief(server, CORES, "get", "--path", "/http", "--bytes", "13"))
            large = ("--bytes", "1000", "--connections", "4", "--path")
            assert_measured(brief(server, CORES, "fanout", *large, "/prices", "--same"))
            deflate = ("/compressed-prices", "--deflate")
            assert_measured(brief(server, CORES, "fanout", *large, *deflate))
            with pytest.raises(LoadError, match="permessage-deflate was not accepted"):
                brief(server, CORES, "fanout", *large, "/prices", "--deflate")


def test_a_django_page() -> None:
    """The site that is compared on other servers is served, and answers what they have to."""
    with running("pages", CORES) as server:
        assert_measured(brief(server, CORES, "get", "--connections", "4", "--bytes", "13"))


def test_idle_sockets_are_held(floor: Server) -> None:
    """The server's memory can be read while sockets are held, and they go afterwards."""
    with holding(floor, CORES, 20, "/"):
        assert floor.memory() > 0
    with holding(floor, CORES, 1, "/"):
        pass


@pytest.mark.parametrize(
    ("layer", "kind"), [("ipc", "broadcast"), ("ipc", "handler"), ("redis", "broadcast")]
)
def test_two_processes_with_a_layer(layer: str, kind: str) -> None:
    """What both sides of a channel layer spend on some messages is measured, and none is lost."""
    options = ("--kind", kind, "--members", "3", "--rate", "100", "--layer", layer)
    cost = measure_pair(options, CORES, warmup=0.05, seconds=0.2)
    assert cost.messages > 5
    assert min(cost.publisher_ns, cost.receiver_ns) > 0
    assert (cost.redis_ns > 0) == (layer == "redis")


def test_what_needs_others_is_known() -> None:
    """Every subject of others has a command, and blocks with Redis name its version."""
    assert {block.name for block in BLOCKS if uses_redis(block)} == {"redis", "redis-layers"}
    assert all(uses_peers(block) for block in BLOCKS if block.tables)
    peers = [task for block in BLOCKS for task in block.tasks if task.peer]
    assert {task.subject for task in peers if task.mode != "pair"} == set(PEERS)
    assert re.fullmatch(r"\d+\.\d+\.\d+", redis_version())


def test_a_failing_peer_is_a_sample() -> None:
    """Of a server of others that fails there is the reason; of one of ours that is an error."""
    plan = Plan(warmup=0.02, seconds=0.1, server_command="sh -c 'exit 3'")
    theirs = Task("theirs", "asgi", "echo", peer=True)
    assert sample_or_failure(theirs, plan, CORES, {}).failed == "asgi ended with 3"
    with pytest.raises(SubjectError, match="ended with 3"):
        sample_or_failure(Task("ours", "asgi", "echo"), plan, CORES, {})


def test_a_wrong_answer_is_no_measurement(floor: Server) -> None:
    """A body of another length ends the run with what was expected and what came."""
    with pytest.raises(LoadError, match="Content-Length is not 14: 13"):
        brief(floor, CORES, "get", "--connections", "2", "--bytes", "14")


def test_a_subject_that_does_not_start_says_why() -> None:
    """What a server printed is in the error."""
    command = "sh -c 'echo no such {app} >&2; exit 3'"
    with (
        pytest.raises(SubjectError, match=r"ended with 3(.|\n)*no such asgi_app"),
        running("asgi", CORES, command),
    ):
        pass


def test_cores_are_kept_awake(floor: Server) -> None:
    """Keeping the cores awake leaves them to those who have work."""
    with kept_awake(CORES):
        assert_measured(brief(floor, CORES, "echo", "--connections", "2"))


def test_distance_of_the_cores() -> None:
    """Two cores are some way apart, and a core is not away from itself."""
    assert Cores(server=CORES.server, load=CORES.server).distance() == 0
    assert (CORES.distance() > 0) == (CORES.server != CORES.load)


def test_nobody_is_left_behind() -> None:
    """What a server that has ended had started is ended, too."""
    process = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo started"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"started\n"
        process.wait(5)
        end(process)
        # Its output ends with the last who holds it.
        assert process.stdout.read() == b""


def test_a_side_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that never gets ready is not waited for without end."""
    monkeypatch.setattr(pair, "EXTRA_SECONDS", 0.05)
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE, text=True) as process:
        assert pair.read_line(process) == ""
        process.kill()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SubjectError("it ended"), "broken was not measured: it ended"),
        (KeyError("unforeseen"), "KeyError: 'unforeseen'"),
    ],
)
def test_a_block_that_fails(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Why it could not be measured is printed, be it foreseen or not, and there is no record."""

    def broken(plan: Plan, cores: Cores, turn: int) -> dict[str, float]:
        raise error

    block = Facts(name="broken", scenes=broken, facts=(), repeat=1)
    assert measure_or_say_why(block, Plan(), CORES, {}, patience=0.0) is None
    assert said in capsys.readouterr().err


def test_what_blocks_need_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts without the servers of others do not ask for these."""
    monkeypatch.setattr(run, "environment", lambda: pytest.fail("it was asked for"))
    block = Facts(name="a", scenes=lambda *_: {}, facts=(), repeat=1, redis=True, peers=True)
    assert set(what_stands_beside(block, Plan(peers=False))) == {"redis-server"}
