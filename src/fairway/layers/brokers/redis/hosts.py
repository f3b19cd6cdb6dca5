"""
Where the Redis servers are: every form in which settings name them, read into plain data.

The forms are those that channels_redis takes. Time-outs, retries and pool sizes among them
are accepted and without effect: links keep to ``RedisOptions``. Nothing here connects.
"""

from __future__ import annotations

import ssl
from binascii import crc32
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from inspect import signature
from itertools import chain
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

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

URL_FORMS = "redis://user:password@host:port/database, rediss:// for TLS, or unix:///path?db=0"

UNVERIFIED = (None, "none", ssl.CERT_NONE)
"""
Values of ``ssl_cert_reqs`` with which no name in a certificate matters.
"""

PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Address:
    """
    How one server is reached.

    Attributes:
        name: What people call it; never with a password.
        kind: The class of redis-py that connects there.
        arguments: What that class is given, passwords too; hence in no repr.
        tls: The context of the connections made last, and until when others share it.
    """

    name: str
    kind: type[AbstractConnection]
    arguments: Mapping[str, Any] = field(repr=False)
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
        return (_read(url, "url"),)
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
        read = _read_url(url, where)
        arguments.update(read)  # As in redis-py: what the URL says holds.
        kind = kind or read.get("connection_class")
    if arguments.pop("ssl", False):
        kind = SSLConnection
    if "path" in arguments:
        kind = UnixDomainSocketConnection
    if not (isinstance(kind, type) and issubclass(kind, AbstractConnection)):
        kind = Connection
    arguments = {name: value for name, value in arguments.items() if name not in WITHOUT_EFFECT}
    if issubclass(kind, Connection):
        arguments.update(_place(arguments.get("host"), arguments.get("port"), where))
    if issubclass(kind, SSLConnection) and arguments.get("ssl_cert_reqs", "") not in UNVERIFIED:
        arguments.setdefault("ssl_check_hostname", True)  # False in redis-py before 6.
    if arguments.get("password") and not arguments.get("username"):
        # The same, and not refused by a server that asks nobody for a password.
        arguments["username"] = "default"
    _require_known(kind, arguments, where)
    database = str(arguments.get("db") or 0)
    if not database.isdecimal():
        raise ValueError(f"{where}: db must be a number, not {database!r}")
    arguments["db"] = int(database)
    address = Address(_name(kind, arguments), kind, arguments)
    try:
        address.connection()
    except (TypeError, ValueError, RedisError) as error:
        raise ValueError(f"{where}: {error}") from None
    return address


def _require_known(kind: type[AbstractConnection], names: Iterable[str], where: str) -> None:
    """
    Raise unless redis-py's connections take arguments of these names.
    """
    makers = [vars(cls)["__init__"] for cls in kind.__mro__ if "__init__" in vars(cls)]
    takes = {*chain(*(signature(maker).parameters for maker in makers))}
    for name in names:
        if name not in takes:
            near = get_close_matches(name, takes, 1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            raise ValueError(
                f"{where} has {name!r}, which connections to Redis do not take: {hint}"
            )


def _read_url(url: Any, where: str) -> Mapping[str, Any]:
    """
    Read a URL.

    Raises:
        ValueError: It is none, or ends amid its password. Neither it nor what urllib says of
            it is cited where that may hold one.
    """
    text = url.decode(errors="replace") if isinstance(url, bytes) else url
    if not isinstance(text, str):
        raise ValueError(f"{where} must be a URL, not {_kind(url)}")  # noqa: TRY004 - as others
    scheme = text.partition(":")[0].lower()
    understood = scheme == "unix" or text.lower().startswith(("redis://", "rediss://"))
    try:
        read = parse_url(text)
        understood = understood and _is_whole(text)
    except ValueError as error:
        if str(error).startswith("Invalid value for"):  # It says of which argument.
            raise ValueError(f"{where}: {error}") from None
        understood = False
    if not understood:
        shown = f"{scheme}://..." if "://" in text or "@" in text else repr(text)
        raise ValueError(
            f"{where} is no URL of a Redis server ({shown}): expected {URL_FORMS}. Port and "
            "database are numbers; in a password write %2F %3F %23 %40 %5B %5D for / ? # @ [ ]"
        )
    return read


def _is_whole(url: str) -> bool:
    """
    Whether a URL has nothing where a password that should be quoted would go on.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return True
    database = parts.path.strip("/")
    cut = parts.fragment or ("@" in parts.query and "=" not in parts.query)
    return not cut and (not database or database.isdecimal())


def _place(host: Any, port: Any, where: str) -> dict[str, Any]:
    """
    Give host and port, those of this machine's server where nothing is said.
    """
    host = "localhost" if host is None else host
    if not (isinstance(host, str) and host) or not {*"/@ "}.isdisjoint(host):
        # Not what it is, since a URL there may hold a password.
        raise ValueError(f"{where}: host must be a name or an address, and a URL stands alone")
    port = 6379 if port is None else port
    if not (str(port).isdecimal() and 0 < int(port) <= PORT_MAX):
        raise ValueError(f"{where}: port must be a number from 1 to {PORT_MAX}, not {port!r}")
    return {"host": host, "port": port}


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
