"""
A hop in front of a server, by which a test delays or swallows what the server says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import hiredis

__all__ = ["Relay", "relay"]

PONG = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
"""
What a client that listens gets for a PING.
"""


class Relay:
    """
    What holds for all connections of clients that have subscribed to something.

    Attributes:
        port: Where clients find it, on 127.0.0.1.
        delay: Seconds that everything for such a client comes late.
        hangs_up: Whether a client that subscribes is cut off instead.
        hung_up: How often that was done.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.delay = 0.0
        self.hangs_up = False
        self.hung_up = 0
        self._to = port
        self._listeners: set[_Way] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def deafen(self) -> None:
        """
        Have clients that have subscribed so far get pongs only from now on.
        """
        for way in self._listeners:
            way.parser = hiredis.Reader()

    def silence(self) -> None:
        """
        Have them get nothing at all from now on.
        """
        for way in self._listeners:
            way.silent = True

    def garble(self) -> None:
        """
        Have them get something now that is no Redis.
        """
        for way in self._listeners:
            way.to_client.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """
        Relay one connection until either side ends it.
        """
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        way = _Way(writer)
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                back = asyncio.create_task(self._bring(way, from_server, writer))
                try:
                    await self._take(way, reader, to_server)
                finally:
                    back.cancel()
                    await asyncio.wait([back])
            finally:
                to_server.close()
        except (OSError, asyncio.CancelledError):
            pass  # The server is away, or the test is over.
        finally:
            self._listeners.discard(way)
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        """
        End all connections.
        """
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _take(
        self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """
        Take what a client says to the server.
        """
        while data := await reader.read(65_536):
            if b"\r\nSUBSCRIBE\r\n" in data:
                if self.hangs_up:
                    self.hung_up += 1
                    return
                self._listeners.add(way)
            writer.write(data)

    async def _bring(
        self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """
        Bring what the server says to a client, and end both ways with the server.
        """
        with suppress(OSError):
            while data := await reader.read(65_536):
                if way in self._listeners and self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(way.filtered(data))
        writer.close()


class _Way:
    """
    One connection.
    """

    def __init__(self, to_client: asyncio.StreamWriter) -> None:
        self.to_client = to_client
        self.parser: hiredis.Reader | None = None
        self.silent = False

    def filtered(self, data: bytes) -> bytes:
        """
        Give what of it the client gets.
        """
        if self.silent:
            return b""
        if self.parser is None:
            return data
        self.parser.feed(data)
        kept = b""
        while (reply := self.parser.gets()) is not False:
            if isinstance(reply, list) and reply[0] == b"pong":
                kept += PONG
        return kept


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    """
    Have a hop before a port of this machine.
    """
    hop = Relay(port)
    server = await asyncio.start_server(hop.serve, "127.0.0.1", 0)
    hop.port = server.sockets[0].getsockname()[1]
    try:
        yield hop
    finally:
        server.close()
        await hop.close()
