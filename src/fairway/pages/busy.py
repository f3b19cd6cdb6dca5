"""
What a page is told when too many wait for a thread already.
"""

from __future__ import annotations

import logging

from fairway import metrics
from fairway.faults import Fault
from fairway.layers.notices import Notices
from fairway.threads.mapping import LaneContext, present
from fairway.types import Message, Send

__all__ = ["is_crowded", "refuse"]

notices = Notices(logging.getLogger("fairway.pages"))

BUSY: tuple[Message, Message] = (
    {
        "type": "http.response.start",
        "status": 503,
        "headers": [(b"Content-Type", b"text/plain; charset=utf-8"), (b"Retry-After", b"1")],
    },
    {"type": "http.response.body", "body": b"The server is busy. Please try again shortly.\n"},
)


def is_crowded() -> bool:
    """
    Whether as much waits for the calling task's threads as may.
    """
    context = present.get(None)
    return isinstance(context, LaneContext) and context.pool.is_crowded()


async def refuse(send: Send) -> None:
    """
    Answer 503, count it, and say so once in a while.
    """
    metrics.refusals.add("page_queue")
    notices.say(
        "busy",
        "Pages are refused with 503: PAGE_QUEUE of them wait for the PAGE_THREADS threads. "
        f"Hint: find slow views, or raise PAGE_THREADS or WORKERS. [{Fault.PAGES_BUSY}]",
    )
    for message in BUSY:
        await send(message)
