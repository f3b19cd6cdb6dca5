"""
A URL configuration for one host, and a function that names it.
"""

from __future__ import annotations

from typing import Any

PLACE = "tests.integration.routing.hosts.urls"


def choose(scope: Any) -> str:
    """
    Name the URL configuration of every host.
    """
    return "tests.integration.routing.hosted_urls"
