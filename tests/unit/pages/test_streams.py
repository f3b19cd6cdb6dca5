"""
Streams: what a thread makes and a loop sends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from django.http import StreamingHttpResponse

from fairway.pages import streams
from fairway.pages.answers import answer_of
from fairway.pages.hops import Hop
from fairway.types import Message
from tests.protocol.harness import until


async def test_a_reader_slower_than_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What a thread told last is sent too, though it ended while the reader was waited for.
    """
    hops: list[Hop] = []
    sending = threading.Event()
    sent: list[bytes] = []

    class Noted(Hop):
        def start(self) -> None:
            hops.append(self)
            super().start()

    def parts() -> Iterator[bytes]:
        yield b"1"
        yield b"2"
        assert sending.wait(5)
        yield b"3"

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if hops:
            sending.set()
            await until(lambda: hops[-1].ended)

    async def receive() -> Any:
        raise AssertionError("a stream made in a thread is not watched")

    monkeypatch.setattr(streams, "Hop", Noted)
    answer = answer_of(StreamingHttpResponse(parts()), "GET")
    await streams.send_parts(send, receive, answer, copy_context())
    assert b"".join(sent) == b"123"
