"""
Ways into a Redis server: certificates, users, databases, sockets; and who is refused how.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fairway import abroadcast, metrics
from fairway.exceptions import ChannelLayerUnavailable, ConfigurationError
from fairway.layers import RedisChannelLayer
from fairway.layers.brokers.redis import RedisBroker
from fairway.layers.brokers.redis.hosts import read_hosts
from fairway.options import RedisOptions
from tests.integration.layers.fleet import until
from tests.integration.layers.redis_server import (
    Certificates,
    RedisServer,
    certificates,
    redis_server,
)
from tests.integration.listening import default_layer

OPTIONS = RedisOptions(connect_timeout=1, command_timeout=1, retry_delay_max=0.05)


@pytest.fixture(scope="module")
def issued() -> Iterator[Certificates]:
    """
    Give certificates that no system trusts.
    """
    with TemporaryDirectory() as folder:
        yield certificates(Path(folder))


@pytest.fixture(scope="module")
def encrypted(issued: Certificates) -> Iterator[RedisServer]:
    """
    Give a server that speaks TLS alone.
    """
    with redis_server(tls=issued) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(issued: Certificates) -> Iterator[RedisServer]:
    """
    Give one that asks for a certificate too.
    """
    with redis_server(tls=issued, tls_auth_clients="yes") as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """
    Give a server with a password and users.
    """
    users = [
        "ada on >adas +@all ~* &shared/0:*",
        "bob on >bobs +@all ~* &other:*",
        "eve on >eves +@all -publish ~* &*",
        "dan on >dans +@all -client -role ~* &*",
    ]
    with redis_server(requirepass="secret", user=users) as server:
        yield server


@asynccontextmanager
async def started(
    hosts: Any = None, url: str | None = None, **options: Any
) -> AsyncIterator[tuple[RedisBroker, asyncio.Queue[bytes]]]:
    """
    Start a broker that hears one subject; closed afterwards.
    """
    given = OPTIONS if not options else RedisOptions(**options)
    broker = RedisBroker(read_hosts(hosts, url), given, prefix="shared")
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    def deliver(subject: str, payload: bytes) -> None:
        heard.put_nowait(payload)

    await broker.start(deliver, ignore, ignore, ["group:room"])
    try:
        yield broker, heard
    finally:
        await broker.close()


async def works(hosts: Any = None, url: str | None = None) -> None:
    """
    See to it that a message gets through.
    """
    async with started(hosts, url) as (broker, heard):
        assert broker.connected
        sent = broker.publish("group:room", b"hello")
        assert sent is not None
        await sent
        assert await asyncio.wait_for(heard.get(), 5) == b"hello"


async def refused(says: str, hosts: Any = None, url: str | None = None) -> None:
    """
    See to it that the start is refused with one line that says why.
    """
    with pytest.raises(ConfigurationError, match=says) as caught:
        async with started(hosts, url):
            pass
    assert "\n" not in str(caught.value)


def ignore(*told: object) -> None:
    """
    Hear what does not matter here.
    """


class TestTLS:
    """
    Servers that speak TLS.
    """

    async def test_its_authority_is_named(
        self, encrypted: RedisServer, issued: Certificates
    ) -> None:
        """
        In a dict, or in the URL.
        """
        await works([{"address": encrypted.url, "ssl_ca_certs": str(issued.authority)}])
        await works(url=f"{encrypted.url}?ssl_ca_certs={issued.authority}")

    async def test_an_unknown_authority_is_refused_at_the_start(
        self, encrypted: RedisServer
    ) -> None:
        """
        With the way to name it.
        """
        await refused(
            "certificate was refused .*self-signed.* Hint: .*ssl_ca_certs", [encrypted.url]
        )

    async def test_any_certificate_is_accepted_where_settings_say_so(
        self, encrypted: RedisServer
    ) -> None:
        """
        As a word, or as None.
        """
        await works(url=f"{encrypted.url}?ssl_cert_reqs=none")
        await works([{"address": encrypted.url, "ssl_cert_reqs": None}])

    async def test_a_client_shows_its_certificate(
        self, mutual: RedisServer, issued: Certificates, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Where the server asks for one. Without it a hint says so, whether or not the server's
        own word arrives before it hangs up.
        """
        known = {"address": mutual.url, "ssl_ca_certs": str(issued.authority)}
        client = str(issued.client)
        await works([{**known, "ssl_certfile": client, "ssl_keyfile": client}])
        try:
            async with started([known]) as (broker, _):
                assert not broker.connected
        except ConfigurationError as error:
            assert "ssl_certfile and ssl_keyfile" in str(error)  # noqa: PT017 - one of two
        else:
            assert "ssl_certfile and ssl_keyfile" in caplog.text

    async def test_files_that_cannot_be_used_are_named(
        self, encrypted: RedisServer, tmp_path: Path
    ) -> None:
        """
        Missing ones and others.
        """
        missing = tmp_path / "missing.pem"
        await refused(
            f"cannot be read, one of {missing}",
            [{"address": encrypted.url, "ssl_ca_certs": str(missing)}],
        )
        empty = tmp_path / "empty.pem"
        empty.write_text("nothing")
        await refused(
            "TLS failed: .*Hint: look at what ssl_ca_certs",
            [{"address": encrypted.url, "ssl_ca_certs": str(empty)}],
        )
        await refused("TLS failed: no cipher", url=f"{encrypted.url}?ssl_ciphers=nonsense")

    async def test_plain_and_encrypted_are_not_mixed_up(
        self,
        encrypted: RedisServer,
        guarded: RedisServer,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """
        Such a server is away, and a hint says what it may be.
        """
        async with started([encrypted.address]) as (broker, _):
            assert not broker.connected
        assert "a URL begins with rediss://" in caplog.text
        async with started([f"rediss://127.0.0.1:{guarded.port}"], connect_timeout=0.1):
            pass
        assert "Hint: does that port speak TLS?" in caplog.text


class TestUsers:
    """
    Servers that ask who comes.
    """

    async def test_a_password_opens(self, guarded: RedisServer) -> None:
        """
        In the URL, or beside the address.
        """
        await works(url=f"redis://:secret@127.0.0.1:{guarded.port}")
        await works([{"host": "127.0.0.1", "port": guarded.port, "password": "secret"}])

    async def test_a_wrong_or_missing_one_is_refused_at_the_start(
        self, guarded: RedisServer
    ) -> None:
        """
        And it is not told to anybody.
        """
        await refused("Authentication required", [guarded.address])
        with pytest.raises(ConfigurationError, match="invalid username-password") as caught:
            async with started(url=f"redis://:falsch@127.0.0.1:{guarded.port}"):
                pass
        assert "falsch" not in str(caught.value)

    async def test_a_user_needs_the_channels_of_the_prefix(self, guarded: RedisServer) -> None:
        """
        One who may use them gets through, another one is refused at the start.
        """
        await works(url=f"redis://ada:adas@127.0.0.1:{guarded.port}")
        await refused("NOPERM", url=f"redis://bob:bobs@127.0.0.1:{guarded.port}")

    async def test_a_user_who_may_not_publish_is_told_so(self, guarded: RedisServer) -> None:
        """
        By the one exception that publishing raises.
        """
        async with started(url=f"redis://eve:eves@127.0.0.1:{guarded.port}") as (broker, _):
            sent = broker.publish("group:room", b"hello")
            assert sent is not None
            with pytest.raises(ChannelLayerUnavailable, match="NOPERM"):
                await sent

    async def test_who_publishes_with_a_wrong_password_gets_the_one_exception(
        self, guarded: RedisServer
    ) -> None:
        """
        Nobody's request fails because of a broadcast, and the line names the mistake.
        """
        layer = RedisChannelLayer(url=f"redis://:falsch@127.0.0.1:{guarded.port}")
        async with default_layer(layer):
            lost = metrics.drops.values.get("unavailable", 0)
            await abroadcast("room", "hello")
            assert metrics.drops.values["unavailable"] == lost + 1
            for send in (
                abroadcast("room", "hello", strict=True),
                layer.group_send("room", {"type": "hello"}),
                layer.send("jobs", {"type": "hello"}),
            ):
                with pytest.raises(ChannelLayerUnavailable, match="invalid username-password"):
                    await send

    async def test_what_a_user_must_not_is_done_without(self, guarded: RedisServer) -> None:
        """
        Connections have no names then, unless settings give one, and nobody asks for its role.
        """
        for name, seen in (("mine", "mine"), (None, "")):
            host = {"address": f"redis://dan:dans@127.0.0.1:{guarded.port}"}
            if name is not None:
                host = {"address": f"redis://:secret@127.0.0.1:{guarded.port}", "client_name": name}
            await works([host])
            async with started([host], probe_interval=0.05) as (broker, _):
                assert {client["name"] for client in guarded.clients()} == {seen}
                await asyncio.sleep(0.2)
                assert broker.connected
            await until(lambda: not guarded.clients())

    async def test_databases_are_apart(self, guarded: RedisServer) -> None:
        """
        Though channels of Redis know none; one that does not exist is refused.
        """
        url = f"redis://:secret@127.0.0.1:{guarded.port}"
        async with started(url=f"{url}/2") as (here, heard), started(url=f"{url}/3") as (there, _):
            assert await here.audience("group:room") == 1
            for broker in (there, here):
                sent = broker.publish("group:room", broker.describe().encode())
                assert sent is not None
                await sent
            said = f"redis, 127.0.0.1:{guarded.port}/2, prefix shared"
            assert await asyncio.wait_for(heard.get(), 5) == said.encode()
        await refused("DB index is out of range", url=f"{url}/99")

    async def test_a_unix_socket_is_a_way_too(self, guarded: RedisServer) -> None:
        """
        As a URL, or as a path.
        """
        await works(url=f"unix://:secret@{guarded.path}?db=1")
        await works([{"path": str(guarded.path), "password": "secret"}])
