"""
A plain WSGI application that answers 13 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

HEADERS = [("content-type", "text/plain"), ("content-length", "13")]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """
    Answer.
    """
    start_response("200 OK", HEADERS)
    return [b"Hello, world!"]
