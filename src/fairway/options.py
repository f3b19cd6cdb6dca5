"""
Every setting of Fairway: one frozen dataclass per area, one field per setting.

A field carries its type, default, unit, bounds and help. Command-line flags,
Django settings, environment, checks and the settings reference are all made
from these fields, so a setting is written down exactly once. Data only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, TypeAlias, TypeVar

from fairway.exceptions import ConfigurationError

__all__ = [
    "AREAS",
    "IPCOptions",
    "IdentityOptions",
    "LayerOptions",
    "Options",
    "PageOptions",
    "ProjectOptions",
    "RateOptions",
    "RedisOptions",
    "ServerOptions",
    "conflicts",
    "overridden",
    "validate",
    "validate_value",
]


def option(  # noqa: PLR0913 - each has a name, and none is needed
    default: Any,
    help: str,  # noqa: A002 - the field's own word
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    pattern: tuple[str, str] | None = None,
    setting: bool = True,
    at_most: str = "",
    distinct: bool = False,
) -> Any:
    """
    Declare one setting.

    Args:
        default: The value when nobody says otherwise.
        help: One sentence for people, shown by ``--help`` and in the reference.
        unit: What a number counts: ``s``, ``bytes``, ``messages``, ...
        minimum: The smallest value accepted.
        maximum: The largest value accepted.
        choices: The only values accepted, for words.
        pattern: A regular expression that the whole text has to match, and what it asks for.
        setting: Whether the ``FAIRWAY`` dict may hold it, and not just a flag.
        at_most: The option of the same area that it may not be above.
        distinct: Whether no other option of the area of which this holds may have the same text.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "pattern": pattern,
        "setting": setting,
        "at_most": at_most,
        "distinct": distinct,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """
    What the server listens on, and every limit it keeps.
    """

    host: str = option("127.0.0.1", "Address to listen on.", setting=False)
    port: int = option(
        8000, "Port to listen on; 0 takes a free one.", minimum=0, maximum=65535, setting=False
    )
    uds: str | None = option(None, "Path of a Unix socket to listen on instead.", setting=False)
    fd: int | None = option(
        None, "Number of an inherited listening socket.", minimum=0, setting=False
    )
    uds_mode: str = option("666", "Octal mode of that Unix socket's file.", setting=False)
    certfile: str | None = option(None, "TLS certificate chain, PEM.", setting=False)
    keyfile: str | None = option(None, "TLS private key, PEM.", setting=False)
    loop: str = option(
        "auto", "Event loop: uvloop where it is installed.", choices=("auto", "asyncio", "uvloop")
    )
    access_log: bool = option(False, "Log one line per request.")
    access_logger: str = option(
        "fairway.access", "Logger that gets the access log's lines.", setting=False
    )
    root_path: str = option("", "Prefix under which a proxy mounts the application.")
    lifespan: str = option(
        "auto", "Whether the application's lifespan is run.", choices=("auto", "on", "off")
    )

    workers: int = option(
        1,
        "Processes that serve, under a supervisor; 0 takes one per CPU granted.",
        unit="processes",
        minimum=0,
        maximum=1024,
    )
    max_requests: int = option(
        0,
        "Requests after which a worker is replaced, give or take a tenth; 0 keeps it.",
        unit="requests",
        minimum=0,
    )
    start_timeout: float = option(
        60.0,
        "Time for a worker to begin to serve before it is ended.",
        unit="s",
        minimum=0.1,
        maximum=3600,
    )
    respawn_delay: float = option(
        0.1,
        "Time before a worker that ended is started again; doubles while it keeps ending.",
        unit="s",
        minimum=0.01,
        maximum=3600,
        at_most="respawn_delay_max",
    )
    respawn_delay_max: float = option(
        10.0, "The longest such time.", unit="s", minimum=0.01, maximum=3600
    )
    pid_file: str | None = option(
        None, "File to write the process id to while serving.", setting=False
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        "Addresses or networks whose forwarded headers name client and scheme; those behind a "
        "Unix socket always do.",
    )
    health_path: str = option(
        "/-/health",
        "Path that answers 200 while the process lives; empty for none.",
        pattern=("(/.*)?", "empty or a path that begins with /"),
        distinct=True,
    )
    ready_path: str = option(
        "/-/ready",
        "Path that answers 200 while new work is welcome, else 503; empty for none.",
        pattern=("(/.*)?", "empty or a path that begins with /"),
        distinct=True,
    )
    metrics_path: str = option(
        "",
        "Path that shows the counters to clients on this machine; empty for none.",
        pattern=("(/.*)?", "empty or a path that begins with /"),
        distinct=True,
    )

    connections_max: int = option(
        0,
        "Connections of one process; 0 for what the limit on open files allows.",
        unit="connections",
        minimum=0,
    )
    head_bytes_max: int = option(
        65536, "Request line and headers, raw.", unit="bytes", minimum=256, maximum=16777216
    )
    head_fields_max: int = option(
        128, "Header fields of a request.", unit="fields", minimum=1, maximum=10000
    )
    head_timeout: float = option(
        10.0, "Time for a request's head to arrive.", unit="s", minimum=0.01, maximum=3600
    )
    keep_alive: float = option(
        95.0, "Time a connection may rest between requests.", unit="s", minimum=0.01, maximum=86400
    )
    body_bytes_max: int = option(
        0, "Request body; 0 leaves it to the application.", unit="bytes", minimum=0
    )
    body_buffer_bytes: int = option(
        65536, "Request body held before reading pauses.", unit="bytes", minimum=1024
    )

    body_rate_min: int = option(
        240,
        "Rate at which a request body has to come while it is read; 0 for any.",
        unit="bytes/s",
        minimum=0,
        maximum=1073741824,
    )
    body_timeout: float = option(
        30.0,
        "Time by which a body may be behind that rate, and for which it may stand still.",
        unit="s",
        minimum=0.01,
        maximum=3600,
    )

    message_bytes_max: int = option(
        1048576, "WebSocket message.", unit="bytes", minimum=1, maximum=1073741824
    )
    fragments_max: int = option(
        65536, "Fragments of a WebSocket message.", unit="frames", minimum=1
    )
    compress: bool = option(
        False, "Compress messages (permessage-deflate) of clients that offer it."
    )
    compress_bytes_min: int = option(
        512,
        "Smaller messages go out as they are.",
        unit="bytes",
        minimum=1,
        at_most="compress_bytes_max",
    )
    compress_bytes_max: int = option(
        65536,
        "Larger messages go out as they are, since compressing holds all connections up.",
        unit="bytes",
        minimum=1,
        maximum=16777216,
    )
    receive_bytes: int = option(
        65536, "Messages unread by the application before reading pauses.", unit="bytes", minimum=1
    )
    receive_messages: int = option(
        32, "Messages unread by the application before reading pauses.", unit="messages", minimum=1
    )
    receive_ahead_bytes: int = option(
        262144, "Read further than that, to find control frames.", unit="bytes", minimum=0
    )
    abuse_points_max: int = option(
        5000,
        "Control frames and empty fragments, sixteen tiny ones for one, that a client may have "
        "sent too many before it is cut off; 0 for any number.",
        unit="points",
        minimum=0,
        maximum=1000000000,
    )
    abuse_points_rate: float = option(
        100.0, "What of these is forgiven.", unit="points/s", minimum=0.01, maximum=1000000
    )
    ping_interval: float = option(
        25.0, "Time between pings; 0 sends none.", unit="s", minimum=0, maximum=86400
    )
    pings_missed: int = option(
        2,
        "Pings in a row without a byte before the peer counts as gone.",
        unit="pings",
        minimum=1,
        maximum=100,
    )
    close_timeout: float = option(
        10.0, "Time for the peer to answer a close.", unit="s", minimum=0.01, maximum=3600
    )
    application_close_timeout: float = option(
        10.0,
        "Time for the application to end after its peer.",
        unit="s",
        minimum=0.01,
        maximum=3600,
    )

    outbox_bytes_max: int = option(
        1048576, "Bytes queued for a slow reader.", unit="bytes", minimum=1024
    )
    overflow: str = option(
        "close",
        "What becomes of a reader for whom more is queued, unless its consumer says otherwise: it "
        "is closed, loses the oldest messages of groups, or while behind all but the latest.",
        choices=("close", "drop_oldest", "latest"),
    )
    unsent_bytes_max: int = option(
        131072,
        "Bytes that the kernel takes ahead of what the network carries.",
        unit="bytes",
        minimum=1024,
    )
    latest_unsent_bytes_max: int = option(
        16384,
        "Bytes that it takes ahead where overflow is latest, if that is less.",
        unit="bytes",
        minimum=1024,
    )
    outbox_stall_timeout: float = option(
        30.0,
        "Time a send may wait for a reader that stands still.",
        unit="s",
        minimum=0.01,
        maximum=3600,
    )
    early_messages_max: int = option(
        32, "Fan-out messages held before the handshake is done.", unit="messages", minimum=0
    )
    early_bytes_max: int = option(
        65536, "Fan-out bytes held before the handshake is done.", unit="bytes", minimum=0
    )
    inbox_messages_max: int = option(
        100, "Layer messages unread by a consumer.", unit="messages", minimum=1
    )
    flush_connections: int = option(
        512, "Connections written to in one loop turn.", unit="connections", minimum=1
    )
    flush_seconds: float = option(
        0.002, "Time spent writing in one loop turn.", unit="s", minimum=0.0001, maximum=1
    )

    drain: float = option(
        25.0,
        "Time over which a stopping server ends its connections.",
        unit="s",
        minimum=0,
        maximum=3600,
    )
    drain_delay: float = option(
        0.0, "Time between SIGTERM and the end of accepting.", unit="s", minimum=0, maximum=3600
    )
    threads: int = option(
        4,
        "Threads for synchronous consumers and database work.",
        unit="threads",
        minimum=1,
        maximum=1000,
    )
    page_threads: int = option(
        8,
        "Threads for pages: synchronous views and middleware, and their database work.",
        unit="threads",
        minimum=1,
        maximum=1000,
    )
    page_queue: int = option(
        100,
        "Pages that may wait for a thread; what comes then is answered with 503.",
        unit="pages",
        minimum=1,
        maximum=100000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """
    What one channel layer keeps to, whichever broker is below it.
    """

    capacity: int = option(100, "Unread messages of one channel.", unit="messages", minimum=1)
    expiry: float = option(
        60.0, "Time after which an unread message is worthless.", unit="s", minimum=0.01
    )
    message_bytes_max: int = option(1048576, "Encoded message.", unit="bytes", minimum=1024)
    publish_timeout: float = option(
        5.0, "Time for the broker to take a message.", unit="s", minimum=0.01, maximum=60
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IPCOptions:
    """
    What the links between the processes of one machine keep to.
    """

    join_timeout: float = option(
        0.25,
        "Time that joining a group waits for other processes to acknowledge it.",
        unit="s",
        minimum=0.001,
        maximum=60,
    )
    heartbeat: float = option(
        2.0, "Time between signs of life on a link.", unit="s", minimum=0.01, maximum=60
    )
    silence: float = option(
        10.0, "Time without a byte after which a link is closed.", unit="s", minimum=0.05
    )
    link_bytes_max: int = option(
        8388608, "Bytes queued for one other process.", unit="bytes", minimum=65536
    )
    queue_poll: float = option(
        1.0, "Time after which a queue is looked at without a call.", unit="s", minimum=0.01
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """
    What the connections to Redis keep to.
    """

    connect_timeout: float = option(
        2.0,
        "Time for a Redis server to accept a connection and answer.",
        unit="s",
        minimum=0.05,
        maximum=60,
    )
    command_timeout: float = option(
        3.0,
        "Time for a Redis server to answer; one that does not is connected to anew.",
        unit="s",
        minimum=0.05,
        maximum=60,
    )
    retry_delay_max: float = option(
        0.25, "Longest pause between two attempts to connect.", unit="s", minimum=0.01, maximum=60
    )
    probe_interval: float = option(
        30.0,
        "Time between messages to itself by which a process sees whether its subscriptions live.",
        unit="s",
        minimum=0.05,
        maximum=3600,
    )
    unsubscribe_delay: float = option(
        1.0,
        "Time that a group whose last member has left stays subscribed to.",
        unit="s",
        minimum=0,
        maximum=60,
    )
    link_bytes_max: int = option(
        33554432, "Bytes waiting for one Redis server.", unit="bytes", minimum=65536
    )
    queue_poll: float = option(
        1.0, "Time after which a queue is looked at without a call.", unit="s", minimum=0.01
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectOptions:
    """
    Which processes belong together, whatever carries their messages.
    """

    namespace: str | None = option(
        None,
        "Name shared by the processes of one project; None derives one from SECRET_KEY.",
        pattern=(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits and - _ ."),
    )
    runtime_dir: str | None = option(
        None,
        "Directory of the sockets between processes; None for /tmp/fairway-<uid>.",
        pattern=(r"(?s)/.*", "an absolute path"),
    )
    urlconf: str | Callable[[Any], Any] | None = option(  # noqa: RUF009 - a field, as all here
        None,
        "URL configuration that consumers are looked for in, or a function that gives one for a "
        "scope; None for ROOT_URLCONF.",
        pattern=(r"[^\W\d]\w*(\.[^\W\d]\w*)*", "a dotted path or a function"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """
    How Django's pages are served, under whichever server.
    """

    pages: str = option(
        "auto",
        "Whether pages run in one piece in a thread (sync) or on the loop (async); auto decides "
        "by each page's view.",
        choices=("auto", "sync", "async"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityOptions:
    """
    How long a login is taken to hold.
    """

    recheck_interval: float = option(
        60.0,
        "Time between questions to the database whether the logins behind open connections hold; "
        "0 asks none.",
        unit="s",
        minimum=0,
        maximum=86400,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RateOptions:
    """
    How often one address or one user may connect and send; each process counts for itself.
    """

    connects_per_address: int = option(
        0,
        "WebSockets, and requests to HTTP consumers, that one address may begin; 0 for any number.",
        unit="per minute",
        minimum=0,
        maximum=1000000,
    )
    connects_per_user: int = option(
        0,
        "WebSockets, and requests to HTTP consumers, that one user may begin; 0 for any number.",
        unit="per minute",
        minimum=0,
        maximum=1000000,
    )
    connects_burst: int = option(
        0,
        "How many of these may come at once; 0 for those of a minute.",
        unit="connects",
        minimum=0,
        maximum=1000000,
    )
    messages_per_address: int = option(
        0,
        "WebSocket messages that one address may send; 0 for any number.",
        unit="per minute",
        minimum=0,
        maximum=10000000,
    )
    messages_per_user: int = option(
        0,
        "WebSocket messages that one user may send; 0 for any number.",
        unit="per minute",
        minimum=0,
        maximum=10000000,
    )
    messages_burst: int = option(
        0,
        "How many of these may come at once; 0 for those of a minute.",
        unit="messages",
        minimum=0,
        maximum=10000000,
    )
    rate_entries_max: int = option(
        16384,
        "Addresses or users that one of these limits remembers.",
        unit="entries",
        minimum=16,
        maximum=10000000,
    )


Options: TypeAlias = (
    ServerOptions
    | LayerOptions
    | IPCOptions
    | RedisOptions
    | ProjectOptions
    | RateOptions
    | PageOptions
    | IdentityOptions
)

AREAS: dict[type[Any], str] = {
    ServerOptions: "",
    ProjectOptions: "",
    RateOptions: "",
    PageOptions: "",
    IdentityOptions: "",
    LayerOptions: "LAYER_",
    IPCOptions: "IPC_",
    RedisOptions: "REDIS_",
}
"""
Each area with what its keys in the ``FAIRWAY`` dict begin with.
"""


def validate(options: Options) -> None:
    """
    Check every field against its bounds, and against the others.

    Raises:
        ConfigurationError: The first value outside them, with the bounds; or the first two that
            contradict each other.
    """
    for spec in fields(options):
        validate_value(spec, getattr(options, spec.name))
    for message in conflicts(options).values():
        raise ConfigurationError(message)


def validate_value(spec: Field[Any], value: Any) -> None:
    """
    Check one field's value against the field's bounds.

    Raises:
        ConfigurationError: It is outside them, with the bounds.
    """
    rules = spec.metadata
    if value is None:
        return
    low, high, unit = rules["minimum"], rules["maximum"], rules["unit"]
    if rules["choices"] and value not in rules["choices"]:
        message = f"{spec.name} must be one of {', '.join(rules['choices'])}, not {value!r}"
        raise ConfigurationError(message)
    text = rules["pattern"] if isinstance(value, str) else None
    if text and not re.fullmatch(text[0], value):
        raise ConfigurationError(f"{spec.name} must be {text[1]}, not {value!r}")
    if not (low is None and high is None) and not isinstance(value, int | float):
        raise ConfigurationError(f"{spec.name} must be a number, not {value!r}")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low:g}" if high is None else f"between {low or 0:g} and {high:g}"
        raise ConfigurationError(
            f"{spec.name} must be {bounds}{f' {unit}' if unit else ''}, not {value!r}"
        )


def conflicts(options: Options) -> dict[str, str]:
    """
    Find fields that contradict each other, though each is within its own bounds.

    Returns:
        What is wrong and what helps, by the field that is to say so; empty for nothing.
    """
    found: dict[str, str] = {}
    texts: dict[str, str] = {}
    for spec in fields(options):
        name, value, rules = spec.name, getattr(options, spec.name), spec.metadata
        if rules["at_most"]:
            bound = getattr(options, rules["at_most"])
            if value > bound:
                found[name] = (
                    f"{name} must be at most {rules['at_most']} ({bound} {rules['unit']}), not "
                    f"{value!r}: lower the one or raise the other"
                )
        if rules["distinct"] and value:
            other = texts.setdefault(value, name)
            if other != name:
                found[name] = (
                    f"{name} must not be {value!r}, as {other} is, since one of them alone would "
                    "answer: choose another path, or none"
                )
    return found


Area = TypeVar("Area", bound=Options)


def overridden(options: Area, owner: type[Any], names: Iterable[str]) -> Area | None:
    """
    Give options as a class has them, whose attributes of the same names take their place.

    Args:
        options: Those of the settings.
        owner: The class; an attribute that is None says nothing.
        names: The fields that it may say otherwise.

    Returns:
        The options, None if the class says nothing.

    Raises:
        ConfigurationError: An attribute has the wrong type or is out of bounds; names it.
    """
    own = {name: value for name in names if (value := getattr(owner, name, None)) is not None}
    for name, value in own.items():
        wanted = type(getattr(options, name))
        if type(value) is not wanted:
            kind = {int: "a whole number", bool: "True or False"}.get(wanted, "text")
            if choices := options.__dataclass_fields__[name].metadata["choices"]:
                kind = f"one of {', '.join(choices)}"
            message = f"{owner.__qualname__}.{name} must be {kind}, not {value!r}"
            raise ConfigurationError(message)
    if not own:
        return None
    changed = replace(options, **own)
    try:
        validate(changed)
    except ConfigurationError as error:
        raise ConfigurationError(f"{owner.__qualname__}.{error}") from error
    return changed
