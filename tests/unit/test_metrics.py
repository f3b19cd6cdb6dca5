"""
Counters and gauges, and the text that Prometheus reads.
"""

from __future__ import annotations

import pytest

from fairway import metrics
from fairway.metrics import Counter, Gauge, LabelledCounter, LabelledGauge


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing but what a test makes.
    """
    monkeypatch.setattr(metrics, "_registry", {})
    monkeypatch.setattr(metrics, "_pages", None)


class Broker:
    """
    What a metric asks a broker for.
    """

    def __init__(self, *, connected: bool, peers: int | None) -> None:
        self.connected = connected
        self.peers = peers


class SomeBroker(Broker):
    """
    A broker whose kind is ``some``.
    """


class TestSamples:
    """
    Numbers by their full names.
    """

    def test_each_kind(self) -> None:
        """
        A family's members are told apart by their label.
        """
        Counter("a_total", "A.").value += 3
        LabelledCounter("b_total", "reason", "B.").add("full", 2)
        Gauge("c", "C.", lambda: 5)
        LabelledGauge("d", "broker", "D.", lambda: {"ipc": 1})
        assert metrics.snapshot() == {
            "a_total": 3,
            'b_total{reason="full"}': 2,
            "c": 5,
            'd{broker="ipc"}': 1,
        }

    def test_labels_are_escaped(self) -> None:
        """
        No value can end the label or the line.
        """
        LabelledCounter("b_total", "reason", "B.").add('a"b\\c\nd')
        assert metrics.lines() == b'b_total{reason="a\\"b\\\\c\\nd"} 1\n'

    def test_a_metric_alone_means_nothing(self) -> None:
        """
        Each kind says what its samples are.
        """
        with pytest.raises(NotImplementedError):
            metrics.Metric("a", "A.").samples()

    def test_brokers_are_asked_by_kind(self) -> None:
        """
        Of several of one kind the worst state and the most peers count; one that is gone, or that
        cannot know of peers, does not.
        """
        first, second = SomeBroker(connected=True, peers=2), SomeBroker(connected=False, peers=3)
        third, unaware = (
            SomeBroker(connected=False, peers=9),
            SomeBroker(connected=True, peers=None),
        )
        for broker in (first, second, third, unaware):
            metrics.brokers[broker] = None
        del third, broker
        assert metrics.brokers_connected.samples()['fairway_broker_connected{broker="some"}'] == 0
        assert metrics.broker_peers.samples()['fairway_broker_peers{broker="some"}'] == 3


class TestExposition:
    """
    The text format, version 0.0.4.
    """

    def test_of_one_process(self) -> None:
        """
        Each family has its help and type once; one without samples is left out.
        """
        Counter("a_total", "How many A.").value += 1
        LabelledCounter("b_total", "reason", "B.")
        Gauge("c", "C now.", lambda: 7)
        assert metrics.exposition().decode() == (
            "# HELP a_total How many A.\n# TYPE a_total counter\na_total 1\n"
            "# HELP c C now.\n# TYPE c gauge\nc 7\n"
            "# HELP fairway_workers Processes that serve.\n"
            "# TYPE fairway_workers gauge\nfairway_workers 1\n"
        )

    def test_of_several_processes(self) -> None:
        """
        Samples of one family stand together, each with its worker; an unknown one has no type.
        """
        Counter("a_total", "A.")
        LabelledCounter("b_total", "reason", "B.")
        pages = {"1": b'a_total 1\nb_total{reason="x"} 2\n', "2": b"a_total 3\nnew_total 4\n"}
        metrics.share(lambda: pages)
        text = metrics.exposition().decode()
        assert text == (
            '# HELP a_total A.\n# TYPE a_total counter\na_total{worker="1"} 1\n'
            'a_total{worker="2"} 3\n'
            "# HELP b_total B.\n# TYPE b_total counter\n"
            'b_total{worker="1",reason="x"} 2\n'
            'new_total{worker="2"} 4\n'
            "# HELP fairway_workers Processes that serve.\n"
            "# TYPE fairway_workers gauge\nfairway_workers 2\n"
        )
        metrics.share(None)
        assert b"worker=" not in metrics.exposition()


class TestShown:
    """
    Who may see the figures unasked.
    """

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
    def test_this_machine(self, host: str) -> None:
        """
        A loopback address of either family.
        """
        assert metrics.shown_to(host, ["Host", "User-Agent"])

    @pytest.mark.parametrize("host", ["10.0.0.1", "::2", "", "localhost", "::ffff:10.0.0.1"])
    def test_nobody_else(self, host: str) -> None:
        """
        Another machine, or who cannot be told: a Unix socket's peer is usually a proxy.
        """
        assert not metrics.shown_to(host, [])

    @pytest.mark.parametrize(
        "field", ["Forwarded", "Via", "X-Real-IP", "x-forwarded-for", "X-Forwarded-Host"]
    )
    def test_no_proxy(self, field: str) -> None:
        """
        A proxy on this machine speaks for somebody who may be anywhere.
        """
        assert not metrics.shown_to("127.0.0.1", ["host", field])
