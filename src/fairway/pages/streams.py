"""
Bodies that are produced while they are sent.

Iterators and files are read in a thread, asynchronous iterators on the loop. A thread is taken
for as long as parts come quickly and the reader keeps up, and given back in between; the first
parts are on their way while the next are made. What is made ahead of its reader is bounded, so a
body may have no end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fairway.pages.answers import WHOLE_BYTES, Answer
from fairway.pages.hops import Hop, carry_over

if TYPE_CHECKING:
    from contextvars import Context

    from fairway.types import Receive, Send

__all__ = ["UntilGone", "close_parts", "send_parts"]

TURN_BYTES = WHOLE_BYTES
"""
How much one stream produces before its reader has to have taken it.
"""

TURN_SECONDS = 0.01
"""
How long one stream has a thread before others have their turn; a part is waited for in any case.
"""


async def send_parts(
    send: Send, receive: Receive, answer: Answer, context: Context, *, watched: bool = False
) -> None:
    """
    Send an answer whose body is still to be produced.

    Args:
        send: As in ASGI.
        receive: As in ASGI.
        answer: To be closed by the caller, whatever happens.
        context: What the view has left: its iterator runs in the same one.
        watched: Whether somebody looks already if the client leaves.

    Raises:
        ClientDisconnected: The client has left.
    """
    if answer.parts is not None:
        await send(answer.start)
        await _send_iterator(send, answer, context)
    elif watched:
        await send(answer.start)
        await _send_async_iterator(send, answer)
    else:
        carry_over(context)
        await send(answer.start)
        # Nothing is written while the iterator waits, so nothing else would tell.
        async with UntilGone(receive):
            await _send_async_iterator(send, answer)


async def _send_iterator(send: Send, answer: Answer, context: Context) -> None:
    """
    Send the first part and what a thread makes of the rest, hop by hop.
    """
    await _send_more(send, answer.body)
    answer.body = b""
    production = Production(answer)
    while not production.ended:
        hop = Hop(context, production.produce)
        hop.start()
        # It may end, and have told more, while its reader is waited for.
        while hop.told or not hop.ended:
            await hop.wait()
            if hop.told:
                told, hop.told = hop.told, []
                await _send_more(send, told[0] if len(told) == 1 else b"".join(told))
        hop.raise_error()
    await send({"type": "http.response.body"})


async def _send_async_iterator(send: Send, answer: Answer) -> None:
    """
    Send an asynchronous iterator's parts as they come.
    """
    response: Any = answer.response
    async with aclosing(aiter(response)) as parts:
        async for part in parts:
            await _send_more(send, part)
    await send({"type": "http.response.body"})


async def close_parts(response: Any) -> None:
    """
    Close the asynchronous iterator of a response, which may wait in its clean-up.

    Django closes only the wrapper that it puts around; what a view made is left to the garbage
    collector, and would be cleaned up without its request, if ever. Not to be called where the
    client's leaving cancels: it would end the clean-up too.
    """
    if response.streaming and response.is_async:
        close = getattr(getattr(response, "_iterator", None), "aclose", None)
        if close is not None:
            await close()


async def _send_more(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


class Production:
    """
    What remains of an iterator, produced a turn at a time.

    Attributes:
        ended: Whether there is no more.
    """

    def __init__(self, answer: Answer) -> None:
        assert answer.parts is not None  # noqa: S101 - the caller looked
        self.ended = False
        self._parts = answer.parts

    def produce(self, hop: Hop) -> None:
        """
        Tell the next part, and those that come quickly behind it. In a thread.
        """
        until, size = monotonic() + TURN_SECONDS, 0
        for part in self._parts:
            hop.tell(part)
            size += len(part)
            if hop.deserted or size >= TURN_BYTES or monotonic() >= until:
                return
        self.ended = True


class UntilGone:
    """
    Ends what a task does within a block once the client has left, as ``asyncio.timeout`` does.

    Attributes:
        gone: Whether the client has left.
    """

    __slots__ = ("_cancelling", "_receive", "_task", "_watcher", "gone")

    def __init__(self, receive: Callable[[], Any]) -> None:
        self.gone = False
        self._receive = receive
        self._cancelling = 0
        self._task: asyncio.Task[Any]
        self._watcher: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of ours runs in one
        self._task = task
        self._cancelling = task.cancelling()
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._watcher.cancel()
        del self._watcher
        if not self.gone:
            return False
        ours = self._task.uncancel() <= self._cancelling
        return ours and kind is asyncio.CancelledError

    async def _watch(self) -> None:
        """
        Wait for the end of the client; a body that was left unread is of no interest.
        """
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()
