"""
HTTP: a keep-alive GET, a Django page, event streams.
"""

from __future__ import annotations

from benchmarks.harness.blocks.common import CHANNELS, MESSAGE, PAGE, SERVERS, beside, table
from benchmarks.harness.rows import Block, Row, Task

__all__ = ["BLOCKS"]

STREAMS = 1001
"""
The publisher's WebSocket and a thousand streams.
"""

EVENTS = (*MESSAGE, "--stream", "/events")

GET = (
    Task("asgi", "asgi", "get", options=PAGE, title="Fairway, ASGI application"),
    # As browsers ask a site that knows them: what carries a cookie is never remembered whole.
    Task("cookie", "asgi", "get", options=(*PAGE, "--cookie"), title="Fairway, with a cookie"),
    Task(
        "consumer", "site", "get", "/http", options=PAGE, title="Fairway, HTTP consumer", rounds=3
    ),
    Task("bare", "bare", "get", options=PAGE, title="P, bare protocol"),
    Task("floor", "floor", "get", options=PAGE, title="C, floor"),
    *beside((*SERVERS, "gunicorn-wsgi"), "get", options=PAGE),
    *beside(CHANNELS, "get", "/http", options=PAGE),
)

PAGES = (
    Task("pages", "pages", "get", options=PAGE, title="Fairway"),
    Task("granian", "granian", "get", options=PAGE, title="granian, WSGI", peer=True),
    Task("gunicorn", "gunicorn", "get", options=PAGE, title="gunicorn, gthread", peer=True),
    Task("floor", "floor", "get", options=PAGE, title="C, floor"),
    Task(
        "uvicorn",
        "page-uvicorn",
        "get",
        options=PAGE,
        title="uvicorn, Django's ASGI handler",
        peer=True,
        rounds=3,
    ),
    Task(
        "channels-daphne",
        "page-daphne",
        "get",
        options=PAGE,
        title="Daphne, Django's ASGI handler",
        peer=True,
        rounds=3,
        seconds=1.0,
    ),
)

SSE = (
    Task(
        "events", "site", "sse", "/broadcast", STREAMS, EVENTS, title="Fairway, EventStreamConsumer"
    ),
    Task(
        "plain", "asgi", "sse", "/members", STREAMS, EVENTS, title="Fairway, plain loop", rounds=3
    ),
    Task("bare", "bare", "sse", "/", STREAMS, EVENTS, title="P, bare protocol"),
    Task("floor", "floor", "sse", "/", STREAMS, EVENTS, title="C, floor"),
    *beside(SERVERS, "sse", "/members", STREAMS, EVENTS),
    *beside(CHANNELS, "sse", "/handler", STREAMS, EVENTS),
)

BLOCKS = (
    Block(
        "get",
        "request",
        GET,
        (
            Row("HTTP GET, keep-alive, ASGI", "asgi", "floor", "C", bar=3.0, aim=2.5),
            Row("the same with a session cookie", "cookie", "floor", "C"),
            Row("HTTP GET, bare protocol", "bare", "floor", "C"),
        ),
        (table("GET of 13 bytes, keep-alive, 100 connections", GET, plot=True),),
    ),
    Block(
        "pages",
        "page",
        PAGES,
        (
            Row(
                "sync Django view, startproject's 7 middlewares",
                "pages",
                "granian",
                "granian WSGI",
                bar=1.15,
                aim=1.0,
            ),
            Row("the same against the floor", "pages", "floor", "C"),
            Row("granian WSGI", "granian", "floor", "C"),
            Row("gunicorn, gthread", "gunicorn", "floor", "C"),
            Row("uvicorn, Django's own ASGI handler", "uvicorn", "floor", "C"),
        ),
        (table("Page of a synchronous Django view, 7 middlewares", PAGES, plot=True),),
    ),
    Block(
        "sse",
        "delivery",
        SSE,
        (
            Row("event to 1,000 event streams", "events", "floor", "C"),
            Row("the same, bare protocol", "bare", "floor", "C"),
        ),
        (table("An event to 1,000 event streams, per delivery", SSE, plot=True),),
    ),
)
