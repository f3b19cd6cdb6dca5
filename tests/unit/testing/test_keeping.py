"""
Connections of a test under its communicators.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.signals import request_finished
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from fairway.asgi import Pages
from fairway.consumers import SyncConsumer
from fairway.testing import ApplicationCommunicator, HttpCommunicator

begun = threading.Event()
go_on = threading.Event()


class Late(SyncConsumer):
    """
    A consumer whose handler goes on when nobody waits for it any more.
    """

    def work(self, message: Any) -> None:
        """
        Last longer than the test is patient.
        """
        late()


def late(request: HttpRequest | None = None) -> HttpResponse:
    """
    Last longer than the test is patient.
    """
    begun.set()
    assert go_on.wait(5)
    return HttpResponse()


urlpatterns = [path("", late)]


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["consumer", "page"])
def test_what_is_left_in_a_thread_spares_the_transaction_of_the_test(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler or view that outlives its cancelled task cleans up, and closes nothing."""
    closed: list[None] = []
    finished: list[None] = []
    monkeypatch.setattr(connections["default"], "close", lambda: closed.append(None))
    begun.clear()
    go_on.clear()

    async def cancel_in_the_middle() -> None:
        if kind == "page":
            communicator: ApplicationCommunicator = HttpCommunicator(Pages(), "GET", "/")
            await communicator.send_input({"type": "http.request"})
        else:
            communicator = ApplicationCommunicator(Late.as_asgi(), {"type": "channel"})
            await communicator.send_input({"type": "work"})
        while not begun.is_set():
            assert await communicator.receive_nothing(0.01, 0.001)
        communicator.stop()
        await communicator.wait()
        assert communicator.future.done()
        go_on.set()

    def finish(**signal: Any) -> None:
        finished.append(None)

    request_finished.connect(finish)
    with override_settings(ROOT_URLCONF=__name__):
        async_to_sync(cancel_in_the_middle)()
    request_finished.disconnect(finish)
    assert len(finished) == (kind == "page")
    assert not closed
