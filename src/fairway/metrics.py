"""
Counters and gauges of this process: plain numbers that exist from the start.

A counter is an object with a ``value`` that its owner increments; the hot paths
add to it directly. ``snapshot()`` gives the numbers; ``exposition()`` gives them as
text in Prometheus' format, beside those of the other processes of one server where
``share()`` told how to get at them. Each counter is touched by one thread at a time
(the event loop's), or tolerates a lost increment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

__all__ = [
    "CONTENT_TYPE",
    "Counter",
    "Gauge",
    "LabelledCounter",
    "LabelledGauge",
    "Metric",
    "exposition",
    "lines",
    "share",
    "shown_to",
    "snapshot",
]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""
Of the text format that every Prometheus reads.
"""


class Metric:
    """
    A number, or a family of numbers, with a name.

    Attributes:
        name: In Prometheus form, with the unit last.
        help: One sentence for people.
        kind: What Prometheus calls it.
    """

    __slots__ = ("help", "name")

    kind: ClassVar[str]

    def __init__(self, name: str, help: str) -> None:  # noqa: A002 - the field's own word
        self.name = name
        self.help = help
        _registry[name] = self

    def samples(self) -> dict[str, int]:
        """
        Return the present values under their full names. May be called from any thread.
        """
        raise NotImplementedError


class Counter(Metric):
    """
    A number that only grows.

    Attributes:
        value: The count since the process started.
    """

    __slots__ = ("value",)

    kind = "counter"

    def __init__(self, name: str, help: str) -> None:  # noqa: A002 - as above
        super().__init__(name, help)
        self.value = 0

    def samples(self) -> dict[str, int]:
        """
        See ``Metric``.
        """
        return {self.name: self.value}


class LabelledCounter(Metric):
    """
    A family of counts told apart by one label, such as a reason.

    Attributes:
        label: What tells them apart.
        values: The count for each label value seen.
    """

    __slots__ = ("label", "values")

    kind = "counter"

    def __init__(self, name: str, label: str, help: str) -> None:  # noqa: A002 - as above
        super().__init__(name, help)
        self.label = label
        self.values: dict[str, int] = {}

    def add(self, value: str, count: int = 1) -> None:
        """
        Add to the count of one label value.
        """
        self.values[value] = self.values.get(value, 0) + count

    def samples(self) -> dict[str, int]:
        """
        See ``Metric``.
        """
        return _labelled(self.name, self.label, self.values)


class Gauge(Metric):
    """
    A number that goes up and down, looked up when somebody asks.

    Attributes:
        read: Gives the present value; cheap, and from any thread.
    """

    __slots__ = ("read",)

    kind = "gauge"

    def __init__(self, name: str, help: str, read: Callable[[], int]) -> None:  # noqa: A002 - as above
        super().__init__(name, help)
        self.read = read

    def samples(self) -> dict[str, int]:
        """
        See ``Metric``.
        """
        return {self.name: self.read()}


class LabelledGauge(Metric):
    """
    A family of gauges told apart by one label.

    Attributes:
        label: What tells them apart.
        read: Gives the present value for each label value; cheap, and from any thread.
    """

    __slots__ = ("label", "read")

    kind = "gauge"

    def __init__(
        self,
        name: str,
        label: str,
        help: str,  # noqa: A002 - as above
        read: Callable[[], Mapping[str, int]],
    ) -> None:
        super().__init__(name, help)
        self.label = label
        self.read = read

    def samples(self) -> dict[str, int]:
        """
        See ``Metric``.
        """
        return _labelled(self.name, self.label, self.read())


def _labelled(name: str, label: str, values: Mapping[str, int]) -> dict[str, int]:
    """
    Name the members of a family.
    """
    return {f'{name}{{{label}="{_escaped(key)}"}}': value for key, value in list(values.items())}


def _escaped(value: str) -> str:
    """
    Write a label's value as the text format wants it.
    """
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


_PROXY_FIELDS = frozenset({"forwarded", "via", "x-real-ip"})

_registry: dict[str, Metric] = {}

_pages: Callable[[], Mapping[str, bytes]] | None = None

brokers: WeakKeyDictionary[Any, None] = WeakKeyDictionary()
"""
The brokers that were started, see ``layers.brokers.base.Broker`` for what they know.
"""

connections = Counter("fairway_connections_total", "Connections accepted.")
connections_closed = Counter("fairway_connections_closed_total", "Connections that ended.")
connections_open = Gauge(
    "fairway_connections_open",
    "Connections that exist.",
    lambda: connections.value - connections_closed.value,
)
bytes_received = Counter("fairway_received_bytes_total", "Bytes read, after TLS.")
bytes_sent = Counter("fairway_sent_bytes_total", "Bytes written, before TLS.")
accept_pauses = LabelledCounter(
    "fairway_accept_pauses_total", "reason", "Times that accepting connections was paused."
)
requests = Counter("fairway_requests_total", "HTTP requests whose head was complete.")
websockets = Counter(
    "fairway_websockets_total", "WebSocket handshakes that reached the application."
)
websockets_closed = Counter("fairway_websockets_closed_total", "WebSockets that ended.")
websockets_open = Gauge(
    "fairway_websockets_open",
    "WebSockets that exist.",
    lambda: websockets.value - websockets_closed.value,
)
messages_received = Counter("fairway_messages_received_total", "WebSocket messages received.")
messages_sent = Counter(
    "fairway_messages_sent_total", "Messages written to WebSockets and event streams."
)
refusals = LabelledCounter("fairway_refusals_total", "reason", "Requests refused by the server.")
rate_limited = LabelledCounter(
    "fairway_rate_limited_total",
    "limit",
    "Connects refused and WebSockets closed because an address or a user came too often.",
)
floods = LabelledCounter(
    "fairway_floods_total",
    "reason",
    "WebSockets closed because their client sent too much that is no message, by what it was.",
)
drops = LabelledCounter("fairway_drops_total", "reason", "Messages that reached nobody, by reason.")
closes = LabelledCounter(
    "fairway_closes_total", "code", "WebSockets and event streams ended by the server, by code."
)
application_errors = Counter("fairway_application_errors_total", "Exceptions out of applications.")
prepared = Counter("fairway_prepared_total", "Encodings made of prepared messages.")
deflated = Counter("fairway_deflated_total", "Encodings that were compressed.")
deflated_saved_bytes = Counter(
    "fairway_deflated_saved_bytes_total",
    "Bytes that compressed encodings are smaller; each may go to many sockets.",
)
published = Counter("fairway_published_total", "Messages handed to a broker.")
delivered = Counter("fairway_delivered_total", "Messages handed to members of groups.")
delivered_uninterested = Counter(
    "fairway_delivered_uninterested_total", "Messages that arrived for a group without members."
)
members_lost = Counter(
    "fairway_members_lost_total", "Members removed because their event loop had ended."
)
threads_stuck = Counter("fairway_threads_stuck_total", "Threads given up because they were stuck.")
transactions_abandoned = Counter(
    "fairway_transactions_abandoned_total",
    "Transactions rolled back because the connection that began them was over.",
)
missing = Counter(
    "fairway_missing_total",
    "Messages missing between others of one sender: lost between processes.",
)
gaps = Counter(
    "fairway_gaps_total", "Breaks after which messages to a subject may be missing, however many."
)
joins_unconfirmed = Counter(
    "fairway_joins_unconfirmed_total",
    "Joins that another process did not acknowledge in time.",
)
queue_files_set_aside = Counter(
    "fairway_queue_files_set_aside_total", "Files of queues that could not be read any more."
)
brokers_connected = LabelledGauge(
    "fairway_broker_connected",
    "broker",
    "Whether messages get through a broker at present.",
    lambda: _of_brokers(lambda broker: int(broker.connected), min),
)
broker_peers = LabelledGauge(
    "fairway_broker_peers",
    "broker",
    "Other processes that a broker knows; not shown where one cannot know.",
    lambda: _of_brokers(lambda broker: broker.peers, max),
)


def _of_brokers(
    read: Callable[[Any], int | None], choose: Callable[[int, int], int]
) -> dict[str, int]:
    """
    Ask all brokers for a number, and choose among those of one kind that know it.
    """
    values: dict[str, int] = {}
    # The references are listed in one step, whatever another thread does meanwhile.
    for reference in list(brokers.keyrefs()):
        broker = reference()
        if broker is not None:
            kind = type(broker).__name__.removesuffix("Broker").lower()
            value = read(broker)
            if value is not None:
                values[kind] = choose(values.get(kind, value), value)
    return values


def snapshot() -> dict[str, int]:
    """
    All numbers of this process, by full name. May be called from any thread.
    """
    return {
        name: value
        for metric in list(_registry.values())
        for name, value in metric.samples().items()
    }


def lines() -> bytes:
    """
    Give all numbers of this process as text: one sample to a line. From any thread.
    """
    return "".join(f"{name} {value}\n" for name, value in snapshot().items()).encode()


def share(pages: Callable[[], Mapping[str, bytes]] | None) -> None:
    """
    Have ``exposition()`` show several processes.

    Args:
        pages: Gives for each process's label what its ``lines()`` gave last, from any thread;
            None for this process alone.
    """
    global _pages  # noqa: PLW0603 - there is one process, and one server in it
    _pages = pages


def exposition() -> bytes:
    """
    Give the text that Prometheus reads (format 0.0.4). May be called from any thread.
    """
    pages = {"": lines()} if _pages is None else _pages()
    families: dict[str, list[str]] = {name: [] for name in _registry}
    for label, page in pages.items():
        for line in page.decode("utf-8", "replace").splitlines():
            name, sample = _sample(line, label)
            families.setdefault(name, []).append(sample)
    text = []
    for name, samples in families.items():
        metric = _registry.get(name)
        if metric is not None and samples:
            text.append(f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n")
        text += samples
    text.append("# HELP fairway_workers Processes that serve.\n# TYPE fairway_workers gauge\n")
    text.append(f"fairway_workers {len(pages)}\n")
    return "".join(text).encode()


def shown_to(host: str, fields: Iterable[str]) -> bool:
    """
    Whether a client may see the figures without being asked who it is.

    It may on this machine, unless it is a proxy that speaks for somebody else. Behind a Unix
    socket there usually is one, so what comes from there may not.

    Args:
        host: The client's address.
        fields: Names of the request's header fields.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if not (getattr(address, "ipv4_mapped", None) or address).is_loopback:
        return False
    names = [name.lower() for name in fields]
    return not any(name in _PROXY_FIELDS or name.startswith("x-forwarded-") for name in names)


def _sample(line: str, worker: str) -> tuple[str, str]:
    """
    Give the name of a sample's family, and its line with the label of its process.
    """
    full, _, value = line.rpartition(" ")
    name, brace, labels = full.partition("{")
    if worker:
        full = f'{name}{{worker="{worker}"{"," + labels if brace else "}"}'
    return name, f"{full} {value}\n"
