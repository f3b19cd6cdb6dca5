"""
A function called in a thread, and its result, which knows when nobody waits for it any more.

Nothing here knows which thread that is, or who comes next.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from typing import Any

__all__ = ["Job", "Result"]


class Result(Future[Any]):
    """
    The result of a job, which notes when nobody waits for it any more.
    """

    deserted = False
    on_deserted: Callable[[], None] | None = None

    def cancel(self) -> bool:
        """
        Cancel the job, or note that it was too late for that.
        """
        if super().cancel():
            return True
        if self.running() and not self.deserted:
            self.deserted = True
            if self.on_deserted is not None:
                self.on_deserted()
        return False


class Job:
    """
    A function to call in a thread.
    """

    __slots__ = ("function", "result", "started")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.result = Result()
        self.started = 0.0

    def run(self) -> Callable[[], None]:
        """
        Call it, and give what tells the result to whoever waits.

        In an empty context, so that nothing it sets meets the thread's next job.
        """
        try:
            value = Context().run(self.function)
        except BaseException as error:  # noqa: BLE001 - all of them belong to the caller
            return partial(self.result.set_exception, error)
        return partial(self.result.set_result, value)
