"""
Take what arrives as bytes (``data_received``) instead of lending a buffer (``BufferedProtocol``).

Decides: ``server/connection.py`` (``Connection`` is an ``asyncio.Protocol``).
Run: ``python experiments/buffered_protocol.py``
Result: no gain: 9.0 us per echo with bytes, 9.4 us with a buffer. Frames of usual size arrive in
one read, and what is kept has to be copied out of the buffer.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.timing import compare, show

SIZE = 134
"""
Of a masked text of 128 bytes.
"""


class Plain(asyncio.Protocol):
    """
    Answers what it gets, whose bytes may be kept as they are.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Take the transport.
        """
        self.write = transport.write  # type: ignore[attr-defined] # it writes, too

    def data_received(self, data: bytes) -> None:
        """
        Echo.
        """
        self.write(data)


class Lending(asyncio.BufferedProtocol):
    """
    Answers what was put into its buffer, after a copy, since the next read overwrites it.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Take the transport, and make the buffer.
        """
        self.write = transport.write  # type: ignore[attr-defined] # it writes, too
        self.buffer = bytearray(65_536)

    def get_buffer(self, sizehint: int) -> bytearray:
        """
        Lend it.
        """
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """
        Echo.
        """
        self.write(bytes(memoryview(self.buffer)[:nbytes]))


def main(count: int = 20_000) -> dict[str, float]:
    """
    Echo frames with both kinds of protocol.
    """
    frame = bytes(SIZE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def echo(protocol: Any, times: int) -> None:
            near, far = socket.socketpair()
            near.setblocking(False)
            with near, far:
                loop = asyncio.get_running_loop()
                transport, _ = await loop.create_connection(protocol, sock=near)
                for _ in range(times):
                    far.send(frame)
                    # One turn to read in, and one until the answer has left.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    assert len(far.recv(65_536)) == SIZE
                transport.abort()
                await asyncio.sleep(0)

        return show(
            compare(
                {
                    "data_received": lambda times: runner.run(echo(Plain, times)),
                    "buffer_updated": lambda times: runner.run(echo(Lending, times)),
                },
                count,
            )
        )


if __name__ == "__main__":
    main()
