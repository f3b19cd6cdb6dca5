"""
Django views for operators. What they show is collected elsewhere (``fairway.metrics``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.views.decorators.http import require_safe

from fairway import metrics as figures

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["metrics"]


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """
    Show the counters of this server's processes as text in Prometheus' format (0.0.4).

    For active staff, and for clients on this machine whom no proxy speaks for, such as a
    Prometheus beside the server.

    Raises:
        PermissionDenied: The client is neither.
    """
    here = figures.shown_to(request.META.get("REMOTE_ADDR") or "", request.headers)
    if not (here or _is_staff(request)):
        raise PermissionDenied
    response = HttpResponse(figures.exposition(), content_type=figures.CONTENT_TYPE)
    response["Cache-Control"] = "no-store"
    return response


# LoginRequiredMiddleware would send a Prometheus on this machine to the login page.
metrics.login_required = False  # type: ignore[attr-defined] # functions take attributes


def _is_staff(request: HttpRequest) -> bool:
    """
    Whether an active member of the staff asks, where the project has users at all.
    """
    user = getattr(request, "user", None)
    return user is not None and user.is_active and user.is_staff
