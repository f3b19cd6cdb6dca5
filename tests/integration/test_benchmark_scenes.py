"""
The scenes of the benchmark's facts: their clients hear what is said and notice who is cut off.
"""

from __future__ import annotations

import os
import signal
import socket

import pytest

from benchmarks.harness import facts_clients
from benchmarks.harness.facts_clients import Crowd, http_get, until
from benchmarks.harness.facts_redis import Talk, heard_since, missing
from benchmarks.harness.facts_sites import counters, fairway_site
from benchmarks.harness.subjects import SubjectError


@pytest.mark.one_loop
async def test_clients_of_a_server() -> None:
    """They tell what they miss and when they heard something, and notice the end of the server."""
    with fairway_site() as site:
        async with Crowd([site.port], "/relay", 4, comes_again=False) as crowd:
            talk = Talk("t", crowd.sockets[0])
            await until(lambda: all(len(each.heard) > 3 for each in crowd.sockets))
            await talk.end()
            await until(lambda: missing(crowd.sockets[3], [talk]) == 0)
            first_heard, text = crowd.sockets[3].heard[0]
            said = float(text.split()[2])
            assert said < first_heard
            assert heard_since(crowd.sockets[3], said, {"t"})
            assert not heard_since(crowd.sockets[3], said, {"t", "nobody"})
            assert not heard_since(crowd.sockets[3], crowd.sockets[3].heard[-1][0] + 1, {"t"})
            crowd.sockets[3].heard.pop(1)
            assert missing(crowd.sockets[3], [talk]) == 1
            assert (await counters(site))["fairway_missing_total"] == 0
            assert crowd.ended == 0
            os.kill(site.process.pid, signal.SIGKILL)
            await until(lambda: crowd.ended == 4)


async def test_what_never_happens() -> None:
    """It ends its block with an error, after a while."""
    with pytest.raises(SubjectError, match="within 0 s"):
        await until(lambda: False, seconds=0.0)


async def test_a_page_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and answers nothing ends its block with an error."""
    monkeypatch.setattr(facts_clients, "HAPPENS_WITHIN", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(SubjectError, match="/metrics was not answered within"),
    ):
        await http_get(silent.getsockname()[1], "/metrics")
