"""
Servers in front of a broker of our own: started side by side, each on a free port.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.harness.build import BUILD
from benchmarks.harness.facts_clients import http_get
from benchmarks.harness.machine import free_port
from benchmarks.harness.peers import environment
from benchmarks.harness.subjects import SERVERS, Server, end, wait_until_ready

__all__ = ["METRICS", "channels_site", "counters", "fairway_site"]

METRICS = "/-/metrics"
REDIS_LAYER = "fairway.layers.RedisChannelLayer"
CORE_LAYER = "channels_redis.core.RedisChannelLayer"


@contextmanager
def fairway_site(hosts: list[Any] | None = None, *options: str) -> Iterator[Server]:
    """
    Serve ``servers/facts_site.py``, over Redis if hosts are given.

    Raises:
        SubjectError: It did not start.
    """
    command = [sys.executable, "-m", "fairway", "facts_site:application", "--metrics-path", METRICS]
    layer = {"default": {"BACKEND": REDIS_LAYER, "CONFIG": {"hosts": hosts}}} if hosts else {}
    with serving("facts-site", [*command, *options], {"FACTS_LAYERS": json.dumps(layer)}) as site:
        yield site


@contextmanager
def channels_site(url: str) -> Iterator[Server]:
    """
    Serve ``servers/channels_site.py`` with the core layer of ``channels_redis``, on uvicorn.

    Raises:
        SubjectError: It did not start.
    """
    command = [str(environment() / "uvicorn"), "--no-access-log", "--lifespan", "off"]
    variables = {"BENCHMARK_LAYER": CORE_LAYER, "BENCHMARK_REDIS": url}
    with serving("facts-channels", [*command, "channels_site:application"], variables) as site:
        yield site


@contextmanager
def serving(name: str, command: list[str], variables: Mapping[str, str]) -> Iterator[Server]:
    """
    Run a server, wait until it answers, and end it afterwards.
    """
    port = free_port()
    log = BUILD / f"{name}-{port}.log"
    BUILD.mkdir(exist_ok=True)
    inherited = {**os.environ}
    inherited.pop("DJANGO_SETTINGS_MODULE", None)  # The site brings its own.
    with tempfile.TemporaryDirectory(prefix="fairway-bench-") as directory, log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=SERVERS,
            env={**inherited, "FAIRWAY_RUNTIME_DIR": directory, **variables},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        server = Server(name, port, process, log)
        try:
            wait_until_ready(server)
            yield server
        finally:
            end(process)
    log.unlink()


async def counters(server: Server) -> dict[str, int]:
    """
    Ask a server of ours for its counters, by their names.
    """
    lines = (await http_get(server.port, METRICS)).splitlines()
    pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: int(float(value)) for name, _, value in pairs}
