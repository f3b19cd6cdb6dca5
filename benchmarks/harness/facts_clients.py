"""
WebSockets that note what they hear, one by one: for facts, not for load.

They come again where they are told to, and count how often they had to.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Self

from benchmarks.harness.subjects import SubjectError

__all__ = ["HANDSHAKE", "HAPPENS_WITHIN", "Crowd", "Socket", "http_get", "until"]

HAPPENS_WITHIN = 20.0
"""
Seconds after which what is waited for counts as never happening.
"""

PAUSE = 0.005
RETRY_PAUSE = 0.01
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Socket:
    """
    One client.

    Attributes:
        heard: The texts it got, each with when.
        open: Whether it is connected.
        ended: How often a connection ended that had been open.
    """

    def __init__(self, port: int, path: str, *, comes_again: bool = False) -> None:
        self.port = port
        self.heard: list[tuple[float, str]] = []
        self.open = False
        self.ended = 0
        self._path = path
        self._comes_again = comes_again
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.create_task(self._live())

    def say(self, text: str) -> None:
        """
        Send a short text, if there is anybody to send it to.
        """
        if self._writer is not None and self.open:
            payload, mask = text.encode(), os.urandom(4)
            masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
            self._writer.write(bytes((0x81, 0x80 | len(payload))) + mask + masked)

    async def close(self) -> None:
        """
        End it.
        """
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _live(self) -> None:
        """
        Connect and listen, over and over where that is wanted.
        """
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._connect()
            if self.open:
                self.open = False
                self.ended += 1
                if not self._comes_again:
                    return
            await asyncio.sleep(RETRY_PAUSE)

    async def _connect(self) -> None:
        """
        Be connected until the peer ends it.
        """
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            self._writer.write(HANDSHAKE.format(path=self._path).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                return
            self.open = True
            while True:
                first, size = await reader.readexactly(2)
                if size >= 126:
                    size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8))
                payload = await reader.readexactly(size)
                if first == 0x81:
                    self.heard.append((monotonic(), payload.decode()))
                elif first == 0x89:
                    self._writer.write(bytes((0x8A, 0x80 | size)) + bytes(4) + payload)
                elif first == 0x88:
                    return
        finally:
            self._writer.close()


class Crowd:
    """
    Sockets spread over servers, within a context that opens and closes them.
    """

    def __init__(self, ports: Sequence[int], path: str, each: int, *, comes_again: bool) -> None:
        self.sockets = [
            Socket(port, path, comes_again=comes_again) for _ in range(each) for port in ports
        ]

    async def __aenter__(self) -> Self:
        await until(self.all_open)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.gather(*(socket.close() for socket in self.sockets))

    def all_open(self) -> bool:
        """
        Whether everybody is connected.
        """
        return all(socket.open for socket in self.sockets)

    @property
    def ended(self) -> int:
        """
        How many connections ended that had been open.
        """
        return sum(socket.ended for socket in self.sockets)


async def until(
    condition: Callable[[], bool | Awaitable[bool]], seconds: float = HAPPENS_WITHIN
) -> float:
    """
    Wait until something is true, and give the moment.

    Raises:
        SubjectError: It was not in time.
    """
    deadline = monotonic() + seconds
    while True:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return monotonic()
        if monotonic() > deadline:
            raise SubjectError(f"what was waited for did not happen within {seconds:g} s")
        await asyncio.sleep(PAUSE)


async def http_get(port: int, path: str) -> str:
    """
    Ask for a page, and give its body.

    Raises:
        SubjectError: It did not come in time.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(HAPPENS_WITHIN):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request.encode())
                answer = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        raise SubjectError(f"{path} was not answered within {HAPPENS_WITHIN:g} s") from None
    return answer.partition(b"\r\n\r\n")[2].decode()
