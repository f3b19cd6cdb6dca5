"""
A broker reached over TCP by the name of its host, as those of other machines are.

It connects no earlier than for its first message, and that is held back until the interpreter
ends: the worst moment there is to resolve a name.
"""

from __future__ import annotations

import asyncio
import threading

from fairway.layers.brokers.local import LocalBroker
from fairway.layers.codec import Kind, unpack
from fairway.layers.layer import ChannelLayer
from fairway.options import LayerOptions

HOST = "localhost"


class NamedBroker(LocalBroker):
    """
    Writes what is published to a TCP connection of its own for each message.
    """

    def __init__(self, port: int) -> None:
        super().__init__(60)
        self.port = port

    async def publish(self, subject: str, payload: bytes) -> None:  # type: ignore[override]
        """
        Wait for the end of the interpreter, then connect by name.
        """
        while threading.main_thread().is_alive():  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.005)
        loop = asyncio.get_running_loop()
        print(type(loop).__module__.partition(".")[0], flush=True)  # noqa: T201 - for the test
        _, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(b"ending " + subject.encode() + b" " + unpack(payload, 0.0).payload)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def publish(port: int, text: str) -> None:
    """
    Publish one text as a script does that ends at once.
    """
    layer = ChannelLayer(NamedBroker(port), LayerOptions())
    layer.submit("room", text.encode(), kind=Kind.TEXT)
    _kept.append(layer)


_kept: list[ChannelLayer] = []
