"""
Counters of this process: plain numbers that exist from the start.

A counter is an object with a ``value`` that its owner increments; the hot paths
add to it directly. Nothing is exported from here: ``snapshot()`` gives the
numbers to whoever shows them. Each counter is touched by one thread at a time
(the event loop's), or tolerates a lost increment.
"""

from __future__ import annotations

__all__ = ["Counter", "LabelledCounter", "snapshot"]


class Counter:
    """
    A number that only grows.

    Attributes:
        name: In Prometheus form, with the unit last.
        help: One sentence for people.
        value: The count since the process started.
    """

    __slots__ = ("help", "name", "value")

    def __init__(self, name: str, help: str) -> None:  # noqa: A002 - the field's own word
        self.name = name
        self.help = help
        self.value = 0
        _registry[name] = self

    def samples(self) -> dict[str, int]:
        """
        Return the present value under its full name.
        """
        return {self.name: self.value}


class LabelledCounter:
    """
    A family of counts told apart by one label, such as a reason.

    Attributes:
        values: The count for each label value seen.
    """

    __slots__ = ("help", "label", "name", "values")

    def __init__(self, name: str, label: str, help: str) -> None:  # noqa: A002 - as above
        self.name = name
        self.label = label
        self.help = help
        self.values: dict[str, int] = {}
        _registry[name] = self

    def add(self, value: str, count: int = 1) -> None:
        """
        Add to the count of one label value.
        """
        self.values[value] = self.values.get(value, 0) + count

    def samples(self) -> dict[str, int]:
        """
        Return the present values under their full names.
        """
        return {
            f'{self.name}{{{self.label}="{value}"}}': count for value, count in self.values.items()
        }


_registry: dict[str, Counter | LabelledCounter] = {}

connections = Counter("fairway_connections_total", "Connections accepted.")
connections_closed = Counter("fairway_connections_closed_total", "Connections that ended.")
accept_pauses = LabelledCounter(
    "fairway_accept_pauses_total", "reason", "Times that accepting connections was paused."
)
requests = Counter("fairway_requests_total", "HTTP requests whose head was complete.")
websockets = Counter(
    "fairway_websockets_total", "WebSocket handshakes that reached the application."
)
websockets_closed = Counter("fairway_websockets_closed_total", "WebSockets that ended.")
messages_received = Counter("fairway_messages_received_total", "WebSocket messages received.")
refusals = LabelledCounter("fairway_refusals_total", "reason", "Requests refused by the server.")
drops = LabelledCounter("fairway_drops_total", "reason", "Messages that reached nobody, by reason.")
closes = LabelledCounter(
    "fairway_closes_total", "code", "WebSockets closed by the server, by code."
)
application_errors = Counter("fairway_application_errors_total", "Exceptions out of applications.")
prepared = Counter("fairway_prepared_total", "Encodings made of prepared messages.")
published = Counter("fairway_published_total", "Messages handed to a broker.")
delivered = Counter("fairway_delivered_total", "Messages handed to members of groups.")
delivered_uninterested = Counter(
    "fairway_delivered_uninterested_total", "Messages that arrived for a group without members."
)
members_lost = Counter(
    "fairway_members_lost_total", "Members removed because their event loop had ended."
)
gaps = Counter("fairway_gaps_total", "Messages known to be lost between processes.")
joins_unconfirmed = Counter(
    "fairway_joins_unconfirmed_total",
    "Joins that another process did not acknowledge in time.",
)
queue_files_set_aside = Counter(
    "fairway_queue_files_set_aside_total", "Files of queues that could not be read any more."
)


def snapshot() -> dict[str, int]:
    """
    All counters of this process, name to value. May be called from any thread.
    """
    return {
        name: value
        for metric in list(_registry.values())
        for name, value in metric.samples().items()
    }
