"""
The view that shows counters to operators.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.test import RequestFactory

from fairway import monitor


def request(
    host: str = "203.0.113.9", method: str = "get", user: Any = None, **meta: Any
) -> HttpRequest:
    """
    A request of a client somewhere.
    """
    made: HttpRequest = getattr(RequestFactory(), method)("/metrics/", REMOTE_ADDR=host, **meta)
    if user is not None:
        made.user = user
    return made


def user(*, active: bool = True, staff: bool = True) -> SimpleNamespace:
    """
    Somebody who is logged in.
    """
    return SimpleNamespace(is_active=active, is_staff=staff)


class TestMetrics:
    """
    ``fairway.monitor.metrics``.
    """

    def test_staff_sees_the_figures(self) -> None:
        """
        From anywhere, as text that no cache keeps.
        """
        response = monitor.metrics(request(user=user()))
        assert response.status_code == 200
        assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert response["Cache-Control"] == "no-store"
        assert b"\nfairway_connections_total " in response.content

    @pytest.mark.parametrize("somebody", [None, user(staff=False), user(active=False)])
    def test_others_do_not(self, somebody: Any) -> None:
        """
        Neither strangers nor ordinary users, nor staff whose account was closed.
        """
        with pytest.raises(PermissionDenied):
            monitor.metrics(request(user=somebody))

    def test_this_machine_sees_them(self) -> None:
        """
        A Prometheus beside the server needs no account, not even with LoginRequiredMiddleware.
        """
        assert monitor.metrics(request("127.0.0.1")).status_code == 200
        assert monitor.metrics.login_required is False  # type: ignore[attr-defined] # see there

    def test_a_proxy_on_this_machine_does_not(self) -> None:
        """
        Its request is somebody else's.
        """
        with pytest.raises(PermissionDenied):
            monitor.metrics(request("127.0.0.1", HTTP_X_FORWARDED_FOR="203.0.113.9"))

    def test_a_unix_socket_does_not(self) -> None:
        """
        There a peer has no address.
        """
        with pytest.raises(PermissionDenied):
            monitor.metrics(request(""))

    def test_it_is_only_read(self) -> None:
        """
        GET and HEAD, nothing else.
        """
        assert monitor.metrics(request("::1", "head")).status_code == 200
        assert monitor.metrics(request("::1", "post")).status_code == 405
