"""
The counter's pages, and the one way to increment it.
"""

from django.db import transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

import fairway
from counter.models import Counter


@require_safe
def counter(request: HttpRequest) -> HttpResponse:
    """
    Show the number, live.
    """
    return render(request, "counter.html", {"value": current()})


def increment(request: HttpRequest) -> HttpResponse:
    """
    Show a button; by POST, increment the number and tell every page that shows it.
    """
    if request.method != "POST":
        return render(request, "increment.html")
    with transaction.atomic():
        # In the database and not in Python, so that no click is lost between two processes.
        Counter.objects.filter(pk=1).update(value=F("value") + 1)
        value = current()
        # Leaves when the transaction commits, and not at all if it does not.
        fairway.broadcast("counter", {"value": value})
    return JsonResponse({"value": value})


def current() -> int:
    """
    Read the number.
    """
    return Counter.objects.get(pk=1).value
