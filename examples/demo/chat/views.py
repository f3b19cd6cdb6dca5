"""
The pages around the rooms.
"""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify

from chat.models import Message


@login_required
def rooms(request: HttpRequest) -> HttpResponse:
    """
    List the rooms, and go to the one that is asked for.
    """
    if name := slugify(request.GET.get("name", "")):
        return redirect("room", slug=name[:50])
    known = Message.objects.order_by("room").values_list("room", flat=True).distinct()
    return render(request, "rooms.html", {"rooms": sorted({"lobby", *known})})


@login_required
def room(request: HttpRequest, slug: str) -> HttpResponse:
    """
    Show a room; what was said comes over its socket.
    """
    return render(request, "room.html", {"slug": slug})
