"""
Every form in which settings name Redis servers.
"""

from __future__ import annotations

from binascii import crc32
from typing import Any

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from fairway.layers.brokers.redis.hosts import read_hosts, shard


@pytest.mark.parametrize(
    ("hosts", "name", "kind", "arguments"),
    [
        (None, "localhost:6379/0", Connection, {}),
        ([], "localhost:6379/0", Connection, {}),
        ([("redis", 6380)], "redis:6380/0", Connection, {}),
        ([["redis", "6380"]], "redis:6380/0", Connection, {}),
        (["redis://redis:6380/2"], "redis:6380/2", Connection, {}),
        ([b"redis://redis:6380/2"], "redis:6380/2", Connection, {}),
        (["redis://redis?db=3"], "redis:6379/3", Connection, {}),
        (["redis://[::1]:6380"], "::1:6380/0", Connection, {}),
        (
            ["redis://ada:p%40ss@redis/1"],
            "redis:6379/1",
            Connection,
            {"username": "ada", "password": "p@ss"},
        ),
        (["rediss://redis"], "redis:6379/0", SSLConnection, {}),
        (
            ["rediss://redis?ssl_cert_reqs=none"],
            "redis:6379/0",
            SSLConnection,
            {"ssl_cert_reqs": "none"},
        ),
        (["unix:///run/redis.sock?db=1"], "/run/redis.sock/1", UnixDomainSocketConnection, {}),
        ([{"path": "/run/redis.sock"}], "/run/redis.sock/0", UnixDomainSocketConnection, {}),
        (
            [{"address": "redis://redis", "db": 4, "password": "secret"}],
            "redis:6379/4",
            Connection,
            {"password": "secret"},
        ),
        (
            [{"address": "redis://:right@redis/2", "db": 4, "password": "wrong"}],
            "redis:6379/2",
            Connection,
            {"password": "right", "username": "default"},
        ),
        ([{"host": "redis", "port": 1, "db": "5"}], "redis:1/5", Connection, {}),
        ([{"host": None, "port": None}], "localhost:6379/0", Connection, {}),
        ([{"host": "redis"}], "redis:6379/0", Connection, {}),
        ([{"host": "redis", "ssl": True}], "redis:6379/0", SSLConnection, {}),
        (
            [
                {
                    "host": "redis",
                    "socket_timeout": 1,
                    "max_connections": 5,
                    "retry_on_timeout": True,
                }
            ],
            "redis:6379/0",
            Connection,
            {},
        ),
    ],
)
def test_forms(hosts: Any, name: str, kind: type, arguments: dict[str, Any]) -> None:
    """
    Each form that channels_redis takes names one server.
    """
    [host] = read_hosts(hosts)
    assert (host.name, host.address.kind) == (name, kind)
    assert arguments.items() <= host.address.arguments.items()
    assert not host.sentinels


def test_url() -> None:
    """
    A single URL stands for a list of one.
    """
    assert read_hosts(None, "redis://redis/1") == read_hosts(["redis://redis/1"])


def test_sentinels() -> None:
    """
    An entry may name Sentinels, with access of their own, instead of a server.
    """
    [host] = read_hosts(
        [
            {
                "sentinels": [("one", 26379), ["two", 26380]],
                "master_name": "mymaster",
                "sentinel_kwargs": {"password": "theirs"},
                "db": 2,
                "password": "ours",
            }
        ]
    )
    assert host.name == "mymaster/2 by Sentinel one:26379, two:26380"
    assert [one.name for one in host.sentinels] == ["one:26379/0", "two:26380/0"]
    assert [one.arguments["password"] for one in host.sentinels] == ["theirs"] * 2
    found = host.address.at("three", 6381)
    assert (found.name, found.arguments["password"]) == ("three:6381/2", "ours")


@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        ("redis://redis", "must be a list of Redis servers, even if there is only one"),
        (b"redis://redis", "must be a list"),
        (5, "must be a list of Redis servers, not int"),
        ([5], r"hosts\[0\] must be a URL, a pair of host and port, or a dict, not int"),
        ([("a", 1), ("a",)], r"hosts\[1\] must be a URL"),
        (["http://redis:secret@x"], r"hosts\[0\] is no URL of a Redis server"),
        (
            ["redis:6379"],
            r"hosts\[0\] is no URL of a Redis server \('redis:6379'\): expected redis",
        ),
        (["redis://redis/site"], r"no URL .*\(redis://...\): expected .* database are numbers"),
        (["redis://ada:secret/word@redis"], "in a password write %2F"),
        (["redis://ada:secret?word@redis"], "in a password write %2F"),
        (["redis://ada:secret#word@redis"], "in a password write %2F"),
        (["redis://ada:secret[word@redis"], "in a password write %2F"),
        (["redis://:1#secret@redis"], "in a password write %2F"),
        (["redis://:1?secret@redis"], "in a password write %2F"),
        (["redis://redis:secret?password=5"], "is no URL"),
        (
            [("redis://ada:secret@redis", 1)],
            r"hosts\[0\]: host must be a name .* a URL stands alone",
        ),
        ([{"host": "ada:secret@redis"}], r"hosts\[0\]: host must be a name"),
        ([{"host": ""}], "host must be a name"),
        (
            [{"host": "redis", "pasword": "secret"}],
            "has 'pasword'.* did you mean password",
        ),
        ([{"host": "redis", "port": "x"}], r"hosts\[0\]: port must be a number from 1 to 65535"),
        ([("redis", 70_000)], r"hosts\[0\]: port must be a number .* not 70000"),
        ([{"host": "redis", "db": "x"}], r"hosts\[0\]: db must be a number, not 'x'"),
        (["redis://:secret"], r"\(redis://...\)"),
        ([{"address": 5}], r"hosts\[0\] must be a URL, not int"),
        (["redis://redis?db=secret"], "Invalid value for .db. in"),
        ([{"host": "redis", "zzzzz": 1}], r"has 'zzzzz', which .* do not take: remove it"),
        ([{"sentinels": [("a", 1)]}], r"hosts\[0\] must name both"),
        ([{"master_name": "m"}], r"hosts\[0\] must name both"),
        ([{"sentinels": [], "master_name": "m"}], "is empty"),
        ([{"sentinels": ["a"], "master_name": "m"}], r"\['sentinels'\]\[0\] must be a pair"),
    ],
)
def test_mistakes(hosts: Any, says: str) -> None:
    """
    A mistake is a ValueError that says which entry it is in, and no password.
    """
    with pytest.raises(ValueError, match=says) as caught:
        read_hosts(hosts)
    assert "secret" not in str(caught.value)


def test_url_beside_hosts() -> None:
    """
    Two answers to one question are none.
    """
    with pytest.raises(ValueError, match="exclude each other"):
        read_hosts(["redis://a"], "redis://b")
    with pytest.raises(ValueError, match=r"^url is no URL of a Redis server \('redis'\)"):
        read_hosts(None, "redis")
    with pytest.raises(ValueError, match="url must be text"):
        read_hosts(None, 5)  # type: ignore[arg-type]


def test_names_tell_no_password() -> None:
    """
    What people get to see of a host has no password in it.
    """
    for host in read_hosts(["redis://ada:secret@redis", "unix://ada:secret@/run/redis.sock"]):
        assert "secret" not in host.name
        assert "secret" not in host.address.name
        assert "secret" not in repr(host)


@pytest.mark.parametrize(
    ("hosts", "encrypted"),
    [
        (["redis://redis"], False),
        (["rediss://redis"], True),
        (["unix:///run/redis.sock"], True),
    ],
)
def test_encrypted(hosts: list[str], encrypted: bool) -> None:
    """
    TLS hides what is sent, and so does a socket of this machine.
    """
    assert read_hosts(hosts)[0].address.encrypted is encrypted


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("rediss://redis", True),
        ("rediss://redis?ssl_cert_reqs=optional", True),
        ("rediss://redis?ssl_cert_reqs=none", None),
        ("rediss://redis?ssl_check_hostname=no", False),
    ],
)
def test_names_in_certificates(url: str, checked: bool | None) -> None:
    """
    They are compared unless settings say otherwise, whatever redis-py does by itself.
    """
    [host] = read_hosts([url])
    assert host.address.arguments.get("ssl_check_hostname") is checked


def test_connections_wait_for_nobody() -> None:
    """
    The library retries nothing and has no deadlines: both are ours, whatever settings say.
    """
    [host] = read_hosts([{"host": "redis", "socket_timeout": 1, "retry_on_timeout": True}])
    connection = host.address.connection()
    assert connection.socket_timeout is None
    assert connection.retry._retries == 0
    assert connection.health_check_interval == 0
    assert connection.protocol == 2


def test_shard() -> None:
    """
    Subjects are distributed as channels_redis does: by 12 bits of their CRC-32.
    """
    names = [f"group:room.{number}" for number in range(500)]
    for nodes in range(1, 8):
        for name in names:
            bits = crc32(name.encode()) & 0xFFF
            assert shard(name, nodes) == (0 if nodes == 1 else int(bits / (4096 / float(nodes))))
        assert {shard(name, nodes) for name in names} == set(range(nodes))
