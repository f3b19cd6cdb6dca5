"""
One side of a channel layer that is measured: a process that publishes, or one that has the members.

Both measure their own CPU time between the same two messages, ``start`` and ``end``, which the
publisher sends like any other. There are no sockets here: a member counts what it is given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from fairway.layers import owner
from fairway.layers.brokers.ipc.broker import IPCBroker
from fairway.layers.codec import Envelope, Kind
from fairway.layers.layer import ChannelLayer
from fairway.options import IPCOptions, LayerOptions
from fairway.wire.prepared import Prepared
from fairway.wire.websocket import websocket_frame

GROUP = "bench"
START, END = "start", "end"


class Window:
    """
    The CPU time and the messages between two marks.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.cpu_ns = 0
        self.over = asyncio.Event()

    def see(self, text: str) -> None:
        """
        Count one message, or begin or end with it.
        """
        if text == START:
            self.messages = 0
            self.cpu_ns = time.process_time_ns()
        elif text == END:
            self.cpu_ns = time.process_time_ns() - self.cpu_ns
            self.over.set()
        else:
            self.messages += 1


class Inbox:
    """
    The inbox of a member whose consumer is never behind.
    """

    idle = True
    capacity = 100

    def put(self, envelope: Envelope) -> bool:
        """
        Refuse, as nothing should come this way.
        """
        return False


class Outbox:
    """
    The outbox of a member: it encodes the message as its socket would, and lets it go.
    """

    pending_bytes = 0

    def __init__(self, window: Window | None) -> None:
        self.window = window

    def offer(self, prepared: Prepared) -> bool:
        """
        Take one message.
        """
        prepared.encode(websocket_frame)
        if self.window is not None:
            self.window.see(prepared.text or "")
        return True

    def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Do nothing.
        """


def make_layer(directory: str) -> ChannelLayer:
    """
    Return the layer that is measured.
    """
    options = LayerOptions()
    broker = IPCBroker(Path(directory), IPCOptions(), expiry=options.expiry, namespace="bench")
    return ChannelLayer(broker, options)


async def publish(layer: Any, arguments: argparse.Namespace) -> Window:
    """
    Send at a steady rate or as fast as the layer takes it, with the marks around the window.
    """
    window, text = Window(), "x" * arguments.bytes
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
        await layer.broadcast(GROUP, text.encode(), kind=Kind.TEXT)
    else:
        await layer.group_send(GROUP, {"type": "bench.message", "text": text})
    window.see(text)


async def receive(layer: Any, arguments: argparse.Namespace) -> Window:
    """
    Have members in the group until the end mark came, which the first one looks out for.
    """
    window = Window()
    readers = set()
    for number in range(arguments.members):
        channel = await layer.new_channel()
        watching = window if number == arguments.members - 1 else None
        if arguments.kind == "broadcast":
            layer.attach(channel, inbox=Inbox(), outbox=Outbox(watching))
        await layer.group_add(GROUP, channel)
        if arguments.kind == "handler":
            readers.add(asyncio.ensure_future(read(layer, channel, watching)))
    print("ready", flush=True)
    await window.over.wait()
    for reader in readers:
        reader.cancel()
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
    layer = make_layer(arguments.directory)
    # As a server does: the layer belongs to this loop, and not to a thread of its own.
    await owner.bind(asyncio.get_running_loop())
    role = publish if arguments.role == "publish" else receive
    window = await role(layer, arguments)
    print(json.dumps({"messages": window.messages, "cpu_ns": window.cpu_ns}), flush=True)
    await layer.close()


def parser() -> argparse.ArgumentParser:
    """
    Return the command line.
    """
    result = argparse.ArgumentParser()
    result.add_argument("role", choices=["publish", "receive"])
    result.add_argument("--directory", required=True)
    result.add_argument("--kind", choices=["broadcast", "handler"], default="broadcast")
    result.add_argument("--members", type=int, default=10)
    result.add_argument("--bytes", type=int, default=200)
    result.add_argument("--rate", type=float, default=1000)
    result.add_argument("--warmup", type=float, default=0.5)
    result.add_argument("--seconds", type=float, default=2)
    return result


if __name__ == "__main__":
    sys.exit(uvloop.run(main(parser().parse_args())))
