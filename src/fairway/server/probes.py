"""
What the server answers by itself: whether it lives, whether it is ready, its figures.

Load balancers and monitors ask for these without a session, a Host the project knows or
a database that works, so the application is not called. Figures are for this machine
alone: any other client gets what the application answers, as if there were no such path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fairway import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from fairway.options import ServerOptions
    from fairway.server.scope import Address
    from fairway.types import Scope

__all__ = ["Answer", "Probes"]


class Answer(NamedTuple):
    """
    A response without the application.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Probes:
    """
    The paths of one worker that are probes. Event-loop thread only.

    Attributes:
        paths: What answers on each path, by the client on the other end of the connection.
    """

    __slots__ = ("_collect", "_ready", "paths")

    def __init__(
        self, options: ServerOptions, ready: Callable[[], bool], collect: Callable[[], bytes]
    ) -> None:
        """
        Remember where to answer and what.

        Args:
            options: The paths.
            ready: Whether new work is welcome.
            collect: Gives the figures as text in Prometheus' format.
        """
        self._ready = ready
        self._collect = collect
        answers = {
            options.metrics_path: self._metrics,
            options.ready_path: self._readiness,
            options.health_path: self._health,
        }
        self.paths = {path: answer for path, answer in answers.items() if path}

    def answer(self, scope: Scope, peer: Address) -> Answer | None:
        """
        Answer a request on one of the paths, unless it is for the application.

        Args:
            scope: Of the request.
            peer: The other end of the connection, whatever the scope calls the client.
        """
        if scope["method"] not in ("GET", "HEAD"):
            return None
        return self.paths[scope["path"]](scope, peer)

    def _health(self, scope: Scope, peer: Address) -> Answer:
        """
        Say that the process lives.
        """
        return _plain(200, b"alive\n")

    def _readiness(self, scope: Scope, peer: Address) -> Answer:
        """
        Say whether new work is welcome.
        """
        return _plain(200, b"ready\n") if self._ready() else _plain(503, b"not ready\n")

    def _metrics(self, scope: Scope, peer: Address) -> Answer | None:
        """
        Show the figures to a client on this machine that asks for itself.
        """
        fields = (name.decode("latin1") for name, _ in scope["headers"])
        if peer is None or not metrics.shown_to(peer[0], fields):
            return None
        return Answer(200, _headers(metrics.CONTENT_TYPE), self._collect())


def _plain(status: int, body: bytes) -> Answer:
    """
    Make an answer for people.
    """
    return Answer(status, _headers("text/plain; charset=utf-8"), body)


def _headers(content_type: str) -> tuple[tuple[bytes, bytes], ...]:
    """
    Say what an answer is, and that it is of now.
    """
    return ((b"content-type", content_type.encode()), (b"cache-control", b"no-store"))
