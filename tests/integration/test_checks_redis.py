"""
What ``manage.py check --deploy`` says of Redis servers, asked of real ones, and of pretended ones.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
from django.core import mail
from django.core.checks import CheckMessage
from pytest_django import Settings

from fairway import checks_redis
from fairway.checks import check_redis
from fairway.layers import RedisChannelLayer
from tests.integration.layers.redis_server import (
    RedisServer,
    free_port,
    redis_server,
    sentinel_server,
)

Check: TypeAlias = Callable[..., list[CheckMessage]]

NEVER = 0
MANY = 10_000


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """
    A server as it should be, with a user who may do no more than a layer has to.
    """
    user = "app on >secret resetkeys ~* resetchannels &* -@all +@connection +@pubsub"
    with redis_server(timeout=NEVER, maxclients=MANY, user=user) as server:
        yield server


@pytest.fixture(autouse=True)
def _as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        server: RedisServer = request.getfixturevalue("server")
        server.set("timeout", NEVER)
        server.set("maxclients", MANY)


@pytest.fixture
def check(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Check:
    """
    A function that runs the check on a layer, outside of tests as it were.
    """
    monkeypatch.delattr(mail, "outbox")
    monkeypatch.setenv("FAIRWAY_WORKERS", "4")
    monkeypatch.delenv("REDIS_URL", raising=False)

    def check(**config: Any) -> list[CheckMessage]:
        layer = {"BACKEND": "fairway.layers.RedisChannelLayer", "CONFIG": config}
        settings.CHANNEL_LAYERS = {"default": layer}
        return check_redis()

    return check


def test_nothing_is_wrong(server: RedisServer, check: Check) -> None:
    """A server that is as it should be gets no word, and nothing is written there."""
    assert check(url=server.url) == []
    assert server.do("DBSIZE") == 0
    assert server.clients() == []


def test_other_layers_are_none_of_ours(settings: Settings) -> None:
    """Without a layer on Redis nobody is asked."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "fairway.layers.InMemoryChannelLayer"}}
    assert check_redis() == []


def test_idle_connections_are_closed(server: RedisServer, check: Check) -> None:
    """The server's `timeout` is found, with its seconds."""
    server.set("timeout", 300)
    (message,) = check(url=server.url)
    assert (message.id, message.is_serious()) == ("fairway.W210", False)
    assert f"127.0.0.1:{server.port}/0 closes connections that were silent for 300 s" in message.msg


def test_too_few_connections(server: RedisServer, check: Check, settings: Settings) -> None:
    """Two connections of each process and layer have to fit into `maxclients`."""
    server.set("maxclients", 8)
    assert check(url=server.url) == []
    server.set("maxclients", 7)
    (message,) = check(url=server.url)
    assert message.id == "fairway.W211"
    assert "open 8 connections to Redis" in message.msg
    assert "which takes 7 (maxclients)" in message.msg
    # A second layer on the same server, in another database, opens as many again.
    server.set("maxclients", 15)
    layers = settings.CHANNEL_LAYERS
    other = {"BACKEND": layers["default"]["BACKEND"], "CONFIG": {"url": f"{server.url[:-1]}1"}}
    settings.CHANNEL_LAYERS = {**layers, "other": other}
    (message,) = check_redis()
    assert "open 16 connections" in message.msg


def test_what_must_not_be_asked_is_left_out(server: RedisServer, check: Check) -> None:
    """A user without CONFIG and INFO is none to warn about, as on servers of others."""
    server.set("timeout", 300)
    server.set("maxclients", 7)
    assert check(hosts=[{"address": server.url, "username": "app", "password": "secret"}]) == []


def test_a_server_that_is_away(check: Check) -> None:
    """It is told with the reason, and that one machine needs none."""
    port = free_port()
    (message,) = check(hosts=[("127.0.0.1", port)])
    assert (message.id, message.is_serious()) == ("fairway.W215", False)
    assert f"redis at 127.0.0.1:{port}/0 cannot be reached" in message.msg
    assert "Connect" in message.msg or "connect" in message.msg
    assert "The processes of one machine need no Redis" in str(message.hint)


def test_a_refusal(server: RedisServer, check: Check) -> None:
    """A wrong password is told, and not shown."""
    (message,) = check(url=f"redis://app:wrong@127.0.0.1:{server.port}/0")
    assert message.id == "fairway.W215"
    assert "invalid username-password pair" in message.msg
    assert "wrong@" not in message.msg


def test_a_server_that_hangs(
    server: RedisServer, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No check waits for longer than its time."""
    monkeypatch.setattr(checks_redis, "SECONDS_MAX", 0.2)
    server.freeze()
    try:
        began = time.monotonic()
        (message,) = check(url=server.url)
        assert time.monotonic() - began < 1
    finally:
        server.thaw()
    assert message.id == "fairway.W215"
    assert "did not answer within 0.2 s" in message.msg


def test_a_name_that_takes_long(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not come back is left alone, with its thread."""
    answer = threading.Event()

    def resolve(*arguments: Any) -> list[Any]:
        answer.wait(10)
        return []

    monkeypatch.setattr(checks_redis, "SECONDS_MAX", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    began = time.monotonic()
    try:
        (message,) = check(hosts=[("redis.example.org", 6379)])
        assert time.monotonic() - began < 1
    finally:
        answer.set()
    assert message.id == "fairway.W215"
    assert "redis.example.org:6379/0 did not answer within 0.2 s" in message.msg


def test_a_master_behind_sentinels(check: Check) -> None:
    """The Sentinels are asked where the server is, and it is judged under the master's name."""
    with (
        redis_server(timeout=60) as master,
        redis_server(replicaof=f"127.0.0.1 {master.port}"),
        sentinel_server(master) as sentinel,
    ):
        entry = {"sentinels": [sentinel.address], "master_name": "mymaster"}
        (message,) = check(hosts=[entry])
        assert message.id == "fairway.W210"
        assert "Redis at mymaster/0 by Sentinel" in message.msg
        (message,) = check(hosts=[{**entry, "master_name": "other"}])
        assert message.id == "fairway.W215"
        assert "knows no master 'other'" in message.msg


@pytest.mark.parametrize(
    ("own", "theirs", "found"),
    [
        ({"prefix": "site"}, {"prefix": "site", "namespace": "shop"}, ["fairway.W214"]),
        ({"prefix": "site", "namespace": "shop"}, {"prefix": "site", "namespace": "shop"}, []),
        ({"prefix": "site"}, {"prefix": "site2", "namespace": "shop"}, []),
        ({"prefix": "s*te"}, {"prefix": "site", "namespace": "shop"}, []),
        ({}, {"namespace": "shop"}, []),
    ],
    ids=["other project", "same project", "other prefix", "no pattern", "prefixes of their own"],
)
async def test_two_projects_with_one_prefix(
    server: RedisServer, check: Check, own: Any, theirs: Any, found: list[str]
) -> None:
    """Processes that run with the prefix of this layer and another namespace are noticed."""
    other = RedisChannelLayer(url=server.url, **theirs)
    await other.group_add("lobby", await other.new_channel())
    try:
        messages = await asyncio.to_thread(check, url=server.url, **own)
    finally:
        await other.close()
    assert [message.id for message in messages] == found
    assert all("another project (namespace shop)" in message.msg for message in messages)


def test_a_public_address_without_encryption(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named whether or not anybody answers there; with TLS it is no matter."""
    port = free_port()
    hosts = [("redis.example.org", port)]

    def resolve(host: str, port: int, *how: int) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in places]

    async def refuse(*arguments: Any, **how: Any) -> Any:
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", refuse)
    places = ["10.1.2.3", "8.8.8.8"]
    away, public = check(hosts=hosts)
    assert (away.id, public.id) == ("fairway.W215", "fairway.W212")
    assert "is reached at 8.8.8.8, a public address, without encryption" in public.msg
    assert "rediss://" in str(public.hint)
    assert [one.id for one in check(url=f"rediss://redis.example.org:{port}")] == ["fairway.W215"]
    places = ["10.1.2.3", "fd00::1", "127.0.0.1"]
    assert [one.id for one in check(hosts=hosts)] == ["fairway.W215"]


@pytest.mark.parametrize(("version", "found"), [("4.0.14", ["fairway.W213"]), ("5.0.0", [])])
def test_an_old_server(check: Check, version: str, found: list[str]) -> None:
    """A version that lacks what queues need is named with the one that has it."""
    with pretended_server(version) as port:
        messages = check(hosts=[("127.0.0.1", port)])
    assert [message.id for message in messages] == found
    for message in messages:
        assert "is version 4.0.14, and 5.0 is needed" in message.msg


@contextmanager
def pretended_server(version: str) -> Iterator[int]:
    """
    Something that answers as a server of some version, and knows no CONFIG; gives its port.
    """
    info = f"# Server\r\nredis_version:{version}\r\n".encode()
    answers = {
        b"PING": b"+PONG\r\n",
        b"CLIENT": b"-ERR unknown subcommand\r\n",
        b"CONFIG": b"-ERR unknown command\r\n",
        b"INFO": b"$%d\r\n%s\r\n" % (len(info), info),
        b"PUBSUB": b"*0\r\n",
    }

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65_536):
                for word in data.split(b"\r\n"):
                    connection.sendall(answers.get(word, b""))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)
