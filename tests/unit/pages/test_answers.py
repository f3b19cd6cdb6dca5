"""
Responses of Django's as ASGI messages.
"""

from __future__ import annotations

from django.http import HttpResponse

from fairway.pages.answers import answer_of


def test_fields_are_those_of_djangos_own_iteration() -> None:
    """What is read of Django's private table is what its items() give, with or without it."""
    response = HttpResponse("x", headers={"X-Upper": "caf\xe9", "x-lower": "2"})
    expected = [(name.encode(), value.encode("latin1")) for name, value in response.items()]
    assert hasattr(response.headers, "_store")
    assert answer_of(response, "GET").headers == expected
    vars(response)["headers"] = dict(response.items())
    assert answer_of(response, "GET").headers == expected
