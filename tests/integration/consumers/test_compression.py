"""
What a consumer class says about compression, and what then goes over the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

import fairway
from fairway import metrics
from fairway.consumers import AsyncWebsocketConsumer, WebsocketConsumer
from tests.protocol.harness import SECONDS_MAX

WORDS = "what a page repeats, " * 100


class Echo(AsyncWebsocketConsumer):
    """
    Says nothing about compression.
    """

    groups: Sequence[str] | None = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send it back.
        """
        await self.send(text_data, bytes_data)


class Compressed(Echo):
    """
    Wants it.
    """

    compress: bool | None = True


class Plain(Echo):
    """
    Wants none.
    """

    compress: bool | None = False


class SyncCompressed(WebsocketConsumer):
    """
    Wants it, from a thread.
    """

    groups: Sequence[str] | None = ("room",)
    compress: bool | None = True

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """
        Send it back.
        """
        self.send(text_data, bytes_data)


class Own(Echo):
    """
    Has a method of that name, as a project of Channels may.
    """

    def compress(self, data: bytes) -> bytes:  # type: ignore[override] # what this is about
        """
        Do something else.
        """
        return data


KINDS = {"": Echo, "on": Compressed, "off": Plain, "sync": SyncCompressed, "own": Own}


async def dispatch(scope: Any, receive: Any, send: Any) -> None:
    """
    Run the consumer that the path names.
    """
    await KINDS[scope["path"].strip("/")].as_asgi()(scope, receive, send)


def agreed(client: ClientConnection) -> bool:
    """
    Whether compression was agreed.
    """
    return bool(client.protocol.extensions)


@pytest.mark.parametrize("default", [False, True])
async def test_a_class_decides_for_its_sockets(serve: Any, default: bool) -> None:
    """
    Before the setting, and messages go both ways and to the group in any case; all who agreed
    get one frame.
    """
    url = await serve(dispatch, compress=default)
    expected = {"": default, "on": True, "off": False, "sync": True, "own": default}
    async with asyncio.timeout(SECONDS_MAX):
        clients = {name: await connect(url + name, proxy=None) for name in KINDS}
        assert {name: agreed(client) for name, client in clients.items()} == expected
        refuses = await connect(f"{url}on", compression=None, proxy=None)
        assert not agreed(refuses)
        for client in (*clients.values(), refuses):
            await client.send(WORDS)
            assert await client.recv() == WORDS
            await client.send(WORDS.encode())
            assert await client.recv() == WORDS.encode()
        before = metrics.deflated.value
        await fairway.abroadcast("room", WORDS)
        for client in (*clients.values(), refuses):
            assert await client.recv() == WORDS
        assert metrics.deflated.value == before + 1
        await asyncio.gather(*(client.close() for client in (*clients.values(), refuses)))
