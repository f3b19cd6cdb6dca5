"""
Where the Redis servers are: every form in which settings name them, read into plain data.

The forms are those that channels_redis takes. Time-outs, retries and pool sizes among them
are accepted and without effect: links keep to ``RedisOptions``. Nothing here connects.
"""

from __future__ import annotations

import inspect
from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from time import monotonic
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.exceptions import RedisError

__all__ = ["Address", "Host", "read_hosts", "shard"]

WITHOUT_EFFECT = frozenset({
    "connection_class", "decode_responses", "driver_info", "encoding", "encoding_errors",
    "health_check_interval", "legacy_responses", "lib_name", "lib_version", "max_connections",
    "parser_class", "protocol", "retry", "retry_on_error", "retry_on_timeout",
    "single_connection_client", "socket_connect_timeout", "socket_read_size", "socket_timeout",
    "timeout",
})  # fmt: skip
"""
What is accepted beside the address and does nothing: every wait and retry is Fairway's own.
"""

SILENT: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)
"""
Keeps redis-py from reading its version from the disk for each connection, to tell the server.
"""

CONTEXT_SECONDS = 30.0
"""
Time that certificates are not read anew.
"""

SHARDS = 4096

# The library would look up its own version, in files, for each connection it makes.
_takes = inspect.signature(AbstractConnection.__init__).parameters
ANONYMOUS: dict[str, None] = (
    {"driver_info": None} if "driver_info" in _takes else {"lib_name": None, "lib_version": None}
)


@dataclass(frozen=True, slots=True)
class Address:
    """
    How one server is reached.

    Attributes:
        name: What people call it; never with a password.
        kind: The class of redis-py that connects there.
        arguments: What that class is given.
        tls: The context of the connections made last, and until when others share it.
    """

    name: str
    kind: type[AbstractConnection]
    arguments: Mapping[str, Any]
    tls: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def encrypted(self) -> bool:
        """
        Whether what is sent there cannot be read on the way, or never leaves the machine.
        """
        return not issubclass(self.kind, Connection) or issubclass(self.kind, SSLConnection)

    def connection(self) -> AbstractConnection:
        """
        Make a connection that is not open yet.
        """
        made = self.kind(
            **{**SILENT, **self.arguments},
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=None,
        )
        if isinstance(made, SSLConnection):
            self._share_context(made)
        return made

    def _share_context(self, connection: SSLConnection) -> None:
        """
        Have connections made at short intervals share what their files say.

        Reading the authorities that a system trusts takes longer than all else together; what
        is renewed on the disk is to be found all the same.
        """
        now = monotonic()
        if now >= self.tls.get("until", 0.0):
            self.tls.update(until=now + CONTEXT_SECONDS, context=connection.ssl_context)
        connection.ssl_context = self.tls["context"]

    def at(self, host: str, port: int) -> Address:
        """
        Give the same at another place.
        """
        arguments = {**self.arguments, "host": host, "port": port}
        return replace(self, name=_name(self.kind, arguments), arguments=arguments)


@dataclass(frozen=True, slots=True)
class Host:
    """
    One entry of ``hosts``: a server, or what Sentinels call one.

    Attributes:
        name: What people call it; never with a password.
        address: How to reach it; with Sentinels, all of it but host and port.
        database: The number of its database.
        sentinels: Whom to ask where it is.
        master: Under which name.
    """

    name: str
    address: Address
    database: int
    sentinels: tuple[Address, ...] = ()
    master: str = ""


def read_hosts(hosts: Any = None, url: str | None = None) -> tuple[Host, ...]:
    """
    Read what settings say about hosts; without a word, the server of this machine.

    Raises:
        ValueError: An entry cannot be understood; the message names it, without its password.
    """
    if url is not None:
        if hosts:
            raise ValueError("hosts and url exclude each other: give one of them")
        if not isinstance(url, str):
            raise ValueError(f"url must be text like 'redis://host:6379/0', not {_kind(url)}")
        hosts = [url]
    if not hosts:
        hosts = ["redis://localhost:6379"]
    if isinstance(hosts, str | bytes):
        raise ValueError(  # noqa: TRY004 - what channels_redis raises
            "hosts must be a list of Redis servers, even if there is only one, not a text; "
            "for one URL there is the key url"
        )
    if not isinstance(hosts, list | tuple):
        raise ValueError(  # noqa: TRY004 - as above
            f"hosts must be a list of Redis servers, not {_kind(hosts)}"
        )
    return tuple(_read(entry, f"hosts[{number}]") for number, entry in enumerate(hosts))


def shard(subject: str, nodes: int) -> int:
    """
    Give the number of the node that a subject belongs to, as channels_redis computes it.
    """
    if nodes == 1:
        return 0
    # To the digit: other ways of rounding put some subjects elsewhere.
    return int((crc32(subject.encode()) % SHARDS) / (SHARDS / nodes))


def _read(entry: Any, where: str) -> Host:
    """
    Read one entry.
    """
    match entry:
        case str() | bytes():
            given: dict[str, Any] = {"address": entry}
        case (str() as host, int() | str() as port):
            given = {"host": host, "port": port}
        case Mapping():
            given = dict(entry)
        case _:
            raise ValueError(
                f"{where} must be a URL, a pair of host and port, or a dict, not {_kind(entry)}"
            )
    if "sentinels" in given or "master_name" in given:
        return _read_sentinels(given, where)
    address = _address(given, where)
    return Host(address.name, address, _database(address))


def _read_sentinels(given: dict[str, Any], where: str) -> Host:
    """
    Read an entry that names Sentinels.
    """
    sentinels, master = given.pop("sentinels", None), given.pop("master_name", None)
    access = given.pop("sentinel_kwargs", None) or {}
    if not (isinstance(master, str) and master and isinstance(sentinels, list | tuple)):
        raise ValueError(
            f"{where} must name both: sentinels, a list of pairs of host and port, and master_name"
        )
    asked = []
    for number, sentinel in enumerate(sentinels):
        place = f"{where}['sentinels'][{number}]"
        if not isinstance(sentinel, list | tuple) or len(sentinel) != 2:
            raise ValueError(f"{place} must be a pair of host and port, not {_kind(sentinel)}")
        asked.append(_address({**access, "host": sentinel[0], "port": sentinel[1]}, place))
    if not asked:
        raise ValueError(f"{where}['sentinels'] is empty: name at least one")
    address = _address(given, where)
    database = _database(address)
    places = ", ".join(f"{one.arguments['host']}:{one.arguments['port']}" for one in asked)
    return Host(
        f"{master}/{database} by Sentinel {places}", address, database, tuple(asked), master
    )


def _address(given: dict[str, Any], where: str) -> Address:
    """
    Read how one server is reached; whatever its class does not know is a mistake.
    """
    arguments = dict(given)
    kind: Any = arguments.get("connection_class")
    url = arguments.pop("address", None)
    if url is not None:
        try:
            read = parse_url(url.decode() if isinstance(url, bytes) else url)
        except (ValueError, AttributeError, TypeError) as error:
            # Not the URL, which may hold a password.
            raise ValueError(f"{where} is no URL of a Redis server: {error}") from None
        arguments = {**read, **arguments}
        kind = kind or read.get("connection_class")
    if arguments.pop("ssl", False):
        kind = SSLConnection
    if "path" in arguments:
        kind = UnixDomainSocketConnection
    if not (isinstance(kind, type) and issubclass(kind, AbstractConnection)):
        kind = Connection
    arguments = {name: value for name, value in arguments.items() if name not in WITHOUT_EFFECT}
    if issubclass(kind, Connection):
        arguments = {"host": "localhost", "port": 6379, **arguments}
    try:
        arguments["db"] = int(arguments.get("db") or 0)
        address = Address(_name(kind, arguments), kind, arguments)
        address.connection()
    except (TypeError, ValueError, RedisError) as error:
        raise ValueError(f"{where}: {error}") from None
    return address


def _name(kind: type[AbstractConnection], arguments: Mapping[str, Any]) -> str:
    """
    Say for people where a server is.
    """
    if issubclass(kind, Connection):
        return f"{arguments['host']}:{arguments['port']}/{arguments['db']}"
    return f"{arguments.get('path')}/{arguments['db']}"


def _database(address: Address) -> int:
    """
    Give the number of an address's database.
    """
    return int(address.arguments["db"])


def _kind(value: object) -> str:
    """
    Name a value's type, since the value itself may hold a password.
    """
    return type(value).__name__
