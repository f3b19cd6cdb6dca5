"""
The bare protocol: the least a Python server can do for the same work.

One ``asyncio.Protocol`` on uvloop that upgrades, echoes, answers a keep-alive
GET, does the close handshake and, told to, writes one prepared frame to every
WebSocket and one prepared chunk to every reader of ``/events``. It has no limits,
no time-outs, no ASGI and no fragmented messages, so it is the limit to compare with
and not a server to use.
"""

from __future__ import annotations

import argparse
import asyncio
from base64 import b64encode
from hashlib import sha1
from typing import cast

import uvloop

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PAGE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, world!"
UPGRADE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: %b\r\n\r\n"
)
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A


def frame(first: int, payload: bytes) -> bytes:
    """
    Return one unmasked frame with a 7-bit or 16-bit length.
    """
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    return bytes((first, 126)) + length.to_bytes(2, "big") + payload


def unmask(mask: bytes, payload: bytes) -> bytes:
    """
    Return the payload without its mask; one big number is faster than a loop.
    """
    length = len(payload)
    repeated = (mask * (length // 4 + 1))[:length]
    plain = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
    return plain.to_bytes(length, "little")


class Bare(asyncio.Protocol):
    """
    One connection: HTTP until it is upgraded, WebSocket from then on.
    """

    __slots__ = ("members", "rest", "streams", "transport", "upgraded")

    transport: asyncio.Transport

    def __init__(self, members: set[asyncio.Transport], streams: set[asyncio.Transport]) -> None:
        self.members = members
        self.streams = streams
        self.rest = b""
        self.upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Keep the transport.
        """
        # uvloop's transports are asyncio's in all but their classes.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """
        Leave the members and readers.
        """
        self.members.discard(self.transport)
        self.streams.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        """
        Handle every whole request or frame, keep the rest.
        """
        if self.rest:
            data = self.rest + data
        used = 0
        while used < len(data):
            step = self.on_frame(data, used) if self.upgraded else self.on_request(data, used)
            if not step:
                break
            used += step
        self.rest = data[used:]

    def on_request(self, data: bytes, start: int) -> int:
        """
        Answer one request; return its length, or 0 if it is not all there.
        """
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            return 0
        headers = {}
        for line in data[start:end].split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        if headers.get(b"upgrade", b"").lower() == b"websocket":
            digest = sha1(headers[b"sec-websocket-key"] + GUID, usedforsecurity=False).digest()
            self.transport.write(UPGRADE % b64encode(digest))
            self.upgraded = True
            self.members.add(self.transport)
        elif data.startswith(b"GET /events ", start):
            self.transport.write(STREAM)
            self.streams.add(self.transport)
        else:
            self.transport.write(PAGE)
        return end + 4 - start

    def on_frame(self, data: bytes, start: int) -> int:
        """
        Handle one masked frame; return its length, or 0 if it is not all there.
        """
        if len(data) < start + 6:
            return 0
        first, length, body = data[start], data[start + 1] & 0x7F, start + 6
        if length == 126:
            length, body = int.from_bytes(data[start + 2 : start + 4], "big"), start + 8
        end = body + length
        if len(data) < end:
            return 0
        payload = unmask(data[body - 4 : body], data[body:end])
        if first == TEXT and payload.startswith(b"publish "):
            self.publish(payload)
        elif first in {TEXT, BINARY}:
            self.transport.write(frame(first, payload))
        elif first == PING:
            self.transport.write(frame(PONG, payload))
        elif first != PONG:
            self.transport.write(frame(CLOSE, payload))
            self.transport.close()
        return end - start

    def publish(self, command: bytes) -> None:
        """
        Carry out ``publish <bytes> <burst>``: one write per socket and stream.
        """
        _, size, burst = command.split()
        message = b"x" * int(size)
        prepared = frame(TEXT, message) * int(burst)
        for transport in self.members:
            transport.write(prepared)
        chunks = b"%x\r\ndata: %b\n\n\r\n" % (len(message) + 8, message) * int(burst)
        for transport in self.streams:
            transport.write(chunks)


async def serve(port: int) -> None:
    """
    Serve until the process is told to end.
    """
    members: set[asyncio.Transport] = set()
    streams: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Bare(members, streams), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The bare protocol.")
    parser.add_argument("--port", type=int, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().port))
