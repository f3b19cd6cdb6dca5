"""
One side of a channel layer that is measured: a process that publishes, or one that has the members.

Both measure their own CPU time between the same two messages, ``start`` and ``end``, which the
publisher sends like any other; that of Redis is what Redis itself says then. There are no sockets
here: a member counts what it is given. Runs with any channel layer, and where Fairway is not
installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Iterable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import uvloop

GROUP = "bench"
START, END = "start", "end"
CHANNELS_REDIS = {
    "channels_redis.core": "RedisChannelLayer",
    "channels_redis.pubsub": "RedisPubSubChannelLayer",
}


class RedisClock:
    """
    The CPU time of a Redis server, as it tells it.
    """

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.connection = socket.create_connection((place.hostname, place.port), timeout=10)

    def __call__(self) -> int:
        """
        Return it in nanoseconds.
        """
        self.connection.sendall(b"INFO cpu\r\n")
        said = b""
        while b"used_cpu_user:" not in said or not said.endswith(b"\r\n"):
            said += self.connection.recv(4096)
        values = dict(line.split(":") for line in said.decode().split("\r\n") if ":" in line)
        return round((float(values["used_cpu_user"]) + float(values["used_cpu_sys"])) * 1e9)


def no_clock() -> int:
    """
    Stand for the clock of a server where there is none.
    """
    return 0


class Window:
    """
    The CPU time and the messages between two marks.
    """

    def __init__(self, redis_clock: Any = no_clock) -> None:
        self.redis_clock = redis_clock
        self.messages = 0
        self.cpu_ns = 0
        self.redis_ns = 0
        self.over = asyncio.Event()

    def see(self, text: str) -> None:
        """
        Count one message, or begin or end with it.
        """
        if text == START:
            self.messages = 0
            self.redis_ns = self.redis_clock()
            self.cpu_ns = time.process_time_ns()
        elif text == END:
            self.cpu_ns = time.process_time_ns() - self.cpu_ns
            self.redis_ns = self.redis_clock() - self.redis_ns
            self.over.set()
        else:
            self.messages += 1


class Inbox:
    """
    The inbox of a member whose consumer is never behind.
    """

    idle = True
    capacity = 100

    def put(self, envelope: Any) -> bool:
        """
        Refuse, as nothing should come this way.
        """
        return False


class Outbox:
    """
    The outbox of a member: it encodes the message as its socket would, and lets it go.
    """

    pending_bytes = 0
    takes_bodies = False

    def __init__(self, window: Window | None, encode: Any) -> None:
        self.clear = False
        self.window = window
        self.encode = encode

    def offer(self, prepared: Any) -> bool:
        """
        Take one message.
        """
        prepared.encode(self.encode)
        if self.window is not None:
            self.window.see(prepared.text or "")
        return True

    @staticmethod
    def offer_all(outboxes: Iterable[Outbox], prepared: Any) -> list[Outbox]:
        """
        Take one message for all that are clear; return the others.
        """
        return [each for each in outboxes if not (each.clear and each.offer(prepared))]

    def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Do nothing.
        """


async def make_layer(kind: str, place: str) -> Any:
    """
    Return the layer that is measured.

    Args:
        kind: ``ipc``, ``redis``, or the module of one of channels_redis.
        place: Where it meets the other side: a directory, or the URL of a Redis.
    """
    if kind in CHANNELS_REDIS:
        module = __import__(kind, fromlist=["layer"])
        return getattr(module, CHANNELS_REDIS[kind])(hosts=[place], prefix="bench")
    # Not everywhere is Fairway installed.
    from fairway.layers import IPCChannelLayer, owner

    # As a server does: the layer belongs to this loop, and not to a thread of its own.
    await owner.bind(asyncio.get_running_loop())
    if kind == "ipc":
        return IPCChannelLayer(place, "bench")
    from fairway.layers import RedisChannelLayer

    return RedisChannelLayer(url=place, prefix="bench")


async def publish(layer: Any, arguments: argparse.Namespace) -> Window:
    """
    Send at a steady rate or as fast as the layer takes it, with the marks around the window.
    """
    clock = RedisClock(arguments.place) if arguments.layer != "ipc" else no_clock
    window, text = Window(clock), "x" * arguments.bytes
    loop = asyncio.get_running_loop()
    begin = loop.time()
    marks = {START: begin + arguments.warmup, END: begin + arguments.warmup + arguments.seconds}
    number = 0
    while not window.over.is_set():
        if arguments.rate:
            number += 1
            await asyncio.sleep(begin + number / arguments.rate - loop.time())
        await send(layer, arguments.kind, text, window)
        now = loop.time()
        for mark in [mark for mark, when in marks.items() if when <= now]:
            del marks[mark]
            await send(layer, arguments.kind, mark, window)
    return window


async def send(layer: Any, kind: str, text: str, window: Window) -> None:
    """
    Send one message and count it.
    """
    if kind == "broadcast":
        await layer.broadcast(GROUP, text.encode(), kind=broadcast_kind())
    else:
        await layer.group_send(GROUP, {"type": "bench.message", "text": text})
    window.see(text)


@cache
def broadcast_kind() -> Any:
    """
    Return the kind of message that a broadcast of text is.
    """
    from fairway.layers.codec import Kind

    return Kind.TEXT


async def receive(layer: Any, arguments: argparse.Namespace) -> Window:
    """
    Have members in the group until the end mark came, which the last one looks out for.
    """
    window = Window()
    readers = set()
    for number in range(arguments.members):
        channel = await layer.new_channel()
        watching = window if number == arguments.members - 1 else None
        if arguments.kind == "broadcast":
            from fairway.wire.websocket import websocket_frame

            layer.attach(channel, inbox=Inbox(), outbox=Outbox(watching, websocket_frame))
        await layer.group_add(GROUP, channel)
        if arguments.kind == "handler":
            readers.add(asyncio.ensure_future(read(layer, channel, watching)))
    print("ready", flush=True)
    await window.over.wait()
    return window


async def read(layer: Any, channel: str, window: Window | None) -> None:
    """
    Receive for one member, as a consumer with a handler does.
    """
    while True:
        message = await layer.receive(channel)
        if window is not None:
            window.see(message["text"])


async def main(arguments: argparse.Namespace) -> None:
    """
    Be one side, then print what it cost.
    """
    layer = await make_layer(arguments.layer, arguments.place)
    role = publish if arguments.role == "publish" else receive
    window = await role(layer, arguments)
    figures = {"messages": window.messages, "cpu_ns": window.cpu_ns, "redis_ns": window.redis_ns}
    print(json.dumps(figures), flush=True)
    # Its readers are cut off here, which is for others nothing to log.
    logging.disable()
    if arguments.layer not in CHANNELS_REDIS:
        await layer.close()


def parser() -> argparse.ArgumentParser:
    """
    Return the command line.
    """
    result = argparse.ArgumentParser()
    result.add_argument("role", choices=["publish", "receive"])
    result.add_argument("--layer", choices=["ipc", "redis", *CHANNELS_REDIS], default="ipc")
    result.add_argument("--place", required=True)
    result.add_argument("--kind", choices=["broadcast", "handler"], default="broadcast")
    result.add_argument("--members", type=int, default=10)
    result.add_argument("--bytes", type=int, default=200)
    result.add_argument("--rate", type=float, default=1000)
    result.add_argument("--warmup", type=float, default=0.5)
    result.add_argument("--seconds", type=float, default=2)
    return result


if __name__ == "__main__":
    sys.exit(uvloop.run(main(parser().parse_args())))
