"""
What the server answers without its application, over real sockets.
"""

from __future__ import annotations

import pytest

from fairway.server.board import SAMPLES_BYTES_MAX, Board, State
from tests.protocol.harness import Puppet, Serve, Served, request, until


class TestHealth:
    """
    Whether the process lives.
    """

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("ready", [True, False])
    async def test_always_200(self, served: Served, method: str, ready: bool) -> None:
        """
        Ready or not, with a query or without, and the application is not called.
        """
        served.worker.ready = ready
        peer = await served.connect()
        response = await peer.get("/-/health?verbose", method=method)
        assert (response.status, response.body) == (200, b"alive\n" if method == "GET" else b"")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["content-length"] == "6"

    async def test_the_connection_lives_on(self, served: Served, app: Puppet) -> None:
        """
        Probes and requests of the application follow each other on one connection, pipelined too.
        """
        peer = await served.connect()
        await peer.send(request("/-/health") + request("/page") + request("/-/ready"))
        assert (await peer.response()).body == b"alive\n"
        await (await app.call()).respond(body=b"page")
        assert (await peer.response()).body == b"page"
        assert (await peer.response()).status == 503

    async def test_a_body_nobody_reads_ends_the_connection(self, served: Served) -> None:
        """
        What follows it could not be told from it.
        """
        peer = await served.connect()
        await peer.send(request("/-/health", "content-length: 10"))
        response = await peer.response()
        assert (response.status, response.headers["connection"]) == (200, "close")

    async def test_other_methods_are_for_the_application(self, served: Served, app: Puppet) -> None:
        """
        As is a WebSocket on such a path.
        """
        peer = await served.connect()
        await peer.send(request("/-/health", method="POST"))
        assert (await app.call()).scope["method"] == "POST"
        await served.websocket("/-/health")
        assert (await app.call()).scope["type"] == "websocket"

    async def test_an_empty_path_is_none(self, serve: Serve, app: Puppet) -> None:
        """
        Without the option the application answers.
        """
        served = await serve(app, health_path="", ready_path="", metrics_path="")
        peer = await served.connect()
        for path in ("/-/health", "/-/ready", "/", "/metrics"):
            await peer.send(request(path))
            call = await app.call()
            assert call.scope["path"] == path
            await call.respond()
            await peer.response()


class TestReadiness:
    """
    Whether new work is welcome.
    """

    async def test_follows_the_worker(self, served: Served) -> None:
        """
        503 before the worker is ready, 200 while it is, 503 again when its end begins.
        """
        peer = await served.connect()
        statuses = []
        for ready in (False, True, False):
            served.worker.ready = ready
            statuses.append((await peer.get("/-/ready")).status)
        assert statuses == [503, 200, 503]

    async def test_a_draining_worker_is_not_ready(self, served: Served) -> None:
        """
        It does not say so itself any more once it ends; whoever runs it may say so before.
        """
        served.worker.ready = True
        await served.worker.drain(0.0)
        assert served.worker.ready is False


class TestMetrics:
    """
    The figures, for clients on this machine.
    """

    async def test_a_local_client_sees_them(self, serve: Serve, app: Puppet) -> None:
        """
        As the text that Prometheus reads.
        """
        served = await serve(app, metrics_path="/figures")
        peer = await served.connect()
        response = await peer.get("/figures")
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert b"\nfairway_workers 1\n" in response.body
        assert b"# TYPE fairway_connections_open gauge\n" in response.body

    @pytest.mark.parametrize("field", ["x-forwarded-for: 192.0.2.1", "via: 1.1 a", "forwarded: x"])
    async def test_a_client_of_a_proxy_does_not(
        self, serve: Serve, app: Puppet, field: str
    ) -> None:
        """
        For it there is no such path: the application answers.
        """
        served = await serve(app, metrics_path="/figures", trusted_proxies=("127.0.0.1",))
        peer = await served.connect()
        await peer.send(request("/figures", field))
        assert (await app.call()).scope["path"] == "/figures"

    async def test_every_worker_shows_all(self, serve: Serve, app: Puppet) -> None:
        """
        Each sample carries its worker; a worker that has not written yet is left out.
        """
        board = Board.create(4)
        for number in (1, 2, 3):
            board.seat(number).state = State.READY
        board.seat(2).write_samples(b"fairway_requests_total 12345\n")
        served = await serve(app, metrics_path="/figures", seat=board.seat(1))
        peer = await served.connect()
        body = (await peer.get("/figures")).body.decode()
        assert 'fairway_requests_total{worker="2"} 12345\n' in body
        assert 'fairway_connections_open{worker="1"} ' in body
        assert 'worker="3"' not in body
        assert "\nfairway_workers 2\n" in body

    async def test_a_worker_writes_without_being_asked(
        self, serve: Serve, app: Puppet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        The others read what it wrote last, which is at most as old as the interval.
        """
        monkeypatch.setattr("fairway.server.worker.SAMPLES_SECONDS", 0.01)
        board = Board.create(4)
        board.seat(1).state = State.READY
        served = await serve(app, seat=board.seat(1))
        before = board.read_samples(1)
        await served.connect()
        await until(lambda: board.read_samples(1) != before)

    async def test_figures_too_long_are_cut_at_a_line(
        self, serve: Serve, app: Puppet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        No sample is shown in part.
        """
        line = b"x" * 98 + b" 1\n"
        monkeypatch.setattr("fairway.metrics.lines", lambda: line * 1000)
        board = Board.create(4)
        board.seat(1).state = State.READY
        await serve(app, seat=board.seat(1))
        samples = board.read_samples(1)
        assert samples == line * (SAMPLES_BYTES_MAX // len(line))
