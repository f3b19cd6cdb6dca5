"""
What ``check --deploy`` asks the Redis servers of a project's layers, and what it makes of it.

All servers are asked at once, within two seconds; what one must not or cannot say is left out.
Nothing is written there. Loaded only where a layer is on Redis.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, cast

from django.core import checks

from fairway.exceptions import ChannelLayerUnavailable, ConfigurationError
from fairway.layers import resolving
from fairway.layers.brokers.redis.broker import RedisBroker
from fairway.layers.brokers.redis.commands import Commands, Refused
from fairway.layers.brokers.redis.hosts import Address, Host
from fairway.layers.brokers.redis.link import open_link
from fairway.layers.brokers.redis.probe import PROBE
from fairway.layers.brokers.redis.queues import escape
from fairway.layers.brokers.redis.sentinel import Sentinel

__all__ = ["check_layers"]

SECONDS_MAX = 2.0
"""
Time for all servers together to be found and to answer.
"""

GRACE_SECONDS = 0.5
"""
Time on top of it for their connections to end.
"""

LINKS = 2
"""
Connections of a process to each server.
"""

VERSION_MIN = (5, 0)
"""
The first version whose scripts may read the clock and then write, and which knows ZPOPMIN.
"""

ANSWER_BYTES_MAX = 16_777_216


@dataclass(slots=True)
class _Server:
    """
    What is known of a server; None where it did not say.

    Attributes:
        host: Which one.
        broker: The one of the layer that uses it.
        trouble: Why it could not be asked; empty where it could.
        public: The address in the open under which it is reached without encryption.
        idle_timeout: Seconds after which it closes a silent connection; 0 is never.
        clients_max: Connections it takes.
        version: Its version.
        projects: Whose processes use the broker's prefix at present.
    """

    host: Host
    broker: RedisBroker
    trouble: str = ""
    public: str = ""
    idle_timeout: int | None = None
    clients_max: int | None = None
    version: str | None = None
    projects: set[str] = field(default_factory=set)

    @property
    def place(self) -> str:
        """
        The server as such, whichever database is used.
        """
        return self.host.name if self.host.sentinels else self.host.name.rpartition("/")[0]


def check_layers(layers: Mapping[str, Any], processes: int) -> Iterator[checks.CheckMessage]:
    """
    Ask the servers of some layers, and say what is wrong with them.

    Waits for the network, for at most ``SECONDS_MAX`` and ``GRACE_SECONDS``.

    Args:
        layers: The layers on Redis, by alias.
        processes: How many of this machine are to serve.
    """
    brokers = {alias: cast("RedisBroker", layer.broker) for alias, layer in layers.items()}
    found = [
        (alias, _Server(host, broker)) for alias, broker in brokers.items() for host in broker.hosts
    ]
    _ask_all([server for _, server in found])
    used = Counter(server.place for _, server in found)
    told: set[str] = set()
    for alias, server in found:
        yield from _shared_prefix(alias, server)
        if server.place not in told:
            told.add(server.place)
            yield from _judge(alias, server, LINKS * processes * used[server.place])


# --- What is said ----------------------------------------------------------------------------


def _judge(alias: str, server: _Server, connections: int) -> Iterator[checks.CheckMessage]:
    """
    Say what is wrong with one server, whichever layers use it.
    """
    name = server.host.name
    if server.trouble:
        yield checks.Warning(
            f"Redis, which the channel layer {alias!r} needs, did not answer: {server.trouble}. "
            "Until it does, no message reaches another process and nobody can join a group.",
            hint="Start Redis, or correct hosts in CHANNEL_LAYERS or REDIS_URL. The processes of "
            "one machine need no Redis: remove the layer.",
            id="fairway.W215",
        )
    if server.public:
        yield checks.Warning(
            f"Redis at {name} is reached at {server.public}, a public address, without "
            "encryption. Others on the way read passwords and messages, and can send their own.",
            hint="Use rediss:// with the server's CA (ssl_ca_certs), or a private network.",
            id="fairway.W212",
        )
    if server.idle_timeout:
        yield checks.Warning(
            f"Redis at {name} closes connections that were silent for {server.idle_timeout} s "
            "(timeout). Fairway connects again at once, but a message sent at that moment may be "
            "refused.",
            hint="Set timeout to 0 there. Where that is not yours to do and it is longer than "
            "REDIS_PROBE_INTERVAL, which keeps connections busy, silence this.",
            id="fairway.W210",
        )
    if server.clients_max is not None and connections > server.clients_max:
        yield checks.Warning(
            f"The processes that are to serve open {connections} connections to Redis at {name}, "
            f"which takes {server.clients_max} (maxclients), those of other machines, commands "
            "and workers included. What comes after that is refused.",
            hint="Raise maxclients, or lower WORKERS.",
            id="fairway.W211",
        )
    if server.version is not None and _numbers(server.version) < VERSION_MIN:
        needed = ".".join(map(str, VERSION_MIN))
        yield checks.Warning(
            f"Redis at {name} is version {server.version}, and {needed} is needed (ZPOPMIN, and "
            "scripts that read the clock). Groups work; named channels, and runworker with them, "
            "do not.",
            hint=f"Use Redis {needed} or newer, or Valkey.",
            id="fairway.W213",
        )


def _shared_prefix(alias: str, server: _Server) -> Iterator[checks.CheckMessage]:
    """
    Say whether processes of another project use the same prefix.
    """
    others = server.projects - {server.broker.project}
    if others:
        yield checks.Warning(
            f"Processes of another project (namespace {min(others)}) use Redis at "
            f"{server.host.name} with the prefix of the channel layer {alias!r}. Groups and queues "
            "of one name are the same for both: each gets the other's messages.",
            hint="Remove prefix from CONFIG, so that each project has its own, or name another. "
            "If they are to share it, give both one NAMESPACE.",
            id="fairway.W214",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """
    Read a version's numbers.
    """
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


# --- What is asked ---------------------------------------------------------------------------


def _ask_all(servers: Sequence[_Server]) -> None:
    """
    Ask servers, on a loop of its own in a thread that can be left alone.
    """

    async def ask_all() -> None:
        # A name that takes minutes is then left to a daemon, which no end of a loop waits for.
        resolving.take_over(asyncio.get_running_loop())
        await asyncio.gather(*(_ask(server) for server in servers))

    # A loop may be running in this thread.
    thread = threading.Thread(target=asyncio.run, args=(ask_all(),), daemon=True)
    thread.start()
    thread.join(SECONDS_MAX + GRACE_SECONDS)


async def _ask(server: _Server) -> None:
    """
    Find one server and ask it, in bounded time.
    """
    host = server.host
    server.trouble = f"redis at {host.name} did not answer within {SECONDS_MAX:g} s"
    try:
        async with asyncio.timeout(SECONDS_MAX):
            address = await _locate(host)
            server.public = await _public_address(address)
            await _question(server, address)
    except TimeoutError:
        return
    except (ChannelLayerUnavailable, ConfigurationError) as error:
        server.trouble = str(error).rstrip(".")
    else:
        server.trouble = ""


async def _locate(host: Host) -> Address:
    """
    Give where the server is, by its Sentinels if it has some.
    """
    if not host.sentinels:
        return host.address
    sentinel = Sentinel(host, SECONDS_MAX)
    try:
        return await sentinel.master()
    finally:
        sentinel.lose()


async def _public_address(address: Address) -> str:
    """
    Give the public address that plain bytes would go to, or nothing.
    """
    if address.encrypted:
        return ""
    loop = asyncio.get_running_loop()
    host, port = address.arguments["host"], address.arguments["port"]
    try:
        found = await loop.getaddrinfo(host, port)
    except OSError:
        return ""  # Which connecting will say.
    places = [str(place[0]) for *_, place in found]
    return next((place for place in places if ip_address(place.partition("%")[0]).is_global), "")


async def _question(server: _Server, address: Address) -> None:
    """
    Ask a server all there is to know.
    """
    probes = server.broker.prefix_at(server.host) + PROBE
    commands = Commands(server.host.name, SECONDS_MAX, ANSWER_BYTES_MAX, lambda: None)
    link = await open_link(address, commands.on_reply, SECONDS_MAX)
    try:
        commands.attach(link)
        asked = (
            commands.execute("CONFIG", "GET", "timeout"),
            commands.execute("CONFIG", "GET", "maxclients"),
            commands.execute("INFO", "server"),
            commands.execute("PUBSUB", "CHANNELS", f"{escape(probes)}*"),
        )
        answers: Sequence[Any] = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Refused):
                raise answer
        idle, clients, info, found = answers
        server.idle_timeout = _number(idle)
        server.clients_max = _number(clients)
        server.version = _version(info)
        if isinstance(found, list):
            server.projects = {_project(channel, probes) for channel in found} - {""}
    finally:
        commands.close()
        link.lose("asked")


def _project(channel: bytes, probes: str) -> str:
    """
    Read whose process listens to a channel of probes.
    """
    return channel.decode(errors="replace").removeprefix(probes).rpartition(".")[0]


def _number(answer: Any) -> int | None:
    """
    Read the answer to ``CONFIG GET``; an empty one, or none, is from a server that must not say.
    """
    match answer:
        case [_, bytes() as value] if value.isdigit():
            return int(value)
    return None


def _version(answer: Any) -> str | None:
    """
    Find the version in what a server says of itself.
    """
    if isinstance(answer, bytes):
        for line in answer.decode(errors="replace").splitlines():
            if line.startswith("redis_version:"):
                return line.partition(":")[2].strip()
    return None
